"""Label shift: shares that are known are found again, and what cannot be found is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from fewshot_course.label_shift import (
    black_box_shares,
    confusion_shares,
    corrected_posteriors,
    em_shares,
    em_step,
    log_likelihood,
)

SOURCE, TARGET = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
MEANS = np.array([-1.5, 0.0, 1.5])


def posteriors(x, shares):
    """Bayes' rule for three Gaussians of variance 1."""
    joint = stats.norm.pdf(x[:, None], MEANS) * shares
    return joint / joint.sum(1, keepdims=True)


def sample(n, shares, seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(3, size=n, p=shares)
    return MEANS[y] + rng.normal(size=n), y


def simplex(rng, *shape):
    return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])


def test_corrected_posteriors_are_those_of_the_new_shares():
    x = np.linspace(-4, 4, 41)
    found = corrected_posteriors(posteriors(x, SOURCE), SOURCE, TARGET)
    np.testing.assert_allclose(found, posteriors(x, TARGET), rtol=1e-12)
    unchanged = corrected_posteriors(posteriors(x, SOURCE), SOURCE, SOURCE)
    np.testing.assert_allclose(unchanged, posteriors(x, SOURCE), rtol=1e-12)


def test_the_likelihood_is_that_of_the_density():
    x, _ = sample(50, TARGET, 0)
    proba = posteriors(x, SOURCE)

    def density(shares):
        return np.log(stats.norm.pdf(x[:, None], MEANS) @ shares).mean()

    found = log_likelihood(proba, SOURCE, TARGET) - log_likelihood(proba, SOURCE, SOURCE)
    assert found == pytest.approx(density(TARGET) - density(SOURCE), rel=1e-10)
    assert log_likelihood(proba, SOURCE, SOURCE) == pytest.approx(0, abs=1e-14)
    assert log_likelihood(np.eye(3), SOURCE, np.array([0, 0.5, 0.5])) == -np.inf


def test_sure_predictions_are_counted():
    proba = np.eye(3)[[0, 2, 2, 1, 2]]
    np.testing.assert_allclose(em_shares(proba, SOURCE), [0.2, 0.2, 0.6], rtol=1e-12)


def test_em_finds_the_best_likelihood_of_a_general_optimiser():
    x, _ = sample(300, TARGET, 1)
    proba = posteriors(x, SOURCE)

    def loss(logits):
        shares = np.exp(logits - logits.max())
        return -log_likelihood(proba, SOURCE, shares / shares.sum())

    best = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    shares = np.exp(best - best.max())
    found = em_shares(proba, SOURCE, 1e-12)
    np.testing.assert_allclose(found, shares / shares.sum(), atol=1e-5)
    np.testing.assert_allclose(em_step(proba, SOURCE, found), found, atol=1e-11)  # a fixed point


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 30))
def test_the_likelihood_never_falls_and_shares_stay_shares(seed, k, n):
    rng = np.random.default_rng(seed)
    proba, source = simplex(rng, n, k), simplex(rng, k)
    shares = source
    for _ in range(5):
        before, shares = log_likelihood(proba, source, shares), em_step(proba, source, shares)
        assert log_likelihood(proba, source, shares) >= before - 1e-12
        assert shares.min() >= 0
        assert shares.sum() == pytest.approx(1, abs=1e-12)


def information(shares):
    """Fisher information of the first two shares of one example, by integration."""
    x = np.linspace(-9, 9, 20_001)
    densities = stats.norm.pdf(x[:, None], MEANS)
    score = (densities[:, :2] - densities[:, 2:]) / (densities @ shares)[:, None]
    weight = densities @ shares * (x[1] - x[0])
    return (score * weight[:, None]).T @ score


def test_em_meets_the_known_shares_within_the_sampling_error():
    n, repetitions = 2000, 60
    found = np.array([
        em_shares(posteriors(sample(n, TARGET, seed)[0], SOURCE), SOURCE)
        for seed in range(repetitions)
    ])  # fmt: skip
    exact = np.sqrt(np.diag(np.linalg.inv(information(TARGET))) / n)
    error = np.abs(found.mean(0) - TARGET)[:2]
    assert (error < 4 * exact / np.sqrt(repetitions)).all()
    # The maximum of the likelihood has the spread that theory gives it.
    np.testing.assert_allclose(found.std(0, ddof=1)[:2], exact, rtol=0.35)


