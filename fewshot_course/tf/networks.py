"""Networks in TensorFlow: a body that makes features and a linear head.

Images are channels last at the border.  Every layer has a right second derivative, so that
MAML can differentiate through it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import COUNT, checked
from fewshot_course._checks import check_choice
from fewshot_course.weights import check_layout, initial_weights

__all__ = [
    "MLP",
    "BatchNorm",
    "Conv4",
    "Conv4Strided",
    "LayerNorm",
    "build",
    "from_numpy",
    "initialise",
    "to_numpy",
]


class BatchNorm(keras.layers.Layer):
    """Batch normalisation over all axes but the channels (Ioffe & Szegedy 2015).

    Written out instead of ``keras.layers.BatchNormalization``: ``tf.nn.moments`` stops a
    gradient, which makes the second derivative wrong.  ε is 1e-5; running averages move by a
    tenth of the way, the variance by its unbiased estimate.  Images of more than ``fused_above``
    numbers take TensorFlow's fused kernel: the same up to rounding.

    Args:
        n_channels: size of the last axis.
    """

    eps = 1e-5
    momentum = 0.1
    # From here on no cache holds an array, and the dozen passes over it cost more than all the
    # convolutions; the fused kernel makes three.
    fused_above = 2**23

    def __init__(self, n_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = self.add_weight(shape=(n_channels,), initializer="ones", name="weight")
        self.bias = self.add_weight(shape=(n_channels,), initializer="zeros", name="bias")
        self.running_mean = self.add_weight(
            shape=(n_channels,), initializer="zeros", trainable=False, name="running_mean"
        )
        self.running_var = self.add_weight(
            shape=(n_channels,), initializer="ones", trainable=False, name="running_var"
        )
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalise ``x`` of shape ``(n, c)`` or ``(n, h, w, c)``."""
        if self._is_large(x):
            return self._fused(x, training)
        if training:
            mean = _channel_mean(x)
            var = _channel_mean(tf.square(x - mean))
            n = tf.size(x) // x.shape[-1]
            self._update_running(mean, var * tf.cast(n / tf.maximum(n - 1, 1), var.dtype))
        else:
            mean, var = (
                tf.convert_to_tensor(self.running_mean),
                tf.convert_to_tensor(self.running_var),
            )
        scale = self.weight * tf.math.rsqrt(var + tf.constant(self.eps, var.dtype))
        return (x - mean) * scale + self.bias

    def _is_large(self, x: tf.Tensor) -> bool:
        """Whether the fused kernel, which knows float32 images only, is worth its rounding."""
        size = x.shape.num_elements()
        return (
            size is not None and size > self.fused_above and x.shape.rank == 4
            and x.dtype == tf.float32
        )  # fmt: skip

    def _fused(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        running = (self.running_mean, self.running_var)
        mean, var = ([], []) if training else map(tf.convert_to_tensor, running)
        y, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=self.weight, offset=self.bias, mean=mean, variance=var,
            epsilon=self.eps, is_training=training,
        )  # fmt: skip
        if training:
            self._update_running(mean, unbiased)
        return y

    def _update_running(self, mean: tf.Tensor, unbiased: tf.Tensor) -> None:
        for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.assign(running + tf.constant(self.momentum, now.dtype) * (now - running))


