"""Optimisers in PyTorch: torch's own, under the names that both frameworks share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fewshot_course._arguments import NOT_NEGATIVE, POSITIVE, checked
from fewshot_course._checks import check_optimizer
from fewshot_course.both.optim import ReduceLROnPlateau, ramp, warmup_linear

__all__ = [
    "ReduceLROnPlateau",
    "adam",
    "adamw",
    "clip_gradients",
    "ramp",
    "set_learning_rate",
    "sgd",
    "warmup_linear",
]

FUSED_FROM, FUSED_ON = 1_000_000, ("cpu", "cuda")
"""Weights, and devices, from which AdamW runs as one fused kernel."""


@checked
def sgd(
    parameters: Iterable[nn.Parameter],
    lr: float = 1e-3,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Gradient descent with momentum: v ← m·v + g + w·p, p ← p - lr·v.

    Args:
        parameters: what is trained.
        lr: learning rate, > 0.
        momentum: m, in [0, 1); the first step takes v = g.
        weight_decay: w, added to the gradient.
    """
    check_optimizer(lr=lr, momentum=momentum, weight_decay=weight_decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)


@checked
def adam(
    parameters: Iterable[nn.Parameter],
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015), bias corrected; ε stands outside the corrected root.

    Args:
        parameters: what is trained.
        lr: learning rate, > 0.
        betas: decay of the two moments, each in [0, 1).
        eps: ε.
    """
    check_optimizer(lr=lr, betas=betas, eps=eps)
    # All parameters at once (foreach) is the same to the last bit, and less work a parameter.
    return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, foreach=True)


@checked
def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Biases and normalisation weights (parameters with one axis) are not decayed.

    Args:
        parameters: what is trained.
        lr: learning rate, > 0.
        betas: decay of the two moments, each in [0, 1).
        eps: ε.
        weight_decay: p shrinks by lr·weight_decay·p a step.
    """
    check_optimizer(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    every = list(parameters)
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # Torch's fused kernel goes over the weights once instead of a dozen times, a third of a step
    # of a small BERT, but rounds float32 more coarsely: only where there are many weights.
    fused = sum(p.numel() for p in every) >= FUSED_FROM and every[0].device.type in FUSED_ON
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused, foreach=not fused)


@checked(lr=NOT_NEGATIVE)
def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@checked(max_norm=POSITIVE)
def clip_gradients(gradients: list[Tensor], max_norm: float) -> list[Tensor]:
    """Scale gradients down so that their joint Euclidean norm is at most ``max_norm``."""
    norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(()).to(gradients[0])))
    scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    return [g * scale for g in gradients]
