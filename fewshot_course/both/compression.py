"""Small classifiers of texts and of images that learn from large ones.

What both kinds share stands in ``student.py``.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import check_features, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.batches import LengthBatches
from fewshot_course.both.bert import BertFiles, find_bert, read_weights
from fewshot_course.both.fine_tuning import Start, TextClassifier, draw_weights, head_shapes
from fewshot_course.both.image_transfer import ImageClassifier
from fewshot_course.both.probe import unit
from fewshot_course.both.student import (
    FEATURES_WEIGHT,
    FROZEN,
    CompressedClassifier,
    Examples,
    kept_layers,
)
from fewshot_course.both.texts import Tokens, check_max_length, check_texts, tokenise
from fewshot_course.data import BatchStream
from fewshot_course.weights import Arrays, part_of

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
        check_number("max_length", self.max_length, low=3, integer=True)
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
        features: np.ndarray = self.teacher.encode(texts)
        return features

    @property
    def _features_weight(self) -> float:
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
