"""Notes of the looks that are taken at a network while it learns: what a learning curve is of.

They are written as they come, so that a training which was killed keeps those that its
checkpoint has passed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

Look = dict[str, Any]

POINTS = 16
"""Looks at the validation part in a training, besides one before it."""

NOTE_EVERY = 100
"""Updates between two notes of the time, as often as a checkpoint is written."""


class Looks:
    """The looks of one training.

    Args:
        folder: of its checkpoints; the notes are kept beside them.
        budget: updates of the whole training.
        done: updates that a checkpoint to resume from has; later looks are taken again.

    Attributes:
        points: numbers of updates after which the network is scored.
        seconds: of training so far, looks excluded.
    """

    def __init__(self, folder: str | os.PathLike[str], budget: int, done: int = 0) -> None:
        self._path = Path(folder) / "looks.json"
        known = json.loads(self._path.read_text()) if self._path.is_file() else []
        self._looks: list[Look] = [look for look in known if look["updates"] <= done]
        self.points = {round(budget * k / POINTS) for k in range(POINTS + 1)}
        self.due = self.points | set(range(0, budget, NOTE_EVERY))
        self.seconds: float = max((look["seconds"] for look in self._looks), default=0.0)

    @property
    def scored(self) -> list[Look]:
        """The looks that have a score."""
        return [look for look in self._looks if "correct" in look]

    def is_due(self, updates: int) -> bool:
        """Whether a note is wanted after so many updates that is not there yet."""
        return updates in self.due and all(look["updates"] != updates for look in self._looks)

    def note(self, updates: int, correct: np.ndarray | None = None) -> None:
        """Write down the time, and what was right; whole or not at all."""
        look: Look = {"updates": updates, "seconds": round(self.seconds, 2)}
        if correct is not None:
            look["correct"] = correct.tolist()
        self._looks.append(look)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._looks))
        os.replace(temporary, self._path)
