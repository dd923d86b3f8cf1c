"""Networks as pure functions of their weights, for many tasks at once, in PyTorch.

In meta-learning every task has weights of its own.  Here each weight has a leading task axis,
so T small networks run as one batched product (linear layers) or one grouped convolution.
Modules that a user brings go through ``torch.func.vmap``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fewshot_course._arguments import COUNT, checked
from fewshot_course.torch.networks import MLP, BatchNorm, Conv4, Conv4Strided

__all__ = [
    "apply",
    "apply_features",
    "apply_head",
    "check_layers",
    "expand",
    "has_batch_norm",
    "parameters_of",
    "shared_features",
]

Parameters = Mapping[str, Tensor]
NAMED = (MLP, Conv4, Conv4Strided)
"""The course's own networks, whose bodies can be run without their heads."""


@checked
def check_layers(network: nn.Module) -> None:
    """Raise for layers whose second derivative is wrong under ``vmap``.

    ``grad(vmap(grad(...)))`` through ``F.batch_norm`` is off by several percent, in silence.

    Raises:
        ValueError: names the layer and its replacement in ``fewshot_course.torch.networks``.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            raise ValueError(
                f"layer {name!r} is nn.{type(layer).__name__}, whose second derivative under "
                f"vmap is wrong; use fewshot_course.torch.networks.BatchNorm instead."
            )


@checked
def has_batch_norm(network: nn.Module) -> bool:
    """Tell whether examples of a batch change each other's output."""
    return any(isinstance(layer, BatchNorm) for layer in network.modules())


