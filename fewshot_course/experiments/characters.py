"""How the course's networks learn characters they will meet again as other characters.

The recipe of :mod:`fewshot_course.experiments.networks` for meta-learners on Omniglot and on
glyphs.  Characters are divided once, into those for training, for choices (validation) and for
the test; training tasks, validation tasks and test tasks are drawn from their own part only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from sklearn.base import clone

from fewshot_course._arguments import checked
from fewshot_course._checks import check_choice, check_keys
from fewshot_course.checkpoints import load_checkpoint
from fewshot_course.data import (
    Dataset,
    Episodes,
    EpisodeSampler,
    character_parts,
    load_dataset,
    quarter_turns,
    resize_images,
)
from fewshot_course.evaluation import Interval, mean_interval
from fewshot_course.experiments.looks import Look, Looks

__all__ = ["Watched", "count_correct", "read_parts", "sampler", "score_part", "train"]

Arrays = tuple[np.ndarray, np.ndarray]
Parts = dict[str, Arrays]

METHODS = ("ANIL", "FOMAML", "FrozenBody", "MAML", "MatchingNet", "ProtoNet", "Reptile")

BUDGET = "iterations"
"""The setting that says how many updates a training makes."""

LEARNS_FROM = ("train",)
"""The parts of which a training depends."""

UNITS = "tasks"
"""What a row of scores counts."""

N_VALIDATION = 100
"""Of Omniglot's 1,200 characters for training, those that are kept for choices."""

VALIDATION_SCRIPTS = ("ARMENIAN", "COPTIC", "LISU", "OLD ITALIC")
"""Scripts of the glyphs' training part that are kept for choices: 81 characters."""

VALIDATION_SEED, TEST_SEED = 1, 2
"""Seeds of the tasks: all networks meet the same ones, so that their scores can be paired."""

BLOCK = 50
"""Tasks that are drawn and scored at a time: a thousand of them would need gigabytes."""


# ---------------------------------------------------------------------------- plans


@checked
def check_plan(plan: Any) -> None:
    """Check the fields of a plan whose form is that of this recipe.

    Raises:
        ValueError: for an unknown or missing key.
        TypeError: for a field that is no mapping.
    """
    check_keys("data", plan.data, ["name", "size"])
    check_keys("task", plan.task, ["ways", "shots", "queries"])
    check_keys("validation", plan.validation, ["ways", "shots", "queries", "tasks"])
    for row in plan.scores:
        wanted = ["ways", "shots", "queries", "tasks"]
        check_keys("scores", row, wanted, optional=["turns", "with"])


# ---------------------------------------------------------------------------- data


@checked
def read_parts(data: Mapping[str, Any]) -> Parts:
    """Read and divide the characters.

    Args:
        data: "name" ("omniglot" or "glyphs") and "size", the side of the images in pixels.

    Returns:
        "train", "validation" and "test" → images ``(n, size, size)`` float32 in [0, 1] and labels
        ``(n,)`` from 0.  Omniglot's characters for training and validation come in four quarter
        turns, each a class of its own; "test" has the characters as they were drawn, and
        "turned" has the turns of these too.

    Raises:
        ValueError: for another name.
        fewshot_course.data.DataError: if a file is missing or damaged.
    """
    name = check_choice("data", data["name"], ["omniglot", "glyphs"])
    size = (data["size"], data["size"])
    if name == "glyphs":
        train, test = load_dataset("glyphs", "train"), load_dataset("glyphs", "test")
        held_out = np.isin(np.array(train.class_groups)[train.y], VALIDATION_SCRIPTS)
        X = resize_images(train.X, size)
        return {
            "train": (X[~held_out], _from_zero(train.y[~held_out])),
            "validation": (X[held_out], _from_zero(train.y[held_out])),
            "test": (resize_images(test.X, size), test.y),
        }
    whole = load_dataset("omniglot")
    names = character_parts(whole.class_names, n_validation=N_VALIDATION)
    parts = {part: _choose(whole, chosen, size) for part, chosen in names.items()}
    return {
        "train": quarter_turns(*parts["train"]),
        "validation": quarter_turns(*parts["validation"]),
        "test": parts["test"],
        "turned": quarter_turns(*parts["test"]),
    }


