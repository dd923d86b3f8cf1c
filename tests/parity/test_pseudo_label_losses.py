"""The loss of a step of self-training: one value, one gradient in both frameworks, and in fit."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as tf
import torch

from fewshot_course._streams import Streams
from fewshot_course.tf import networks as tf_networks
from fewshot_course.tf import pseudo_labels as tf_pseudo
from fewshot_course.torch import networks as torch_networks
from fewshot_course.torch import pseudo_labels as torch_pseudo

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
CLASSES, THRESHOLD = 4, 0.32
LABELLED, BOTH = False, True


def batches(dtype):
    rng = np.random.default_rng(0)
    x, unlabelled = rng.normal(size=(12, 5)).astype(dtype), rng.normal(size=(20, 5)).astype(dtype)
    return x, rng.integers(CLASSES, size=12), rng.uniform(0, 2, 12).astype(dtype), unlabelled


def by_torch(parts, dtype):
    *labelled, unlabelled = (torch.as_tensor(part) for part in batches(dtype))
    network = torch_networks.build("mlp", (5,), CLASSES, Streams.from_seed(1).init, dtype)
    found = torch_pseudo.self_training_loss(
        network, tuple(labelled), unlabelled if parts else None, 0.7, THRESHOLD
    )
    found[0].backward()
    gradients = {name: p.grad.numpy() for name, p in network.named_parameters()}
    return [value.item() for value in found], gradients


def by_tensorflow(parts, dtype):
    *labelled, unlabelled = (tf.constant(part) for part in batches(dtype))
    network = tf_networks.build("mlp", (5,), CLASSES, Streams.from_seed(1).init, dtype)
    with tf.GradientTape() as tape:
        found = tf_pseudo.self_training_loss(
            network, tuple(labelled), unlabelled if parts else None, 0.7, THRESHOLD
        )
    gradients = tape.gradient(found[0], network.trainable_variables)
    by_variable = {id(v): g for v, g in zip(network.trainable_variables, gradients, strict=True)}
    named = {name: by_variable[id(v)] for name, (v, *_) in tf_networks._state(network).items()}
    named = {name: g.numpy().T if g.shape.rank == 2 else g.numpy() for name, g in named.items()}
    return [float(value) for value in found], named


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("parts", [LABELLED, BOTH])
def test_self_training_loss_and_its_gradient_agree(parts, dtype):
    found, gradients = by_torch(parts, dtype)
    found_two, gradients_two = by_tensorflow(parts, dtype)
    np.testing.assert_allclose(found, found_two, rtol=TOLERANCE[dtype])
    loss, pseudo_loss, coverage = found
    assert (0 < coverage < 1 and 0 < pseudo_loss < loss) if parts else pseudo_loss == coverage == 0
    assert set(gradients) == set(gradients_two)
    largest = max(np.abs(g).max() for g in gradients.values())
    for name, gradient in gradients.items():
        assert np.abs(gradient - gradients_two[name]).max() < TOLERANCE[dtype] * largest, name


@pytest.mark.parametrize("module", [torch_pseudo, tf_pseudo])
def test_fit_runs_the_function_that_is_shown(module, monkeypatch):
    unlabelled = []
    shown = module.self_training_loss

    def counted(network, labelled, some, *args):
        unlabelled.append(some is not None)
        return shown(network, labelled, some, *args)

    monkeypatch.setattr(module, "self_training_loss", counted)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 5)), np.arange(40) % CLASSES
    model = module.SelfTraining(
        "mlp", steps=10, ramp_start=0.5, batch_size=8, unlabelled_batch_size=8, random_state=0
    )
    model.fit(X, np.where(np.arange(40) < 8, y, -1), device="cpu")
    # α is 0 up to the middle, its own value there included.  TensorFlow calls the function while
    # it traces, once without unlabelled examples and once with; torch in every step.
    called = [False] * 6 + [True] * 4
    assert unlabelled == (called if module is torch_pseudo else [False, True])


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_no_adversary_gets_the_loss_below_zero(threshold):
    """Let Adam lower it straight on the outputs, of labelled and unlabelled examples."""
    _, y, weights, _ = (torch.as_tensor(part) for part in batches("float64"))
    rng = np.random.default_rng(0)
    free = [torch.tensor(a, requires_grad=True) for a in rng.normal(size=(2, 12, CLASSES))]
    optimizer, first, lowest = torch.optim.Adam(free, lr=0.5), None, np.inf
    for _ in range(200):
        loss, *_ = torch_pseudo.self_training_loss(
            torch.nn.Identity(), (free[0], y, weights), free[1], 3.0, threshold
        )
        first = loss.item() if first is None else first
        lowest = min(lowest, loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 0 <= lowest < 0.01 * first
