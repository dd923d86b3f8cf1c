"""Small models from large ones in PyTorch: distillation, pruning, and eight-bit weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_course._arguments import NOT_NEGATIVE, POSITIVE, SHARE, checked
from fewshot_course._streams import Streams
from fewshot_course.both import compression as settings
from fewshot_course.both.bert import BertConfig
from fewshot_course.both.compression import fitted_copy
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
from fewshot_course.both.student import FROZEN, CompressedClassifier, Examples, Integers
from fewshot_course.both.student import Engine as EngineProtocol
from fewshot_course.both.texts import Tokens
from fewshot_course.both.training import Run
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
    "student_loss",
]

_BLOCK = 256  # images in one batch of a prediction
_WARMUP = 0.1  # part of the steps in which the learning rate rises


@checked(temperature=POSITIVE, alpha=SHARE)
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


@checked(
    temperature=POSITIVE,
    alpha=SHARE,
    features_weight=NOT_NEGATIVE,
)
def student_loss(
    network: Any,
    inputs: Sequence[Tensor],
    logits: Tensor,
    labels: Tensor,
    features: Tensor | None = None,
    *,
    temperature: float = 2.0,
    alpha: float = 0.5,
    features_weight: float = 10.0,
    normalize: bool = False,
) -> Tensor:
    """Return the loss of a step: what the teacher says, the labels, and the teacher's features.

        distillation_loss + features_weight · mean ‖h/‖h‖ - teacher's h‖²

    Args:
        network: the student, with ``features`` and a linear layer ``head``.
        inputs: what ``features`` takes.
        logits: the teacher's, ``(n, C)``.
        labels: class indices ``(n,)``, -1 where unknown.
        features: the teacher's, of length 1, ``(n, d)``; ``None``: not learned from.
        temperature: T > 0, see :func:`distillation_loss`.
        alpha: weight of the soft part, in [0, 1].
        features_weight: of the distance of the features, ≥ 0 (Romero et al. 2015).
        normalize: whether features get the length 1 before the head.

    Returns:
        A scalar, ≥ 0.
    """
    h = network.features(*inputs)
    unit = F.normalize(h, dim=1) if features is not None or normalize else h
    z = network.head(unit if normalize else h)
    loss = distillation_loss(z, logits, labels, temperature, alpha)
    if features is not None:
        loss = loss + features_weight * (unit - features).square().sum(1).mean()
    return loss


def _train(
    network: nn.Module,
    student: CompressedClassifier,
    examples: Examples,
    streams: Streams,
    fingerprint: Mapping[str, Any],
    run: Run,
) -> Arrays:
    """Train the student's network; weights that were pruned stay 0."""
    device, dtype = run.device, student.dtype
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
        i = to_tensor(index, device)
        return student_loss(
            network, [to_tensor(array, device) for array in examples.inputs(index)],
            logits[i], labels[i], None if features is None else features[i],
            temperature=student.temperature, alpha=student.alpha,
            features_weight=student._features_weight, normalize=student.normalize_,
        )  # fmt: skip

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

    return train(
        step,
        run,
        steps=steps,
        modules={"network": network},
        optimizers={"adamw": optimizer},
        resumables={"streams": streams, "batches": examples.batches, "pruner": pruner},
        fingerprint=fingerprint,
    )


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


def _load_floats(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Load all layers but those that torchao has quantised."""
    state = networks._state(network)
    with torch.no_grad():
        for name, value in state.items():
            if type(value) in (Tensor, nn.Parameter):
                value.copy_(torch.as_tensor(np.asarray(arrays[name])))


class Engine(EngineProtocol):
    """One network of a compressed classifier on a device, in PyTorch.

    Args:
        network: the student.
        dtype: of its weights.
        device: where it is.
    """

    resolve = staticmethod(resolve_device)

    def __init__(self, network: nn.Module, dtype: str, device: str) -> None:
        self.network: Any = network.eval().to(device)
        self._dtype, self._device = dtype, device

    @classmethod
    def for_texts(
        cls, config: BertConfig, n_classes: int, normalize: bool, dtype: str, device: str
    ) -> Self:
        """Make a text network; its weights are yet to be loaded."""
        network = TextNetwork(config, n_classes, normalize=normalize)
        return cls(network.to(getattr(torch, dtype)), dtype, device)

    @classmethod
    def for_images(
        cls, name: str, shape: tuple[int, ...], n_classes: int, channels: int,
        rng: np.random.Generator, dtype: str, device: str,
    ) -> Self:  # fmt: skip
        """Make a new network for images."""
        network: nn.Module
        if name == "conv4":
            network = networks.Conv4(shape, n_classes, channels).to(getattr(torch, dtype))
            network = networks.initialise(network, rng)
        else:
            network = networks.build(name, shape, n_classes, rng, dtype)
        return cls(network, dtype, device)

    def train(
        self, student: CompressedClassifier, examples: Examples, streams: Streams,
        fingerprint: Mapping[str, Any], run: Run,
    ) -> Arrays:  # fmt: skip
        """Train; weights that were pruned stay 0."""
        return _train(self.network, student, examples, streams, fingerprint, run)

    def run_texts(self, tokens: Tokens, output: str) -> list[np.ndarray]:
        """Return the "logits" or "features" of each text."""
        function = self.network if output == "logits" else self.network.features

        @torch.inference_mode()
        def one(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return to_array(function(to_tensor(ids, self._device), to_tensor(mask, self._device)))

        return in_batches(tokens, one)

    @torch.inference_mode()
    def run_images(self, X: np.ndarray) -> np.ndarray:
        """Return the logits, ``(n, C)``."""
        blocks = [X[start : start + _BLOCK] for start in range(0, len(X), _BLOCK)]
        tensors = (to_tensor(block, self._device, self._dtype) for block in blocks)
        return np.concatenate([to_array(self.network(x)) for x in tensors])

    def weights(self) -> Arrays:
        """Return the weights in canonical layout, as floats."""
        return networks.to_numpy(self.network)

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load floats into the layers that are not of whole numbers."""
        _load_floats(self.network, arrays)

    def int8_layers(self, activations: bool, integers: Integers | None) -> Integers:
        """Have torchao quantise the linear layers; ``integers``: take these."""
        return _int8_layers(self.network, activations, integers)


class CompressedTextClassifier(settings.CompressedTextClassifier):
    __doc__ = settings.CompressedTextClassifier.__doc__
    _engines = Engine


class CompressedImageClassifier(settings.CompressedImageClassifier):
    __doc__ = settings.CompressedImageClassifier.__doc__
    _engines = Engine


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
    copied: CompressedClassifier = fitted_copy(
        classifier, CompressedTextClassifier, CompressedImageClassifier, sparsity, scope
    )
    return copied


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
    copied: CompressedClassifier = fitted_copy(
        classifier, CompressedTextClassifier, CompressedImageClassifier, 0.0, "layer"
    )
    copied.sparsity = getattr(classifier, "sparsity", 0.0)
    return copied._quantize(backend, activations)
