"""The losses of the VAE's and the GAN's steps: equal in both frameworks, run by fit, bounded."""

import math
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch

pytest.importorskip("tensorflow", reason="tensorflow is not installed")
import tensorflow as tf
from torch.nn import functional as F

from fewshot_course._streams import Streams
from fewshot_course.tf import gan as tf_gan
from fewshot_course.tf import networks as tf_networks
from fewshot_course.tf import vae as tf_vae
from fewshot_course.torch import gan as torch_gan
from fewshot_course.torch import vae as torch_vae

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
LATENT, CLASSES, SIZE = 3, 4, (4, 4)


class Torch:
    """PyTorch's side of a comparison."""

    vae, gan, put = torch_vae, torch_gan, torch.as_tensor
    training: ClassVar[dict[str, bool]] = {}

    @staticmethod
    def gradients(function, modules):
        """Value and parts of ``function()``, and the gradient of each trained weight by name."""
        loss, parts = function()
        loss.backward()
        named = {f"{m}.{name}": p for m in modules for name, p in modules[m].named_parameters()}
        gradients = {k: p.grad if p.grad is None else p.grad.numpy() for k, p in named.items()}
        return loss.item(), [part.item() for part in parts], gradients


class TensorFlow:
    """TensorFlow's side of a comparison."""

    vae, gan, put, training = tf_vae, tf_gan, tf.constant, {"training": True}

    @staticmethod
    def gradients(function, modules):
        """Value and parts of ``function()``, and the gradient of each trained weight by name."""
        named = {
            f"{m}.{name}": found
            for m in modules
            for name, found in tf_networks._state(modules[m]).items()
            if found[0].trainable
        }
        with tf.GradientTape() as tape:
            loss, parts = function()
        gradients = tape.gradient(loss, [variable for variable, _ in named.values()])
        return (
            float(loss),
            [float(part) for part in parts],
            {
                name: None if gradient is None else np.transpose(gradient, axes)
                for (name, (_, axes)), gradient in zip(named.items(), gradients, strict=True)
            },
        )


def built(estimator, shape=SIZE):
    """An estimator with the networks of one seed, not trained."""
    estimator.classes_, estimator.input_shape_ = np.arange(CLASSES), shape
    estimator._build(Streams.from_seed(1).init, "cpu")
    return estimator


