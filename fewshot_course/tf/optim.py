"""Optimisers in TensorFlow with torch's formulas, exact in float64.

Keras' own place Adam's ε elsewhere and keep the rate in float32, which shows in the sixth
digit of the loss after ten steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

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


BUCKET = 65_536
"""Elements up to which parameters are updated together, as one vector.

Each operation of a graph costs time when it is built and when it runs; what a vector of this size
needs besides stays in a processor's cache.
"""


class Optimizer:
    """What :func:`sgd`, :func:`adam` and :func:`adamw` return.

    Attributes:
        parameters: the variables that are trained.
        lr: the learning rate, a float64 variable.
        steps: number of updates so far, an int64 variable.
        buckets: which parameters are updated together, as indices into ``parameters``.
        slots: the running averages, by name; one flat variable for each bucket.
    """

    def __init__(self, parameters: Iterable[tf.Variable], lr: float, slots: Sequence[str]) -> None:
        self.parameters = list(parameters)
        self.lr = tf.Variable(lr, dtype=tf.float64, trainable=False, name="lr")
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="steps")
        self.buckets = _buckets(self.parameters)
        self.slots = {slot: [self._zeros(bucket) for bucket in self.buckets] for slot in slots}

    def _zeros(self, bucket: Sequence[int]) -> tf.Variable:
        size = sum(self.parameters[index].shape.num_elements() for index in bucket)
        return tf.Variable(tf.zeros(size, self.parameters[bucket[0]].dtype), trainable=False)

    def apply(self, gradients: Sequence[tf.Tensor | None]) -> None:
        """Update every parameter that has a gradient; works inside ``tf.function``.

        Args:
            gradients: one for each of ``parameters``, in their order.  A parameter has one in
                every update, or ``None`` in all of them; then it is left as it is.
        """
        self.steps.assign_add(1)
        factors: dict[tf.DType, tuple[tf.Tensor, ...]] = {}  # once for all buckets
        for number, bucket in enumerate(self.buckets):
            # What has no gradient only fills its place in the vector.
            found = [index for index in bucket if gradients[index] is not None]
            if not found:
                continue
            dtype = self.parameters[found[0]].dtype
            if dtype not in factors:
                factors[dtype] = self._factors(dtype)
            gradient = _flat(
                tf.zeros_like(self.parameters[i]) if gradients[i] is None else gradients[i]
                for i in bucket
            )
            change = self._change(number, gradient, found, *factors[dtype])
            shapes = [self.parameters[index].shape for index in bucket]
            for index, part in zip(bucket, _parts(change, shapes), strict=True):
                if index in found:
                    self.parameters[index].assign_sub(part)

    def _factors(self, dtype: tf.DType) -> tuple[tf.Tensor, ...]:
        """Return the scalars of this step, computed in float64 and rounded once."""
        return (tf.cast(self.lr, dtype),)

    def _change(
        self, number: int, gradient: tf.Tensor, found: list[int], *factors: tf.Tensor
    ) -> tf.Tensor:
        """Return what the parameters of bucket ``number`` lose; both vectors are flat."""
        raise NotImplementedError  # each rule below fills this in


def _buckets(parameters: Sequence[tf.Variable]) -> list[list[int]]:
    """Put small parameters of one dtype together; a large one stays alone."""
    buckets: list[list[int]] = []
    sizes: list[int] = []
    open_at: dict[tf.DType, int] = {}  # the bucket of a dtype that takes further parameters
    for index, parameter in enumerate(parameters):
        size, number = parameter.shape.num_elements(), open_at.get(parameter.dtype)
        if number is not None and sizes[number] + size <= BUCKET:
            buckets[number].append(index)
            sizes[number] += size
            continue
        if size <= BUCKET:
            open_at[parameter.dtype] = len(buckets)
        buckets.append([index])
        sizes.append(size)
    return buckets


def _flat(tensors: Iterable[tf.Tensor]) -> tf.Tensor:
    vectors = [tf.reshape(tensor, [-1]) for tensor in tensors]
    return vectors[0] if len(vectors) == 1 else tf.concat(vectors, 0)


def _parts(vector: tf.Tensor, shapes: Sequence[tf.TensorShape]) -> list[tf.Tensor]:
    if len(shapes) == 1:
        return [tf.reshape(vector, shapes[0])]
    parts = tf.split(vector, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


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

    def _change(
        self, number: int, gradient: tf.Tensor, found: list[int], *factors: tf.Tensor
    ) -> tf.Tensor:
        (lr,) = factors
        dtype = gradient.dtype
        if self.weight_decay:
            values = _flat(self.parameters[index] for index in self.buckets[number])
            gradient += tf.constant(self.weight_decay, dtype) * values
        if self.momentum:
            buffer = self.slots["momentum_buffer"][number]
            buffer.assign(tf.constant(self.momentum, dtype) * buffer + gradient)
            gradient = buffer.value()
        return lr * gradient


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

    def _change(
        self, number: int, gradient: tf.Tensor, found: list[int], *factors: tf.Tensor
    ) -> tf.Tensor:
        eps = tf.constant(self.eps, gradient.dtype)
        mean, square = self.slots["exp_avg"][number], self.slots["exp_avg_sq"][number]
        rest1, beta2, rest2, size, root, kept = factors
        mean.assign_add((gradient - mean) * rest1)
        square.assign(square * beta2 + tf.square(gradient) * rest2)
        for parameter in (self.parameters[index] for index in found):
            if self.weight_decay and len(parameter.shape) > 1:
                parameter.assign(parameter * kept)
        return size * mean / (tf.sqrt(square) / root + eps)


@checked
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


@checked
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


@checked
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


@checked(lr=NOT_NEGATIVE)
def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter."""
    optimizer.lr.assign(lr)


@checked(max_norm=POSITIVE)
def clip_gradients(gradients: list[tf.Tensor], max_norm: float) -> list[tf.Tensor]:
    """Scale gradients down so that their joint Euclidean norm is at most ``max_norm``."""
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
    scale = tf.minimum(tf.constant(max_norm, norm.dtype) / (norm + 1e-6), 1.0)
    return [g * scale for g in gradients]
