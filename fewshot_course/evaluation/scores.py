"""Scores of predictions."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fewshot_course._arguments import checked
from fewshot_course._checks import UNLABELLED, check_labels


@checked
def accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return the share of labelled examples whose class is predicted right.

    Args:
        y_true: true classes, whole numbers ``(n,)``; ``-1`` means "unknown" and is ignored.
        y_pred: predicted classes, whole numbers >= 0 ``(n,)``.

    Returns:
        A float in [0, 1].

    Raises:
        TypeError: for labels that are no whole numbers.
        ValueError: for differing lengths, a negative prediction, or no labelled example.
    """
    true = check_labels("y_true", y_true, allow_unlabelled=True)
    predicted = check_labels("y_pred", y_pred, n=len(true))
    known = true != UNLABELLED
    if not known.any():
        raise ValueError(
            f"y_true has no labelled example among {len(true)}; accuracy needs at least one."
        )
    return float((true[known] == predicted[known]).mean())
