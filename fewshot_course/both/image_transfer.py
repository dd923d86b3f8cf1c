"""What a classifier takes over from one trained on other classes; framework-free."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.weights import part_of

TUNE = ("scratch", "full", "head")
"""What is trained: a network of one's own, all of a pretrained one, or a new head on it."""

HEAD = "head."


def is_path(pretrained: Any) -> bool:
    """Tell a file's path from an estimator."""
    return isinstance(pretrained, str | os.PathLike)


def pretrained_body(
    pretrained: Any, kind: type[CourseClassifier], input_shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return the weights of a fitted classifier in canonical layout, without its head.

    Args:
        pretrained: a fitted estimator of class ``kind``, or the path of the file it was saved in.
        kind: the class of the estimator.
        input_shape: shape of one example that the body will see.

    Raises:
        TypeError: for something else.
        ValueError: for an estimator that is not fitted, or was fitted on another shape.
        FileNotFoundError: if there is no such file.
    """
    if is_path(pretrained):
        pretrained = kind.load(pretrained)
    if not isinstance(pretrained, kind):
        raise TypeError(
            f"pretrained must be a fitted {kind.__name__} of this framework or the path of its "
            f"file, got {type(pretrained).__module__}.{type(pretrained).__name__}."
        )
    check_is_fitted(pretrained)
    if pretrained.input_shape_ != input_shape:
        raise ValueError(
            f"X has examples of shape {input_shape}, but pretrained was fitted on "
            f"{pretrained.input_shape_}."
        )
    arrays = part_of(pretrained._fitted_arrays(), "network")
    return {name: array for name, array in arrays.items() if not name.startswith(HEAD)}
