"""A toy world where the right answer is known: two features tell the class, only the second shifts.

Features that cannot be aligned must be dropped, the others kept.  The encoder is linear, so that
its weights say what it looks at.
"""

from __future__ import annotations

import numpy as np
import pytest


def world(n=300, shift=4.0):
    """Source and target; both features are class ±1 plus noise, the target's second + shift."""
    rng = np.random.default_rng(0)

    def domain(offset):
        y = rng.integers(2, size=n)
        return rng.normal(size=(n, 2)) * 0.5 + (2 * y[:, None] - 1) + [0, offset], y

    return *domain(0.0), *domain(shift)


def fit(framework, name="KLAdapter", **params):
    networks = framework.module("networks")

    def linear():
        network = networks.MLP((2,), 8, hidden=())
        return networks.initialise(network, np.random.default_rng(0))

    X, y, X_target, _ = world()
    settings = {"latent_dim": 4, "steps": 200, "batch_size": 64, "lr": 1e-2, "warmup": 0.2}
    return framework.estimator(name, network=linear, random_state=0, **settings, **params).fit(
        X, y, X_target
    )


def reliance(model):
    """How much the prediction for the source depends on each feature: (by weight, by shuffling)."""
    X, y, *_ = world()
    (weight,) = [w for name, w in _arrays(model).items() if name.endswith("encoder.head.weight")]
    by_weight = np.abs(weight[:4]).mean(0)  # the rows of μ(x); the other four are σ's
    by_shuffling = []
    for feature in range(2):
        shuffled = X.copy()
        shuffled[:, feature] = np.random.default_rng(1).permutation(X[:, feature])
        by_shuffling.append(model.score(X, y) - model.score(shuffled, y))
    return by_weight, by_shuffling


def _arrays(model):
    return model._fitted_arrays()


def test_weight_zero_keeps_the_feature_that_shifts(framework):
    by_weight, by_shuffling = reliance(fit(framework, weight=0.0, reverse_weight=0.0))
    assert by_weight[1] > 0.5 * by_weight[0]
    assert by_shuffling[1] > 0.1


@pytest.mark.parametrize("estimator", ["moments", "mixture"])
def test_weight_one_drops_it_and_keeps_the_other(framework, estimator):
    model = fit(framework, weight=1.0, reverse_weight=1.0, estimator=estimator)
    by_weight, by_shuffling = reliance(model)
    assert by_weight[1] < 0.1 * by_weight[0]
    assert by_shuffling[0] > 0.3
    assert abs(by_shuffling[1]) < 0.05
    # What is left tells the classes of the target, which a user never labelled.
    *_, X_target, y_target = world()
    assert model.score(X_target, y_target) > 0.9


@pytest.mark.parametrize("direction", ["weight", "reverse_weight"])
def test_either_direction_drops_it(framework, direction):
    by_weight, _ = reliance(
        fit(framework, **{"weight": 0.0, "reverse_weight": 0.0, direction: 1.0})
    )
    assert by_weight[1] < 0.15 * by_weight[0]


def test_coral_cannot_see_it(framework):
    # A shift leaves the covariance as it is: however strong, CORAL has no reason to drop it.
    by_weight, _ = reliance(fit(framework, "CORALAdapter", weight=1.0))
    assert by_weight[1] > 0.5 * by_weight[0]