@checked
def parameters_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the trained weights by name, as they are (no copies)."""
    return dict(network.named_parameters())


@checked(n_tasks=COUNT)
def expand(parameters: Parameters, n_tasks: int) -> dict[str, Tensor]:
    """Give every weight a leading task axis: ``(*shape)`` → ``(n_tasks, *shape)``, no copies."""
    return {name: p.expand(n_tasks, *p.shape) for name, p in parameters.items()}


@checked
def apply(
    network: nn.Module, parameters: Parameters, X: Tensor, n_reference: int | None = None
) -> Tensor:
    """Run T copies of a network, each with its own weights on its own examples.

    Batch norm normalises each task by itself; running averages are neither used nor changed.
    Dropout is off.

    Args:
        network: gives the architecture; its own weights are not used.
        parameters: name → ``(T, *shape)``.
        X: ``(T, n, *input_shape)``.
        n_reference: batch norm takes its statistics from the first so many examples of each
            task; ``None``: from all.

    Returns:
        ``(T, n, n_outputs)``.
    """
    if type(network) in NAMED:
        features = apply_features(network, parameters, X, n_reference)
        return apply_head(network, parameters, features)
    buffers = dict(network.named_buffers())

    def one(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(network, {**buffers, **weights}, (x,))

    was_training = network.training
    network.eval()
    try:
        with _task_statistics(network, n_reference):
            return vmap(one)(dict(parameters), X)
    finally:
        network.train(was_training)


@checked
def apply_features(
    network: nn.Module, parameters: Parameters, X: Tensor, n_reference: int | None = None
) -> Tensor:
    """Run T bodies, without the heads; see :func:`apply`.  Named networks only.

    Returns:
        ``(T, n, n_features)``.
    """
    if type(network) is MLP:
        X = X.flatten(2)
        for index in range(0, len(network.body), 2):
            X = F.relu(_linear(X, parameters, f"body.{index}"))
        return X
    return _conv_bodies(network, parameters, X, n_reference, shared=False)


@checked
def shared_features(
    network: nn.Module, theta: Parameters, X: Tensor, n_reference: int | None = None
) -> Tensor:
    """Run one body, without its head, on the examples of T tasks.  Named networks only.

    The same as :func:`apply_features` with the weights of :func:`expand`, in less time.  Batch
    norm normalises each task by itself.

    Args:
        network: gives the architecture; its own weights are not used.
        theta: name → weights without a task axis.
        X: ``(T, n, *input_shape)``.
        n_reference: as in :func:`apply`.

    Returns:
        ``(T, n, n_features)``.
    """
    if type(network) is MLP:
        return apply_features(network, expand(theta, len(X)), X)
    return _conv_bodies(network, theta, X, n_reference, shared=True)


@checked
def apply_head(network: nn.Module, parameters: Parameters, features: Tensor) -> Tensor:
    """Run T heads on features ``(T, n, d)``; returns ``(T, n, n_outputs)``."""
    return _linear(features, parameters, "head")


def _linear(x: Tensor, parameters: Parameters, name: str) -> Tensor:
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def _conv_bodies(
    network: Any,
    parameters: Parameters,
    X: Tensor,
    n_reference: int | None,
    shared: bool,
) -> Tensor:
    """Run convolutional bodies: of each task its own, or one that all tasks share.

    Bodies that differ are one grouped convolution, in which the channels of task t are group t.
    """
    X = X.unsqueeze(-1) if X.ndim == 4 else X
    n_tasks, n = X.shape[:2]
    # (T·n, c, h, w) where the body is shared, else (n, T·c, h, w)
    x = X.permute(0, 1, 4, 2, 3).flatten(0, 1) if shared else X.permute(1, 0, 4, 2, 3).flatten(1, 2)
    convolutions = [
        (str(i), str(i + 1), layer)
        for i, layer in enumerate(network.body)
        if isinstance(layer, nn.Conv2d)
    ]
    for conv, norm, layer in convolutions:
        kernel, weight, bias = (
            parameters[f"body.{name}"]
            for name in (f"{conv}.weight", f"{norm}.weight", f"{norm}.bias")
        )
        # Where batch norm's weight is positive it keeps the order of numbers, and so does ReLU.
        # So the maximum may be taken before both: they then pass over a quarter of the numbers.
        # A negative weight changes its sign together with the kernel's, which changes nothing.
        sign = torch.where(weight.detach() < 0, -1.0, 1.0).to(weight.dtype)
        kernel, weight = kernel * sign[..., None, None, None], weight * sign
        if not shared:
            kernel, weight, bias = kernel.flatten(0, 1), weight.flatten(), bias.flatten()
        pooled = layer.stride == (1, 1) and min(x.shape[2:]) >= 2
        x = F.conv2d(x, kernel, None, layer.stride, 1, groups=1 if shared else n_tasks)
        mean, var = _task_moments(x.unflatten(0, (-1, n)), n_reference)
        x = F.max_pool2d(x, 2) if pooled else x
        scale = weight.view(-1, 1, 1) * torch.rsqrt(var + BatchNorm.eps)
        tasks = (x.unflatten(0, (-1, n)) - mean) * scale + bias.view(-1, 1, 1)
        x = F.relu(tasks).flatten(0, 1)
    if isinstance(network, Conv4Strided):
        x = x.mean((2, 3), keepdim=True)
    x = x.unflatten(0, (n_tasks, n)) if shared else x.unflatten(1, (n_tasks, -1)).transpose(0, 1)
    return x.permute(0, 1, 3, 4, 2).reshape(n_tasks, n, -1)


def _task_moments(x: Tensor, n_reference: int | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of ``(T, n, c, h, w)``, over each task's first examples."""
    reference = x if n_reference is None else x[:, :n_reference]
    mean = reference.mean((1, 3, 4), keepdim=True)
    return mean, (reference - mean).square().mean((1, 3, 4), keepdim=True)


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, n_reference: int | None) -> Tensor:
    """Batch norm over all axes but the channels (axis 1), by the first examples' statistics."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = (1, -1) + (1,) * (x.ndim - 2)
    reference = x if n_reference is None else x[:n_reference]
    mean = reference.mean(axes).view(shape)
    var = (reference - mean).square().mean(axes).view(shape)
    scale = weight.view(shape) * torch.rsqrt(var + BatchNorm.eps)
    return (x - mean) * scale + bias.view(shape)


@contextmanager
def _task_statistics(network: nn.Module, n_reference: int | None) -> Iterator[None]:
    """Make the network's batch norms use the statistics of a task's first examples."""
    layers = [layer for layer in network.modules() if isinstance(layer, BatchNorm)]
    for layer in layers:

        def forward(x: Tensor, layer: BatchNorm = layer) -> Tensor:
            return _normalise(x, layer.weight, layer.bias, n_reference)

        layer.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
