"""A student, whatever it learns from: its examples, its engine, and its training and pruning.

What texts and images add stands in ``compression.py``; the loss of a step and the engine in
``torch/compression.py`` and ``tf/compression.py``; masks and whole numbers in ``pruning.py``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import (
    UNLABELLED,
    check_choice,
    check_labels,
    check_number,
)
from fewshot_course._streams import Streams
from fewshot_course.both.batches import LengthBatches
from fewshot_course.both.bert import BertConfig
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.pruning import (
    PRUNING,
    SCOPES,
    dequantize,
    magnitude_masks,
    quantize_symmetric,
)
from fewshot_course.both.texts import Tokens
from fewshot_course.both.training import Progress, Run, fingerprint_of
from fewshot_course.data import BatchStream
from fewshot_course.weights import Arrays, pack, part_of, unpack

BACKENDS = ("framework", "hand")
FEATURES_WEIGHT = 10.0  # of the teacher's features in the loss, where it has any
FROZEN = "bert.embeddings."  # words that the few texts lack keep their place among the others

Integers = dict[str, tuple[np.ndarray, np.ndarray]]
"""Canonical name → whole numbers, and the scale of each row."""


@dataclass(frozen=True)
class Examples:
    """What a student learns from.

    Attributes:
        inputs: index ``(b,)`` → what the network takes.
        labels: class indices, -1 where unknown, ``(n,)``.
        logits: the teacher's, ``(n, C)``.
        features: the teacher's, of length 1, ``(n, d)``; ``None``: not learned from.
        batches: order of the examples.
    """

    inputs: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    labels: np.ndarray
    logits: np.ndarray
    features: np.ndarray | None
    batches: LengthBatches | BatchStream


def kept_layers(n_layers: int, layers: int | None) -> tuple[int, ...]:
    """Return which of a teacher's layers a student starts from: spread evenly, first and last in.

    Args:
        n_layers: of the teacher.
        layers: of the student; ``None``: all.

    Raises:
        ValueError: if the teacher has fewer.
    """
    if layers is None:
        return tuple(range(n_layers))
    check_number("layers", layers, low=1, high=n_layers, integer=True)
    return tuple(int(i) for i in np.rint(np.linspace(0, n_layers - 1, layers)))


def teacher_logits(teacher: Any, X: Any) -> np.ndarray:
    """Return log p of a teacher, ``(n, C)``: its logits, but for a constant a row."""
    proba = np.asarray(teacher.predict_proba(X), np.float64)
    return np.log(np.maximum(proba, np.finfo(np.float64).tiny))


class Engine(Protocol):
    """What a framework does for a student: one network on a device.

    Attributes:
        network: of the framework.
    """

    network: Any

    @staticmethod
    def resolve(device: str) -> str:
        """Return the device that a name means."""

    @classmethod
    def for_texts(
        cls, config: BertConfig, n_classes: int, normalize: bool, dtype: str, device: str
    ) -> Self:
        """Make a text network; its weights are yet to be loaded."""

    @classmethod
    def for_images(
        cls, name: str, shape: tuple[int, ...], n_classes: int, channels: int,
        rng: np.random.Generator, dtype: str, device: str,
    ) -> Self:  # fmt: skip
        """Make a new network for images."""

    def train(
        self, student: Any, examples: Examples, streams: Streams,
        fingerprint: Mapping[str, Any], run: Run,
    ) -> Arrays:  # fmt: skip
        """Train; weights that were pruned stay 0.  Returns the history."""

    def run_texts(self, tokens: Tokens, output: str) -> list[np.ndarray]:
        """Return the "logits" or "features" of each text."""

    def run_images(self, X: np.ndarray) -> np.ndarray:
        """Return the logits, ``(n, C)``."""

    def weights(self) -> Arrays:
        """Return the weights in canonical layout, as floats."""

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load floats into the layers that are not of whole numbers."""

    def int8_layers(self, activations: bool, integers: Integers | None) -> Integers:
        """Have the framework quantise its linear layers; ``integers``: take these."""


