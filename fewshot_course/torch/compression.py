"""Small models from large ones in PyTorch: distillation, pruning, and eight-bit weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_course._streams import Streams
from fewshot_course.both.bert import BertConfig
from fewshot_course.both.compression import (
    FROZEN,
    CompressedClassifier,
    CompressedImages,
    CompressedTexts,
    Examples,
    Integers,
    fitted_copy,
)
from fewshot_course.both.fine_tuning import in_batches
from fewshot_course.both.optim import warmup_linear
from fewshot_course.both.pruning import (
    Pruner,
    cubic_sparsity,
    dequantize,
    magnitude_mask,
    magnitude_masks,
    quantize_symmetric,
)
from fewshot_course.both.texts import Tokens
from fewshot_course.both.training import hash_arrays
from fewshot_course.evaluation.costs import file_size, milliseconds
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import resolve_device, to_array, to_tensor, train
from fewshot_course.torch.fine_tuning import TextNetwork
from fewshot_course.weights import Arrays

__all__ = [
    "CompressedImageClassifier",
    "CompressedTextClassifier",
    "cubic_sparsity",
    "dequantize",
    "distillation_loss",
    "file_size",
    "magnitude_mask",
    "magnitude_masks",
    "milliseconds",
    "prune",
    "quantize",
    "quantize_symmetric",
]

_BLOCK = 256  # images in one batch of a prediction
_WARMUP = 0.1  # part of the steps in which the learning rate rises


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 2.0,
    alpha: float = 0.5,
) -> Tensor:
    """Return the mean of α·T²·KL(p_T ‖ q_T) + (1 - α)·cross-entropy (Hinton et al. 2015).

    p_T = softmax(teacher/T) and q_T = softmax(student/T).  Gradients of the soft part fall as
    1/T², so T² keeps the mix of the two parts as it is when T changes.

    Args:
        student_logits: ``(n, C)``.
        teacher_logits: ``(n, C)``.
        labels: class indices ``(n,)`` int64; -1: unknown, such an example has no second part.
        temperature: T > 0.
        alpha: weight of the soft part, in [0, 1].

    Returns:
        A scalar: the sum over all examples over n.
    """
    soft = F.softmax(teacher_logits / temperature, dim=1)
    log_p = F.log_softmax(teacher_logits / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    divergence = (soft * (log_p - log_q)).sum(1)
    known = labels >= 0
    chosen = F.log_softmax(student_logits, dim=1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
    hard = torch.where(known, -chosen, torch.zeros_like(chosen))
    return (alpha * temperature**2 * divergence + (1 - alpha) * hard).mean()


def _train_student(
    student: Any,
    examples: Examples,
    streams: Streams,
    fingerprint: Mapping[str, Any],
    **options: Any,
) -> Arrays:
    """Train ``student.network_``; weights that were pruned stay 0."""
    network, device, dtype = student.network_, student._device, student.dtype
    named = dict(network.named_parameters())
    for name, parameter in named.items():
        parameter.requires_grad_(not name.startswith(FROZEN))
    trained = [parameter for parameter in named.values() if parameter.requires_grad]
    optimizer = optim.adamw(trained, lr=student.lr, weight_decay=student.weight_decay)
    logits = to_tensor(examples.logits, device, dtype)
    labels = to_tensor(examples.labels, device)
    features = None
    if examples.features is not None:
        features = to_tensor(examples.features, device, dtype)
    steps = student.epochs * examples.batches.batches_per_epoch
    pruner = Pruner(student.sparsity, student.pruning, student.scope, steps)
    masks: dict[str, Tensor] = {}

    def prunable() -> Arrays:
        every = {name: to_array(parameter) for name, parameter in named.items()}
        return {name: array for name, array in every.items() if student._prunable(name, array)}

    def use(made: Arrays) -> None:
        masks.update({name: to_tensor(mask, device, dtype) for name, mask in made.items()})

    @torch.no_grad()
    def apply_masks() -> None:
        for name, mask in masks.items():
            named[name].mul_(mask)

    def loss_of(index: np.ndarray) -> Tensor:
        h = network.features(*(to_tensor(array, device) for array in examples.inputs(index)))
        unit = F.normalize(h, dim=1) if features is not None or student.normalize_ else h
        z = network.head(unit if student.normalize_ else h)
        i = to_tensor(index, device)
        loss = distillation_loss(z, logits[i], labels[i], student.temperature, student.alpha)
        if features is not None:
            distance = (unit - features[i]).square().sum(1).mean()
            loss = loss + student._features_weight * distance
        return loss

    def step(number: int) -> Mapping[str, Tensor]:
        if student.sparsity and not masks:
            use(pruner.start(prunable()))
            apply_masks()
        optim.set_learning_rate(optimizer, student.lr * warmup_linear(number, steps, _WARMUP))
        loss = loss_of(examples.batches.next())
        network.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if student.sparsity and pruner.due(number):
            use(pruner.advance(number, prunable()))
        apply_masks()
        return {"loss": loss.detach()}

    network.train()
    history = train(
        step,
        steps=steps,
        modules={"network": network},
        optimizers={"adamw": optimizer},
        resumables={"streams": streams, "batches": examples.batches, "pruner": pruner},
        fingerprint={
            **fingerprint,
            "data": hash_arrays(examples.labels, examples.logits, examples.features),
        },
        device=device,
        **options,
    )
    network.eval()
    return history


def _int8_layers(network: nn.Module, activations: bool, integers: Integers | None) -> Integers:
    """Quantise the linear layers by torchao; returns their whole numbers and scales."""
    quantization = _torchao()
    kind = "Int8DynamicActivationInt8WeightConfig" if activations else "Int8WeightOnlyConfig"
    settings = getattr(quantization, kind)(set_inductor_config=False)
    linears = {n: m for n, m in network.named_modules() if type(m) is nn.Linear}
    quantization.quantize_(network, settings, filter_fn=lambda m, _: type(m) is nn.Linear)
    found: Integers = {}
    for name, layer in linears.items():
        weight: Any = layer.weight
        if integers is not None:
            q, scale = integers[f"{name}.weight"]
            with torch.no_grad():
                weight.qdata.copy_(torch.as_tensor(q))
                weight.scale.copy_(torch.as_tensor(scale)[:, None])
        pair = to_array(weight.qdata), to_array(weight.scale)[:, 0].astype(np.float64)
        found[f"{name}.weight"] = pair
    return found


def _torchao() -> Any:
    try:
        from torchao import quantization
    except ImportError as error:
        raise ImportError(
            f"backend='framework' needs torchao ({error}); install it with: "
            "pip install 'fewshot-course[compression]', or say backend='hand'."
        ) from error
    return quantization


def _load_floats(student: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Load all layers but those that torchao has quantised."""
    state = networks._state(student.network_)
    with torch.no_grad():
        for name, value in state.items():
            if type(value) in (Tensor, nn.Parameter):
                value.copy_(torch.as_tensor(np.asarray(arrays[name])))


