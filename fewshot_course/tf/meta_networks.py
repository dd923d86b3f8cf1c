"""Networks as pure functions of their weights, for many tasks at once, in TensorFlow.

In meta-learning every task has weights of its own.  Here each weight has a leading task axis,
so T small networks run as one batched product (linear layers).  Convolutions run task by task:
TensorFlow has no fast grouped convolution on the CPU.  Models that a user brings go through
``tf.vectorized_map``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import keras
import tensorflow as tf

from fewshot_course._arguments import COUNT, checked
from fewshot_course.tf import networks
from fewshot_course.tf.networks import MLP, BatchNorm, Conv4, Conv4Strided

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

Parameters = Mapping[str, tf.Tensor]
NAMED = (MLP, Conv4, Conv4Strided)
"""The course's own networks, whose bodies can be run without their heads."""

# Layers whose second derivative is wrong, and what to take instead.
_WRONG = {
    keras.layers.BatchNormalization: "BatchNorm",
    keras.layers.LayerNormalization: "LayerNorm",
    keras.layers.GroupNormalization: "LayerNorm",
}


@checked
def check_layers(network: keras.Model) -> None:
    """Raise for layers whose second derivative is wrong.

    ``tf.nn.moments``, which they use, stops a gradient: 6 to 15 percent off, in silence.

    Raises:
        ValueError: names the layer and its replacement in ``fewshot_course.tf.networks``.
    """
    for layer in network._flatten_layers():
        for kind, instead in _WRONG.items():
            if isinstance(layer, kind):
                raise ValueError(
                    f"layer {layer.name!r} is keras.layers.{type(layer).__name__}, whose second "
                    f"derivative is wrong; use fewshot_course.tf.networks.{instead} instead."
                )


@checked
def has_batch_norm(network: keras.Model) -> bool:
    """Tell whether examples of a batch change each other's output."""
    return any(isinstance(layer, BatchNorm) for layer in network._flatten_layers())


@checked
def parameters_of(network: keras.Model) -> dict[str, tf.Variable]:
    """Return the trained weights by canonical name, as they are (no copies).

    Their axes are Keras' own: only the names are torch's.
    """
    state = networks._state(network)
    return {name: variable for name, (variable, _) in state.items() if variable.trainable}


@checked(n_tasks=COUNT)
def expand(parameters: Parameters, n_tasks: int) -> dict[str, tf.Tensor]:
    """Give every weight a leading task axis: ``(*shape)`` → ``(n_tasks, *shape)``."""
    return {
        name: tf.broadcast_to(tf.convert_to_tensor(p), (n_tasks, *p.shape))
        for name, p in parameters.items()
    }


@checked
def apply(
    network: keras.Model, parameters: Parameters, X: tf.Tensor, n_reference: int | None = None
) -> tf.Tensor:
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
    variables = parameters_of(network)
    names = {id(variable): name for name, variable in variables.items()}
    fixed = [tf.convert_to_tensor(v) for v in network.non_trainable_variables]

    def one(inputs: tuple[dict[str, tf.Tensor], tf.Tensor]) -> tf.Tensor:
        weights, x = inputs
        values = [weights[names[id(v)]] for v in network.trainable_variables]
        outputs, _ = network.stateless_call(values, fixed, x, training=False)
        return outputs

    with _task_statistics(network, n_reference):
        if X.shape[0] == 1:
            return one(({name: p[0] for name, p in parameters.items()}, X[0]))[None]
        return tf.vectorized_map(one, (dict(parameters), X))


@checked
def apply_features(
    network: keras.Model, parameters: Parameters, X: tf.Tensor, n_reference: int | None = None
) -> tf.Tensor:
    """Run T bodies, without the heads; see :func:`apply`.  Named networks only.

    Returns:
        ``(T, n, n_features)``.
    """
    if type(network) is MLP:
        X = _flatten(X)
        for index in range(len(network.body)):
            X = tf.nn.relu(_linear(X, parameters, f"body.{2 * index}"))
        return X
    tasks = [
        shared_features(
            network, {k: p[task] for k, p in parameters.items()}, X[task : task + 1], n_reference
        )
        for task in range(X.shape[0])
    ]
    return tasks[0] if len(tasks) == 1 else tf.concat(tasks, 0)


