"""What every classifier of the course shares, whatever its framework: score, save and load."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from fewshot_course import __version__
from fewshot_course._checks import UNLABELLED, check_labels, check_number
from fewshot_course._reading import check_classes_array, check_shape, check_sizes, show
from fewshot_course.weights import Arrays, load_arrays, part_of, save_arrays

FORMAT = "fewshot_course.estimator/1"

# What anything may raise that is built from a file whose parts do not fit together.
_WRONG_CONTENT = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


def check_answer(values: np.ndarray) -> np.ndarray:
    """Return what a network says of examples, if all of it is finite.

    Raises:
        ValueError: for NaN or infinity: examples that are finite in float64 may overflow in
            float32, or inside of the network.
    """
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"X has {int((~finite).sum())} of {len(values)} examples for which the answer is NaN "
            f"or infinite: their values are too large. Scale X as in fit, or use dtype='float64'."
        )
    return values


class Storable(BaseEstimator):
    """What a fitted estimator consists of, and how it is written into a file and read again.

    Beside the networks, which a framework knows, these are the learned attributes that JSON can
    hold (``_facts``) and those that are arrays (``_arrays``).
    """

    _facts: tuple[str, ...] = ("input_shape_",)
    _arrays: tuple[str, ...] = ()
    dtype: str

    # The three doors that each framework opens, and what "auto" means to it.
    _build: Callable[..., None]
    _learn: Callable[..., dict[str, np.ndarray]]
    _apply: Callable[..., Any]
    _resolve: Callable[[str], str]

    def _check_parameters(self) -> None:
        """Raise where a setting is out of range; before a fit, and before a file is believed."""

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
        return save_arrays(path, self._fitted_arrays(), header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator that this class, or its twin in the other framework, has saved.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged, or holds another class, other settings or attributes.
        """
        arrays, header = load_arrays(path)
        if header.get("format") != FORMAT:
            raise ValueError(f"{path} holds {header.get('format')!r}, expected {FORMAT!r}.")
        if header.get("class") != cls.__name__:
            raise ValueError(
                f"{path} holds a {header.get('class')}, not a {cls.__name__}; "
                f"load it with the class that saved it."
            )
        params, facts = header.get("params"), header.get("facts")
        known = cls._get_param_names()
        if not isinstance(params, dict) or not set(params) <= set(known):
            raise ValueError(
                f"{path} has settings that {cls.__name__} does not have: {show(params)}."
            )
        # Only what the class declares is ever set: a file names data, never code.
        if not isinstance(facts, dict) or set(facts) != set(cls._facts):
            raise ValueError(f"{path} has the facts {show(facts)}, expected {list(cls._facts)}.")
        missing = [name for name in cls._arrays if name not in arrays]
        if missing:
            raise ValueError(f"{path} misses the arrays {missing}.")
        try:
            return cls._put_together(params, facts, arrays)
        except _WRONG_CONTENT as error:
            raise ValueError(
                f"{path} is damaged or was changed: its settings, facts and arrays make no "
                f"{cls.__name__} ({type(error).__name__}: {error!s:.300})."
            ) from error

    @classmethod
    def _put_together(
        cls, params: dict[str, Any], facts: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> Self:
        """Return the estimator of a file; nothing is built before its parts have been looked at."""
        estimator = cls(**{name: _as_tuple(value) for name, value in params.items()})
        check_sizes(estimator.get_params(deep=False) | facts, arrays)
        for name in {"layers_", "n_outputs_"} & facts.keys():
            check_number(name, facts[name], low=1, integer=True)
        if "input_shape_" in facts:
            check_shape("input_shape_", facts["input_shape_"])
        if "classes_" in cls._arrays:
            check_classes_array(arrays["classes_"])
        estimator._check_parameters()
        for name, value in facts.items():
            setattr(estimator, name, _as_tuple(value))
        estimator._restore(arrays)
        return estimator

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays of the fitted estimator by name; a framework adds its networks."""
        return {name: getattr(self, name) for name in self._arrays}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what :meth:`_fitted_arrays` returned; a framework builds its networks."""
        for name in self._arrays:
            setattr(self, name, arrays.pop(name))


def networks_in(arrays: Arrays, names: Collection[str]) -> dict[str, Arrays]:
    """Return the arrays of each network, without its name before theirs.

    Raises:
        ValueError: for an array that belongs to none.
    """
    if len(names) == 1 and not any(key.startswith(f"{name}.") for name in names for key in arrays):
        return dict.fromkeys(names, arrays)  # older files: their only network has no name
    strange = sorted(key for key in arrays if key.partition(".")[0] not in names)
    if strange:
        raise ValueError(f"weights do not fit the networks {sorted(names)}: unexpected {strange}.")
    return {name: part_of(arrays, name) for name in names}


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class CourseClassifier(ClassifierMixin, Storable):
    """A classifier by scikit-learn's conventions that can be saved and read by the twin.

    A subclass gives ``predict_proba``, and names its learned attributes in ``_facts`` and
    ``_arrays``.
    """

    _arrays: tuple[str, ...] = ("classes_",)
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
