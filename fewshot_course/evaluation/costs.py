"""What a classifier costs: the bytes of its file and the milliseconds of a prediction."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_course._checks import check_choice, check_number


def file_size(classifier: Any) -> int:
    """Return how many bytes ``classifier.save`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        return os.path.getsize(classifier.save(Path(folder) / "classifier"))


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def milliseconds(
    classifiers: Mapping[str, Any], X: Any, repeats: int = 5, clock: str = "wall"
) -> dict[str, float]:
    """Return how long each classifier takes for one example.

    The classifiers take turns, and each one's quickest turn counts: what else the machine does
    can only make a turn longer.

    Args:
        classifiers: name → fitted classifier.
        X: examples, predicted in one call.
        repeats: turns, after one that does not count.
        clock: "wall", or "cpu": the processor time of this process, which other processes on a
            busy machine do not lengthen; of no use on a GPU.

    Returns:
        name → milliseconds.
    """
    check_number("repeats", repeats, low=1, integer=True)
    now = CLOCKS[check_choice("clock", clock, CLOCKS)]
    best = dict.fromkeys(classifiers, np.inf)
    for turn in range(repeats + 1):
        for name, classifier in classifiers.items():
            start = now()
            classifier.predict_proba(X)
            if turn:
                best[name] = min(best[name], now() - start)
    return {name: 1000 * seconds / len(X) for name, seconds in best.items()}
