"""Images: resizing by area, framing of digits, variation of digits, rotation."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot_course._arguments import NOT_NEGATIVE, checked
from fewshot_course._checks import check_features, check_number, check_pair

__all__ = ["frame_digits", "resize_images", "rotate_images", "vary_digits"]


@checked
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
    X = _check_images(X)
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise TypeError(f"size must be (height, width), got {size!r}.")
    height, width = (check_number("size", value, low=1, integer=True) for value in size)
    rows = _area_weights(X.shape[1], height)
    columns = _area_weights(X.shape[2], width)
    resized = np.einsum("ab,nb...->na...", rows, X.astype(np.float64), optimize=True)
    resized = np.einsum("ab,nhb...->nha...", columns, resized, optimize=True)
    return np.clip(resized, 0.0, 1.0).astype(X.dtype)


@checked
def frame_digits(X: Any, size: tuple[int, int]) -> np.ndarray:
    """Prepare digits the way the UCI digits were made: black and white, cropped, block means.

    Each image is cut at 0.5 into ink and paper, cropped to the ink, centred in the smallest
    square that holds it, and resized by area (Alpaydin & Kaynak 1998 scanned 32×32 bitmaps and
    counted the ink in 4×4 blocks).

    Args:
        X: grey images ``(n, h, w)``, floats in [0, 1], bright ink on a dark ground.
        size: the new (height, width) in pixels.

    Returns:
        Images ``(n, *size)``, float32; one without ink stays empty.

    Raises:
        ValueError: for other shapes or values outside [0, 1].
    """
    X = _check_images(X)
    if X.ndim != 3:
        raise ValueError(f"X must hold grey images (n, h, w), got shape {X.shape}.")
    framed = [resize_images(_crop_to_ink(x)[None], size)[0] for x in (X > 0.5).astype(np.float32)]
    return np.stack(framed)


@checked(slant=NOT_NEGATIVE, stroke=NOT_NEGATIVE)
def vary_digits(
    X: Any,
    size: tuple[int, int],
    rng: np.random.Generator,
    slant: float = 0.0,
    stroke: float = 0.0,
    aspect: tuple[float, float] | None = None,
) -> np.ndarray:
    """Write each digit as somebody else might have, then frame it like :func:`frame_digits`.

    A digit is slanted, cut at 0.5 into ink and paper, its strokes are thickened, and the box of
    its ink is drawn into a frame of the new size, as high as the frame.  All this happens before
    the image is made small: there, a stroke is one pixel wide, and nothing is left to vary.

    Args:
        X: grey images ``(n, h, w)``, floats in [0, 1], bright ink on a dark ground.
        size: the new (height, width) in pixels.
        rng: draws the variation of each image.
        slant: columns that a stroke moves a row, drawn from [-slant, slant], ≥ 0.
        stroke: by how many pixels of ``X`` the ink grows on each side, drawn from [0, stroke].
        aspect: width of the ink's box over its height, drawn from [low, high], 0 < low ≤ high ≤
            1; ``None`` keeps that of the slanted digit.

    Returns:
        Images ``(n, *size)``, float32; one without ink stays empty.

    Raises:
        TypeError: for numbers of another kind.
        ValueError: for other shapes, values outside [0, 1], or ranges that are none.
    """
    X = _check_images(X)
    if X.ndim != 3:
        raise ValueError(f"X must hold grey images (n, h, w), got shape {X.shape}.")
    height, width = (check_number("size", value, low=1, integer=True) for value in size)
    if aspect is not None:
        low, high = check_pair("aspect", aspect)
        check_number("aspect[0]", low, low=0, low_open=True)
        check_number("aspect[1]", high, low=low, high=1)
    slants, grown = rng.uniform(-slant, slant, len(X)), rng.uniform(0, stroke, len(X))
    ratios = [None] * len(X) if aspect is None else rng.uniform(low, high, len(X))
    varied = np.zeros((len(X), height, width), np.float32)
    for one, x, k, pixels, ratio in zip(varied, X, slants, grown, ratios, strict=True):
        ink = _slanted_ink(x.astype(np.float64), k, pixels)
        if ink.any():
            one[:] = _boxed(ink, height, width, ratio)
    return varied


def _slanted_ink(x: np.ndarray, slant: float, grown: float) -> np.ndarray:
    """Return where the slanted digit has ink, ``(2h, 4w)``, on a grid of half pixels."""
    from scipy import ndimage  # slow to import

    height, width = x.shape
    x = np.pad(x, ((0, 0), (width // 2, width // 2)))  # room to lean into
    rows = (np.arange(2 * height) - 0.5) / 2
    columns = (np.arange(2 * x.shape[1]) - 0.5) / 2
    leaning = columns + slant * (rows[:, None] - (height - 1) / 2)
    at = np.broadcast_to(rows[:, None], leaning.shape), leaning
    ink = ndimage.map_coordinates(x, at, order=1) > 0.5
    if grown == 0 or not ink.any():
        return ink
    return ndimage.distance_transform_edt(~ink) <= 2 * grown


def _boxed(ink: np.ndarray, height: int, width: int, aspect: float | None) -> np.ndarray:
    """Draw the box of the ink into the middle of a frame, by area."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64)
    high, wide = box.shape
    if aspect is None:
        part_high, part_wide = high / max(high, wide), wide / max(high, wide)
    else:
        part_high, part_wide = 1.0, aspect
    return (
        _placing_weights(high, height, height * part_high)
        @ box
        @ _placing_weights(wide, width, width * part_wide).T
    )


