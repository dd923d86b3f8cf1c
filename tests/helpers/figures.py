"""What the interactive figures load, read back."""

from __future__ import annotations

from typing import Any

import figure_data
import numpy as np
from building import ROOT

SHAPES = {
    "body.0.weight": (40, 1),
    "body.0.bias": (40,),
    "body.2.weight": (40, 40),
    "body.2.bias": (40,),
    "head.weight": (1, 40),
    "head.bias": (1,),
}


def stored(name: str) -> dict[str, Any]:
    return figure_data.read(ROOT / "book" / "_static" / f"{name}-data.js")


def layers(packed: str) -> dict[str, np.ndarray]:
    """The weights of a sinusoid network, by their canonical names."""
    flat, arrays = figure_data.unpacked(packed, "f4"), {}
    for name, shape in SHAPES.items():
        arrays[name], flat = flat[: np.prod(shape)].reshape(shape), flat[np.prod(shape) :]
    assert len(flat) == 0
    return arrays