def test_black_box_is_exact_where_the_shares_are():
    rng = np.random.default_rng(0)
    given_class = simplex(rng, 3, 3).T  # p(predicted i | class j)
    found = black_box_shares(given_class * SOURCE, given_class @ TARGET)
    np.testing.assert_allclose(found, TARGET, rtol=1e-10)


def test_black_box_meets_the_known_shares_within_the_sampling_error():
    errors = []
    for seed in range(40):
        x, y = sample(4000, SOURCE, seed)
        confusion = confusion_shares(y, posteriors(x, SOURCE).argmax(1), 3)
        predicted = posteriors(sample(4000, TARGET, 1000 + seed)[0], SOURCE).argmax(1)
        shares = np.bincount(predicted, minlength=3) / len(predicted)
        errors.append(black_box_shares(confusion, shares) - TARGET)
    errors = np.array(errors)
    assert (np.abs(errors.mean(0)) < 4 * errors.std(0, ddof=1) / np.sqrt(len(errors))).all()
    assert errors.std(0).max() < 0.05


def test_what_is_negative_by_chance_becomes_zero():
    confusion = np.array([[0.4, 0.1], [0.1, 0.4]])
    found = black_box_shares(confusion, np.array([0.05, 0.95]))  # w = [-0.5, 2.5]
    np.testing.assert_allclose(found, [0, 1], atol=1e-12)


def test_confusions_are_counted():
    found = confusion_shares([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], 3)
    np.testing.assert_allclose(found, np.array([[1, 1, 0], [1, 2, 0], [0, 0, 0]]) / 5)


DEGENERATE = {
    "never predicted": (np.array([[0.5, 0.2, 0.1], [0.1, 0.05, 0.05], [0, 0, 0]]), "never pred"),
    "no held-out": (np.array([[0.5, 0.2, 0], [0.1, 0.1, 0], [0.05, 0.05, 0]]), "no held-out"),
    "one guess": (np.full((3, 3), 1 / 9), "do not tell some of the classes apart"),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_matrix_without_inverse_is_refused_in_words(name):
    confusion, words = DEGENERATE[name]
    with pytest.raises(ValueError, match=f"confusion has no inverse.*{words}"):
        black_box_shares(confusion, np.full(3, 1 / 3))


HALF = np.full((4, 2), 0.5)
BAD = {
    "rows": (em_shares, (2 * HALF, HALF[0]), "proba must hold probabilities"),
    "vector": (em_shares, (HALF[0], HALF[0]), "proba must have shape"),
    "empty": (em_shares, (HALF[:0], HALF[0]), "proba must have shape"),
    "length": (em_shares, (HALF, np.full(3, 1 / 3)), "source_shares must have shape"),
    "sum": (em_shares, (HALF, np.full(2, 0.4)), "source_shares must be shares"),
    "no class": (em_shares, (HALF, np.array([0.0, 1.0])), r"source_shares is 0.*\[0\]"),
    "impossible": (
        corrected_posteriors, (np.eye(2), HALF[0], np.array([0.0, 1.0])), "no share",
    ),
    "square": (black_box_shares, (HALF, HALF[0]), r"confusion must have shape \(k, k\)"),
    "counts": (black_box_shares, (np.eye(2), HALF[0]), "confusion must be shares"),
    "class": (confusion_shares, ([0, 2], [0, 1], 2), "y must hold classes below"),
    "predicted": (confusion_shares, ([0, 1], [0, 5], 2), "predicted must hold classes below"),
    "lengths": (confusion_shares, ([0, 1], [0], 2), "predicted"),
    "tolerance": (em_shares, (HALF, HALF[0], 0.0), "tolerance"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_calls(name):
    function, arguments, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        function(*arguments)