def _placing_weights(old: int, new: int, taken: float) -> np.ndarray:
    """Return ``(new, old)``: what each new pixel gets of old ones that take its middle part."""
    edges = (new - taken) / 2 + np.arange(old + 1) * taken / old
    pixels = np.arange(new)[:, None]
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.clip(overlap, 0.0, None)


@checked
def rotate_images(X: Any, degrees: float) -> np.ndarray:
    """Turn images about their centre, counter-clockwise, by linear interpolation.

    Args:
        X: images ``(n, h, w)`` or ``(n, h, w, c)``, floats in [0, 1].
        degrees: the angle; corners that come into view are 0.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: for other shapes or values outside [0, 1].
    """
    from scipy import ndimage  # slow to import, and needed only here

    X = _check_images(X)
    degrees = check_number("degrees", degrees)
    turned = ndimage.rotate(X, degrees, axes=(1, 2), reshape=False, order=1, mode="constant")
    return np.clip(turned, 0.0, 1.0).astype(X.dtype)


def _check_images(X: Any) -> np.ndarray:
    X = check_features("X", X)
    if X.ndim < 3:
        raise ValueError(f"X must hold images (n, h, w) or (n, h, w, c), got shape {X.shape}.")
    return X


def _crop_to_ink(x: np.ndarray) -> np.ndarray:
    """Return the smallest square that holds the ink of one image, the ink in its centre."""
    rows, columns = np.flatnonzero(x.any(axis=1)), np.flatnonzero(x.any(axis=0))
    if len(rows) == 0:
        return x
    ink = x[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(ink.shape)
    top, left = (side - ink.shape[0]) // 2, (side - ink.shape[1]) // 2
    below, right = side - ink.shape[0] - top, side - ink.shape[1] - left
    return np.pad(ink, ((top, below), (left, right)))


def _area_weights(old: int, new: int) -> np.ndarray:
    """Return ``(new, old)``: the share of each old pixel in each new one; rows add up to one."""
    edges = np.arange(new + 1) * old / new
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(old)[None, :]
    overlap = np.minimum(high, pixels + 1) - np.maximum(low, pixels)
    weights = np.clip(overlap, 0.0, None)
    return weights / weights.sum(axis=1, keepdims=True)
