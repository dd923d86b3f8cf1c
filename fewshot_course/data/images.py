"""Images: resizing by area."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot_course._checks import check_features, check_number

__all__ = ["resize_images"]


def resize_images(X: Any, size: tuple[int, int]) -> np.ndarray:
    """Resize images by area: a new pixel is the mean of the old area that it covers.

    The mean brightness of an image is kept exactly, and shrinking does not alias.

    Args:
        X: images ``(n, h, w)`` or ``(n, h, w, c)``, floats in [0, 1].
        size: the new (height, width) in pixels.

    Returns:
        Images of the new size, of the dtype of ``X``.

    Raises:
        TypeError: if ``size`` is not two whole numbers.
        ValueError: for other shapes or values outside [0, 1].
    """
    X = check_features("X", X)
    if X.ndim < 3:
        raise ValueError(f"X must hold images (n, h, w) or (n, h, w, c), got shape {X.shape}.")
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise TypeError(f"size must be (height, width), got {size!r}.")
    height, width = (check_number("size", value, low=1, integer=True) for value in size)
    rows = _area_weights(X.shape[1], height)
    columns = _area_weights(X.shape[2], width)
    resized = np.einsum("ab,nb...->na...", rows, X.astype(np.float64), optimize=True)
    resized = np.einsum("ab,nhb...->nha...", columns, resized, optimize=True)
    return np.clip(resized, 0.0, 1.0).astype(X.dtype)


def _area_weights(old: int, new: int) -> np.ndarray:
    """Return ``(new, old)``: the share of each old pixel in each new one; rows add up to one."""
    edges = np.arange(new + 1) * old / new
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(old)[None, :]
    overlap = np.minimum(high, pixels + 1) - np.maximum(low, pixels)
    weights = np.clip(overlap, 0.0, None)
    return weights / weights.sum(axis=1, keepdims=True)