def _choose(data: Dataset, names: Collection[str], size: tuple[int, int]) -> Arrays:
    """Return the examples of some classes, numbered in the order of ``names``."""
    number = {name: index for index, name in enumerate(names)}
    labels = np.array([number.get(name, -1) for name in data.class_names])[data.y]
    rows = np.flatnonzero(labels >= 0)
    rows = rows[np.argsort(labels[rows], kind="stable")]
    X = data.X[rows]
    return (X if X.shape[1:] == size else resize_images(X, size)), labels[rows]


def _from_zero(y: np.ndarray) -> np.ndarray:
    return np.unique(y, return_inverse=True)[1]


# ---------------------------------------------------------------------------- scoring


def count_correct(estimator: Any, arrays: Arrays, task: Mapping[str, Any], seed: int) -> np.ndarray:
    """Count the query examples of each task that a meta-learner gets right.

    Args:
        estimator: fitted; ``adapt_steps`` and ``statistics`` may have been set anew.
        arrays: images and labels that tasks are drawn from.
        task: "ways", "shots", "queries" (a class) and "tasks" (their number).
        seed: of the tasks; fewer tasks of the same seed are the first of more.

    Returns:
        ``(tasks,)`` int64, 0 to ways · queries.
    """
    tasks = sampler(arrays, task)
    rng = np.random.default_rng(seed)
    sizes = [min(BLOCK, task["tasks"] - start) for start in range(0, task["tasks"], BLOCK)]
    scores = [estimator.evaluate(tasks.sample(rng, size)) for size in sizes]
    return np.rint(np.concatenate(scores) * task["ways"] * task["queries"]).astype(np.int64)


def answers(
    estimator: Any, parts: Parts, row: Mapping[str, Any], n: int | None = None
) -> np.ndarray:
    """Count the right query examples in the first ``n`` tasks of a row of scores.

    Args:
        estimator: fitted meta-learner; it stays as it is.
        parts: of :func:`read_parts`.
        row: a kind of task, perhaps with settings that are changed for it ("with").
        n: at most "tasks"; ``None``: all of them.
    """
    task = {**row, "tasks": n or row["tasks"]}
    ready = _with(estimator, row.get("with", {}))
    return count_correct(ready, parts[score_part(row)], task, TEST_SEED)


def _with(estimator: Any, changes: Mapping[str, Any]) -> Any:
    """Return the fitted estimator with some settings changed; the one given stays as it is."""
    if not changes:
        return estimator
    changed = clone(estimator).set_params(**changes)
    for name, value in vars(estimator).items():
        if name not in changes:
            setattr(changed, name, value)
    return changed


def shares(correct: Any, row: Mapping[str, Any]) -> np.ndarray:
    """Return the accuracy of each task, in [0, 1]."""
    return np.asarray(correct, np.float64) / questions(row)


def interval(correct: Any, row: Mapping[str, Any]) -> Interval:
    """Return the accuracy with its interval over tasks: that of this one network."""
    return mean_interval(shares(correct, row))


def pack(correct: np.ndarray) -> list[int]:
    """Return the counts as they stand in a card."""
    return [int(count) for count in correct]


def unpack(correct: list[int]) -> np.ndarray:
    """Return the counts of a card, ``(tasks,)`` int64."""
    return np.asarray(correct, np.int64)


def questions(row: Mapping[str, Any]) -> int:
    """Return the number of questions that a task asks."""
    return row["ways"] * row["queries"]


def describe(row: Mapping[str, Any]) -> str:
    """Return a row's name for a message."""
    return f"{row['ways']}-way {row['shots']}-shot"