@checked
def shared_features(
    network: keras.Model, theta: Parameters, X: tf.Tensor, n_reference: int | None = None
) -> tf.Tensor:
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
        return apply_features(network, expand(theta, X.shape[0]), X)
    return _conv_features(network, theta, X, n_reference)


@checked
def apply_head(network: keras.Model, parameters: Parameters, features: tf.Tensor) -> tf.Tensor:
    """Run T heads on features ``(T, n, d)``; returns ``(T, n, n_outputs)``."""
    return _linear(features, parameters, "head")


def _linear(x: tf.Tensor, parameters: Parameters, name: str) -> tf.Tensor:
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    return tf.matmul(x, weight) + bias[:, None]


def _conv_features(
    network: keras.Model, theta: Parameters, X: tf.Tensor, n_reference: int | None
) -> tf.Tensor:
    """Run one convolutional body on the examples of all tasks."""
    X = X[..., None] if len(X.shape) == 4 else X
    n_tasks, n = X.shape[:2]
    x = tf.reshape(X, (n_tasks * n, *X.shape[2:]))
    for conv, norm in zip(network.body[::2], network.body[1::2], strict=True):
        kernel = theta[f"{conv.name}.weight"]
        weight, bias = theta[f"{norm.name}.weight"], theta[f"{norm.name}.bias"]
        # Where batch norm's weight is positive it keeps the order of numbers, and so does ReLU.
        # So the maximum may be taken before both: they then pass over a quarter of the numbers.
        # A negative weight changes its sign together with the kernel's, which changes nothing.
        sign = tf.where(weight < 0, -tf.ones_like(weight), tf.ones_like(weight))
        kernel, weight = kernel * sign, weight * sign
        pooled = conv.strides == (1, 1) and min(x.shape[1:3]) >= 2
        padded = tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = tf.nn.conv2d(padded, kernel, conv.strides, "VALID")
        mean, var = _task_moments(tf.reshape(x, (n_tasks, n, *x.shape[1:])), n_reference)
        x = tf.nn.max_pool2d(x, 2, 2, "VALID") if pooled else x
        scale = weight * tf.math.rsqrt(var + tf.constant(BatchNorm.eps, var.dtype))
        tasks = (tf.reshape(x, (n_tasks, n, *x.shape[1:])) - mean) * scale + bias
        x = tf.reshape(tf.nn.relu(tasks), x.shape)
    if isinstance(network, Conv4Strided):
        x = tf.reduce_mean(x, (1, 2))
    return tf.reshape(x, (n_tasks, n, -1))


def _task_moments(x: tf.Tensor, n_reference: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of each channel of ``(T, n, h, w, c)``, over each task's first examples."""
    reference = x if n_reference is None else x[:, :n_reference]

    def mean_of(values: tf.Tensor) -> tf.Tensor:
        for axis in (3, 2, 1):  # one at a time, as in networks._channel_mean
            values = tf.reduce_mean(values, axis, keepdims=True)
        return values

    mean = mean_of(reference)
    return mean, mean_of(tf.square(reference - mean))


def _normalise(
    x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor, n_reference: int | None
) -> tf.Tensor:
    """Batch norm over all axes but the channels (the last), by the first examples' statistics."""
    reference = x if n_reference is None else x[:n_reference]
    mean = networks._channel_mean(reference)
    var = networks._channel_mean(tf.square(reference - mean))
    scale = weight * tf.math.rsqrt(var + tf.constant(BatchNorm.eps, var.dtype))
    return (x - mean) * scale + bias


@contextmanager
def _task_statistics(network: keras.Model, n_reference: int | None) -> Iterator[None]:
    """Make the network's batch norms use the statistics of a task's first examples."""
    layers = [layer for layer in network._flatten_layers() if isinstance(layer, BatchNorm)]
    for layer in layers:

        def call(x: tf.Tensor, training: bool = False, layer: BatchNorm = layer) -> tf.Tensor:
            weight, bias = (tf.convert_to_tensor(v) for v in (layer.weight, layer.bias))
            return _normalise(x, weight, bias, n_reference)

        layer.call = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _flatten(X: tf.Tensor) -> tf.Tensor:
    return tf.reshape(X, (X.shape[0], X.shape[1], -1))
