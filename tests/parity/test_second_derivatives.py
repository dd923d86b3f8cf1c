"""Second derivatives against finite differences: MAML differentiates through every layer.

Frameworks get some of their own layers wrong here, which is why the course has its own.  Where a
new version mends one, the test says that ours is no longer needed.
"""

import inspect

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch

pytest.importorskip("tensorflow", reason="tensorflow is not installed")
import keras
import tensorflow as tf
from torch import nn
from torch.func import functional_call, grad, vmap

import fewshot_course.tf  # noqa: F401  (silences the start-up messages)
from fewshot_course.tf import networks as tf_networks
from fewshot_course.torch import networks as torch_networks

TOLERANCE = 1e-6
WRONG = 1e-3
H = 1e-5

# Name → (torch's layer, its input without the batch, TensorFlow's layer, its input).
LAYERS = {
    "linear": (
        lambda: torch_networks.MLP((4,), 3, hidden=()), (4,),
        lambda: tf_networks.MLP((4,), 3, hidden=()), (4,),
    ),
    "conv": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, bias=False), (2, 4, 4),
        lambda: keras.layers.Conv2D(3, 3, padding="same", use_bias=False), (4, 4, 2),
    ),
    "BatchNorm": (
        lambda: torch_networks.BatchNorm(3), (3, 2, 2),
        lambda: tf_networks.BatchNorm(3), (2, 2, 3),
    ),
    "LayerNorm": (
        lambda: torch_networks.LayerNorm(4), (4,),
        lambda: tf_networks.LayerNorm(4), (4,),
    ),
    "MLP": (
        lambda: torch_networks.MLP((4,), 3, hidden=(6, 5)), (4,),
        lambda: tf_networks.MLP((4,), 3, hidden=(6, 5)), (4,),
    ),
    "Conv4": (
        lambda: torch_networks.Conv4((8, 8), 3, channels=4), (8, 8),
        lambda: tf_networks.Conv4((8, 8), 3, channels=4), (8, 8),
    ),
    "Conv4Strided": (
        lambda: torch_networks.Conv4Strided((8, 8), 3, channels=4), (8, 8),
        lambda: tf_networks.Conv4Strided((8, 8), 3, channels=4), (8, 8),
    ),
}  # fmt: skip


class TorchLoss:
    """A smooth loss of a layer's parameters and its input, all in one float64 vector."""

    def __init__(self, make, shape, n=5):
        module = make()
        self.module = module.double().train()
        self.shapes = {k: tuple(p.shape) for k, p in module.named_parameters()}
        self.shapes["x"] = (n, *shape)

    def of(self, theta):
        parts = dict(
            zip(self.shapes, theta.split([int(np.prod(s)) for s in self.shapes.values()]),
                strict=True)
        )  # fmt: skip
        parts = {k: v.reshape(self.shapes[k]) for k, v in parts.items()}
        x = parts.pop("x")
        return smooth_torch(functional_call(self.module, parts, (x,)))

    def gradient(self, theta):
        theta = torch.tensor(theta, requires_grad=True)
        return torch.autograd.grad(self.of(theta), theta)[0].numpy()

    def times_hessian(self, theta, v):
        theta, v = torch.tensor(theta, requires_grad=True), torch.tensor(v)
        (first,) = torch.autograd.grad(self.of(theta), theta, create_graph=True)
        return torch.autograd.grad(first @ v, theta)[0].numpy()

    def value(self, theta):
        return self.of(torch.tensor(theta)).item()


class TFLoss:
    """The same in TensorFlow."""

    def __init__(self, make, shape, n=5):
        with tf_networks.layer_dtype("float64"):
            self.layer = make()
        self.layer(tf.zeros((n, *shape), tf.float64))
        self.has_mode = "training" in inspect.signature(self.layer.call).parameters
        self.variables = self.layer.trainable_variables
        self.shapes = [*(tuple(v.shape) for v in self.variables), (n, *shape)]

    def put(self, theta):
        parts = np.split(theta, np.cumsum([int(np.prod(s)) for s in self.shapes])[:-1])
        *weights, x = (p.reshape(s) for p, s in zip(parts, self.shapes, strict=True))
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)
        return tf.Variable(x)

    def of(self, x):
        takes_mode = not isinstance(
            self.layer,
            keras.layers.Conv2D | tf_networks.LayerNorm | keras.layers.LayerNormalization,
        )
        mode = {"training": True} if takes_mode else {}
        return smooth_tf(self.layer(tf.convert_to_tensor(x), **mode))

    def all(self, x):
        return [*(v.value for v in self.variables), x]

    def gradient(self, theta):
        x = self.put(theta)
        with tf.GradientTape() as tape:
            loss = self.of(x)
        return flat(tape.gradient(loss, self.all(x)))

    def times_hessian(self, theta, v):
        x = self.put(theta)
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = self.of(x)
            first = tf.concat(
                [tf.reshape(g, [-1]) for g in inner.gradient(loss, self.all(x))], axis=0
            )
            product = tf.tensordot(first, tf.constant(v), 1)
        return flat(
            outer.gradient(product, self.all(x), unconnected_gradients=tf.UnconnectedGradients.ZERO)
        )

    def value(self, theta):
        return float(self.of(self.put(theta)))