def assert_agree(of_step, dtype):
    """Compare what a step's loss is in both frameworks: value, parts and gradients."""
    (loss, parts, gradients), (other, others, by_the_other) = (
        side.gradients(*of_step(side)) for side in (Torch, TensorFlow)
    )
    assert abs(loss - other) < TOLERANCE[dtype] * abs(loss)
    np.testing.assert_allclose(parts, others, rtol=TOLERANCE[dtype])
    assert set(gradients) == set(by_the_other)
    moved = {name for name, gradient in gradients.items() if gradient is not None}
    assert moved == {name for name, gradient in by_the_other.items() if gradient is not None}
    largest = max(np.abs(gradients[name]).max() for name in moved)
    for name in moved:
        gap = np.abs(gradients[name] - by_the_other[name]).max()
        assert gap < TOLERANCE[dtype] * largest, name
    return moved


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("decoder", ["bernoulli", "gaussian"])
def test_m1_loss_and_its_gradient_agree(decoder, dtype):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(6, 16)).astype(dtype)
    noise = rng.normal(size=(2, 6, LATENT)).astype(dtype)

    def of_step(side):
        model = built(
            side.vae.VAEPseudoLabeler(
                "m1", latent_dim=LATENT, hidden=(7, 5), decoder=decoder, dtype=dtype
            )
        )

        def function():
            loss, kl = side.vae.m1_loss(model.features_, side.put(x), side.put(noise), 0.3)
            return loss, [kl]

        return function, {"features": model.features_}

    assert_agree(of_step, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("decoder", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("with_unlabelled", [True, False])
def test_m2_loss_and_its_gradient_agree(decoder, with_unlabelled, dtype):
    rng = np.random.default_rng(0)
    x, more = (rng.uniform(size=(n, 16)).astype(dtype) for n in (6, 9))
    y = rng.integers(CLASSES, size=6)
    noise = rng.normal(size=(1, 6, LATENT)).astype(dtype)
    more_noise = rng.normal(size=(1, CLASSES, 9, LATENT)).astype(dtype)

    def of_step(side):
        model = built(
            side.vae.VAEPseudoLabeler(
                latent_dim=LATENT, hidden=(7, 5), decoder=decoder, dtype=dtype
            )
        )
        labelled = tuple(side.put(part) for part in (x, y, noise))
        unlabelled = tuple(side.put(part) for part in (more, more_noise))

        def function():
            loss, parts = side.vae.m2_loss(
                model.vae_, model.classifier_, labelled, unlabelled if with_unlabelled else None,
                n_classes=CLASSES, share=0.4, classifier_weight=2.0, kl_weight=0.3,
            )  # fmt: skip
            wanted = {"classifier_loss", "labelled_bound"}
            assert set(parts) == wanted | ({"unlabelled_bound"} if with_unlabelled else set())
            return loss, [parts[name] for name in sorted(parts)]

        return function, {"vae": model.vae_, "classifier": model.classifier_}

    assert_agree(of_step, dtype)


def gan_of(side, network, dtype, class_weight=0.5):
    return built(
        side.gan.GANPseudoLabeler(
            network, latent_dim=LATENT, hidden=(6, 5), generator_hidden=(5, 4),
            class_weight=class_weight, dtype=dtype,
        )
    )  # fmt: skip


def gan_data(model, dtype):
    rng = np.random.default_rng(0)
    x, more = (rng.uniform(size=(n, *SIZE)).astype(dtype) for n in (5, 8))
    z = rng.normal(size=(8, LATENT)).astype(dtype)
    told = np.arange(8) % CLASSES
    shapes = model.network_.noise_shapes(5 + 8 + 8)
    noise = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    return x, rng.integers(CLASSES, size=5), more, z, told, noise


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_discriminators_loss_and_its_gradient_agree(network, dtype):
    def of_step(side):
        model = gan_of(side, network, dtype)
        x, y, more, z, told, noise = gan_data(model, dtype)
        ones = np.eye(CLASSES, dtype=dtype)[told]

        def function():
            made = model.generator_(side.put(z), side.put(ones), **side.training)
            flat = [side.put(part.reshape(len(part), -1)) for part in (x, more)]
            return side.gan.adversarial_discriminator_loss(
                model.network_, (flat[0], side.put(y)), flat[1], made,
                [side.put(part) for part in noise], 0.7,
            )  # fmt: skip

        return function, {"discriminator": model.network_, "generator": model.generator_}

    moved = assert_agree(of_step, dtype)
    # No gradient goes into what the generator made.
    assert moved
    assert all(name.startswith("discriminator.") for name in moved)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize(
    ("generator_loss", "told_classes"),
    [("feature_matching", False), ("feature_matching", True), ("plain", True)],
)
def test_the_generators_loss_and_its_gradient_agree(network, generator_loss, told_classes, dtype):
    def of_step(side):
        model = gan_of(side, network, dtype, class_weight=0.5 * told_classes)
        _, _, more, z, told, _ = gan_data(model, dtype)
        ones = np.eye(CLASSES, dtype=dtype)[told]

        def function():
            made = model.generator_(
                side.put(z), side.put(ones) if told_classes else None, **side.training
            )
            loss = side.gan.adversarial_generator_loss(
                model.network_, side.put(more.reshape(len(more), -1)), made,
                side.put(told) if told_classes else None, generator_loss, 0.5,
            )  # fmt: skip
            return loss, []

        return function, {"generator": model.generator_}

    assert_agree(of_step, dtype)


# --- what is shown is what fit runs ---------------------------------------------------------------


@pytest.mark.parametrize("side", [Torch, TensorFlow])
@pytest.mark.parametrize(
    ("method", "options", "shown"),
    [
        ("vae", {"model": "m1"}, ["m1_loss"]),
        ("vae", {"model": "m2"}, ["m2_loss"]),
        ("vae", {"model": "m1m2"}, ["m1_loss", "m2_loss"]),
        ("gan", {}, ["adversarial_discriminator_loss", "adversarial_generator_loss"]),
    ],
)
def test_fit_runs_the_functions_that_are_shown(side, method, options, shown, monkeypatch):
    module = getattr(side, method)
    calls = dict.fromkeys(shown, 0)

    def counted(name, function):
        def call(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    for name in shown:
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    rng = np.random.default_rng(0)
    X, y = rng.uniform(size=(40, *SIZE)), np.arange(40) % CLASSES
    options = {"hidden": (6,), "batch_size": 8, "unlabelled_batch_size": 8} | options
    options |= {"feature_steps": 4} if method == "vae" else {"generator_hidden": (5,)}
    estimator = {"vae": "VAEPseudoLabeler", "gan": "GANPseudoLabeler"}[method]
    model = getattr(module, estimator)(latent_dim=LATENT, steps=4, random_state=0, **options)
    model.fit(X, np.where(np.arange(40) < 12, y, -1), device="cpu")
    # TensorFlow calls a function while it traces it, once; torch in every step.
    assert calls == dict.fromkeys(shown, 4 if side is Torch else 1)


# --- bounds, against an adversary -----------------------------------------------------------------


def lowest(loss_of, free, steps=300, lr=0.1):
    """Let Adam lower a loss by whatever is free; return the lowest value that it finds."""
    optimizer = torch.optim.Adam(free, lr=lr)
    values = []
    for _ in range(steps):
        loss = loss_of()
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return min(values)


def lowest_of_vae(model, decoder, kl_weight=1.0, noise_bounds=(0.1, 2.0), inside=True):
    """The adversary moves every weight and every example."""
    torch.manual_seed(0)
    labelled = model == "m2"
    vae = torch_vae.VAE(
        16, LATENT, (8,), decoder, CLASSES if labelled else 0, noise_bounds
    ).double()
    classifier = torch.nn.Linear(16, CLASSES).double()
    raw = [torch.randn(n, 16, dtype=torch.float64, requires_grad=True) for n in (6, 9)]
    noise = torch.randn(1, 6, LATENT, dtype=torch.float64)
    more_noise = torch.randn(1, CLASSES, 9, LATENT, dtype=torch.float64)
    y = torch.arange(6) % CLASSES

    def loss_of():
        x, more = (torch.sigmoid(part) if inside else part for part in raw)
        if not labelled:
            return torch_vae.m1_loss(vae, x, noise, kl_weight)[0]
        return torch_vae.m2_loss(
            vae, classifier, (x, y, noise), (more, more_noise),
            n_classes=CLASSES, share=0.3, kl_weight=kl_weight,
        )[0]  # fmt: skip

    return lowest(loss_of, [*vae.parameters(), *classifier.parameters(), *raw])


@pytest.mark.parametrize("model", ["m1", "m2"])
@pytest.mark.parametrize("kl_weight", [0.0, 1.0])
def test_no_adversary_gets_a_vae_below_its_bound(model, kl_weight):
    assert lowest_of_vae(model, "bernoulli", kl_weight) >= 0
    floor = 16 * math.log(0.1 * math.sqrt(2 * math.pi))  # d log(σ √(2π))
    found = lowest_of_vae(model, "gaussian", kl_weight)
    assert found >= floor
    assert found < 0.8 * floor  # it comes near


@pytest.mark.parametrize("model", ["m1", "m2"])
def test_the_bounds_of_a_vae_need_what_the_docstrings_ask_for(model):
    """A lower σ, or "probabilities" outside [0, 1], and the adversary falls below."""
    floor = 16 * math.log(0.1 * math.sqrt(2 * math.pi))
    assert lowest_of_vae(model, "gaussian", noise_bounds=(0.01, 2.0)) < floor - 10
    assert lowest_of_vae(model, "bernoulli", inside=False) < -100


def free_logits(*sizes):
    rng = torch.Generator().manual_seed(0)
    return [
        torch.randn(n, CLASSES, dtype=torch.float64, generator=rng).requires_grad_(True)
        for n in sizes
    ]


def as_they_are(x, noise=()):
    """A discriminator whose features and logits are what the adversary writes."""
    return x, x


def test_no_adversary_gets_the_discriminators_loss_below_zero():
    labelled, unlabelled, made = free_logits(6, 9, 9)
    y = torch.arange(6) % CLASSES
    parts = torch_gan.discriminator_loss(labelled, y, unlabelled, made)
    assert min(parts) > 0

    def loss_of():
        return torch_gan.adversarial_discriminator_loss(
            as_they_are, (labelled, y), unlabelled, made, (), 0.7
        )[0]

    # The adversary may not move `made`, for no gradient goes there: it is given as it likes.
    with torch.no_grad():
        made -= 30
    assert 0 <= lowest(loss_of, [labelled, unlabelled]) < 0.01


@pytest.mark.parametrize("generator_loss", ["feature_matching", "plain"])
def test_no_adversary_gets_the_generators_loss_below_zero(generator_loss):
    unlabelled, made = free_logits(9, 9)
    told = torch.arange(9) % CLASSES

    def loss_of():
        return torch_gan.adversarial_generator_loss(
            as_they_are, unlabelled, made, told, generator_loss, 0.5
        )

    assert 0 <= lowest(loss_of, [unlabelled, made]) < 0.05


def test_the_adversary_is_able_to():
    """The generator's half of the minimax game, mean log(1 - D(G(z))), has no bottom."""
    (made,) = free_logits(9)
    assert lowest(lambda: -F.softplus(torch_gan.log_partition(made)).mean(), [made]) < -10
