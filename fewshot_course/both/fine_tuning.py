"""Fine-tuning a small pretrained BERT on few labelled texts: what is asked and answered.

The network, its losses and the training step stand in ``torch/fine_tuning.py`` and
``tf/fine_tuning.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.special import softmax
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import UNLABELLED, check_choice, check_labels, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.batches import LengthBatches, PairBatches, batches_by_length
from fewshot_course.both.bert import BertConfig, BertFiles, find_bert, read_weights
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.optim import Schedule
from fewshot_course.both.probe import fit_probe, unit
from fewshot_course.both.pseudo_labels import check_classes, class_index
from fewshot_course.both.texts import Tokens, check_max_length, check_texts, tokenise
from fewshot_course.both.training import Progress, Run, check_precision, fingerprint_of
from fewshot_course.weights import Arrays

LSTM_UNITS = 128
LEARNING_RATES = {"full": 5e-5, "top": 1e-4, "lora": 1e-3}
"""Rates of the encoder where ``lr`` is None."""

AT_ONCE = 32  # texts in one batch of a prediction


# ---------------------------------------------------------------- weights that are new


def head_shapes(head: str, width: int, n_classes: int) -> dict[str, tuple[int, ...]]:
    """Return canonical name → shape of what stands on the encoder."""
    if head == "linear":
        return {"head.weight": (n_classes, width), "head.bias": (n_classes,)}
    gates = 4 * LSTM_UNITS
    return {
        "lstm.weight_ih_l0": (gates, width),
        "lstm.weight_hh_l0": (gates, LSTM_UNITS),
        "lstm.bias_ih_l0": (gates,),
        "lstm.bias_hh_l0": (gates,),
        "head.weight": (n_classes, LSTM_UNITS),
        "head.bias": (n_classes,),
    }


def draw_weights(
    shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw new weights: BERT's own start for linear layers, torch's for an LSTM, LoRA's for LoRA.

    Linear weights are normal with standard deviation 0.02, their biases 0; layer norms start as
    the identity; an LSTM is uniform in ±1/√units, with a second bias of 0 that stays; LoRA's A
    is uniform in ±1/√n_in and its B is 0.

    Args:
        shapes: canonical name → shape.
        rng: the ``init`` stream.
    """
    arrays = {}
    for name, shape in shapes.items():
        kind = name.rpartition(".")[2]
        if kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
            bound = (shape[0] // 4) ** -0.5
            arrays[name] = rng.uniform(-bound, bound, size=shape)
        elif kind == "lora_A":
            arrays[name] = rng.uniform(-(shape[1] ** -0.5), shape[1] ** -0.5, size=shape)
        elif kind == "weight":
            is_norm = len(shape) == 1
            arrays[name] = np.ones(shape) if is_norm else 0.02 * rng.standard_normal(shape)
        else:
            arrays[name] = np.zeros(shape)
    return arrays


def top_names(config: BertConfig, layers: int) -> list[str]:
    """Return the canonical names of the uppermost layers' weights."""
    first = config.num_hidden_layers - layers
    prefixes = tuple(f"encoder.layer.{i}." for i in range(first, config.num_hidden_layers))
    return [f"bert.{name}" for name in config.shapes() if name.startswith(prefixes)]


# ---------------------------------------------------------------- the few labels


@dataclass(frozen=True)
class TextData:
    """Texts to learn from or to stop by.

    Attributes:
        tokens: the texts.
        labels: class indices ``(n,)`` int64.
        weights: weight of each text's loss, ``(n,)``.
        sequences: outputs of a frozen encoder, ``(length, d)`` a text; ``None``: it is trained.
    """

    tokens: Tokens
    labels: np.ndarray
    weights: np.ndarray
    sequences: tuple[np.ndarray, ...] | None = None

    def parts(self) -> list[np.ndarray]:
        """Return index arrays that together hold every text once, for a loss over all."""
        return np.array_split(np.arange(len(self.labels)), -(-len(self.labels) // AT_ONCE))

    def take(self, index: np.ndarray) -> TextData:
        """Return some of the texts."""
        ids = tuple(self.tokens.ids[i] for i in index)
        tokens = replace(self.tokens, ids=ids, lengths=self.tokens.lengths[index])
        kept = None if self.sequences is None else tuple(self.sequences[i] for i in index)
        return TextData(tokens, self.labels[index], self.weights[index], kept)

    def inputs(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch: token numbers ``(b, L)`` or sequences ``(b, L, d)``, and its mask."""
        ids, mask = self.tokens.pad(index)
        if self.sequences is None:
            return ids, mask
        padded = np.zeros((*ids.shape, self.sequences[0].shape[1]), self.sequences[0].dtype)
        for row, text in enumerate(index):
            padded[row, : self.tokens.lengths[text]] = self.sequences[text]
        return padded, mask


def example_weights(class_weight: Any, y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the weight of each example, ``(n,)`` float64.

    Args:
        class_weight: ``None`` (all 1), "balanced" (n / (classes · count)), or label → weight.
        y: labels ``(n,)``.
        classes: the labels there are.

    Raises:
        TypeError: for anything else.
        ValueError: for a class without a weight, or a negative one.
    """
    if class_weight is None:
        return np.ones(len(y))
    if isinstance(class_weight, str):
        check_choice("class_weight", class_weight, ["balanced"])
        balanced = compute_class_weight("balanced", classes=classes, y=y)
        of_class = dict(zip(classes, balanced, strict=True))
    elif isinstance(class_weight, Mapping):
        of_class = {int(label): weight for label, weight in class_weight.items()}
        if missing := [int(label) for label in classes if label not in of_class]:
            raise ValueError(f"class_weight has no weight for the classes {missing}.")
        for label, weight in of_class.items():
            check_number(f"class_weight[{label}]", weight, low=0)
    else:
        raise TypeError(
            f"class_weight must be None, 'balanced' or a dict, got {type(class_weight).__name__}."
        )
    return np.array([of_class[label] for label in y], dtype=np.float64)


def hold_out(
    labels: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Set a part of the few labels aside, at least one of each class.

    Args:
        labels: class indices ``(n,)``.
        fraction: in (0, 1).
        rng: the ``batches`` stream.

    Returns:
        Indices to train on and indices to stop by, ascending.

    Raises:
        ValueError: if a class has too few examples to give one away.
    """
    aside = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        n = max(1, round(fraction * len(members)))
        if n >= len(members):
            raise ValueError(
                f"validation_fraction={fraction:g} would leave none of the {len(members)} "
                f"example(s) of a class to train on; lower it, or set it to 0."
            )
        aside.append(members[:n])
    held = np.sort(np.concatenate(aside))
    return np.setdiff1d(np.arange(len(labels)), held), held


@dataclass(frozen=True)
class Start:
    """What a smaller copy of a text classifier starts from.

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


def _merged(arrays: Arrays, alpha: float) -> Arrays:
    """Add low-rank updates to their weight matrices."""
    merged = {name: array for name, array in arrays.items() if ".lora_" not in name}
    for name, A in arrays.items():
        if name.endswith(".lora_A"):
            layer = name.removesuffix("lora_A")
            update = alpha / len(A) * arrays[f"{layer}lora_B"] @ A
            merged[f"{layer}weight"] = arrays[f"{layer}weight"] + update.astype(A.dtype)
    return merged


# ---------------------------------------------------------------- the estimator


class TextClassifier(CourseClassifier):
    """A classifier of texts on a pretrained BERT, for few labels.

    A linear probe (``tune="probe"``, the default) is logistic regression on frozen features,
    solved to its optimum.  All else is trained by AdamW on the cross-entropy, or, with
    ``objective="contrastive"``, in two stages as SetFit (Tunstall et al. 2022): pairs first, then
    a probe on the tuned features.

    Args:
        model: "minilm", or a folder in Hugging Face's format.
        head: "linear" on the mean of the token vectors, or "lstm": 128 units over the tokens.
        tune: what of the encoder is trained: nothing ("probe"), all ("full"), the uppermost
            layers ("top"), or low-rank updates of queries and values ("lora", Hu et al. 2022).
        objective: "cross_entropy" or "contrastive".
        top_layers: number of layers that "top" trains.
        lora_rank: r of LoRA.
        lora_alpha: α of LoRA; updates are scaled by α/r.
        reinit_layers: uppermost layers that start anew (Zhang et al. 2021).
        epochs: passes over the labelled texts.
        batch_size: texts in a step.
        lr: AdamW's rate for the encoder; ``None``: 5e-5 (full), 1e-4 (top), 1e-3 (lora).
        head_lr: its rate for the head.
        weight_decay: of AdamW; biases and layer norms are not decayed.
        dropout: probability of dropping, in the encoder and before the head, in [0, 1).
        l2_sp: strength of the pull to the pretrained weight matrices (Li et al. 2018), ≥ 0.
        warmup: part of the steps in which the rate rises from 0.
        schedule: thereafter "linear" to 0, "constant", or "plateau": cut when the validation
            loss, or else the training loss, has stopped falling.
        plateau_factor: what a plateau multiplies the rate by, in (0, 1).
        plateau_patience: epochs without improvement (of 1e-4, relative) before that.
        validation_fraction: part of the labelled texts set aside to stop early by, in [0, 1).
        patience: epochs without a lower validation loss that end the training; the weights of
            the best epoch are kept.
        class_weight: ``None``, "balanced", or a dict label → weight.
        C: inverse strength of the probe's penalty, as in scikit-learn.
        max_length: tokens a text may have; longer ones are cut, which a warning announces.
        cache: whether a probe's features are kept on disk.
        dtype: "float32" or "float64".
        precision: what matrix products are computed in while training: "float32" (that is,
            ``dtype``), "bfloat16", or, on a GPU, "float16" with a loss scale; the weights and
            all predictions stay in float32.
        accumulate: parts in which a batch is worked through; needs the memory of one part, and
            gives the gradient of the whole batch.
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the trained ``TextNetwork``; not for a linear probe.
        head_: "head.weight" ``(C, d)`` and "head.bias" ``(C,)`` of a linear probe, which takes
            features of length 1.
        classes_: labels, ``(C,)`` int64.
        encoder_sha256_: which pretrained model it stands on.
        history_: "loss" ``(steps,)``; "validation_loss" ``(epochs,)``; empty for a linear probe.
        best_epoch_: epoch of the weights that were kept, where a part was set aside.
    """

    _facts = ("encoder_sha256_",)
    network_: Any

    # Beside the three doors: frozen features, and weights to and from arrays.
    _encode: Callable[[list[str]], np.ndarray]
    _weights: Callable[..., dict[str, np.ndarray]]

    def __init__(
        self,
        model: str | os.PathLike[str] = "minilm",
        head: str = "linear",
        tune: str = "probe",
        objective: str = "cross_entropy",
        top_layers: int = 2,
        lora_rank: int = 8,
        lora_alpha: float = 16.0,
        reinit_layers: int = 0,
        epochs: int = 20,
        batch_size: int = 16,
        lr: float | None = None,
        head_lr: float = 1e-3,
        weight_decay: float = 0.01,
        dropout: float = 0.1,
        l2_sp: float = 0.0,
        warmup: float = 0.1,
        schedule: str = "linear",
        plateau_factor: float = 0.1,
        plateau_patience: int = 2,
        validation_fraction: float = 0.0,
        patience: int = 5,
        class_weight: str | Mapping[int, float] | None = None,
        C: float = 10.0,
        max_length: int = 128,
        cache: bool = True,
        dtype: str = "float32",
        precision: str = "float32",
        accumulate: int = 1,
        random_state: int | None = None,
    ) -> None:
        self.model = model
        self.head = head
        self.tune = tune
        self.objective = objective
        self.top_layers = top_layers
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.reinit_layers = reinit_layers
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.head_lr = head_lr
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.l2_sp = l2_sp
        self.warmup = warmup
        self.schedule = schedule
        self.plateau_factor = plateau_factor
        self.plateau_patience = plateau_patience
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.class_weight = class_weight
        self.C = C
        self.max_length = max_length
        self.cache = cache
        self.dtype = dtype
        self.precision = precision
        self.accumulate = accumulate
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        device: str = "auto",
        progress: Progress = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Learn from labelled texts.

        The last three options are for what is trained by gradient; a linear probe is not.

        Args:
            X: list of str.
            y: labels ≥ 0, ``(n,)``.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar, or a function that is told of each update:
                it gets how many are done, and name → value of the last one's losses.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            TypeError: if ``X`` is no list of str, or ``y`` holds no whole numbers.
            ValueError: for an empty text, a label of -1, a single class, or a setting out of
                range, that means nothing beside another one, or a precision that the device
                does not support.
            FileNotFoundError: if the model's folder or a file in it is missing.
            fewshot_course.data.DataError: if ``minilm`` cannot be had.
            TrainingDiverged: if the loss is NaN or infinite.
        """
        self._check_parameters()
        texts = check_texts("X", X)
        y = _check_all_labelled(y, len(texts))
        self.classes_ = check_classes(y)
        labels = class_index(y, self.classes_)
        weights = example_weights(self.class_weight, y, self.classes_)
        files = self._find()
        self.encoder_sha256_ = files.sha256
        run = Run(self._resolve(device), progress, log_dir, checkpoint_dir)
        self._device = run.device
        if self._is_linear_probe:
            self.history_: dict[str, np.ndarray] = {}
            self.head_ = fit_probe(self._encode(texts), labels, weights, self.C)
            return self
        streams = Streams.from_seed(self.random_state)
        self._build(files.config, self._start(files, streams.init))
        data = TextData(self._tokenise(texts, files), labels, weights)
        if self.tune == "probe":
            data = replace(data, sequences=tuple(self._apply("sequence", data.tokens)))
        fingerprint = fingerprint_of(self, _as_bytes(texts), labels, weights)
        self.history_ = self._learn(data, streams, fingerprint | {"model": files.sha256}, run)
        if self.objective == "contrastive":
            features = unit(np.stack(self._apply("features", data.tokens)))
            self._weights(fit_probe(features, labels, weights, self.C))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)`` float64, in the order of ``classes_``.

        Raises:
            TypeError: if ``X`` is no list of str.
            ValueError: for an empty text.
        """
        check_is_fitted(self)
        texts = check_texts("X", X)
        files = self._find_again()
        if self._is_linear_probe:
            logits = self._encode(texts) @ self.head_["head.weight"].T + self.head_["head.bias"]
        else:
            logits = np.stack(self._apply("logits", self._tokenise(texts, files)))
        return softmax(logits.astype(np.float64), axis=1)

    def encode(self, X: Any) -> np.ndarray:
        """Return the features that the head sees, with length 1, ``(n, d)``.

        Args:
            X: list of str.
        """
        check_is_fitted(self)
        texts = check_texts("X", X)
        files = self._find_again()
        if self._is_linear_probe:
            return self._encode(texts)
        return unit(np.stack(self._apply("features", self._tokenise(texts, files))))

    def starting_point(self) -> Start:
        """Return what a smaller copy of this classifier starts from; LoRA's updates are added in.

        An LSTM is left out: it is of no use on the mean of the tokens.
        """
        check_is_fitted(self)
        files = self._find_again()
        if self._is_linear_probe:
            body = {f"bert.{n}": a for n, a in read_weights(files, self.dtype).items()}
            return Start(files, files.config, body | self.head_, True)
        arrays = _merged(self._weights(), self.lora_alpha)
        if self.head != "linear":
            arrays = {n: a for n, a in arrays.items() if n.startswith("bert.")}
        return Start(files, files.config, arrays, self.objective == "contrastive")

    @property
    def _is_linear_probe(self) -> bool:
        return self.tune == "probe" and self.head == "linear"

    def _find(self) -> BertFiles:
        """Find the model's files; check the settings that depend on them."""
        files = find_bert(self.model)
        check_max_length(self.max_length, files.config.max_position_embeddings)
        for name in ("top_layers", "reinit_layers"):
            high = files.config.num_hidden_layers
            check_number(name, getattr(self, name), low=0, high=high, integer=True)
        return files

    def _find_again(self) -> BertFiles:
        """Find the files of a fitted classifier; raise if they are another model's now."""
        files = self._find()
        if files.sha256 != self.encoder_sha256_:
            raise ValueError(
                f"model={str(self.model)!r} is another one than when this classifier was fitted "
                f"(SHA-256 {files.sha256[:16]}..., then {self.encoder_sha256_[:16]}...)."
            )
        return files

    def _tokenise(self, texts: list[str], files: BertFiles) -> Tokens:
        pad_id = files.config.pad_token_id
        return tokenise(
            texts, files.folder, max_length=self.max_length, pad_id=pad_id, stacklevel=4
        )

    def _start(self, files: BertFiles, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the weights to start from: new ones are drawn, the rest is pretrained."""
        config = files.config
        shapes = head_shapes(self.head, config.hidden_size, len(self.classes_))
        every = {f"bert.{name}": s for name, s in config.shapes(self._rank).items()}
        again = set(top_names(config, self.reinit_layers))
        shapes |= {n: s for n, s in every.items() if n in again or ".lora_" in n}
        pretrained = {f"bert.{n}": a for n, a in read_weights(files, self.dtype).items()}
        return pretrained | draw_weights(shapes, rng)

    @property
    def _rank(self) -> int:
        return self.lora_rank if self.tune == "lora" else 0

    def _trained(self, config: BertConfig) -> list[str]:
        """Return the canonical names of what is trained, the encoder's before the head's."""
        names: list[str] = []
        if self.tune == "full":
            names = [f"bert.{name}" for name in config.shapes()]
        elif self.tune == "top":
            names = top_names(config, self.top_layers)
        elif self.tune == "lora":
            names = [f"bert.{n}" for n in config.shapes(self.lora_rank) if ".lora_" in n]
        head = head_shapes(self.head, config.hidden_size, len(self.classes_))
        return names + [name for name in head if name != "lstm.bias_hh_l0"]

    def _anchored(self, config: BertConfig) -> list[str]:
        """Return the names of the weights that L2-SP holds near their pretrained values.

        Biases and layer norms are free, as in weight decay: the gradient of a key's bias is 0 but
        for rounding, which the pull and Adam together would blow up.
        """
        if not self.l2_sp:
            return []
        drawn, shapes = set(top_names(config, self.reinit_layers)), config.shapes()
        matrices = {f"bert.{name}" for name, shape in shapes.items() if len(shape) > 1} - drawn
        return [name for name in self._trained(config) if name in matrices]

    def _split(self, data: TextData, streams: Streams) -> tuple[TextData, TextData | None]:
        if not self.validation_fraction:
            return data, None
        train, aside = hold_out(data.labels, self.validation_fraction, streams.batches)
        return data.take(train), data.take(aside)

    def _batches(self, data: TextData, streams: Streams) -> LengthBatches | PairBatches:
        if self.objective == "contrastive":
            return PairBatches(data.labels, self.batch_size, streams.batches)
        return LengthBatches(data.tokens.lengths, self.batch_size, streams.batches)

    def _schedule(self, batches_per_epoch: int) -> Schedule:
        return Schedule(
            self.schedule, self.epochs * batches_per_epoch, batches_per_epoch, self.warmup,
            self.plateau_factor, self.plateau_patience, self.patience,
        )  # fmt: skip

    def _lr(self) -> float:
        return LEARNING_RATES.get(self.tune, self.head_lr) if self.lr is None else self.lr

    def _check_parameters(self) -> None:
        check_choice("head", self.head, ["linear", "lstm"])
        check_choice("tune", self.tune, ["probe", "full", "top", "lora"])
        check_choice("objective", self.objective, ["cross_entropy", "contrastive"])
        check_choice("schedule", self.schedule, ["linear", "constant", "plateau"])
        check_choice("dtype", self.dtype, ["float32", "float64"])
        check_precision(self.precision, self.dtype)
        for name in ("lora_rank", "epochs", "batch_size", "patience", "accumulate"):
            check_number(name, getattr(self, name), low=1, integer=True)
        for name in ("top_layers", "reinit_layers", "plateau_patience"):
            check_number(name, getattr(self, name), low=0, integer=True)
        for name in ("lora_alpha", "head_lr", "C", "plateau_factor"):
            check_number(name, getattr(self, name), low=0, low_open=True)
        for name in ("weight_decay", "l2_sp"):
            check_number(name, getattr(self, name), low=0)
        check_number("warmup", self.warmup, low=0, high=1)
        if self.lr is not None:
            check_number("lr", self.lr, low=0, low_open=True)
        for name in ("dropout", "validation_fraction", "plateau_factor"):
            if not 0 <= check_number(name, getattr(self, name)) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)!r}.")
        self._check_together()

    def _check_together(self) -> None:
        """Refuse settings that mean nothing beside each other, instead of ignoring them."""
        frozen = self.tune in ("probe", "lora")
        if self.reinit_layers and frozen:
            raise ValueError(f"reinit_layers={self.reinit_layers}, but tune={self.tune!r} trains "
                             "no pretrained layer; use 'full' or 'top'.")  # fmt: skip
        if self.tune == "top" and not 0 <= self.reinit_layers <= self.top_layers:
            raise ValueError(f"reinit_layers={self.reinit_layers} is more than the "
                             f"top_layers={self.top_layers} that are trained.")  # fmt: skip
        if self.l2_sp and frozen:
            raise ValueError(f"l2_sp={self.l2_sp:g}, but tune={self.tune!r} leaves the "
                             "pretrained weights where they are.")  # fmt: skip
        if self._is_linear_probe and self.validation_fraction:
            raise ValueError("validation_fraction is for training by gradient; a linear probe is "
                             "solved to its optimum.")  # fmt: skip
        if self._is_linear_probe and (self.precision != "float32" or self.accumulate > 1):
            raise ValueError("precision and accumulate are for training by gradient; a linear "
                             "probe is solved to its optimum.")  # fmt: skip
        if self.objective == "contrastive":
            if self.tune == "probe":
                raise ValueError("objective='contrastive' trains the encoder, tune='probe' does "
                                 "not; use 'full', 'top' or 'lora'.")  # fmt: skip
            if self.head != "linear":
                raise ValueError("objective='contrastive' ends with a linear head, got "
                                 f"head={self.head!r}.")  # fmt: skip
            if self.validation_fraction:
                raise ValueError("validation_fraction is for objective='cross_entropy'.")
            if self.accumulate > 1:
                raise ValueError(f"accumulate={self.accumulate}, but objective='contrastive' "
                                 "compares all texts of a batch; parts lack pairs.")  # fmt: skip

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        arrays = super()._fitted_arrays()
        if self._is_linear_probe:
            return arrays | self.head_
        every = self._weights()
        return arrays | {name: every[name] for name in self._trained(self.network_.bert.config)}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        super()._restore(arrays)
        files = self._find_again()
        self._device = "cpu"
        if self._is_linear_probe:
            self.head_ = dict(arrays)
            return
        start = self._start(files, np.random.default_rng(0))
        self._build(files.config, start | dict(arrays))


def in_batches(
    tokens: Tokens, one: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """Run a network over texts in batches of like length; padding is cut off again.

    Args:
        tokens: the texts.
        one: token numbers and mask ``(b, L)`` → ``(b, ...)`` or ``(b, L, d)``.
    """
    results: list[Any] = [None] * len(tokens)
    for batch in batches_by_length(tokens.lengths, AT_ONCE):
        outputs = one(*tokens.pad(batch))
        for text, output in zip(batch, outputs, strict=True):
            results[text] = output[: tokens.lengths[text]] if outputs.ndim == 3 else output
    return results


def _check_all_labelled(y: Any, n: int) -> np.ndarray:
    labels = check_labels("y", y, n=n, allow_unlabelled=True)
    unknown = int((labels == UNLABELLED).sum())
    if unknown:
        raise ValueError(
            f"y has {unknown} of {n} labels of -1 ('unknown'); a TextClassifier learns from "
            f"labelled texts only: leave the others out."
        )
    return labels


def _as_bytes(texts: list[str]) -> np.ndarray:
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogatepass"), dtype=np.uint8)
