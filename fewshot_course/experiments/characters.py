"""How the course's networks learn characters they will meet again as other characters.

The recipe of :mod:`fewshot_course.experiments.networks` for meta-learners on Omniglot and on
glyphs.  Characters are divided once, into those for training, for choices (validation) and for
the test; training tasks, validation tasks and test tasks are drawn from their own part only.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course._checks import check_choice
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

__all__ = ["Watched", "count_correct", "read_parts", "sampler", "score_part", "train"]

Arrays = tuple[np.ndarray, np.ndarray]
Parts = dict[str, Arrays]
Look = dict[str, Any]

N_VALIDATION = 100
"""Of Omniglot's 1,200 characters for training, those that are kept for choices."""

VALIDATION_SCRIPTS = ("ARMENIAN", "COPTIC", "LISU", "OLD ITALIC")
"""Scripts of the glyphs' training part that are kept for choices: 81 characters."""

VALIDATION_SEED, TEST_SEED = 1, 2
"""Seeds of the tasks: all networks meet the same ones, so that their scores can be paired."""

POINTS = 16
"""Looks at the validation tasks in a training, besides the one before it."""

BLOCK = 50
"""Tasks that are drawn and scored at a time: a thousand of them would need gigabytes."""

NOTE_EVERY = 100
"""Updates between two notes of the time, as often as a checkpoint is written."""


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
    budget = estimator.iterations
    points = {round(budget * k / POINTS) for k in range(POINTS + 1)}
    notes = Path(folder) / "looks.json"
    found = load_checkpoint(folder)
    done = found.meta["step"] if found else 0
    looks = [look for look in _read_notes(notes) if look["updates"] <= done]
    seconds = max((look["seconds"] for look in looks), default=0.0)

    def look(updates: int, spent: float) -> None:
        if any(known["updates"] == updates for known in looks):
            return
        note: Look = {"updates": updates, "seconds": round(spent, 2)}
        if updates in points:
            correct = count_correct(estimator, parts["validation"], validation, VALIDATION_SEED)
            note["correct"] = correct.tolist()
        looks.append(note)
        _write_notes(notes, looks)

    at = points | set(range(0, budget, NOTE_EVERY))
    watched = Watched(sampler(parts["train"], task), look, at, done, seconds)
    estimator.fit(watched, device=device, checkpoint_dir=folder)
    watched.pause()
    return [note for note in looks if "correct" in note], looks[-1]["seconds"]


def _read_notes(path: Path) -> list[Look]:
    return json.loads(path.read_text()) if path.is_file() else []


def _write_notes(path: Path, looks: list[Look]) -> None:
    """Write whole or not at all: a kill must not leave half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(looks))
    os.replace(temporary, path)