class CompressedTextClassifier(CompressedTexts):
    """A small classifier of texts that learns from a large one.

    The student has some of the teacher's layers and starts from their weights.  It learns by
    AdamW from the teacher's soft labels, from hard labels where there are any
    (:func:`distillation_loss`), and from the teacher's features.  Texts need no labels: give all
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
        network_: the student, a :class:`~fewshot_course.torch.fine_tuning.TextNetwork`.
        classes_: labels, ``(C,)`` int64.
        history_: "loss" ``(steps,)``.
        layers_: number of its layers.
        quantized_: "" for floats, else how it was quantised.
    """

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

    def _place(self, device: str) -> str:
        return resolve_device(device)

    def _build(self, config: BertConfig, arrays: Arrays | None) -> None:
        self.network_ = TextNetwork(config, len(self.classes_), normalize=self.normalize_)
        self.network_.to(getattr(torch, self.dtype)).eval()
        if arrays is not None:
            networks.from_numpy(self.network_, arrays)
        self.network_.to(self._device)

    def _run(self, tokens: Tokens, what: str) -> list[np.ndarray]:
        function = self.network_ if what == "logits" else self.network_.features

        @torch.inference_mode()
        def one(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return to_array(function(to_tensor(ids, self._device), to_tensor(mask, self._device)))

        return in_batches(tokens, one)

    def _train(
        self, examples: Examples, streams: Streams, fingerprint: Mapping[str, Any], **options: Any
    ) -> Arrays:
        return _train_student(self, examples, streams, fingerprint, **options)

    def _network_weights(self) -> Arrays:
        return networks.to_numpy(self.network_)

    def _load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        _load_floats(self, arrays)

    def _int8_layers(self, activations: bool, integers: Integers | None) -> Integers:
        return _int8_layers(self.network_, activations, integers)


class CompressedImageClassifier(CompressedImages):
    """A small classifier of images that learns from a large one.

    With ``channels`` the student is a new, narrower conv4; without, a copy of the teacher's
    network, to be pruned.  It learns by AdamW from the teacher's soft labels, and from hard
    labels where there are any (:func:`distillation_loss`).

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

    def _place(self, device: str) -> str:
        return resolve_device(device)

    def _build(self, rng: np.random.Generator) -> None:
        shape, outputs = self.input_shape_, len(self.classes_)
        network: nn.Module
        if self.network_name_ == "conv4":
            network = networks.Conv4(shape, outputs, self.channels_)
            network = networks.initialise(network.to(getattr(torch, self.dtype)), rng)
        else:
            network = networks.build(self.network_name_, shape, outputs, rng, self.dtype)
        self.network_ = network.eval().to(self._device)

    @torch.inference_mode()
    def _logits(self, X: np.ndarray) -> np.ndarray:
        blocks = [X[start : start + _BLOCK] for start in range(0, len(X), _BLOCK)]
        tensors = (to_tensor(block, self._device, self.dtype) for block in blocks)
        return np.concatenate([to_array(self.network_(x)) for x in tensors])

    def _train(
        self, examples: Examples, streams: Streams, fingerprint: Mapping[str, Any], **options: Any
    ) -> Arrays:
        return _train_student(self, examples, streams, fingerprint, **options)

    def _network_weights(self) -> Arrays:
        return networks.to_numpy(self.network_)

    def _load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        _load_floats(self, arrays)

    def _int8_layers(self, activations: bool, integers: Integers | None) -> Integers:
        return _int8_layers(self.network_, activations, integers)


def prune(classifier: Any, sparsity: float, scope: str = "layer") -> CompressedClassifier:
    """Return a copy of a classifier whose smallest weights are 0 (Han et al. 2015), not trained.

    To train on with the mask held: ``prune(c, 0.8).set_params(epochs=3).fit(X, y)``.

    Args:
        classifier: a fitted TextClassifier, ImageClassifier, or a compressed one.
        sparsity: share of the weights that is set to 0, in [0, 1]; 0 gives a plain copy as a
            network of its own.
        scope: "layer" takes this share of each array; "global" ranks all weights together.

    Raises:
        TypeError: for any other classifier.
        ValueError: for a sparsity out of range, or a text classifier with an LSTM.
        NotFittedError: if the classifier is not fitted.
    """
    return fitted_copy(
        classifier, CompressedTextClassifier, CompressedImageClassifier, sparsity, scope
    )


def quantize(
    classifier: Any, backend: str = "framework", activations: bool = False
) -> CompressedClassifier:
    """Return a copy of a classifier with eight-bit weights, one scale a row.

    Tables and convolutions have eight bits in the file and are floats in memory; linear layers
    compute with eight-bit weights too, if the framework's own means are used.

    Args:
        classifier: a fitted TextClassifier, ImageClassifier, or a compressed one, of float32.
        backend: "framework" (torchao for PyTorch, Keras' ``quantize`` for TensorFlow), or "hand":
            :func:`quantize_symmetric`, and floats in memory.
        activations: whether the inputs of linear layers are rounded to eight bits too.

    Raises:
        ImportError: if the backend is not installed; the message names the extra.
        TypeError: for any other classifier.
        ValueError: for an unknown backend, a float64 classifier, or ``activations`` by hand.
        NotFittedError: if the classifier is not fitted.
    """
    copied = fitted_copy(
        classifier, CompressedTextClassifier, CompressedImageClassifier, 0.0, "layer"
    )
    copied.sparsity = getattr(classifier, "sparsity", 0.0)
    return copied._quantize(backend, activations)
