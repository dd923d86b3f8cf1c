"""What can be wrong with one argument, by what it is when it is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

RANGES: dict[str, list[Any]] = {
    "alpha": [-1.0],
    "confidence": [0.0, 1.0, -1.0, 2.0],
    "copies": [-1],
    "draws": [1, -1],
    "eps": [-1.0],
    "floor": [-1.0],
    "held_out": [0.0, -1.0, 2.0],
    "inner_lr": [-1.0],
    "inner_steps": [-1],
    "kl_weight": [-1.0],
    "l2_sp": [-1.0],
    "lr": [-1.0],
    "max_iter": [0, -1],
    "max_length": [0, -1],
    "max_norm": [-1.0, 0.0],
    "max_steps": [0, -1],
    "momentum": [-1.0, 1.0],
    "n": [0, -1, 10**6],
    "n_bins": [0, -1],
    "n_outputs": [0, -1],
    "n_tasks": [0, -1],
    "neighbours": [0, -1, 10**6],
    "p": [-0.1, 1.0, 1.5],
    "rate": [-0.1, 1.0, 1.5],
    "repeats": [0, -1],
    "shots": [0, -1],
    "sparsity": [-0.1, 1.5],
    "steps": [-1],
    "target_weight": [-1.0],
    "temperature": [0.0, -1.0],
    "threshold": [-1.0],
    "tolerance": [-1.0],
    "ways": [0, -1],
    "weight": [-1.0],
    "weight_decay": [-1.0],
    "width": [0.0, -1.0],
}
"""Argument → numbers that no function takes, whatever it is called."""

WORDS = {"caption", "metric", "name", "path", "text", "word"}
"""Strings that may be any."""

FREE = {"answer", "header", "fingerprint", "meta", "factor"}
"""Arguments that take anything, or whose values only the caller can judge."""


class _Thing:
    """An object that is nothing a function could want."""

    def __repr__(self) -> str:
        return "a thing"


def variants(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    """Yield what is wrong, the wrong value, and whether it must be refused.

    Changed shapes need not be refused (many functions take any shape that fits), but what refuses
    them must say so by the argument's name.
    """
    if name in FREE or isinstance(value, bool):
        return
    found = next(make for fits, make in _BY_KIND if fits(value))
    yield from found(name, value)


def _all_wrong(*values: Any) -> Iterator[tuple[str, Any, bool]]:
    yield from ((repr(value), value, True) for value in values)


def _integers(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    yield from _all_wrong("x", 1.5, float("nan"), [1.5], *RANGES.get(name, ()))
    if name != "rng":
        yield "None", None, False


def _floats(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    yield from _all_wrong("x", float("nan"), float("inf"), [1.0], *RANGES.get(name, ()))
    yield "None", None, False


def _names(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    yield from _all_wrong(3, [1])
    yield "another", "no-such-name", name not in WORDS
    yield "None", None, False


def _folders(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    yield from _all_wrong(None, 3, [1])


def _generators(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    yield from _all_wrong("x", 1.5, [1.5])


def _mappings(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    yield from _all_wrong(None, 3, "x")
    if value:
        yield "entry None", {**value, next(iter(value)): None}, True


def _sequences(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    yield from _all_wrong(3, _Thing())
    if value and not isinstance(value[0], str):
        plain = tuple if isinstance(value, tuple) else list
        yield "one less", value[:-1], False
        yield "an entry None", plain([None, *value[1:]]), True


def _objects(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    yield from _all_wrong(None, 3, "x")  # for a network, a mixture, codes, a function


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not callable(value)


def _arrays(name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    """Yield what is no array, and arrays of another shape, of texts and with NaN."""
    yield from _all_wrong(None, "x", _Thing(), {})
    array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    back: Callable[[np.ndarray], Any] = type_of(value)
    if array.ndim:
        yield "an axis less", back(array[0]), False
        yield "one more", back(np.concatenate([array, array[:1]])), False
        yield "none", back(array[:0]), False
    yield "an axis more", back(array[None]), False
    if array.ndim > 1:
        yield "narrower", back(array[..., :-1]), False
    if array.dtype.kind == "f" and isinstance(value, np.ndarray):
        spoiled = array.copy()
        spoiled.flat[0] = np.nan
        yield "NaN", spoiled, True
        yield "texts", np.full(array.shape, "x"), False


def type_of(value: Any) -> Callable[[np.ndarray], Any]:
    """Return what makes an array what ``value`` is: a NumPy array or a framework's tensor."""
    if isinstance(value, np.ndarray):
        return lambda array: array
    if type(value).__module__.startswith("torch"):
        import torch

        return torch.as_tensor
    import tensorflow

    return tensorflow.constant


_BY_KIND: list[tuple[Callable[[Any], bool], Callable[..., Iterator[tuple[str, Any, bool]]]]] = [
    (lambda value: isinstance(value, int | np.integer), _integers),
    (lambda value: isinstance(value, float), _floats),
    (lambda value: isinstance(value, Path) and value.is_dir(), _folders),
    (lambda value: isinstance(value, str | Path), _names),
    (lambda value: isinstance(value, np.random.Generator), _generators),
    (lambda value: isinstance(value, Mapping), _mappings),
    (_is_array, _arrays),
    (lambda value: isinstance(value, tuple | list), _sequences),
    (lambda value: True, _objects),
]
