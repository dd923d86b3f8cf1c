"""Networks as pure functions of their weights, for many tasks at once, in PyTorch.

In meta-learning every task has weights of its own.  Here each weight has a leading task axis,
so T small networks run as one batched product (linear layers) or one grouped convolution.
Modules that a user brings go through ``torch.func.vmap``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fewshot_course._arguments import COUNT, checked
from fewshot_course.torch.networks import MLP, BatchNorm, Conv4

__all__ = [
    "apply",
    "apply_features",
    "apply_head",
    "check_layers",
    "expand",
    "has_batch_norm",
    "parameters_of",
]

Parameters = Mapping[str, Tensor]


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
    if type(network) in (MLP, Conv4):
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
    assert isinstance(network, Conv4)
    return _conv4_features(network, parameters, X, n_reference)


@checked
def apply_head(network: nn.Module, parameters: Parameters, features: Tensor) -> Tensor:
    """Run T heads on features ``(T, n, d)``; returns ``(T, n, n_outputs)``."""
    return _linear(features, parameters, "head")


def _linear(x: Tensor, parameters: Parameters, name: str) -> Tensor:
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def _conv4_features(
    network: Conv4, parameters: Parameters, X: Tensor, n_reference: int | None
) -> Tensor:
    X = X.unsqueeze(-1) if X.ndim == 4 else X
    n_tasks, n = X.shape[:2]
    # The channels of task t become group t: (n, T·c, h, w).
    x = X.permute(1, 0, 4, 2, 3).flatten(1, 2)
    for index, layer in enumerate(network.body):
        if isinstance(layer, nn.Conv2d):
            weight = parameters[f"body.{index}.weight"].flatten(0, 1)
            x = F.conv2d(x, weight, padding=1, groups=n_tasks)
        elif isinstance(layer, BatchNorm):
            weight = parameters[f"body.{index}.weight"].flatten()
            bias = parameters[f"body.{index}.bias"].flatten()
            x = _normalise(x, weight, bias, n_reference)
        else:
            x = layer(x)
    x = x.unflatten(1, (n_tasks, -1))  # (n, T, c, h, w)
    return x.permute(1, 0, 3, 4, 2).reshape(n_tasks, n, -1)


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