class LayerNorm(keras.layers.Layer):
    """Layer normalisation over the last axis (Ba et al. 2016).

    Args:
        n_features: size of the last axis.
        eps: added to the variance.
    """

    def __init__(self, n_features: int, eps: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.eps = eps
        self.weight = self.add_weight(shape=(n_features,), initializer="ones", name="weight")
        self.bias = self.add_weight(shape=(n_features,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalise ``x`` of shape ``(..., n_features)``."""
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        var = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        return (
            centred * tf.math.rsqrt(var + tf.constant(self.eps, x.dtype)) * self.weight + self.bias
        )


class MLP(keras.Model):
    """Fully connected network: flatten, ``hidden`` layers with ReLU, a linear head.

    Args:
        input_shape: shape of one example; it is flattened.
        n_outputs: width of the head.
        hidden: widths of the hidden layers; ``body`` holds them.
    """

    def __init__(
        self, input_shape: Sequence[int], n_outputs: int, hidden: Sequence[int] = (256,)
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        # Names as in torch's Sequential, where every other module is the ReLU.
        self.body = [
            _dense(n_in, n_out, name=f"body.{2 * i}", activation="relu")
            for i, (n_in, n_out) in enumerate(itertools.pairwise(widths))
        ]
        self.head = _dense(widths[-1], n_outputs, name="head")
        self.built = True

    def features(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map ``(n, *input_shape)`` to the last hidden layer, ``(n, hidden[-1])``."""
        x = _flatten(x)
        for layer in self.body:
            x = layer(x)
        return x

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map ``(n, *input_shape)`` to ``(n, n_outputs)``."""
        return self.head(self.features(x))


class Conv4(keras.Model):
    """Four blocks of 3×3 convolution, batch norm, ReLU and 2×2 pooling, then a linear head.

    The network of the few-shot literature (Vinyals et al. 2016).  A block whose input is only
    one pixel high or wide leaves its pooling out, so that 8×8 images pass too.  The largest of
    four is taken before the ReLU and not after it: the same numbers, for a quarter of the work.

    Args:
        input_shape: ``(h, w)`` or ``(h, w, c)`` of one image.
        n_outputs: width of the head.
        channels: width of every block.
    """

    def __init__(self, input_shape: Sequence[int], n_outputs: int, channels: int = 64) -> None:
        super().__init__()
        height, width, depth = (*input_shape, 1)[:3]
        self.body = []
        self._pools = []
        position = 0
        for _ in range(4):
            conv = keras.layers.Conv2D(
                channels, 3, padding="same", use_bias=False, name=f"body.{position}"
            )
            conv.build((None, height, width, depth))
            self.body += [conv, BatchNorm(channels, name=f"body.{position + 1}")]
            self._pools.append(min(height, width) >= 2)
            position += 3
            if self._pools[-1]:
                height, width = height // 2, width // 2
                position += 1
            depth = channels
        self.head = _dense(channels * height * width, n_outputs, name="head")
        self.built = True

    def features(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map images ``(n, h, w[, c])`` to flat features, flattened channels last."""
        x = x[..., None] if len(x.shape) == 3 else x
        for conv, norm, pool in zip(self.body[::2], self.body[1::2], self._pools, strict=True):
            x = norm(conv(x), training=training)
            if pool:
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            x = tf.nn.relu(x)
        return _flatten(x)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map images ``(n, h, w[, c])`` to ``(n, n_outputs)``."""
        return self.head(self.features(x, training=training))


class Conv4Strided(keras.Model):
    """Four blocks of 3×3 convolution with stride 2, batch norm and ReLU, then a linear head.

    The network with which MAML's authors learned Omniglot (Finn et al. 2017, section 5.2): the
    stride halves height and width instead of a pooling, so that a block costs a quarter.  The head
    sees the mean over the positions.  Images are padded by one pixel on each side.

    Args:
        input_shape: ``(h, w)`` or ``(h, w, c)`` of one image.
        n_outputs: width of the head.
        channels: width of every block.
    """

    def __init__(self, input_shape: Sequence[int], n_outputs: int, channels: int = 64) -> None:
        super().__init__()
        depth = (*input_shape, 1)[2]
        self.body = []
        for position in range(0, 12, 3):
            # Padded by hand: "same" would pad the left and the right side unequally.
            conv = keras.layers.Conv2D(
                channels, 3, strides=2, padding="valid", use_bias=False, name=f"body.{position}"
            )
            conv.build((None, 3, 3, depth))
            self.body += [conv, BatchNorm(channels, name=f"body.{position + 1}")]
            depth = channels
        self.head = _dense(channels, n_outputs, name="head")
        self.built = True

    def features(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map images ``(n, h, w[, c])`` to features ``(n, channels)``."""
        x = x[..., None] if len(x.shape) == 3 else x
        for conv, norm in zip(self.body[::2], self.body[1::2], strict=True):
            x = tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            x = tf.nn.relu(norm(conv(x), training=training))
        return tf.reduce_mean(x, (1, 2))

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map images ``(n, h, w[, c])`` to ``(n, n_outputs)``."""
        return self.head(self.features(x, training=training))


NETWORKS: dict[str, Callable[[Sequence[int], int], keras.Model]] = {
    "mlp": MLP,
    "conv4": Conv4,
    "conv4-strided": Conv4Strided,
}


@checked(n_outputs=COUNT)
def build(
    network: str | Callable[[], keras.Model] | None,
    input_shape: Sequence[int],
    n_outputs: int,
    rng: np.random.Generator,
    dtype: str = "float32",
) -> keras.Model:
    """Make a network by name, or by the user's own factory.

    Args:
        network: "mlp", "conv4", "conv4-strided", a zero-argument factory, or ``None``: conv4 for
            images, mlp for vectors.  Named networks are drawn from ``rng``; a factory keeps its own
            weights.
        input_shape: shape of one example.
        n_outputs: what the network must return for each example.
        rng: the ``init`` stream.
        dtype: "float32" or "float64".

    Returns:
        A model that maps ``(n, *input_shape)`` to ``(n, n_outputs)``.

    Raises:
        ValueError: for an unknown name, a conv4 on vectors, or a factory whose model does not
            take such examples or returns another shape.
        TypeError: for a model instead of a factory, or a factory that makes no model.
    """
    check_choice("dtype", dtype, ["float32", "float64"])
    if callable(network) and not isinstance(network, keras.layers.Layer):
        with layer_dtype(dtype):
            model = _call_factory(network)
        _check_output(model, input_shape, n_outputs, dtype)
        return model
    if isinstance(network, keras.layers.Layer):
        raise TypeError(_NO_FACTORY.format(what=f"the model {type(network).__name__}"))
    name = check_choice("network", network or _default_name(input_shape), NETWORKS)
    if name != "mlp" and len(input_shape) < 2:
        raise ValueError(f"network={name!r} needs images, got examples of shape {input_shape}.")
    with layer_dtype(dtype):
        model = NETWORKS[name](input_shape, n_outputs)
    return initialise(model, rng)


@checked
def initialise(module: keras.Model, rng: np.random.Generator) -> keras.Model:
    """Draw the weights of ``module`` anew from ``rng``, in canonical layout; returns it."""
    shapes = {name: array.shape for name, array in to_numpy(module).items()}
    from_numpy(module, initial_weights(shapes, rng, dtype="float64"))
    return module


@checked
def to_numpy(module: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights in canonical layout: name → array (a copy, on the CPU)."""
    return {
        name: np.transpose(variable.numpy(), axes).copy()
        for name, (variable, axes) in _state(module).items()
    }


@checked
def from_numpy(module: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Load weights in canonical layout; a wrong name or shape raises ``ValueError``."""
    state = _state(module)
    shapes = {name: tuple(np.array(v.shape)[list(axes)]) for name, (v, axes) in state.items()}
    check_layout(arrays, shapes)
    for name, (variable, axes) in state.items():
        variable.assign(np.transpose(np.asarray(arrays[name]), np.argsort(axes)))


@contextmanager
def layer_dtype(dtype: str) -> Iterator[None]:
    """Make the layers that are constructed in the body compute in ``dtype``."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def mixed_precision(network: keras.Model, precision: str) -> Iterator[None]:
    """Make linear and convolutional layers compute in ``precision`` while the body runs.

    Their weights stay as they are; "float32" stands for the weights' own dtype.
    """
    # What else the network does (normalisation, softmax, sums) keeps the dtype of its inputs.
    layers = [] if precision == "float32" else _heavy_layers(network)
    before = [layer.dtype_policy for layer in layers]
    for layer in layers:
        layer.dtype_policy = keras.DTypePolicy(f"mixed_{precision}")
    try:
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


def _heavy_layers(network: keras.Model) -> list[keras.layers.Layer]:
    layers = network._flatten_layers(include_self=False)
    return [one for one in layers if isinstance(one, keras.layers.Dense | keras.layers.Conv2D)]


# Keras' name of a weight → canonical name and the order of axes that gives torch's layout.
_LAYOUT: dict[tuple[str, int], tuple[str, tuple[int, ...]]] = {
    ("kernel", 2): ("weight", (1, 0)),
    ("kernel", 4): ("weight", (3, 2, 0, 1)),
}


def _state(layer: keras.layers.Layer, prefix: str = "") -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Canonical name → (variable, axes that bring it into canonical layout)."""
    state: dict[str, tuple[Any, tuple[int, ...]]] = {}
    for position, child in enumerate(getattr(layer, "layers", [])):
        state.update(_state(child, f"{prefix}{_layer_name(child, position)}."))
    of_children = {id(variable) for variable, _ in state.values()}
    for variable in layer.weights:
        if id(variable) in of_children or "seed" in variable.name:
            continue
        rank = len(variable.shape)
        kind, axes = _LAYOUT.get((variable.name, rank), (variable.name, tuple(range(rank))))
        # Layers inside a layer (attention) have weights of one name: count them.
        name, copies = f"{prefix}{kind}", 0
        while name in state:
            copies += 1
            name = f"{prefix}{kind}.{copies}"
        state[name] = (variable, axes)
    return state


def _layer_name(layer: keras.layers.Layer, position: int) -> str:
    """The layer's own name, or its position where Keras numbered it (``dense_7``)."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__)
    numbered = re.fullmatch(rf"{re.escape(snake.lower())}(_\d+)?", layer.name)
    return f"layers.{position}" if numbered else layer.name


def _dense(n_in: int, n_out: int, name: str, activation: str | None = None) -> keras.layers.Dense:
    layer = keras.layers.Dense(n_out, activation=activation, name=name)
    layer.build((None, n_in))
    return layer


def _channel_mean(x: tf.Tensor) -> tf.Tensor:
    """Mean over all axes but the last, one axis at a time.

    One sum over 50,000 float32 numbers loses three digits: TensorFlow adds them in a row.
    """
    for axis in reversed(range(len(x.shape) - 1)):
        x = tf.reduce_mean(x, axis)
    return x


def _flatten(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, (tf.shape(x)[0], math.prod(x.shape[1:])))


_NO_FACTORY = (
    "network must be a name or a function without arguments that makes a model, got {what}; "
    "write network=lambda: ..."
)


def _call_factory(network: Callable[[], keras.Model]) -> keras.Model:
    model = network()
    if not isinstance(model, keras.layers.Layer):
        made = type(model).__name__
        raise TypeError(_NO_FACTORY.format(what=f"a function that returned a {made}"))
    return model


def _default_name(input_shape: Sequence[int]) -> str:
    return "conv4" if len(input_shape) >= 2 else "mlp"


def _check_output(
    module: keras.Model, input_shape: Sequence[int], n_outputs: int, dtype: str
) -> None:
    try:
        shape = tuple(module(tf.zeros((2, *input_shape), dtype), training=False).shape)
    except (tf.errors.OpError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"the network factory's model cannot map examples of shape {tuple(input_shape)} to "
            f"{n_outputs} outputs: {error}"
        ) from error
    if shape != (2, n_outputs):
        raise ValueError(
            f"the network factory's model maps 2 examples to shape {shape}, "
            f"expected {(2, n_outputs)}."
        )
