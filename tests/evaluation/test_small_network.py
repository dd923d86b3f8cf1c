"""The network in NumPy against finite differences and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax
from sklearn.base import clone

from fewshot_course.small_network import (
    SmallNetwork,
    dropout_mask,
    log_softmax,
    regularised_risk,
)

few = settings(max_examples=20, deadline=None, derandomize=True)


@few
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 0.5]),
    st.integers(1, 6),
)
def test_the_gradient_is_that_of_the_risk(seed, decay, rate, n):
    rng = np.random.default_rng(seed)
    shapes = {"W1": (3, 5), "b1": (5,), "W2": (5, 4), "b2": (4,)}
    parameters = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    X, y = rng.normal(size=(n, 3)), rng.integers(4, size=n)
    mask = dropout_mask((n, 5), rate, rng)
    _, gradient = regularised_risk(parameters, X, y, decay, mask)
    for name, value in parameters.items():
        direction = rng.normal(size=value.shape)

        def along(t, name=name, value=value, direction=direction):
            moved = {**parameters, name: value + t * direction}
            return regularised_risk(moved, X, y, decay, mask)[0]

        slope = (along(1e-5) - along(-1e-5)) / 2e-5
        assert (gradient[name] * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_softmax_of_large_scores():
    scores = np.array([[1e4, 0.0, -1e4], [3.0, 3.0, 3.0]])
    np.testing.assert_allclose(log_softmax(scores), scipy_log_softmax(scores, axis=1))


@few
@given(st.floats(0, 0.9), st.integers(0, 10**6))
def test_a_mask_keeps_the_mean(rate, seed):
    mask = dropout_mask((200, 200), rate, np.random.default_rng(seed))
    assert set(np.unique(mask)) <= {0.0, 1 / (1 - rate)}
    # Six standard errors of a mean of 40,000 factors with variance rate / (1 - rate).
    assert abs(mask.mean() - 1) <= 6 * np.sqrt(rate / (1 - rate) / 40_000) + 1e-12


def test_weights_without_data_decay_by_one_factor_a_step():
    """With X = 0 the first layer has no gradient but λW: after k steps it is (1 - ηλ)^k W."""
    X, y = np.zeros((4, 3)), np.array([0, 1, 0, 1])
    settings = {"hidden": 5, "learning_rate": 0.1, "random_state": 3}
    first = SmallNetwork(steps=1, weight_decay=0.0, **settings).fit(X, y).parameters_["W1"]
    last = SmallNetwork(steps=7, weight_decay=0.4, **settings).fit(X, y).parameters_["W1"]
    np.testing.assert_allclose(last, (1 - 0.1 * 0.4) ** 7 * first, rtol=1e-12)


def blobs(seed=0, n=30):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 4)) + 3 * np.eye(3, 4)[y], y * 5 + 2


def test_training_lowers_the_loss_and_learns_the_labels():
    X, y = blobs()
    network = SmallNetwork(hidden=20, learning_rate=0.1, steps=400).fit(X, y, X, y)
    assert (np.diff(network.losses_) < 0).all()
    np.testing.assert_array_equal(network.losses_, network.held_out_losses_)
    assert network.score(X, y) == 1.0
    assert set(network.predict(X)) == {2, 7, 12}
    np.testing.assert_allclose(network.predict_proba(X).sum(1), 1)
    picked = network.predict_proba(X)[np.arange(30), (y - 2) // 5]
    assert network.losses_[-1] == pytest.approx(-np.log(picked).mean())


def test_the_seed_decides_everything_and_held_out_examples_nothing():
    X, y = blobs()
    one = SmallNetwork(hidden=8, dropout=0.5, steps=20, random_state=4)
    weights = one.fit(X, y).parameters_["W1"]
    again = clone(one).fit(X, y, *blobs(1)).parameters_["W1"]
    other = clone(one).set_params(random_state=5).fit(X, y).parameters_["W1"]
    np.testing.assert_array_equal(weights, again)
    assert not np.array_equal(weights, other)


def test_images_are_flattened():
    X, y = blobs()
    images = np.clip(X / 10 + 0.5, 0, 1)
    flat = SmallNetwork(hidden=6, steps=5).fit(images, y)
    square = SmallNetwork(hidden=6, steps=5).fit(images.reshape(-1, 2, 2), y)
    np.testing.assert_array_equal(
        flat.predict_proba(images), square.predict_proba(images.reshape(-1, 2, 2))
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "hidden"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"dropout": 1.0}, "nothing would be left"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SmallNetwork(**settings).fit(*blobs())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_data_are_named():
    X, y = blobs()
    with pytest.raises(ValueError, match=r"y_held_out has classes \[99\]"):
        SmallNetwork().fit(X, y, X[:1], [99])
    with pytest.raises(ValueError, match="lower it"):
        SmallNetwork(learning_rate=1e200, steps=10).fit(X, y)
    with pytest.raises(ValueError, match="X has examples of shape"):
        SmallNetwork(hidden=3, steps=1).fit(X, y).predict(X[:, :2])