def sampler(arrays: Arrays, task: Mapping[str, Any]) -> EpisodeSampler:
    """Return what draws tasks of "ways", "shots" and "queries" from images and labels."""
    return EpisodeSampler(*arrays, task["ways"], task["shots"], task["queries"])


def score_part(score: Mapping[str, Any]) -> str:
    """Return the name of the part that a row of scores is drawn from."""
    return "turned" if score.get("turns") else "test"


# ---------------------------------------------------------------------------- training


class Watched:
    """A sampler that has the learner looked at while it learns.

    ``fit`` asks for tasks once an update, after one question by which it learns their shape.  So
    the sampler knows how many updates are done, and at some of them it calls ``look``; neither
    the estimator nor its random streams notice.

    Args:
        sampler: draws the tasks.
        look: called with the number of updates done and the seconds they took, looks excluded.
        at: the numbers of updates at which to look.
        done: updates that a checkpoint to resume from has.
        seconds: that these took.
    """

    def __init__(
        self,
        sampler: Any,
        look: Callable[[int, float], None],
        at: Collection[int],
        done: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self._sampler, self._look, self._at = sampler, look, set(at)
        self._updates = done
        self._seconds = seconds
        self._since: float | None = None
        self._asked = False

    @property
    def classes(self) -> np.ndarray:
        """All classes that tasks are drawn from."""
        return self._sampler.classes

    def sample(self, rng: np.random.Generator, n_tasks: int) -> Episodes:
        """Draw tasks; before that, look if it is time to."""
        if not self._asked:
            self._asked = True
            return self._sampler.sample(rng, n_tasks)
        self.pause()
        self._since = time.perf_counter()
        self._updates += 1
        return self._sampler.sample(rng, n_tasks)

    def pause(self) -> None:
        """Stop the clock after an update, and look if it is time to."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None
        if self._updates in self._at:
            self._look(self._updates, self._seconds)


def train(
    estimator: Any,
    parts: Parts,
    task: Mapping[str, Any],
    validation: Mapping[str, Any],
    folder: str | os.PathLike[str],
    device: str = "cpu",
) -> tuple[list[Look], float]:
    """Meta-train with looks at the validation tasks; resumes where a kill has left off.

    Args:
        estimator: unfitted meta-learner; fitted in place.
        parts: of :func:`read_parts`.
        task: "ways", "shots" and "queries" of a training task.
        validation: the same and "tasks", of what is looked at.
        folder: for checkpoints and the notes of the looks.
        device: where it runs.

    Returns:
        The looks, dicts of "updates", "seconds" (of training, looks excluded) and "correct"
        ``(tasks,)``; and the seconds of the whole training.
    """
    found = load_checkpoint(folder)
    done = found.meta["step"] if found else 0
    looks = Looks(folder, estimator.iterations, done)

    def look(updates: int, spent: float) -> None:
        if not looks.is_due(updates):
            return
        looks.seconds = spent
        correct = None
        if updates in looks.points:
            correct = count_correct(estimator, parts["validation"], validation, VALIDATION_SEED)
        looks.note(updates, correct)

    watched = Watched(sampler(parts["train"], task), look, looks.due, done, looks.seconds)
    estimator.fit(watched, device=device, checkpoint_dir=folder)
    watched.pause()
    return looks.scored, looks.seconds


def first_losses(
    estimator: Any, parts: Parts, task: Mapping[str, Any], device: str, n: int
) -> list[float]:
    """Begin the training, and return its first ``n`` losses; the estimator can be saved.

    The rate of the first update is the same however long a run is, even if it falls to 0 at the
    end.  So a run of two updates has the first two losses of the long one; the second loss knows
    of initial weights, data, order of the tasks, gradient and optimiser.
    """
    short = estimator.set_params(iterations=n)
    short.fit(sampler(parts["train"], task), device=device)
    return [float(loss) for loss in short.history_["loss"]]
