"""Defects of well-known libraries that the page on common mistakes names: each still there.

A test that fails here means that a library was mended, or that this course uses another version:
then the page must be changed.  The right lines stand beside the wrong ones and must pass.
"""

import numpy as np
import pytest

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4))
V = RNG.normal(size=(6, 4))
STEP = 1e-5


def relative(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


def finite_difference(gradient):
    """The derivative of a gradient along V, from the gradient alone."""
    return (gradient(X + STEP * V) - gradient(X - STEP * V)) / (2 * STEP)


# ---------------------------------------------------------------------------- PyTorch


TASKS = RNG.normal(size=(3, 6, 2))
WEIGHTS, DIRECTION = RNG.normal(size=(2, 8))


def torch_error(normalise, vmapped):
    """Relative error of a second derivative through per-task gradients, as MAML takes it."""
    import torch
    from torch.func import grad, vmap

    def task_loss(theta, x):
        matrix, weight, bias = theta[:4].view(2, 2), theta[4:6], theta[6:]
        return torch.tanh(normalise(x @ matrix, weight, bias)).square().sum()

    def outer(theta):
        if vmapped:
            gradients = vmap(grad(task_loss), in_dims=(None, 0))(theta, tasks)
        else:
            gradients = torch.stack([grad(task_loss)(theta, x) for x in tasks])
        return gradients.square().sum()

    tasks, theta, along = (torch.tensor(a) for a in (TASKS, WEIGHTS, DIRECTION))
    expected = (outer(theta + STEP * along) - outer(theta - STEP * along)) / (2 * STEP)
    return abs(float((grad(outer)(theta) @ along - expected) / expected))


def test_torch_batch_norm_under_vmap_has_a_wrong_second_derivative():
    import torch.nn.functional as F

    def library(z, weight, bias):
        return F.batch_norm(z, None, None, weight, bias, training=True)

    def by_hand(z, weight, bias):
        centred = z - z.mean(0)
        return centred * (centred.square().mean(0) + 1e-5).rsqrt() * weight + bias

    assert torch_error(library, vmapped=True) > 0.01
    for normalise, vmapped in ((library, False), (by_hand, True), (by_hand, False)):
        assert torch_error(normalise, vmapped) < 1e-6


# ---------------------------------------------------------------------------- TensorFlow


def tensorflow_second_derivative(normalise):
    import tensorflow as tf

    import fewshot_course.tf  # noqa: F401  (silences the start-up messages)

    def gradient(x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(normalise(x) ** 3)
        return tape.gradient(loss, x).numpy()

    x = tf.constant(X)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = tf.reduce_sum(normalise(x) ** 3)
        along = tf.reduce_sum(inner.gradient(loss, x) * tf.constant(V))
    return outer.gradient(along, x).numpy(), finite_difference(gradient)


def moments(x):
    import tensorflow as tf

    mean, variance = tf.nn.moments(x, 0)
    return (x - mean) / tf.sqrt(variance + 1e-5)


def keras_layer_norm(x):
    import keras

    layer = keras.layers.LayerNormalization(dtype="float64", center=False, scale=False)
    return layer(x)


def tensorflow_by_hand(x):
    import tensorflow as tf

    centred = x - tf.reduce_mean(x, 0)
    return centred / tf.sqrt(tf.reduce_mean(centred**2, 0) + 1e-5)


@pytest.mark.parametrize("normalise", [moments, keras_layer_norm])
def test_tensorflow_moments_have_a_wrong_second_derivative(normalise):
    found, expected = tensorflow_second_derivative(normalise)
    assert relative(found, expected) > 0.01


def test_a_variance_by_hand_has_the_right_one():
    found, expected = tensorflow_second_derivative(tensorflow_by_hand)
    assert relative(found, expected) < 1e-6


def test_keras_adam_is_not_the_adam_of_the_paper():
    """Its epsilon is added before the bias correction; with small gradients the step differs."""
    import keras
    import tensorflow as tf

    import fewshot_course.tf  # noqa: F401  (silences the start-up messages)

    gradient, lr, epsilon = 1e-7, 0.1, 1e-7
    weight = tf.Variable(np.float64(0.0))
    keras.optimizers.Adam(lr, epsilon=epsilon).apply_gradients(
        [(tf.constant(gradient, tf.float64), weight)]
    )
    paper = -lr * gradient / (gradient + epsilon)  # both moments corrected, Kingma and Ba 2015
    assert float(weight.numpy()) / paper < 0.5


# ---------------------------------------------------------------------------- others


def test_transformers_has_no_tensorflow_models():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    assert not hasattr(transformers, "TFAutoModel")


def test_the_gaussian_kernel_of_skada_does_not_square_the_distance():
    pytest.importorskip("skada", reason="skada is not installed; the page says how to run this")
    import torch
    from skada.deep.losses import _gaussian_kernel

    x, y = torch.zeros(1, 1), torch.tensor([[3.0]])
    found = float(_gaussian_kernel(x, y, torch.tensor([2.0])))
    assert found == pytest.approx(np.exp(-3.0 / 2.0))  # the Laplacian kernel
    assert found != pytest.approx(np.exp(-(3.0**2) / 2.0), rel=0.1)
