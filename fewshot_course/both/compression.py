"""Small classifiers that learn from large ones: what they share whatever the framework.

The loss of distillation and the training step stand in ``torch/compression.py`` and
``tf/compression.py``; masks and whole numbers in ``pruning.py``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import (
    UNLABELLED,
    check_choice,
    check_features,
    check_labels,
    check_number,
)
from fewshot_course._streams import Streams
from fewshot_course.both.batches import LengthBatches
from fewshot_course.both.bert import BertConfig, BertFiles, find_bert, read_weights
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.fine_tuning import Start, TextClassifier, draw_weights, head_shapes
from fewshot_course.both.image_transfer import ImageClassifier
from fewshot_course.both.probe import unit
from fewshot_course.both.pruning import (
    PRUNING,
    SCOPES,
    dequantize,
    magnitude_masks,
    quantize_symmetric,
)
from fewshot_course.both.texts import Tokens, check_max_length, check_texts, tokenise
from fewshot_course.both.training import Run, fingerprint_of
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
    _features_weight: float
    normalize_: bool

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
        progress: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Learn what the teacher says, and the labels where there are any.

        Args:
            X: the examples, as the teacher takes them.
            y: labels, -1 where unknown, ``(n,)``; ``None``: all unknown.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar.
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
        self.classes_, self.quantized_ = classes, ""
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
        return softmax(self._logits(self._check_inputs(X, self)).astype(np.float64), axis=1)

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
        self._begin(np.random.default_rng(0), "cpu", None)
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


# ---------------------------------------------------------------- texts


class CompressedTextClassifier(CompressedClassifier):
    """A small classifier of texts that learns from a large one.

    The student has some of the teacher's layers and starts from their weights.  It learns by
    AdamW from the teacher's soft labels, from hard labels where there are any
    (``distillation_loss``), and from the teacher's features.  Texts need no labels: give all
    you have.  With a ``sparsity`` its weights are pruned on the way, and what was pruned stays 0.

    The table of words is not trained: words that the few texts lack keep their place.

    Args:
        teacher: a fitted classifier with ``predict_proba``; a ``TextClassifier`` or another
            student gives weights to start from too.
        layers: of the student, spread evenly over the teacher's; ``None``: all.
        sparsity: share of the weights of words and layers that end as 0, in [0, 1].
        pruning: "one-shot" (before training) or "gradual" (on the way, Zhu & Gupta 2017).
        scope: the same share of each matrix ("layer"), or of all together ("global").
        temperature: T of the soft labels, > 0.
        alpha: weight of the soft labels, in [0, 1].
        features: weight of the squared distance to the teacher's features, both of length 1
            (Romero et al. 2015); ``None``: 10 where the teacher has features of that width.
        epochs: passes over the texts; 0: only cut and prune.
        batch_size: texts in a step.
        lr: AdamW's learning rate; it rises over a tenth of the steps, then falls to 0.
        weight_decay: of AdamW; biases and layer norms are not decayed.
        model: pretrained model to start from where the teacher is none of the course's;
            ``None``: the teacher's, or "minilm".
        max_length: tokens a text may have; longer ones are cut, which a warning announces.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the student, a ``TextNetwork`` of ``fine_tuning``.
        classes_: labels, ``(C,)`` int64.
        history_: "loss" ``(steps,)``.
        layers_: number of its layers.
        quantized_: "" for floats, else how it was quantised.
    """

    _facts = ("encoder_sha256_", "layers_", "normalize_", "quantized_")

    def __init__(
        self,
        teacher: Any = None,
        layers: int | None = 2,
        sparsity: float = 0.0,
        pruning: str = "gradual",
        scope: str = "layer",
        temperature: float = 2.0,
        alpha: float = 0.5,
        features: float | None = None,
        epochs: int = 10,
        batch_size: int = 32,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        model: Any = None,
        max_length: int = 128,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.teacher = teacher
        self.layers = layers
        self.sparsity = sparsity
        self.pruning = pruning
        self.scope = scope
        self.temperature = temperature
        self.alpha = alpha
        self.features = features
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.model = model
        self.max_length = max_length
        self.dtype = dtype
        self.random_state = random_state

    def _check_inputs(self, X: Any, like: Any) -> list[str]:
        return check_texts("X", X)

    def _prunable(self, name: str, weight: np.ndarray) -> bool:
        words = name == f"{FROZEN}word_embeddings.weight"
        return words or (weight.ndim == 2 and name.startswith("bert.encoder."))

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.layers is not None:
            check_number("layers", self.layers, low=1, integer=True)
        if self.features is not None:
            check_number("features", self.features, low=0)
            if self.features and self.teacher is not None and not self._teacher_has_features:
                raise ValueError(
                    f"features={self.features:g} needs a teacher with features: a TextClassifier "
                    f"with a linear head or a CompressedTextClassifier, got "
                    f"{type(self.teacher).__name__}; set features=0."
                )

    @property
    def _teacher_has_features(self) -> bool:
        if isinstance(self.teacher, TextClassifier):
            return self.teacher.head == "linear"
        return isinstance(self.teacher, CompressedTextClassifier)

    def _begin(self, rng: np.random.Generator, device: str, X: list[str] | None) -> None:
        start = self._start()
        check_max_length(self.max_length, start.config.max_position_embeddings)
        self._files = start.files
        self.encoder_sha256_ = start.files.sha256
        self.normalize_ = start.normalize
        kept = kept_layers(start.config.num_hidden_layers, self.layers)
        self.layers_ = len(kept)
        head = head_shapes("linear", start.config.hidden_size, len(self.classes_))
        arrays = draw_weights({n: s for n, s in head.items() if n not in start.arrays}, rng)
        config = replace(start.config, num_hidden_layers=len(kept))
        for name in [*(f"bert.{n}" for n in config.shapes()), *head]:
            if name not in arrays:
                arrays[name] = start.arrays[_in_teacher(name, kept)].astype(self.dtype)
        self._engine = self._engines.for_texts(
            config, len(self.classes_), self.normalize_, self.dtype, device
        )
        self._engine.load(arrays)

    def _start(self) -> Start:
        if isinstance(self.teacher, TextClassifier | CompressedTextClassifier):
            return self.teacher.starting_point()
        files = find_bert("minilm" if self.model is None else self.model)
        body = {f"bert.{n}": a for n, a in read_weights(files, self.dtype).items()}
        return Start(files, files.config, body, True)

    def starting_point(self) -> Start:
        """Return what a still smaller copy starts from."""
        check_is_fitted(self, "network_")
        files = self._find_again()
        config = replace(files.config, num_hidden_layers=self.layers_)
        return Start(files, config, self._weights(), self.normalize_)

    def encode(self, X: Any) -> np.ndarray:
        """Return the features that the head sees, with length 1, ``(n, d)``."""
        check_is_fitted(self, "network_")
        tokens = self._tokens(check_texts("X", X))
        return unit(np.stack(self._engine.run_texts(tokens, "features")))

    def _model(self) -> Any:
        """Return the name or folder of the pretrained model, of which the tokenizer is used."""
        if self.model is not None:
            return self.model
        if isinstance(self.teacher, CompressedTextClassifier):
            return self.teacher._model()
        return getattr(self.teacher, "model", None) or "minilm"

    def _find_again(self) -> BertFiles:
        """Find the files of a fitted classifier; raise if they are another model's now."""
        if not hasattr(self, "_files"):
            files = find_bert(self._model())
            if files.sha256 != self.encoder_sha256_:
                raise ValueError(
                    f"model={str(self._model())!r} is another one than when this classifier was "
                    f"fitted (SHA-256 {files.sha256[:16]}..., then {self.encoder_sha256_[:16]}...)."
                )
            self._files = files
        return self._files

    def _rebuild(self) -> None:
        config = replace(self._find_again().config, num_hidden_layers=self.layers_)
        self._engine = self._engines.for_texts(
            config, len(self.classes_), self.normalize_, self.dtype, "cpu"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the whole network into one file, without the teacher and the tokenizer.

        Whole numbers are written as such; a pruned array as one bit a place and what is not 0.
        The loaded copy predicts; to ``fit`` again it has to be given a ``teacher`` anew.

        Args:
            path: the file; its folder must exist.

        Raises:
            NotFittedError: if it is not fitted.
        """
        portable = copy.copy(self)
        portable.model = self._model()
        return CompressedClassifier.save(portable, path)

    def _tokens(self, texts: list[str]) -> Tokens:
        files = self._find_again()
        pad_id = files.config.pad_token_id
        return tokenise(
            texts, files.folder, max_length=self.max_length, pad_id=pad_id, stacklevel=5
        )

    def _examples(
        self, X: list[str], labels: np.ndarray, logits: np.ndarray, streams: Streams
    ) -> Examples:
        tokens = self._tokens(X)
        batches = LengthBatches(tokens.lengths, self.batch_size, streams.batches)
        return Examples(tokens.pad, labels, logits, self._teacher_features(X), batches)

    def _teacher_features(self, texts: list[str]) -> np.ndarray | None:
        """Return the teacher's features, of length 1, if they are learned from."""
        if not self._teacher_has_features or not self._features_weight:
            return None
        return self.teacher.encode(texts)

    @property
    def _features_weight(self) -> float:  # type: ignore[override]
        return FEATURES_WEIGHT if self.features is None else self.features

    def _logits(self, X: list[str]) -> np.ndarray:
        return np.stack(self._engine.run_texts(self._tokens(X), "logits"))


def _in_teacher(name: str, kept: tuple[int, ...]) -> str:
    """Return what a student's weight is called in its teacher."""
    start = "bert.encoder.layer."
    if not name.startswith(start):
        return name
    index, _, rest = name.removeprefix(start).partition(".")
    return f"{start}{kept[int(index)]}.{rest}"


# ---------------------------------------------------------------- images


class CompressedImageClassifier(CompressedClassifier):
    """A small classifier of images that learns from a large one.

    With ``channels`` the student is a new, narrower conv4; without, a copy of the teacher's
    network, to be pruned.  It learns by AdamW from the teacher's soft labels, and from hard
    labels where there are any (``distillation_loss``).

    Args:
        teacher: a fitted classifier with ``predict_proba``.
        channels: width of the student's conv4; ``None``: the teacher's network and weights.
        sparsity: share of the weights of convolutions and linear layers that end as 0.
        pruning: "one-shot" (before training) or "gradual" (on the way, Zhu & Gupta 2017).
        scope: the same share of each array ("layer"), or of all together ("global").
        temperature: T of the soft labels, > 0.
        alpha: weight of the soft labels, in [0, 1].
        epochs: passes over the images; 0: only copy and prune.
        batch_size: images in a step; all of them where there are fewer.
        lr: AdamW's learning rate; it rises over a tenth of the steps, then falls to 0.
        weight_decay: of AdamW; biases and normalisation weights are not decayed.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the student.
        classes_: labels, ``(C,)`` int64.
        input_shape_: shape of one image.
        history_: "loss" ``(steps,)``.
        quantized_: "" for floats, else how it was quantised.
    """

    _facts = ("input_shape_", "network_name_", "channels_", "quantized_")
    input_shape_: tuple[int, ...]
    normalize_ = False
    _features_weight = 0.0

    def __init__(
        self,
        teacher: Any = None,
        channels: int | None = 16,
        sparsity: float = 0.0,
        pruning: str = "gradual",
        scope: str = "layer",
        temperature: float = 2.0,
        alpha: float = 0.5,
        epochs: int = 20,
        batch_size: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.teacher = teacher
        self.channels = channels
        self.sparsity = sparsity
        self.pruning = pruning
        self.scope = scope
        self.temperature = temperature
        self.alpha = alpha
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.dtype = dtype
        self.random_state = random_state

    def _check_inputs(self, X: Any, like: Any) -> np.ndarray:
        """Check images; they are shaped as ``like``, the teacher or this student, has seen them."""
        return check_features("X", X, like=getattr(like, "input_shape_", None))

    def _prunable(self, name: str, weight: np.ndarray) -> bool:
        return weight.ndim >= 2

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.channels is not None:
            check_number("channels", self.channels, low=1, integer=True)

    def _begin(self, rng: np.random.Generator, device: str, X: np.ndarray | None) -> None:
        teacher = self.teacher
        if X is not None:
            self.input_shape_ = tuple(X.shape[1:])
        if self.channels is not None:
            if len(getattr(teacher, "input_shape_", self.input_shape_)) < 2:
                raise ValueError("channels is the width of a conv4, but the teacher sees vectors.")
            self.network_name_, self.channels_ = "conv4", self.channels
            self._make(rng, device)
            return
        if not isinstance(teacher, ImageClassifier | CompressedImageClassifier):
            raise ValueError(
                f"channels=None makes a network like the teacher's, but a {type(teacher).__name__} "
                "has none; set channels, for example to 16."
            )
        self.input_shape_ = teacher.input_shape_
        if isinstance(teacher, CompressedImageClassifier):
            self.network_name_, self.channels_ = teacher.network_name_, teacher.channels_
        else:
            name = teacher.network or ("conv4" if len(self.input_shape_) >= 2 else "mlp")
            if not isinstance(name, str):
                raise ValueError(
                    f"the teacher's network is the user's own factory ({name!r}), which cannot be "
                    "made again in another size; use 'conv4' or 'mlp'."
                )
            self.network_name_, self.channels_ = name, teacher.channels
        self._make(rng, device)
        arrays = self._teacher_weights()
        self._engine.load({name: array.astype(self.dtype) for name, array in arrays.items()})

    def _make(self, rng: np.random.Generator, device: str) -> None:
        self._engine = self._engines.for_images(
            self.network_name_, self.input_shape_, len(self.classes_), self.channels_, rng,
            self.dtype, device,
        )  # fmt: skip

    def _logits(self, X: np.ndarray) -> np.ndarray:
        return self._engine.run_images(X)

    def _teacher_weights(self) -> Arrays:
        if isinstance(self.teacher, CompressedImageClassifier):
            return self.teacher._weights()
        return part_of(self.teacher._fitted_arrays(), "network")

    def _rebuild(self) -> None:
        self._make(np.random.default_rng(0), "cpu")

    def _examples(
        self, X: np.ndarray, labels: np.ndarray, logits: np.ndarray, streams: Streams
    ) -> Examples:
        batches = BatchStream(len(X), self.batch_size, streams.batches)
        X = X.astype(self.dtype)
        return Examples(lambda index: (X[index],), labels, logits, None, batches)


def fitted_copy(classifier: Any, texts: type, images: type, sparsity: float, scope: str) -> Any:
    """Return a compressed classifier that predicts as ``classifier`` does, but for pruning.

    Args:
        classifier: fitted.
        texts: the framework's class for texts.
        images: the framework's class for images.
        sparsity: share of the weights that is set to 0.
        scope: see :func:`~fewshot_course.both.pruning.magnitude_masks`.

    Raises:
        TypeError: for a classifier that has no network of the course.
        NotFittedError: if it is not fitted.
    """
    settings: dict[str, Any] = {"sparsity": sparsity, "pruning": "one-shot", "scope": scope}
    is_text = isinstance(classifier, TextClassifier | CompressedTextClassifier)
    if not is_text and not isinstance(classifier, ImageClassifier | CompressedImageClassifier):
        raise TypeError(
            "classifier must be a TextClassifier, an ImageClassifier or a compressed one, got "
            f"{type(classifier).__name__}."
        )
    check_is_fitted(classifier)
    settings |= {"epochs": 0, "dtype": classifier.dtype}
    if not is_text:
        return images(classifier, channels=None, **settings)._copy_of(classifier)
    if getattr(classifier, "head", "linear") != "linear":
        raise ValueError("only a linear head can be kept; this classifier has an LSTM.")
    settings["max_length"] = classifier.max_length
    return texts(classifier, layers=None, **settings)._copy_of(classifier)
