"""Optimisers in TensorFlow with torch's formulas, exact in float64.

Keras' own place Adam's ε elsewhere and keep the rate in float32, which shows in the sixth
digit of the loss after ten steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from fewshot_course._checks import check_optimizer
from fewshot_course._schedules import ReduceLROnPlateau, ramp, warmup_linear

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


class Optimizer:
    """What :func:`sgd`, :func:`adam` and :func:`adamw` return.

    Attributes:
        parameters: the variables that are trained.
        lr: the learning rate, a float64 variable.
        steps: number of updates so far, an int64 variable.
        slots: the running averages, by name and in the order of ``parameters``.
    """

    def __init__(self, parameters: Iterable[tf.Variable], lr: float, slots: Sequence[str]) -> None:
        self.parameters = list(parameters)
        self.lr = tf.Variable(lr, dtype=tf.float64, trainable=False, name="lr")
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="steps")
        self.slots = {
            slot: [
                tf.Variable(tf.zeros(p.shape, p.dtype), trainable=False) for p in self.parameters
            ]
            for slot in slots
        }

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Update every parameter with its gradient; works inside ``tf.function``."""
        self.steps.assign_add(1)
        factors: dict[tf.DType, tuple[tf.Tensor, ...]] = {}  # once for all parameters
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                gradient = tf.convert_to_tensor(gradient)
                if gradient.dtype not in factors:
                    factors[gradient.dtype] = self._factors(gradient.dtype)
                self._update(index, gradient, *factors[gradient.dtype])

    def _factors(self, dtype: tf.DType) -> tuple[tf.Tensor, ...]:
        """Return the scalars of this step, computed in float64 and rounded once."""
        return (tf.cast(self.lr, dtype),)

    def _update(self, index: int, gradient: tf.Tensor, *factors: tf.Tensor) -> None:
        raise NotImplementedError  # each rule below fills this in


class _SGD(Optimizer):
    def __init__(
        self,
        parameters: Iterable[tf.Variable],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, lr, ["momentum_buffer"] if momentum else [])
        self.momentum, self.weight_decay = momentum, weight_decay

    def _update(self, index: int, gradient: tf.Tensor, *factors: tf.Tensor) -> None:
        parameter, dtype = self.parameters[index], gradient.dtype
        (lr,) = factors
        if self.weight_decay:
            gradient += tf.constant(self.weight_decay, dtype) * parameter
        if self.momentum:
            buffer = self.slots["momentum_buffer"][index]
            buffer.assign(tf.constant(self.momentum, dtype) * buffer + gradient)
            gradient = buffer.value()
        parameter.assign_sub(lr * gradient)


class _Adam(Optimizer):
    def __init__(
        self,
        parameters: Iterable[tf.Variable],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, ["exp_avg", "exp_avg_sq"])
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def _factors(self, dtype: tf.DType) -> tuple[tf.Tensor, ...]:
        beta1, beta2 = (tf.constant(beta, tf.float64) for beta in self.betas)
        steps = tf.cast(self.steps, tf.float64)
        size = self.lr / (1 - beta1**steps)
        root = tf.sqrt(1 - beta2**steps)
        kept = 1 - self.lr * self.weight_decay
        return tuple(tf.cast(f, dtype) for f in (1 - beta1, beta2, 1 - beta2, size, root, kept))

    def _update(self, index: int, gradient: tf.Tensor, *factors: tf.Tensor) -> None:
        parameter, eps = self.parameters[index], tf.constant(self.eps, gradient.dtype)
        mean, square = self.slots["exp_avg"][index], self.slots["exp_avg_sq"][index]
        rest1, beta2, rest2, size, root, kept = factors
        mean.assign_add((gradient - mean) * rest1)
        square.assign(square * beta2 + tf.square(gradient) * rest2)
        if self.weight_decay and len(parameter.shape) > 1:
            parameter.assign(parameter * kept)
        parameter.assign_sub(size * mean / (tf.sqrt(square) / root + eps))


def sgd(
    parameters: Iterable[tf.Variable],
    lr: float = 1e-3,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Gradient descent with momentum: v ← m·v + g + w·p, p ← p - lr·v.

    Args:
        parameters: what is trained.
        lr: learning rate, > 0.
        momentum: m, in [0, 1); the first step takes v = g.
        weight_decay: w, added to the gradient.
    """
    check_optimizer(lr=lr, momentum=momentum, weight_decay=weight_decay)
    return _SGD(parameters, lr, momentum, weight_decay)


def adam(
    parameters: Iterable[tf.Variable],
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Optimizer:
    """Adam (Kingma & Ba 2015), bias corrected; ε stands outside the corrected root.

    Args:
        parameters: what is trained.
        lr: learning rate, > 0.
        betas: decay of the two moments, each in [0, 1).
        eps: ε.
    """
    check_optimizer(lr=lr, betas=betas, eps=eps)
    return _Adam(parameters, lr, betas, eps)


def adamw(
    parameters: Iterable[tf.Variable],
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
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
    return _Adam(parameters, lr, betas, eps, weight_decay)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter."""
    optimizer.lr.assign(lr)


def clip_gradients(gradients: list[tf.Tensor], max_norm: float) -> list[tf.Tensor]:
    """Scale gradients down so that their joint Euclidean norm is at most ``max_norm``."""
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
    scale = tf.minimum(tf.constant(max_norm, norm.dtype) / (norm + 1e-6), 1.0)
    return [g * scale for g in gradients]
