"""Checks of what a user passes in.

Every message names the argument, says what came and what is expected.
"""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fewshot_course._reading import show

UNLABELLED = -1
"""The label of an example whose class is unknown, as in :mod:`sklearn.semi_supervised`."""


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``; else raise, naming the nearest one."""
    known = list(choices)
    if isinstance(value, str) and value in known:
        return str(value)
    near = difflib.get_close_matches(str(value)[:100], known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{name}={show(value)} is not known; expected one of {', '.join(known)}.{hint}"
    )


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    integer: bool = False,
    low_open: bool = False,
) -> Any:
    """Return ``value`` if it is a finite number in [low, high], or in (low, high] if low_open."""
    kind: type = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = "a whole number" if integer else "a number"
        raise TypeError(
            f"{name} must be {wanted}, got {show(value)} of type {type(value).__name__}."
        )
    bracket = "(" if low_open else "["
    try:
        size = float(value)  # type: ignore[arg-type]  # isinstance has made sure
    except OverflowError:  # a whole number of hundreds of digits
        size = np.inf if value > 0 else -np.inf  # type: ignore[operator]  # a number, see above
    inside = low < size <= high if low_open else low <= size <= high
    # A whole number beyond 64 bits is none that a framework can take.
    fits = not isinstance(value, numbers.Integral) or -(2**63) <= int(value) < 2**63
    if not np.isfinite(size) or not inside or not fits:
        raise ValueError(f"{name} must lie in {bracket}{low:g}, {high:g}], got {show(value)}.")
    return value


def check_pair(name: str, value: Any) -> tuple[Any, Any]:
    """Return ``value`` as a pair; whether both are numbers is for the caller to check."""
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str) or len(value) != 2:
        raise TypeError(f"{name} must be a pair of numbers, got {show(value)}.")
    first, second = value
    return first, second


def check_optimizer(
    *, lr: float, momentum: float = 0, betas: Any = (0, 0), eps: float = 0, weight_decay: float = 0
) -> None:
    """Raise where a setting of an optimiser is out of range; the same in both frameworks."""
    check_number("lr", lr, low=0, low_open=True)
    check_number("eps", eps, low=0)
    check_number("weight_decay", weight_decay, low=0)
    first, second = check_pair("betas", betas)
    for name, value in (("momentum", momentum), ("betas[0]", first), ("betas[1]", second)):
        check_number(name, value)
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {show(value)}.")


def check_unmasked(name: str, values: Any) -> None:
    """Raise for a masked array: as a plain one it would show what its mask hides."""
    if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
        hidden = int(np.ma.getmaskarray(values).sum())
        raise ValueError(
            f"{name} is a masked array that hides {hidden} values. Fill them ({name}.filled(...)) "
            f"or leave those examples out."
        )


def check_features(name: str, X: Any, *, like: tuple[int, ...] | None = None) -> np.ndarray:
    """Return ``X`` as a finite float array of at least two dimensions.

    Args:
        name: the argument's name, for the message.
        X: vectors ``(n, d)`` or images ``(n, h, w)`` / ``(n, h, w, c)``.  Images (three or
            more dimensions) must be floats in [0, 1].
        like: the shape of one example that is expected, if known.

    Returns:
        ``X``; integers become float64, float16 becomes float32.

    Raises:
        TypeError: for a type that is no numeric array.
        ValueError: for a wrong shape, no examples, NaN or infinity, or images outside [0, 1].
    """
    check_unmasked(name, X)
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"{name} is ragged: all examples must have one shape ({error}).") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be a numeric array, got dtype {array.dtype}.")
    if array.ndim < 2:
        raise ValueError(
            f"{name} must have shape (n, d) or (n, h, w[, c]), got shape {array.shape}. "
            f"For one feature use {name}.reshape(-1, 1)."
        )
    if array.ndim > 4:
        raise ValueError(f"{name} must have two to four dimensions, got shape {array.shape}.")
    if len(array) == 0:
        raise ValueError(f"{name} has no examples (shape {array.shape}).")
    if array.ndim > 2 and array.dtype.kind in "iub":
        raise ValueError(
            f"{name} holds images of dtype {array.dtype}; expected floats in [0, 1]: "
            f"divide by 255 first."
        )
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array.reshape(len(array), -1))).any(axis=1).sum())
        raise ValueError(f"{name} has NaN or infinite values in {bad} of {len(array)} examples.")
    if array.ndim > 2 and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"{name} holds images with values in [{array.min():g}, {array.max():g}]; "
            f"expected [0, 1]."
        )
    if like is not None and array.shape[1:] != tuple(like):
        raise ValueError(f"{name} has examples of shape {array.shape[1:]}, expected {tuple(like)}.")
    return array


def check_labels(
    name: str, y: Any, *, n: int | None = None, allow_unlabelled: bool = False
) -> np.ndarray:
    """Return ``y`` as an int64 array ``(n,)`` of labels >= 0 (or -1 where that is allowed).

    Raises:
        TypeError: for labels that are no whole numbers.
        ValueError: for a wrong shape or length, or a negative label.
    """
    check_unmasked(name, y)
    array = np.asarray(y)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {array.shape}.")
    if array.dtype.kind in "fu" and len(array) and array.max() >= 2**63:
        raise ValueError(f"{name} holds {array.max()}; expected labels below 2^63.")
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.round(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise TypeError(
            f"{name} must hold whole numbers, got dtype {array.dtype}. "
            f"Encode names with sklearn.preprocessing.LabelEncoder."
        )
    if n is not None and len(array) != n:
        raise ValueError(f"{name} has {len(array)} labels for {n} examples.")
    array = array.astype(np.int64)
    lowest = UNLABELLED if allow_unlabelled else 0
    if len(array) and array.min() < lowest:
        raise ValueError(
            f"{name} holds the label {array.min()}; expected labels >= 0"
            + (" or -1 for 'unknown'." if allow_unlabelled else ".")
        )
    return array


def check_keys(
    what: str, found: Any, required: Collection[str], optional: Collection[str] = ()
) -> None:
    """Raise unless a mapping has all required keys and no unknown one; the nearest is named."""
    if not isinstance(found, Mapping):
        raise TypeError(f"{what} must be a mapping, got {show(found)}.")
    for name in found:
        check_choice(f"{what}: key", name, [*required, *optional])
    missing = [name for name in required if name not in found]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}.")