def smooth_torch(y):
    return (torch.sin(y) + 0.1 * y**3).sum()


def smooth_tf(y):
    return tf.reduce_sum(tf.sin(y) + 0.1 * y**3)


def flat(gradients):
    return np.concatenate([np.ravel(g.numpy()) for g in gradients])


def point(loss, seed=0):
    rng = np.random.default_rng(seed)
    shapes = loss.shapes.values() if isinstance(loss.shapes, dict) else loss.shapes
    size = sum(int(np.prod(s)) for s in shapes)
    return rng.normal(size=size), rng.normal(size=size)


def errors(loss):
    """Relative errors of the first and of the second derivative along a random direction."""
    theta, v = point(loss)
    slope = (loss.value(theta + H * v) - loss.value(theta - H * v)) / (2 * H)
    first = abs(loss.gradient(theta) @ v - slope) / abs(slope)
    bend = (loss.gradient(theta + H * v) - loss.gradient(theta - H * v)) / (2 * H)
    second = np.abs(loss.times_hessian(theta, v) - bend).max() / np.abs(bend).max()
    return first, second


def test_every_layer_of_networks_is_checked():
    classes = {n for n in torch_networks.__all__ if isinstance(getattr(torch_networks, n), type)}
    assert classes <= set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_second_derivative_in_torch(name):
    first, second = errors(TorchLoss(*LAYERS[name][:2]))
    assert first < TOLERANCE
    assert second < TOLERANCE


@pytest.mark.parametrize("name", LAYERS)
def test_second_derivative_in_tensorflow(name):
    first, second = errors(TFLoss(*LAYERS[name][2:]))
    assert first < TOLERANCE
    assert second < TOLERANCE


def vmap_error(make, shape, tasks=3):
    """Relative error of grad(vmap(grad(...))), against finite differences of vmap(grad(...))."""
    loss = TorchLoss(make, shape)
    n_x = int(np.prod(loss.shapes["x"]))
    rng = np.random.default_rng(1)
    theta, direction = (torch.tensor(part[:-n_x]) for part in point(loss))
    X = torch.tensor(rng.normal(size=(tasks, n_x)))

    def task(theta, x):
        return loss.of(torch.cat([theta, x]))

    def outer(theta):
        return vmap(grad(task), in_dims=(None, 0))(theta, X).square().sum()

    slope = (outer(theta + H * direction) - outer(theta - H * direction)) / (2 * H)
    return (abs(grad(outer)(theta) @ direction - slope) / abs(slope)).item()


@pytest.mark.parametrize("name", LAYERS)
def test_second_derivative_under_vmap(name):
    assert vmap_error(*LAYERS[name][:2]) < TOLERANCE


def test_running_averages_stay_under_torch_func():
    norm = torch_networks.BatchNorm(3).double().train()
    parameters = {k: v.detach() for k, v in norm.named_parameters()}
    x = torch.randn(4, 5, 3, dtype=torch.double)
    vmap(grad(lambda p, x: functional_call(norm, p, (x,)).sum()), in_dims=(None, 0))(parameters, x)
    assert norm.running_mean.tolist() == [0, 0, 0]
    assert norm.running_var.tolist() == [1, 1, 1]


class ConvNorm(nn.Module):
    """A convolution and batch norm; the fault shows where both have weights."""

    def __init__(self, native):
        super().__init__()
        self.native = native
        self.conv = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.norm = torch_networks.BatchNorm(3)

    def forward(self, x):
        x, norm = self.conv(x), self.norm
        if not self.native:
            return norm(x)
        return nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


def test_large_arrays_under_vmap_do_not_take_torchs_batch_norm(monkeypatch):
    monkeypatch.setattr(torch_networks.BatchNorm, "fused_above", 0)
    assert vmap_error(lambda: ConvNorm(native=False), (2, 4, 4)) < TOLERANCE


def test_torchs_batch_norm_is_still_wrong_under_vmap():
    assert vmap_error(lambda: ConvNorm(native=False), (2, 4, 4)) < TOLERANCE
    assert vmap_error(lambda: ConvNorm(native=True), (2, 4, 4)) > WRONG, (
        "F.batch_norm is right under grad(vmap(grad)): networks.BatchNorm is no longer needed "
        "in torch; say so in its docstring and lower bound."
    )


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: keras.layers.BatchNormalization(epsilon=1e-5), (2, 2, 3)),
        (lambda: keras.layers.LayerNormalization(epsilon=1e-5), (4,)),
    ],
    ids=["BatchNormalization", "LayerNormalization"],
)
def test_keras_normalisation_is_still_wrong(make, shape):
    first, second = errors(TFLoss(make, shape))
    assert first < TOLERANCE
    assert second > WRONG, (
        "keras has mended the second derivative of this layer: ours in tf.networks is no longer "
        "needed; say so in its docstring and lower bound."
    )
