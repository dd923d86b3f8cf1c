"""What a data set is: its facts, and its arrays in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np


@dataclass(frozen=True)
class DatasetInfo:
    """The facts about a data set.

    Attributes:
        name: the name that :func:`load_dataset` takes.
        title: a name for people.
        kind: "images", "text", "vectors" or "generated" (made by the course's own code).
        n: number of examples, over all splits.
        shape: shape of one example; () for a text.
        n_classes: number of classes; 0 for regression.
        licence: under which the data may be used.
        source: who made the data, and when.
        address: a page or file where anyone can get it.
        needs_download: whether it must be downloaded where no cache or folder has it.
        note: what to know before using it.
        splits: the splits that the data set itself defines; empty if none.
    """

    name: str
    title: str
    kind: Literal["images", "text", "vectors", "generated"]
    n: int
    shape: tuple[int, ...]
    n_classes: int
    licence: str
    source: str
    address: str
    needs_download: bool
    note: str = ""
    splits: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Attributes:
        name: its name in :data:`DATASETS`.
        X: float32 images ``(n, h, w)`` in [0, 1], or a list of str.
        y: int64 labels ``(n,)``, from 0 to the number of classes - 1.
        class_names: one name a class.
        info: the facts about it.
        class_groups: what each class belongs to (its script or alphabet); empty if nothing.
    """

    name: str
    X: Any
    y: np.ndarray
    class_names: tuple[str, ...]
    info: DatasetInfo
    class_groups: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """What a loader hands to the registry; the fields are those of :class:`Dataset`."""

    X: Any
    y: np.ndarray
    class_names: tuple[str, ...]
    class_groups: tuple[str, ...] = ()
