"""The same seed gives the same run: loss, gradients and predictions in both frameworks."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch

pytest.importorskip("tensorflow", reason="tensorflow is not installed")
import tensorflow as tf

import fewshot_course.tf as course_tf
import fewshot_course.torch as course_torch
from fewshot_course._streams import Streams
from fewshot_course.tf import networks as tf_networks
from fewshot_course.tf import optim as tf_optim
from fewshot_course.torch import networks as torch_networks
from fewshot_course.torch import optim as torch_optim

SHAPES = {"mlp": (12,), "conv4": (8, 8), "conv4 on 16 x 16": (16, 16)}
OPTIMISERS = {"sgd": {"lr": 0.05, "momentum": 0.9}, "adamw": {"lr": 1e-3}}
AFTER_TEN = {"float64": 1e-10, "float32": 1e-4}
AFTER_ONE = {"float64": 1e-10, "float32": 1e-5}
STEPS, BATCH, CLASSES = 10, 16, 5


def apart(a, b):
    """Greatest difference, relative to the greatest value."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return np.abs(a - b).max() / np.abs(a).max()


def images_and_labels(network, dtype):
    rng = np.random.default_rng(1)
    X = rng.uniform(size=(STEPS, BATCH, *SHAPES[network])).astype(dtype)
    y = rng.integers(CLASSES, size=(STEPS, BATCH))
    return X, y


def build(networks, network, dtype):
    rng = Streams.from_seed(3).init
    return networks.build(network.split()[0], SHAPES[network], CLASSES, rng, dtype)


class TorchRun:
    def __init__(self, network, dtype):
        self.module = build(torch_networks, network, dtype).train()

    def gradients(self, X, y):
        logits = self.module(torch.as_tensor(X))
        loss = torch.nn.functional.cross_entropy(logits, torch.as_tensor(y))
        self.module.zero_grad()
        loss.backward()
        named = {name: p.grad.numpy().copy() for name, p in self.module.named_parameters()}
        return loss.item(), named

    def train(self, X, y, optimiser, frozen=(), **settings):
        trained = [p for name, p in self.module.named_parameters() if name not in frozen]
        optimizer = getattr(torch_optim, optimiser)(trained, **settings)
        losses = []
        for batch, labels in zip(X, y, strict=True):
            losses.append(self.gradients(batch, labels)[0])
            optimizer.step()
        with torch.no_grad():
            return losses, torch.softmax(self.module.eval()(torch.as_tensor(X[0])), 1).numpy()


class TFRun:
    def __init__(self, network, dtype):
        self.module = build(tf_networks, network, dtype)

    def tape(self, X, y):
        with tf.GradientTape() as tape:
            logits = self.module(tf.constant(X), training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        return loss, tape.gradient(loss, [v.value for v in self.module.trainable_variables])

    def gradients(self, X, y):
        loss, gradients = self.tape(X, y)
        by_variable = dict(
            zip((id(v) for v in self.module.trainable_variables), gradients, strict=True)
        )
        named = {
            name: np.transpose(by_variable[id(variable)].numpy(), axes)
            for name, (variable, axes) in tf_networks._state(self.module).items()
            if variable.trainable
        }
        return float(loss), named

    def train(self, X, y, optimiser, frozen=(), **settings):
        variables = self.module.trainable_variables
        held = {id(tf_networks._state(self.module)[name][0]) for name in frozen}
        optimizer = getattr(tf_optim, optimiser)(variables, **settings)
        losses = []
        for batch, labels in zip(X, y, strict=True):
            loss, gradients = self.tape(batch, labels)
            pairs = zip(variables, gradients, strict=True)
            optimizer.apply([None if id(v) in held else gradient for v, gradient in pairs])
            losses.append(float(loss))
        return losses, tf.nn.softmax(self.module(tf.constant(X[0]), training=False)).numpy()


@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize("dtype", AFTER_ONE)
def test_initial_weights_are_identical(network, dtype):
    one = torch_networks.to_numpy(build(torch_networks, network, dtype))
    two = tf_networks.to_numpy(build(tf_networks, network, dtype))
    assert list(one) == list(two)
    for name in one:
        assert one[name].dtype == two[name].dtype == dtype
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize("dtype", AFTER_ONE)
def test_one_step_agrees_in_loss_and_gradients(network, dtype):
    X, y = images_and_labels(network, dtype)
    loss_one, one = TorchRun(network, dtype).gradients(X[0], y[0])
    loss_two, two = TFRun(network, dtype).gradients(X[0], y[0])
    assert apart([loss_one], [loss_two]) < AFTER_ONE[dtype]
    assert list(one) == list(two)
    for name in one:
        assert apart(one[name], two[name]) < AFTER_ONE[dtype], name


# On 8 x 8 images the fourth block sees one pixel: what the third one's bias adds to it, the fourth
# one's batch norm takes away again.  Adam makes whole steps of the rounding that such a gradient
# is, and float32 runs part, on some processors by 1e-2 in loss.
NO_GRADIENT = "body.9.bias"


@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("dtype", AFTER_TEN)
def test_ten_steps_agree_in_loss_and_predictions(network, optimiser, dtype):
    X, y = images_and_labels(network, dtype)
    settings = dict(OPTIMISERS[optimiser])
    if (network, optimiser, dtype) == ("conv4", "adamw", "float32"):
        settings["frozen"] = (NO_GRADIENT,)
    losses_one, proba_one = TorchRun(network, dtype).train(X, y, optimiser, **settings)
    losses_two, proba_two = TFRun(network, dtype).train(X, y, optimiser, **settings)
    assert apart(losses_one, losses_two) < AFTER_TEN[dtype]
    assert apart(proba_one, proba_two) < AFTER_TEN[dtype]


@pytest.mark.parametrize("run", [TorchRun, TFRun])
def test_what_is_left_out_has_no_gradient_but_rounding(run):
    X, y = images_and_labels("conv4", "float64")
    gradients = run("conv4", "float64").gradients(X[0], y[0])[1]
    bias, largest = np.abs(gradients[NO_GRADIENT]), np.abs(gradients["body.13.bias"]).max()
    assert (bias < 1e-13 * largest).sum() > len(bias) / 2


@pytest.mark.parametrize(
    ("network", "estimator", "dtype"),
    [
        ("mlp", "moments", "float64"),
        ("mlp", "moments", "float32"),
        ("mlp", "mixture", "float64"),
        ("mlp", "mixture", "float32"),
        ("conv4", "moments", "float64"),
    ],
)
def test_ten_steps_of_the_kl_adapter_agree(network, estimator, dtype):
    rng = np.random.default_rng(2)
    X_source, X_target = rng.uniform(size=(2, 60, *SHAPES[network]))
    X_target = X_target**2  # another domain
    y_source = np.arange(60) % 3
    y_target = np.where(np.arange(60) < 6, np.arange(60) % 3, -1)
    settings = {
        "network": network, "estimator": estimator, "dtype": dtype, "steps": STEPS,
        "batch_size": BATCH, "latent_dim": 4, "weight": 0.5, "reverse_weight": 0.3,
        "random_state": 5, "prediction_samples": 3,
    }  # fmt: skip
    fitted = [
        package.KLAdapter(**settings).fit(X_source, y_source, X_target, y_target, device="cpu")
        for package in (course_torch, course_tf)
    ]
    one, two = fitted
    assert one.history_["alignment"][-1] != 0
    for name in ("loss", "alignment"):
        assert apart(one.history_[name], two.history_[name]) < AFTER_TEN[dtype], name
    assert apart(one.predict_proba(X_target), two.predict_proba(X_target)) < AFTER_TEN[dtype]
