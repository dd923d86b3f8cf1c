"""Every loss is bounded below, whatever an optimiser makes of its inputs.

An adversary moves the codes or logits themselves by Adam, with nothing else to lower.  The loss
must stay above the bound that its docstring gives; an estimate that has none must be found.
"""

from __future__ import annotations

import numpy as np
import pytest

N, D, K = 12, 3, 4
SCALES = (0.5, 2.0)  # bounds of σ, as KLAdapter has them
X = np.random.default_rng(5).uniform(size=(N, D))
NOISE = np.random.default_rng(6).standard_normal((2, N, D))


def labels(framework, n=N):
    return framework.tensor(np.arange(n) % K)


def codes(framework, mean, raw, noise):
    """Return codes whose σ lies between the bounds, as the network makes them."""
    low, high = 2 * np.log(SCALES)
    if framework.name == "torch":
        log_var = low + (high - low) * raw.sigmoid()
    else:
        import tensorflow as tf

        log_var = low + (high - low) * tf.sigmoid(raw)
    return framework.module("kl_adaptation").Codes(mean, log_var, framework.tensor(noise))


def two_way(framework, estimator, leave_one_out=False):
    loss = framework.module("kl_adaptation").two_way_kl

    def of_codes(*free):
        source = codes(framework, *free[:2], NOISE[0])
        target = codes(framework, *free[2:], NOISE[1])
        return loss(source, target, estimator, 1.0, 1.0, leave_one_out)

    return of_codes


def mixture_bound():
    largest = 0.5 * (NOISE**2).sum(-1).max()
    return -2 * (np.log(N) + D * np.log(SCALES[1] / SCALES[0]) + largest)


def losses(framework):
    """Return name → loss of free arrays, their shapes, and the bound."""
    f, module, weights = framework, framework.module, framework.tensor(np.linspace(0, 2, N))
    batch = [(N, D)] * 2
    spread = [(N, D)] * 4
    logits = [(N, K)]
    truth, x = labels(f), f.tensor(X)

    def total(values):
        return values.sum() if f.name == "torch" else _sum(values)

    def negative_elbo(kind):
        vae = module("vae")

        def loss(decoded, mean, log_var):
            if kind == "bernoulli":
                log_px = vae.bernoulli_log_prob(x, decoded)
            else:  # a decoder with the smallest noise that it may have
                constant = f.tensor(np.full((N, D), 2 * np.log(0.1)))
                log_px = module("divergences").gaussian_log_prob(x, decoded, constant)
            return -total(vae.elbo(log_px[None], mean, log_var))

        return loss

    def first(function):
        return lambda *free: function(*free)[0]

    episode = [(1, N, K)]
    return {
        "moments": (two_way(f, "moments"), spread, 0.0),
        "mixture": (two_way(f, "mixture"), spread, mixture_bound()),
        "coral": (module("alignment").coral_loss, batch, 0.0),
        "mmd": (module("alignment").mmd_loss, batch, 0.0),
        "domains": (module("alignment").domain_loss, [(N,), (N,)], 0.0),
        "Gaussians": (
            lambda *free: total(module("divergences").gaussian_kl(*free)), spread, 0.0,
        ),
        "monte carlo": (
            lambda *free: total(module("divergences").monte_carlo_kl(*free)), [(N, D)] * 2, 0.0,
        ),
        "cross-entropy": (
            lambda z: module("fine_tuning").softmax_cross_entropy(z, truth), logits, 0.0,
        ),
        "importance": (
            lambda z: module("kliep").weighted_cross_entropy(z, truth, weights), logits, 0.0,
        ),
        "pseudo-labels, weighted": (
            lambda z: module("pseudo_labels").weighted_loss(z, truth, weights), logits, 0.0,
        ),
        "pseudo-labels": (first(module("pseudo_labels").pseudo_label_loss), logits, 0.0),
        "pairs": (
            lambda z: module("fine_tuning").contrastive_pair_loss(z, truth), [(N, D)], 0.0,
        ),
        "distance": (
            lambda a, b: module("fine_tuning").l2_sp_penalty([a], [b]), batch, 0.0,
        ),
        "student": (
            lambda z: module("compression").distillation_loss(
                z, f.tensor(np.random.default_rng(1).normal(size=(N, K))), truth, 2.0, 0.5
            ),
            logits, 0.0,
        ),
        "discriminator": (
            lambda a, b, c: sum(module("gan").discriminator_loss(a, truth, b, c)), logits * 3, 0.0,
        ),
        "generator": (module("gan").plain_generator_loss, logits, 0.0),
        "features": (module("gan").feature_matching_loss, batch, 0.0),
        "meta-learning": (
            lambda z: module("maml").task_loss(z, labels(f)[None]), episode, 0.0,
        ),
        "autoencoder": (negative_elbo("bernoulli"), [(N, D)] * 3, 0.0),
        "autoencoder, Gaussian": (
            negative_elbo("gaussian"), [(N, D)] * 3, N * D * np.log(0.1 * np.sqrt(2 * np.pi)),
        ),
    }  # fmt: skip


def _sum(values):
    import tensorflow as tf

    return tf.reduce_sum(values)


def lowest(framework, loss, shapes, steps=150, rate=0.2):
    """Return the lowest value that Adam finds by moving the inputs."""
    rng = np.random.default_rng(0)
    free = [rng.normal(size=shape) for shape in shapes]
    first, second = ([np.zeros(shape) for shape in shapes] for _ in range(2))
    found = []
    for step in range(1, steps + 1):
        value, gradients = framework.gradients(loss, *free)
        found.append(float(value))
        for i, gradient in enumerate(gradients):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            scale = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
            free[i] = free[i] - rate * first[i] / (1 - 0.9**step) / scale
    return min(found), found[0]


NAMES = [
    "moments", "mixture", "coral", "mmd", "domains", "Gaussians", "monte carlo", "cross-entropy",
    "importance", "pseudo-labels, weighted", "pseudo-labels", "pairs", "distance", "student",
    "discriminator", "generator", "features", "meta-learning", "autoencoder",
    "autoencoder, Gaussian",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_adversary_cannot_get_below_the_bound(framework, name):
    loss, shapes, bound = losses(framework)[name]
    value, begin = lowest(framework, loss, shapes)
    assert bound - 1e-9 <= value <= begin
    assert np.isfinite(value)


def test_these_are_all(framework):
    assert list(losses(framework)) == NAMES


def test_an_estimate_without_a_bound_is_found(framework):
    """The mixture without own components falls for ever; four times the steps, much lower."""
    loss = two_way(framework, "mixture", leave_one_out=True)
    shapes = [(N, D)] * 4
    some, _ = lowest(framework, loss, shapes, steps=150, rate=0.3)
    more, _ = lowest(framework, loss, shapes, steps=600, rate=0.3)
    assert some < mixture_bound()
    assert more < 4 * some


def test_the_mixture_bound_is_that_of_the_docstring(rng):
    """log p(z_i) ≥ -log n + log N(z_i; μ_i, σ_i²), and log q is at most that of the narrowest."""
    n = 50
    log_sigma = rng.uniform(*np.log(SCALES), size=(n, D))
    noise = rng.standard_normal((n, D))
    own = -0.5 * (noise**2).sum(1) - log_sigma.sum(1)
    highest = -D * np.log(SCALES[0])
    bound = -np.log(n) + own - highest
    documented = -(np.log(n) + D * np.log(SCALES[1] / SCALES[0]) + 0.5 * (noise**2).sum(1).max())
    assert (bound >= documented).all()
