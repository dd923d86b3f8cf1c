"""The losses of the adapters' steps: one value and one gradient in both frameworks, and in fit."""

from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch

pytest.importorskip("tensorflow", reason="tensorflow is not installed")
import tensorflow as tf

from fewshot_course._streams import Streams
from fewshot_course.tf import alignment as tf_alignment
from fewshot_course.tf import kl_adaptation as tf_kl
from fewshot_course.tf import kliep as tf_kliep
from fewshot_course.tf import networks as tf_networks
from fewshot_course.torch import alignment as torch_alignment
from fewshot_course.torch import kl_adaptation as torch_kl
from fewshot_course.torch import kliep as torch_kliep
from fewshot_course.torch import networks as torch_networks

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
LATENT, CLASSES = 3, 4
KINDS = ("moments", "mixture", "coral", "none")


def batches(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 12, 5)).astype(dtype)
    noise = rng.normal(size=(3, 12, LATENT)).astype(dtype)
    labels = rng.integers(CLASSES, size=(3, 12))
    weights = rng.uniform(0.5, 2.0, size=12).astype(dtype)
    return x, labels, noise, weights


def fitted(package, dtype):
    """An adapter whose networks are those of the same seed in both frameworks."""
    adapter = package.KLAdapter("mlp", latent_dim=LATENT, dtype=dtype)
    adapter.classes_, adapter.input_shape_ = np.arange(CLASSES), (5,)
    adapter._build(Streams.from_seed(1).init, "cpu")
    return adapter.network_


def alignment_of(kl, alignment, kind):
    if kind == "none":
        return None
    if kind == "coral":
        return lambda source, target: alignment.coral_loss(source.z, target.z)
    return partial(kl.two_way_kl, estimator=kind, weight=0.3, reverse_weight=0.1)


def by_torch(kind, dtype):
    x, labels, noise, _ = batches(dtype)
    network = fitted(torch_kl, dtype)
    x, labels, noise = (torch.as_tensor(part) for part in (x, labels, noise))
    loss, aligned = torch_kl.adaptation_loss(
        network, (x[0], labels[0], noise[0]), (x[1], noise[1]), (x[2], labels[2], noise[2]),
        alignment=alignment_of(torch_kl, torch_alignment, kind), target_weight=0.7,
    )  # fmt: skip
    loss.backward()
    gradients = {name: p.grad.numpy() for name, p in network.named_parameters()}
    return loss.item(), aligned.item(), gradients


def by_tensorflow(kind, dtype):
    x, labels, noise, _ = batches(dtype)
    network = fitted(tf_kl, dtype)
    x, labels, noise = (tf.constant(part) for part in (x, labels, noise))
    with tf.GradientTape() as tape:
        loss, aligned = tf_kl.adaptation_loss(
            network, (x[0], labels[0], noise[0]), (x[1], noise[1]), (x[2], labels[2], noise[2]),
            alignment=alignment_of(tf_kl, tf_alignment, kind), target_weight=0.7,
        )  # fmt: skip
    gradients = tape.gradient(loss, network.trainable_variables)
    by_variable = {id(v): g for v, g in zip(network.trainable_variables, gradients, strict=True)}
    named = {
        name: to_numpy(by_variable[id(variable)])
        for name, (variable, to_numpy) in torch_layout(network).items()
    }
    return float(loss), float(aligned), named


def torch_layout(network):
    """Canonical name → variable, and how its gradient is turned into the canonical layout."""
    turn = lambda array: array.numpy().T if array.shape.rank == 2 else array.numpy()  # noqa: E731
    return {name: (variable, turn) for name, (variable, *_) in tf_networks._state(network).items()}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
def test_adaptation_loss_and_its_gradient_agree(kind, dtype):
    loss, aligned, gradients = by_torch(kind, dtype)
    loss_two, aligned_two, gradients_two = by_tensorflow(kind, dtype)
    assert abs(loss - loss_two) < TOLERANCE[dtype] * abs(loss)
    assert abs(aligned - aligned_two) <= TOLERANCE[dtype] * max(abs(aligned), 1e-3)
    assert (aligned == 0) == (kind == "none")
    assert set(gradients) == set(gradients_two)
    largest = max(np.abs(g).max() for g in gradients.values())
    for name, gradient in gradients.items():
        assert np.abs(gradient - gradients_two[name]).max() < TOLERANCE[dtype] * largest, name


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_importance_loss_agrees(dtype):
    x, labels, _, weights = batches(dtype)
    rng = [Streams.from_seed(1).init for _ in range(2)]
    one = torch_networks.build("mlp", (5,), CLASSES, rng[0], dtype)
    two = tf_networks.build("mlp", (5,), CLASSES, rng[1], dtype)
    put = torch.as_tensor
    a = torch_kliep.importance_loss(
        one, (put(x[0]), put(labels[0]), put(weights)), (put(x[1]), put(labels[1])), 0.7
    )
    put = tf.constant
    b = tf_kliep.importance_loss(
        two, (put(x[0]), put(labels[0]), put(weights)), (put(x[1]), put(labels[1])), 0.7
    )
    assert abs(a.item() - float(b)) < TOLERANCE[dtype] * abs(a.item())


@pytest.mark.parametrize(
    ("module", "estimator", "loss"),
    [
        (torch_kl, "KLAdapter", "adaptation_loss"),
        (tf_kl, "KLAdapter", "adaptation_loss"),
        (torch_kliep, "KLIEP", "importance_loss"),
        (tf_kliep, "KLIEP", "importance_loss"),
    ],
)
def test_fit_runs_the_function_that_is_shown(module, estimator, loss, monkeypatch):
    calls = []
    shown = getattr(module, loss)

    def counted(*args, **kwargs):
        calls.append(args)
        return shown(*args, **kwargs)

    monkeypatch.setattr(module, loss, counted)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 5)), np.arange(40) % CLASSES
    model = getattr(module, estimator)("mlp", steps=4, batch_size=8, random_state=0)
    model.fit(X, y, X + 0.5, np.where(np.arange(40) < 8, y, -1), device="cpu")
    # TensorFlow calls it while it traces, once; torch in every step.
    assert len(calls) == (4 if module.__name__.startswith("fewshot_course.torch") else 1)