class CompressedClassifier(CourseClassifier):
    """A small classifier that learns from a large one; base of those for texts and images."""

    teacher: Any
    sparsity: float
    pruning: str
    scope: str
    temperature: float
    alpha: float
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    dtype: str
    random_state: int | None

    quantized_: str = ""
    _device: str = "cpu"
    _stored: Arrays
    _integers: Integers

    # What a framework adds: the engine, a network with its training and its eight-bit layers.
    _engines: type[Engine]
    _engine: Engine

    # What the kind of examples adds.
    _check_inputs: Callable[..., Any]
    _examples: Callable[..., Examples]
    _begin: Callable[[np.random.Generator, str, Any], None]
    _rebuild: Callable[[], None]
    _prunable: Callable[[str, np.ndarray], bool]
    _logits: Callable[[Any], np.ndarray]
    normalize_: bool

    @property
    def _features_weight(self) -> float:
        """Weight of the teacher's features in the loss; 0: they are not learned from."""
        return 0.0

    @property
    def network_(self) -> Any:
        """The student, a network of the framework."""
        if not hasattr(self, "_engine"):
            raise AttributeError("network_ is there after fit.")
        return self._engine.network

    def __sklearn_clone__(self) -> Self:
        """Clone without unfitting ``teacher``, which scikit-learn would clone too."""
        return type(self)(**self.get_params(deep=False))

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        device: str = "auto",
        progress: Progress = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Learn what the teacher says, and the labels where there are any.

        Args:
            X: the examples, as the teacher takes them.
            y: labels, -1 where unknown, ``(n,)``; ``None``: all unknown.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar, or a function that is told of each update:
                it gets how many are done, and name → value of the last one's losses.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            TypeError: for a teacher that is no classifier, or a wrong type of X or y.
            NotFittedError: if the teacher is not fitted.
            ValueError: for a label that the teacher does not know, no label where ``alpha=0``, or
                a setting out of range.
            TrainingDiverged: if the loss is NaN or infinite.
        """
        self._check_parameters()
        classes = self._teacher_classes()
        X = self._check_inputs(X, self.teacher)
        labels = self._class_index(y, len(X), classes)
        streams = Streams.from_seed(self.random_state)
        run = Run(self._engines.resolve(device), progress, log_dir, checkpoint_dir)
        self.classes_, self.quantized_, self._device = classes, "", run.device
        self._begin(streams.init, run.device, X)
        self.history_: Arrays = {}
        if not self.epochs:
            self._prune_now()
            return self
        examples = self._examples(X, labels, teacher_logits(self.teacher, X), streams)
        # The teacher is told by what it says.
        alone = copy.copy(self)
        alone.teacher = None
        told = (examples.labels, examples.logits, examples.features)
        self.history_ = self._engine.train(
            self, examples, streams, fingerprint_of(alone, *told), run
        )
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)`` float64, in the order of ``classes_``."""
        check_is_fitted(self, "network_")
        proba: np.ndarray = softmax(self._logits(self._check_inputs(X, self)).astype(float), axis=1)
        return proba

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the whole network into one file, without the teacher.

        Whole numbers are written as such; a pruned array as one bit a place and what is not 0.
        The loaded copy predicts; to ``fit`` again it has to be given a ``teacher`` anew.

        Args:
            path: the file; its folder must exist.

        Raises:
            NotFittedError: if it is not fitted.
        """
        portable = copy.copy(self)
        portable.teacher = None
        return CourseClassifier.save(portable, path)

    def zeros(self) -> tuple[int, int]:
        """Return how many of the weights that pruning may take are 0, and how many there are."""
        check_is_fitted(self, "network_")
        arrays = [array for name, array in self._weights().items() if self._prunable(name, array)]
        return sum(int((a == 0).sum()) for a in arrays), sum(a.size for a in arrays)

    def _copy_of(self, teacher: Any) -> Self:
        """Become a copy of a fitted classifier, pruned but not trained."""
        self._check_parameters()
        self.classes_, self.quantized_ = self._teacher_classes(), ""
        # Beside the classifier that it is compared with: times mean nothing on two devices.
        self._device = getattr(teacher, "_device", "cpu")
        self._begin(np.random.default_rng(0), self._device, None)
        self.history_ = {}
        self._prune_now()
        return self

    def _prune_now(self) -> None:
        if self.sparsity:
            weights = self._weights()
            chosen = {name: w for name, w in weights.items() if self._prunable(name, w)}
            masks = magnitude_masks(chosen, self.sparsity, self.scope)
            self._engine.load(weights | {n: chosen[n] * mask for n, mask in masks.items()})

    def _quantize(self, backend: str, activations: bool) -> Self:
        """Make eight-bit weights of all arrays of two axes or more."""
        check_choice("backend", backend, BACKENDS)
        if self.dtype != "float32":
            raise ValueError(f"quantize needs a classifier of dtype='float32', got {self.dtype!r}.")
        if activations and backend == "hand":
            raise ValueError("activations=True needs backend='framework'.")
        weights = self._weights()
        matrices = {name: w for name, w in weights.items() if w.ndim >= 2}
        self._stored = {name: w for name, w in weights.items() if w.ndim < 2}
        self._integers = {name: quantize_symmetric(w, 0) for name, w in matrices.items()}
        self.quantized_ = backend + (" with activations" if activations else "")
        if backend == "framework":
            self._integers |= self._engine.int8_layers(activations, None)
        self._load_others()
        return self

    def _load_others(self) -> None:
        """Give the float layers what the whole numbers stand for."""
        self._engine.load(self._weights())

    def _weights(self) -> Arrays:
        """Return the weights in canonical layout, as floats."""
        if not self.quantized_:
            return self._engine.weights()
        floats = {n: dequantize(*pair, 0).astype(np.float32) for n, pair in self._integers.items()}
        return self._stored | floats

    def _teacher_classes(self) -> np.ndarray:
        """Check the teacher and return its classes."""
        if self.teacher is None:
            raise ValueError("teacher is None: give a fitted classifier to learn from.")
        if not hasattr(self.teacher, "predict_proba") or isinstance(self.teacher, type):
            raise TypeError(
                f"teacher must be a fitted classifier with predict_proba, got {self.teacher!r:.60} "
                f"of type {type(self.teacher).__name__}."
            )
        check_is_fitted(self.teacher)
        return np.asarray(self.teacher.classes_)

    def _class_index(self, y: Any, n: int, classes: np.ndarray) -> np.ndarray:
        """Return the index of each label among the teacher's classes, -1 where unknown."""
        y = check_labels("y", np.full(n, -1) if y is None else y, n=n, allow_unlabelled=True)
        known = y != UNLABELLED
        if new := sorted(set(y[known].tolist()) - set(classes.tolist())):
            raise ValueError(f"y has the labels {new}, which the teacher does not know.")
        if self.alpha == 0 and not known.any():
            raise ValueError("alpha=0 leaves the teacher out, and y has no label to learn from.")
        index = {label: i for i, label in enumerate(classes.tolist())}
        return np.array([index.get(label, UNLABELLED) for label in y.tolist()], dtype=np.int64)

    def _check_parameters(self) -> None:
        check_choice("pruning", self.pruning, PRUNING)
        check_choice("scope", self.scope, SCOPES)
        check_choice("dtype", self.dtype, ["float32", "float64"])
        check_number("sparsity", self.sparsity, low=0, high=1)
        check_number("temperature", self.temperature, low=0, low_open=True)
        check_number("alpha", self.alpha, low=0, high=1)
        check_number("epochs", self.epochs, low=0, integer=True)
        check_number("batch_size", self.batch_size, low=1, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)
        check_number("weight_decay", self.weight_decay, low=0)

    def _fitted_arrays(self) -> Arrays:
        arrays = super()._fitted_arrays()
        for name, weight in self._weights().items():
            if self.quantized_ and name in self._integers:
                weight, scale = self._integers[name]
                arrays[f"scale.{name}"] = np.asarray(scale, np.float64)
            arrays |= pack(f"network.{name}", weight)
        return arrays

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        whole = unpack(arrays)
        weights, scales = part_of(whole, "network"), part_of(whole, "scale")
        self._rebuild()
        if not self.quantized_:
            self._engine.load(weights)
            return
        self._integers = {name: (weights[name], scale) for name, scale in scales.items()}
        self._stored = {name: w for name, w in weights.items() if name not in scales}
        self._load_others()
        if self.quantized_.startswith("framework"):
            self._engine.int8_layers("activations" in self.quantized_, self._integers)
