"""Small classifiers that learn from large ones: what they share whatever the framework.

The loss of distillation and the training step stand in ``torch/compression.py`` and
``tf/compression.py``; masks and whole numbers in ``_compression.py``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

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
from fewshot_course.both.fine_tuning import FineTunedClassifier, draw_weights, head_shapes
from fewshot_course.both.probe import unit
from fewshot_course.both.pruning import (
    PRUNING,
    SCOPES,
    dequantize,
    magnitude_masks,
    quantize_symmetric,
)
from fewshot_course.both.texts import Tokens, check_max_length, check_texts, tokenise
from fewshot_course.both.training import describe
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

    network_: Any
    quantized_: str = ""
    _stored: Arrays
    _integers: Integers
    _device: str = "cpu"

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
        self._check_teacher()
        X = self._check_inputs(X)
        labels = self._class_index(y, len(X))
        streams = Streams.from_seed(self.random_state)
        self._begin(streams.init, self._place(device))
        self.history_: Arrays = {}
        if not self.epochs:
            self._prune_now()
            return self
        examples = self._examples(X, labels, teacher_logits(self.teacher, X), streams)
        params = {k: v for k, v in self.get_params(deep=False).items() if k != "teacher"}
        fingerprint = {"method": type(self).__name__, "params": describe(params)}
        self.history_ = self._train(
            examples, streams, fingerprint,
            progress=progress, log_dir=log_dir, checkpoint_dir=checkpoint_dir,
        )  # fmt: skip
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)`` float64, in the order of ``classes_``."""
        check_is_fitted(self, "network_")
        return softmax(self._logits(self._check_inputs(X)).astype(np.float64), axis=1)

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
        self._check_teacher()
        self._begin(np.random.default_rng(0), "cpu")
        self.history_ = {}
        self._prune_now()
        return self

    def _prune_now(self) -> None:
        if self.sparsity:
            weights = self._weights()
            chosen = {name: w for name, w in weights.items() if self._prunable(name, w)}
            masks = magnitude_masks(chosen, self.sparsity, self.scope)
            self._load_weights(weights | {n: chosen[n] * mask for n, mask in masks.items()})

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
            self._integers |= self._int8_layers(activations, None)
        self._load_others()
        return self

    def _load_others(self) -> None:
        """Give the float layers what the whole numbers stand for."""
        self._load_weights(self._weights())

    def _weights(self) -> Arrays:
        """Return the weights in canonical layout, as floats."""
        if not self.quantized_:
            return self._network_weights()
        floats = {n: dequantize(*pair, 0).astype(np.float32) for n, pair in self._integers.items()}
        return self._stored | floats

    def _check_teacher(self) -> None:
        if self.teacher is None:
            raise ValueError("teacher is None: give a fitted classifier to learn from.")
        if not hasattr(self.teacher, "predict_proba") or isinstance(self.teacher, type):
            raise TypeError(
                f"teacher must be a fitted classifier with predict_proba, got {self.teacher!r:.60} "
                f"of type {type(self.teacher).__name__}."
            )
        check_is_fitted(self.teacher)
        self.classes_ = np.asarray(self.teacher.classes_)
        self.quantized_ = ""

    def _class_index(self, y: Any, n: int) -> np.ndarray:
        """Return the index of each label among the teacher's classes, -1 where unknown."""
        y = check_labels("y", np.full(n, -1) if y is None else y, n=n, allow_unlabelled=True)
        known = y != UNLABELLED
        if new := sorted(set(y[known].tolist()) - set(self.classes_.tolist())):
            raise ValueError(f"y has the labels {new}, which the teacher does not know.")
        if self.alpha == 0 and not known.any():
            raise ValueError("alpha=0 leaves the teacher out, and y has no label to learn from.")
        index = {label: i for i, label in enumerate(self.classes_.tolist())}
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
        arrays: Arrays = {}
        for name, weight in self._weights().items():
            if self.quantized_ and name in self._integers:
                weight, scale = self._integers[name]
                arrays[f"scale.{name}"] = np.asarray(scale, np.float64)
            arrays |= pack(f"network.{name}", weight)
        return arrays

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        whole = unpack(arrays)
        weights, scales = part_of(whole, "network"), part_of(whole, "scale")
        self._rebuild()
        if not self.quantized_:
            self._load_weights(weights)
            return
        self._integers = {name: (weights[name], scale) for name, scale in scales.items()}
        self._stored = {name: w for name, w in weights.items() if name not in scales}
        self._load_others()
        if self.quantized_.startswith("framework"):
            self._int8_layers("activations" in self.quantized_, self._integers)

    # ------------------------------------------------ what a subclass adds

    def _check_inputs(self, X: Any) -> Any:
        raise NotImplementedError  # texts or images

    def _examples(self, X: Any, labels: np.ndarray, logits: np.ndarray, streams: Streams) -> Any:
        raise NotImplementedError  # texts or images

    def _begin(self, rng: np.random.Generator, device: str) -> None:
        """Make ``network_`` with the weights to start from, and note what a file must know."""
        raise NotImplementedError  # texts or images

    def _rebuild(self) -> None:
        """Make ``network_`` from what a file knows."""
        raise NotImplementedError  # texts or images

    def _prunable(self, name: str, weight: np.ndarray) -> bool:
        """Whether pruning may take weights of an array."""
        raise NotImplementedError  # texts or images

    # ------------------------------------------------ what a framework adds

    def _place(self, device: str) -> str:
        raise NotImplementedError  # the framework knows its devices

    def _train(
        self, examples: Examples, streams: Streams, fingerprint: Mapping[str, Any], **options: Any
    ) -> Arrays:
        raise NotImplementedError  # the framework has the step

    def _logits(self, X: Any) -> np.ndarray:
        raise NotImplementedError  # the framework has the network

    def _network_weights(self) -> Arrays:
        raise NotImplementedError  # the framework has the network

    def _load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load floats into the layers that are not of whole numbers."""
        raise NotImplementedError  # the framework has the network

    def _int8_layers(self, activations: bool, integers: Integers | None) -> Integers:
        """Have the framework quantise its linear layers; ``integers``: take these."""
        raise NotImplementedError  # the framework has the means


# ---------------------------------------------------------------- texts


@dataclass(frozen=True)
class Start:
    """What a text student starts from.

    Attributes:
        files: the pretrained model's, for the tokenizer.
        config: the teacher's architecture.
        arrays: canonical name → weight, of the encoder and, if there is one, of the head.
        normalize: whether features get the length 1 before the head.
    """

    files: BertFiles
    config: BertConfig
    arrays: Arrays
    normalize: bool


class CompressedTexts(CompressedClassifier):
    """The part for texts that needs no framework."""

    layers: int | None
    features: float | None
    model: str | os.PathLike[str] | None
    max_length: int

    _facts = ("encoder_sha256_", "layers_", "normalize_", "quantized_")

    def _check_inputs(self, X: Any) -> list[str]:
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
        if isinstance(self.teacher, FineTunedClassifier):
            return self.teacher.head == "linear"
        return isinstance(self.teacher, CompressedTexts)

    def _begin(self, rng: np.random.Generator, device: str) -> None:
        start = self._start()
        check_max_length(self.max_length, start.config.max_position_embeddings)
        self._files, self._device = start.files, device
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
        self._build(config, arrays)

    def _start(self) -> Start:
        teacher = self.teacher
        if isinstance(teacher, FineTunedClassifier):
            files = teacher._find_again()
            if teacher._is_linear_probe:
                body = {f"bert.{n}": a for n, a in read_weights(files, self.dtype).items()}
                return Start(files, files.config, body | teacher.head_, True)
            arrays = _merged(teacher._weights(), teacher.lora_alpha)
            if teacher.head != "linear":  # an LSTM's head is of no use on the mean of the tokens
                arrays = {n: a for n, a in arrays.items() if n.startswith("bert.")}
            return Start(files, files.config, arrays, teacher.objective == "contrastive")
        if isinstance(teacher, CompressedTexts):
            files = teacher._find_again()
            config = replace(files.config, num_hidden_layers=teacher.layers_)
            return Start(files, config, teacher._weights(), teacher.normalize_)
        files = find_bert("minilm" if self.model is None else self.model)
        body = {f"bert.{n}": a for n, a in read_weights(files, self.dtype).items()}
        return Start(files, files.config, body, True)

    def _model(self) -> Any:
        """Return the name or folder of the pretrained model, of which the tokenizer is used."""
        if self.model is not None:
            return self.model
        if isinstance(self.teacher, CompressedTexts):
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
        self._build(config, None)

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
        teacher = self.teacher
        if isinstance(teacher, FineTunedClassifier):
            if teacher._is_linear_probe:
                return teacher._encode(texts)
            tokens = teacher._tokenise(texts, teacher._find_again())
            return unit(np.stack(teacher._run(tokens, "features")))
        return unit(np.stack(teacher._run(teacher._tokens(texts), "features")))

    @property
    def _features_weight(self) -> float:
        return FEATURES_WEIGHT if self.features is None else self.features

    def _logits(self, X: list[str]) -> np.ndarray:
        return np.stack(self._run(self._tokens(X), "logits"))

    def _build(self, config: BertConfig, arrays: Arrays | None) -> None:
        """Make ``network_``."""
        raise NotImplementedError  # the framework has the network

    def _run(self, tokens: Tokens, what: str) -> list[np.ndarray]:
        """Return the "logits" or "features" of each text."""
        raise NotImplementedError  # the framework has the network


def _in_teacher(name: str, kept: tuple[int, ...]) -> str:
    """Return what a student's weight is called in its teacher."""
    start = "bert.encoder.layer."
    if not name.startswith(start):
        return name
    index, _, rest = name.removeprefix(start).partition(".")
    return f"{start}{kept[int(index)]}.{rest}"


