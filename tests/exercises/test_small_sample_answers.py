"""The oracles of the topic "small_samples" against the package, and planted answers."""

import numpy as np
import pytest

from fewshot_course.evaluation import paired_difference
from fewshot_course.exercises import check, exercise
from fewshot_course.small_network import regularised_risk


def oracle(name):
    return exercise(f"small_samples.{name}").oracle


def test_the_gradient_is_that_of_a_network_without_hidden_layer():
    """Two softmax scores that differ by s give the logistic loss of s."""
    rng = np.random.default_rng(0)
    X, w, lam = rng.normal(size=(6, 3)), rng.normal(size=3), 0.3
    y = np.array([1, -1, 1, 1, -1, -1])
    # A large bias keeps the relu open; the second layer reads the score out and undoes the bias.
    parameters = {
        "W1": w[:, None],
        "b1": np.array([100.0]),
        "W2": np.array([[0.0, 1.0]]),
        "b2": np.array([0.0, -100.0]),
    }
    gradient = regularised_risk(parameters, X, (y + 1) // 2)[1]["W1"][:, 0]
    np.testing.assert_allclose(
        oracle("risk_gradient")(X, y.astype(float), w, lam), gradient + 2 * lam * w
    )


def test_the_interval_is_the_packages():
    rng = np.random.default_rng(1)
    a, b = rng.random(8), rng.random(8)
    mine = oracle("paired_interval")(a, b, 2.3646242510102993)  # 0.975 quantile, 7 degrees
    theirs = paired_difference(a, b)
    np.testing.assert_allclose(mine, [theirs.mean, theirs.low, theirs.high])


def slope(X, y, w, clip=False):
    s = y * (X @ w)
    return (-(y / (1 + np.exp(s)))[:, None] * X).mean(0) if not clip else -(y[:, None] * X).mean(0)


def means(X, y):
    return np.stack([X[y == k].mean(0) for k in np.unique(y)])


# Wrong answers as students write them.
PLANTED = {
    "small_samples.risk_gradient": [
        lambda X, y, w, lam: slope(X, y, w) + 2 * lam * np.abs(w),  # sign of w lost
        lambda X, y, w, lam: slope(X, y, w) + 2 * lam * w / len(X),  # λ divided by n
        lambda X, y, w, lam: slope(X, y, w, clip=True) + 2 * lam * w,  # the perceptron's slope
    ],
    "small_samples.drop_units": [
        lambda H, u, p: H * (u >= p) / p if p else H,  # divided by the wrong share
        lambda H, u, p: H * (u >= p) * u.size / (u >= p).sum(),  # by the share that came out
        lambda H, u, p: H * (u >= p).all(0) / (1 - p),  # a unit for all examples at once
    ],
    "small_samples.nearest_mean_labels": [
        lambda X, y, Q: (Q @ means(X, y).T).argmax(1),  # the inner product alone
        lambda X, y, Q: np.abs(Q.mean(1)[:, None] - means(X, y).mean(1)).argmin(1),
        lambda X, y, Q: np.square(Q[:, None] - means(X, y)).sum(2).min(1),  # the distance itself
    ],
    "small_samples.paired_interval": [
        lambda a, b, t: np.array([a.mean() - b.mean(), (a - b).min(), (a - b).max()]),
        lambda a, b, t: np.array([(a - b).mean(), 0, t * (a - b).std(ddof=1) / np.sqrt(len(a))]),
        lambda a, b, t: np.array(
            [
                (a - b).mean(),
                (a - b).mean() - 1.96 * (a - b).std(ddof=1) / np.sqrt(len(a)),
                (a - b).mean() + 1.96 * (a - b).std(ddof=1) / np.sqrt(len(a)),
            ]
        ),  # the normal quantile instead of Student's
    ],
}


@pytest.mark.parametrize(("name", "i"), [(name, i) for name in PLANTED for i in range(3)])
def test_planted_small_sample_answers_are_refused(name, i):
    outcome = check(name, PLANTED[name][i], framework="numpy")
    assert not outcome.passed
    assert "Case" in repr(outcome)
    # Refused for its value, not for an error of the test's own making.
    assert "it raised" not in repr(outcome)
