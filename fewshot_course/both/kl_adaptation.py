"""What the adaptation methods take: a labelled source and a mostly unlabelled target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course._checks import UNLABELLED, check_features, check_labels


@dataclass(frozen=True)
class Domains:
    """Checked data of two domains; labels are positions in ``classes``.

    Attributes:
        X_source: ``(n, ...)``.
        y_source: ``(n,)``.
        X_target: all target examples, ``(m, ...)``.
        X_labelled: those of them that have a label, ``(l, ...)``; l may be 0.
        y_labelled: their labels, ``(l,)``.
        classes: the labels as the user wrote them, ``(k,)``, ascending.
    """

    X_source: np.ndarray
    y_source: np.ndarray
    X_target: np.ndarray
    X_labelled: np.ndarray
    y_labelled: np.ndarray
    classes: np.ndarray


def check_domains(X_source: Any, y_source: Any, X_target: Any, y_target: Any = None) -> Domains:
    """Check the data of an adaptation method and encode its labels.

    Args:
        X_source: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
        y_source: labels ≥ 0, ``(n,)``.
        X_target: ``(m, ...)``, shaped like the source.
        y_target: labels ``(m,)``, -1 where unknown; ``None``: all unknown.

    Raises:
        ValueError: for arrays that do not fit together, a single class, or a target label that
            the source does not have.
        TypeError: for arrays of another kind.
    """
    X_source = check_features("X_source", X_source)
    y_source = check_labels("y_source", y_source, n=len(X_source))
    X_target = check_features("X_target", X_target, like=X_source.shape[1:])
    if y_target is None:
        y_target = np.full(len(X_target), UNLABELLED, dtype=np.int64)
    y_target = check_labels("y_target", y_target, n=len(X_target), allow_unlabelled=True)
    classes = np.unique(y_source)
    if len(classes) < 2:
        raise ValueError(f"y_source has the single class {classes[0]}; expected two.")
    known = np.flatnonzero(y_target != UNLABELLED)
    unknown = sorted(set(y_target[known].tolist()) - set(classes.tolist()))
    if unknown:
        raise ValueError(
            f"y_target has the labels {unknown}, which y_source does not have "
            f"(it has {classes.tolist()})."
        )
    return Domains(
        X_source=X_source,
        y_source=np.searchsorted(classes, y_source),
        X_target=X_target,
        X_labelled=X_target[known],
        y_labelled=np.searchsorted(classes, y_target[known]),
        classes=classes,
    )
