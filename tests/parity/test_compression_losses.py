"""The loss of a student's step: one value and one gradient in both frameworks, and in fit."""

import numpy as np
import pytest
import tiny_bert
from sklearn.linear_model import LogisticRegression

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as tf
import torch

from fewshot_course._streams import Streams
from fewshot_course.tf import compression as tf_compression
from fewshot_course.tf import networks as tf_networks
from fewshot_course.torch import compression as torch_compression

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
N, CLASSES, WIDTH = 10, 3, tiny_bert.CONFIG.hidden_size
KINDS = {
    "images": {},
    "texts": {"normalize": True},
    "texts, features": {"normalize": True, "features_weight": 3.0},
    "texts, features, no unit": {"normalize": False, "features_weight": 3.0},
}


def batch(kind, dtype):
    """What a step is given: inputs, the teacher's logits, labels, the teacher's features."""
    rng = np.random.default_rng(0)
    if kind == "images":
        inputs = [rng.random((N, 8, 8)).astype(dtype)]
    else:
        mask = (np.arange(7) < rng.integers(3, 8, size=(N, 1))).astype(np.int64)
        inputs = [rng.integers(5, tiny_bert.CONFIG.vocab_size, size=(N, 7)) * mask, mask]
    logits = (3 * rng.normal(size=(N, CLASSES))).astype(dtype)
    labels = np.where(np.arange(N) % 2, rng.integers(CLASSES, size=N), -1)
    features = rng.normal(size=(N, WIDTH))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return inputs, logits, labels, features.astype(dtype) if "features" in kind else None


def engine(module, kind, dtype):
    """A student whose weights are the same in both frameworks."""
    if kind == "images":
        rng = Streams.from_seed(1).init
        return module.Engine.for_images("conv4", (8, 8), CLASSES, 4, rng, dtype, "cpu")
    unit = KINDS[kind]["normalize"]
    made = module.Engine.for_texts(tiny_bert.CONFIG, CLASSES, unit, dtype, "cpu")
    rng = np.random.default_rng(2)
    shapes = {name: array.shape for name, array in made.weights().items()}
    made.load({n: (0.3 * rng.standard_normal(shapes[n])).astype(dtype) for n in sorted(shapes)})
    return made


def by_torch(kind, dtype):
    network = engine(torch_compression, kind, dtype).network.train()
    inputs, logits, labels, features = batch(kind, dtype)
    loss = torch_compression.student_loss(
        network, [torch.as_tensor(one) for one in inputs], torch.as_tensor(logits),
        torch.as_tensor(labels), None if features is None else torch.as_tensor(features),
        temperature=3.0, alpha=0.3, **KINDS[kind],
    )  # fmt: skip
    loss.backward()
    return loss.item(), {n: p.grad.numpy() for n, p in network.named_parameters()}


def by_tensorflow(kind, dtype):
    network = engine(tf_compression, kind, dtype).network
    inputs, logits, labels, features = batch(kind, dtype)
    state = tf_networks._state(network)
    named = {name: (v.value, axes) for name, (v, axes) in state.items() if v.trainable}
    with tf.GradientTape() as tape:
        loss = tf_compression.student_loss(
            network, [tf.constant(one) for one in inputs], tf.constant(logits),
            tf.constant(labels), None if features is None else tf.constant(features),
            temperature=3.0, alpha=0.3, **KINDS[kind],
        )  # fmt: skip
    gradients = tape.gradient(loss, {name: value for name, (value, _) in named.items()})
    return float(loss), {
        name: np.transpose(tf.convert_to_tensor(gradient).numpy(), named[name][1])
        for name, gradient in gradients.items()
    }


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
def test_student_loss_and_its_gradient_agree(kind, dtype):
    loss, gradients = by_torch(kind, dtype)
    loss_two, gradients_two = by_tensorflow(kind, dtype)
    assert abs(loss - loss_two) < TOLERANCE[dtype] * abs(loss)
    assert set(gradients) == set(gradients_two)
    largest = max(np.abs(g).max() for g in gradients.values())
    assert largest > 0
    for name, gradient in gradients.items():
        assert np.abs(gradient - gradients_two[name]).max() < TOLERANCE[dtype] * largest, name


@pytest.mark.parametrize("module", [torch_compression, tf_compression], ids=["torch", "tf"])
def test_fit_runs_the_function_that_is_shown(module, monkeypatch):
    calls, shown = [], module.student_loss

    def counted(*args, **kwargs):
        calls.append(args)
        return shown(*args, **kwargs)

    monkeypatch.setattr(module, "student_loss", counted)
    rng = np.random.default_rng(0)
    X, y = rng.random((24, 8, 8)), np.arange(24) % CLASSES
    flat = Flat().fit(X, y)
    module.CompressedImageClassifier(flat, channels=2, epochs=2, batch_size=8, random_state=0).fit(
        X, y, device="cpu"
    )
    # TensorFlow calls it while it traces, once; torch in every step.
    assert len(calls) == (6 if module is torch_compression else 1)


class Flat(LogisticRegression):
    """Logistic regression on the pixels of images."""

    def fit(self, X, y):
        return super().fit(X.reshape(len(X), -1), y)

    def predict_proba(self, X):
        return super().predict_proba(X.reshape(len(X), -1))


class Free(torch.nn.Module):
    """Features and logits that an adversary moves as it likes."""

    def __init__(self, rng):
        super().__init__()
        self.h = torch.nn.Parameter(torch.as_tensor(rng.normal(size=(N, WIDTH))))
        self.z = torch.nn.Parameter(torch.as_tensor(rng.normal(size=(N, CLASSES))))

    def features(self):
        return self.h

    def head(self, h):
        return self.z


@pytest.mark.parametrize("teacher_too", [False, True], ids=["student", "student and teacher"])
def test_no_adversary_gets_the_loss_below_zero(teacher_too):
    """Adam lowers it straight on the student's features and logits, and on the teacher's logits."""
    _, logits, labels, features = batch("texts, features", "float64")
    network = Free(np.random.default_rng(0))
    teacher = torch.as_tensor(logits).clone().requires_grad_(teacher_too)
    free = [*network.parameters(), *([teacher] if teacher_too else [])]
    optimizer = torch.optim.Adam(free, lr=0.3)
    losses = []
    for _ in range(300):
        loss = torch_compression.student_loss(
            network, [], teacher, torch.as_tensor(labels), torch.as_tensor(features)
        )
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(losses) > -1e-12  # rounding of a sum that is 0
    assert losses[-1] < 0.1 * losses[0]
