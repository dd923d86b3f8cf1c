"""Files of estimators, each with one thing in it changed as a vandal or an attacker would."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_course.weights import load_arrays

VALUES: list[Any] = [
    None, True, -1, 0, 3, 10**5, 10**9, 10**30, 1.5, -2.5, "", "x", "os.system", [], [0], [-1],
    [10**9], [10**5, 10**5], [["x"]], {}, {"a": 1}, [1, 2, 3, 4, 5], "9" * 5000,
]  # fmt: skip


STEPS = ("adapt_steps", "inner_steps")


def headers(header: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what was changed, and the header with it."""
    for part in ("params", "facts"):
        for key in header[part]:
            for number, value in enumerate(VALUES):
                if key in STEPS and isinstance(value, int) and value > 1000:
                    continue  # a right value, and a long wait
                other = copy.deepcopy(header)
                other[part][key] = value
                yield f"{part}.{key}={value!r:.30} ({number})", other
            other = copy.deepcopy(header)
            del other[part][key]
            yield f"{part} without {key}", other


def of_arrays(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield what was changed, and the arrays with it."""
    for name, array in arrays.items():
        flat = array.reshape(-1)
        changes: dict[str, np.ndarray | None] = {
            "absent": None,
            "empty": flat[:0],
            "a number": np.zeros((), array.dtype),
            "flat": flat if array.ndim != 1 else flat.reshape(-1, 1),
            "longer": np.concatenate([flat, flat]),
            "other dtype": array.astype(np.int8 if array.dtype.kind == "f" else np.float32),
            "unsigned": np.abs(array).astype(np.uint64),
            "large": (np.ones_like(array) * 120),
            "negative": -np.ones_like(array) if array.dtype.kind != "b" else ~array,
        }
        if array.dtype.kind == "f":
            changes["NaN"] = np.full_like(array, np.nan)
            changes["infinite"] = np.full_like(array, np.inf)
        for what, changed in changes.items():
            rest = {key: value for key, value in arrays.items() if key != name}
            yield f"{name} {what}", rest if changed is None else rest | {name: changed}


def versions(path: Path) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, Any]]]:
    """Yield words, arrays and header of every spoiled version of a file."""
    arrays, header = load_arrays(path)
    for what, other in headers(header):
        yield what, arrays, other
    for what, changed in of_arrays(arrays):
        yield what, changed, header
