"""How the course's networks learn digits of one kind to meet digits of another.

The recipe of :mod:`fewshot_course.experiments.networks` for the adapters.  The data are drawn as
in the experiment ``kl-adaptation``: a labelled source, an unlabelled target, and a test part of
the target.  The learning curve shows the accuracy on target images that the adapter learns from,
by labels that it never sees.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course._checks import check_choice, check_keys, check_number
from fewshot_course.checkpoints import load_checkpoint
from fewshot_course.evaluation import Interval, accuracy_interval
from fewshot_course.experiments.kl_adaptation import EXPERIMENT, KLAdaptationConfig, draw
from fewshot_course.experiments.looks import Look, Looks
from fewshot_course.experiments.results import pack_answers, unpack_answers

__all__ = ["answers", "read_parts", "train"]

Arrays = tuple[np.ndarray, np.ndarray]
Parts = dict[str, Arrays]

METHODS = ("CORALAdapter", "DANNAdapter", "KLAdapter", "MMDAdapter")

BUDGET = "steps"
"""The setting that says how many updates a training makes."""

LEARNS_FROM = ("source", "target")
"""The parts of which a training depends."""

UNITS = "items"
"""What a row of scores counts."""

_DRAWN_BY = ("data", "rotation", "image_size", "n_source", "n_target", "n_test")
"""Settings of the experiment that say what is drawn."""

_ORDER_SEED = 1
"""Seed of the order in which target images are looked at: the same for all networks."""


@checked
def check_plan(plan: Any) -> None:
    """Check the fields of a plan whose form is that of this recipe.

    Raises:
        ValueError: for an unknown or missing key, or a setting out of range.
        TypeError: for a value of a wrong type.
    """
    check_keys("data", plan.data, ["data", "draw"], optional=_DRAWN_BY[1:])
    check_number("data: draw", plan.data["draw"], low=0, integer=True)
    _configure(plan.data)
    check_keys("task", plan.task, [])
    check_keys("validation", plan.validation, ["items"])
    for row in plan.scores:
        check_keys("scores", row, ["part", "items"])
        check_choice("scores: part", row["part"], ["source", "test"])


def _configure(data: Mapping[str, Any]) -> KLAdaptationConfig:
    """Return the settings of the experiment; those that are not named are of its full preset."""
    drawn_by = {name: value for name, value in data.items() if name != "draw"}
    return KLAdaptationConfig(**{**EXPERIMENT.presets["full"], **drawn_by})


@checked
def read_parts(data: Mapping[str, Any]) -> Parts:
    """Draw the images as the experiment ``kl-adaptation`` does.

    Args:
        data: "draw", the seed; "data" and other settings of the experiment that say what is
            drawn; the others are those of its full preset.

    Returns:
        "source", "target" and "test" → images ``(n, size, size)`` in [0, 1] and labels ``(n,)``.
        No adapter sees the labels of the target.

    Raises:
        fewshot_course.data.DataError: if a file is missing or damaged.
    """
    drawn = draw(_configure(data), data["draw"])
    return {
        "source": (drawn.X_source, drawn.y_source),
        "target": (drawn.X_target, drawn.y_hidden),
        "test": (drawn.X_test, drawn.y_test),
    }


def train(
    estimator: Any,
    parts: Parts,
    task: Mapping[str, Any],
    validation: Mapping[str, Any],
    folder: str | os.PathLike[str],
    device: str = "cpu",
) -> tuple[list[Look], float]:
    """Train an adapter with looks at target images; resumes where a kill has left off.

    Args:
        estimator: unfitted adapter; fitted in place.
        parts: of :func:`read_parts`.
        task: empty: there are no tasks.
        validation: "items", the number of target images that are looked at.
        folder: for checkpoints and the notes of the looks.
        device: where it runs.

    Returns:
        The looks, dicts of "updates", "seconds" (of training, looks excluded) and "correct"
        ``(items,)``; and the seconds of the whole training.
    """
    found = load_checkpoint(folder)
    looks = Looks(folder, estimator.steps, done=found.meta["step"] if found else 0)
    started = time.perf_counter()

    def told(done: int, losses: dict[str, float]) -> None:
        nonlocal started
        looks.seconds += time.perf_counter() - started
        if looks.is_due(done):
            correct = None
            if done in looks.points:
                correct = answers(_as_it_is(estimator), parts, {"part": "target", **validation})
            looks.note(done, correct)
        started = time.perf_counter()

    (X_source, y_source), (X_target, _) = parts["source"], parts["target"]
    estimator.fit(X_source, y_source, X_target, device=device, checkpoint_dir=folder, progress=told)
    return looks.scored, looks.seconds


def _as_it_is(estimator: Any) -> Any:
    """Return a copy that predicts as a file of this moment would; the training notices nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        path = estimator.save(Path(scratch) / "network.safetensors")
        return type(estimator).load(path)


class _EnoughUpdates(Exception):
    pass


def first_losses(
    estimator: Any, parts: Parts, task: Mapping[str, Any], device: str, n: int
) -> list[float]:
    """Begin the training, and return its first ``n`` losses; the estimator can be saved."""
    losses: list[float] = []

    def told(done: int, values: dict[str, float]) -> None:
        losses.append(values["loss"])
        if done == n:
            raise _EnoughUpdates  # a shorter training would let the weights rise faster

    (X_source, y_source), (X_target, _) = parts["source"], parts["target"]
    with contextlib.suppress(_EnoughUpdates):
        estimator.fit(X_source, y_source, X_target, device=device, progress=told)
    return losses


def answers(
    estimator: Any, parts: Parts, row: Mapping[str, Any], n: int | None = None
) -> np.ndarray:
    """Tell which of the first ``n`` items of a row are answered right, ``(n,)`` int64, 0 or 1.

    Args:
        estimator: fitted adapter.
        parts: of :func:`read_parts`.
        row: "part" and "items".
        n: at most "items"; ``None``: all of them.
    """
    X, y = parts[row["part"]]
    order = np.random.default_rng(_ORDER_SEED).permutation(len(y))[: n or row["items"]]
    return (estimator.predict(X[order]) == y[order]).astype(np.int64)


def shares(correct: Any, row: Mapping[str, Any]) -> np.ndarray:
    """Return the accuracy of each item, 0 or 1."""
    return np.asarray(correct, np.float64)


def interval(correct: Any, row: Mapping[str, Any]) -> Interval:
    """Return the accuracy with its interval over items: that of this one network."""
    return accuracy_interval(shares(correct, row)[None])


def pack(correct: np.ndarray) -> str:
    """Return the answers as they stand in a card."""
    return pack_answers(correct)


def unpack(correct: str) -> np.ndarray:
    """Return the answers of a card, ``(items,)`` int64."""
    return unpack_answers(correct).astype(np.int64)


def score_part(row: Mapping[str, Any]) -> str:
    """Return the name of the part that a row of scores is drawn from."""
    return str(row["part"])


def questions(row: Mapping[str, Any]) -> int:
    """Return the number of questions that an item is."""
    return 1


def describe(row: Mapping[str, Any]) -> str:
    """Return a row's name for a message."""
    return str(row["part"])