def _merged(arrays: Arrays, alpha: float) -> Arrays:
    """Add low-rank updates to their weight matrices."""
    merged = {name: array for name, array in arrays.items() if ".lora_" not in name}
    for name, A in arrays.items():
        if name.endswith(".lora_A"):
            layer = name.removesuffix("lora_A")
            update = alpha / len(A) * arrays[f"{layer}lora_B"] @ A
            merged[f"{layer}weight"] = arrays[f"{layer}weight"] + update.astype(A.dtype)
    return merged


# ---------------------------------------------------------------- images


class CompressedImages(CompressedClassifier):
    """The part for images that needs no framework."""

    channels: int | None

    _facts = ("input_shape_", "network_name_", "channels_", "quantized_")
    input_shape_: tuple[int, ...]

    def _check_inputs(self, X: Any) -> np.ndarray:
        known = getattr(self.teacher, "input_shape_", None) or getattr(self, "input_shape_", None)
        X = check_features("X", X, like=known)
        self.input_shape_ = tuple(X.shape[1:])
        return X

    def _prunable(self, name: str, weight: np.ndarray) -> bool:
        return weight.ndim >= 2

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.channels is not None:
            check_number("channels", self.channels, low=1, integer=True)

    def _begin(self, rng: np.random.Generator, device: str) -> None:
        teacher = self.teacher
        self._device = device
        if self.channels is not None:
            if len(getattr(teacher, "input_shape_", self.input_shape_)) < 2:
                raise ValueError("channels is the width of a conv4, but the teacher sees vectors.")
            self.network_name_, self.channels_ = "conv4", self.channels
            self._build(rng)
            return
        if not self._is_image_teacher(teacher):
            raise ValueError(
                f"channels=None makes a network like the teacher's, but a {type(teacher).__name__} "
                "has none; set channels, for example to 16."
            )
        self.input_shape_ = teacher.input_shape_
        if isinstance(teacher, CompressedImages):
            self.network_name_, self.channels_ = teacher.network_name_, teacher.channels_
        else:
            name = teacher.network or ("conv4" if len(self.input_shape_) >= 2 else "mlp")
            if not isinstance(name, str):
                raise ValueError(
                    f"the teacher's network is the user's own factory ({name!r}), which cannot be "
                    "made again in another size; use 'conv4' or 'mlp'."
                )
            self.network_name_, self.channels_ = name, teacher.channels
        self._build(rng)
        arrays = self._teacher_weights()
        self._load_weights({name: array.astype(self.dtype) for name, array in arrays.items()})

    def _teacher_weights(self) -> Arrays:
        if isinstance(self.teacher, CompressedImages):
            return self.teacher._weights()
        return part_of(self.teacher._fitted_arrays(), "network")

    def _rebuild(self) -> None:
        self._device = "cpu"
        self._build(np.random.default_rng(0))

    def _examples(
        self, X: np.ndarray, labels: np.ndarray, logits: np.ndarray, streams: Streams
    ) -> Examples:
        batches = BatchStream(len(X), self.batch_size, streams.batches)
        X = X.astype(self.dtype)
        return Examples(lambda index: (X[index],), labels, logits, None, batches)

    @property
    def _features_weight(self) -> float:
        return 0.0

    def _is_image_teacher(self, teacher: Any) -> bool:
        """Whether it is an image classifier of the course, of either framework."""
        return isinstance(teacher, CompressedImages) or type(teacher).__name__ == "ImageClassifier"

    def _build(self, rng: np.random.Generator) -> None:
        """Make ``network_``."""
        raise NotImplementedError  # the framework has the network


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
    is_text = isinstance(classifier, FineTunedClassifier | CompressedTexts)
    is_image = isinstance(classifier, CompressedImages)
    if not is_text and not is_image and type(classifier).__name__ != "ImageClassifier":
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
