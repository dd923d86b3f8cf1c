"""What a loader hands to the registry."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Loaded(NamedTuple):
    """Examples, labels, and what the classes are called and belong to."""

    X: np.ndarray | list[str]
    y: np.ndarray
    class_names: tuple[str, ...]
    class_groups: tuple[str, ...] = ()
