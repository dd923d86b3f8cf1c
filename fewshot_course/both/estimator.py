"""What every classifier of the course shares, whatever its framework: score, save and load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from fewshot_course import __version__
from fewshot_course._checks import UNLABELLED, check_labels
from fewshot_course.weights import load_arrays, save_arrays

FORMAT = "fewshot_course.estimator/1"


class CourseClassifier(ClassifierMixin, BaseEstimator):
    """A classifier by scikit-learn's conventions that can be saved and read by the twin.

    A subclass gives ``predict_proba``, and what a fitted copy consists of:
    ``_fitted_arrays() -> dict`` and ``_restore(arrays, facts)``, with JSON-able learned
    attributes named in ``_facts``.
    """

    _facts: tuple[str, ...] = ("input_shape_",)
    classes_: np.ndarray

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each example, ``(n,)`` int64."""
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, ``(n, n_classes)``, in the order of ``classes_``."""
        raise NotImplementedError  # the subclass knows its network

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on the labelled examples; a label of -1 is left out.

        Raises:
            ValueError: if no example has a label.
        """
        labels = check_labels("y", y, n=len(X), allow_unlabelled=True)
        known = labels != UNLABELLED
        if not known.any():
            raise ValueError("y has no labelled example: every label is -1.")
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(self.predict(X)[known] == labels[known], weights=weight))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted estimator into one safetensors file with a JSON header.

        Args:
            path: the file; its folder must exist.

        Raises:
            NotFittedError: if ``fit`` has not been called.
            TypeError: if ``network`` is the user's own factory, which no file can hold.
        """
        check_is_fitted(self)
        params = self.get_params(deep=False)
        for name, value in params.items():
            if callable(value):
                raise TypeError(
                    f"{name}={value!r} is code, which a weights file cannot hold; save the "
                    f"weights alone with networks.to_numpy and weights.save_arrays."
                )
        header = {
            "format": FORMAT,
            "version": __version__,
            "class": type(self).__name__,
            "params": params,
            "facts": {name: getattr(self, name) for name in self._facts},
        }
        arrays = {"classes_": self.classes_, **self._fitted_arrays()}
        return save_arrays(path, arrays, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator that this class, or its twin in the other framework, has saved.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged, or holds another class.
        """
        arrays, header = load_arrays(path)
        if header.get("format") != FORMAT:
            raise ValueError(f"{path} holds {header.get('format')!r}, expected {FORMAT!r}.")
        if header["class"] != cls.__name__:
            raise ValueError(
                f"{path} holds a {header['class']}, not a {cls.__name__}; "
                f"load it with {header['class']}.load."
            )
        params = {k: tuple(v) if isinstance(v, list) else v for k, v in header["params"].items()}
        estimator = cls(**params)
        for name, value in header["facts"].items():
            setattr(estimator, name, tuple(value) if isinstance(value, list) else value)
        estimator.classes_ = arrays.pop("classes_")
        estimator._restore(arrays)
        return estimator

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        raise NotImplementedError  # the subclass knows its network

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        raise NotImplementedError  # the subclass knows its network
