"""Tastes of new users: closed forms against brute force, and EM that never goes down."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from fewshot_course.cold_start import (
    Prior,
    Ratings,
    RatingWorld,
    fit_prior,
    log_likelihood,
    posterior_taste,
    recommend,
)

WORLD = RatingWorld(0, n_items=60, dim=4, noise=0.3)


def test_the_posterior_is_that_of_the_textbook():
    data, _ = WORLD.draw(np.random.default_rng(1), users=3, k=6)
    means, covariances = posterior_taste(data, WORLD.prior)
    m, S, noise = WORLD.prior.mean, WORLD.prior.covariance, WORLD.prior.noise
    for u in range(3):
        phi, r = data.features[u], data.ratings[u]
        precision = np.linalg.inv(S) + phi.T @ phi / noise**2
        expected = np.linalg.solve(precision, np.linalg.solve(S, m) + phi.T @ r / noise**2)
        np.testing.assert_allclose(means[u], expected, rtol=1e-9)
        np.testing.assert_allclose(covariances[u], np.linalg.inv(precision), rtol=1e-8, atol=1e-12)


def test_without_a_rating_the_taste_is_the_prior():
    data, _ = WORLD.draw(np.random.default_rng(1), users=2, k=5)
    means, covariances = posterior_taste(data.first(0), WORLD.prior)
    np.testing.assert_array_equal(means, [WORLD.prior.mean] * 2)
    np.testing.assert_allclose(covariances, [WORLD.prior.covariance] * 2, rtol=1e-12)


def test_many_ratings_leave_the_prior_behind():
    data, tastes = WORLD.draw(np.random.default_rng(2), users=2, k=60)
    wrong = Prior(WORLD.prior.mean + 3, 10 * np.eye(4), 0.3)
    means, _ = posterior_taste(data, wrong)
    np.testing.assert_allclose(means, tastes, atol=0.3)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_ratings_one_after_the_other_give_what_all_at_once_give(seed, k):
    data, _ = WORLD.draw(np.random.default_rng(seed), users=1, k=k)
    prior = WORLD.prior
    for i in range(k):
        one = Ratings(data.features[:, i : i + 1], data.ratings[:, i : i + 1])
        means, covariances = posterior_taste(one, prior)
        prior = Prior(means[0], covariances[0], prior.noise)
    means, covariances = posterior_taste(data, WORLD.prior)
    np.testing.assert_allclose(prior.mean, means[0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(prior.covariance, covariances[0], rtol=1e-6, atol=1e-9)


def test_the_likelihood_is_that_of_scipy():
    data, _ = WORLD.draw(np.random.default_rng(3), users=4, k=3)
    p = WORLD.prior
    expected = sum(
        multivariate_normal.logpdf(r, phi @ p.mean, phi @ p.covariance @ phi.T + 0.09 * np.eye(3))
        for phi, r in zip(data.features, data.ratings, strict=True)
    )
    assert log_likelihood(data, p) == pytest.approx(expected, rel=1e-12)


def test_em_never_lowers_the_likelihood_and_finds_the_prior():
    data, _ = WORLD.draw(np.random.default_rng(4), users=3000, k=8)
    prior, likelihood = fit_prior(data, steps=60)
    assert (np.diff(likelihood) > -1e-6).all()
    np.testing.assert_allclose(prior.mean, WORLD.prior.mean, atol=0.1)
    np.testing.assert_allclose(prior.covariance, WORLD.prior.covariance, atol=0.1)
    assert prior.noise == pytest.approx(0.3, abs=0.01)


def test_the_true_prior_is_the_best_on_average():
    data, tastes = WORLD.draw(np.random.default_rng(5), users=4000, k=3)
    errors = {}
    for name, prior in (
        ("true", WORLD.prior),
        ("zero mean", Prior(np.zeros(4), WORLD.prior.covariance, 0.3)),
        ("too wide", Prior(WORLD.prior.mean, 20 * np.eye(4), 0.3)),
    ):
        errors[name] = np.square(posterior_taste(data, prior)[0] - tastes).sum(1).mean()
    expected = np.trace(posterior_taste(data, WORLD.prior)[1], axis1=1, axis2=2).mean()
    assert errors["true"] == pytest.approx(expected, rel=0.1)
    assert errors["true"] < min(errors["zero mean"], errors["too wide"])


def test_recommendations_are_the_items_of_the_highest_rating():
    found = recommend([[1.0, 0], [1, 2], [1, 1]], [0.0, 1.0], n=2)
    assert found.tolist() == [1, 2]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"shape \(users, k, d\)"):
        Ratings(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="must be finite"):
        Ratings(np.full((1, 1, 2), np.nan), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="k=61 ratings a user, but there are 60"):
        WORLD.draw(np.random.default_rng(0), users=1, k=61)
    data, _ = WORLD.draw(np.random.default_rng(0), users=1, k=2)
    with pytest.raises(ValueError, match="two users"):
        fit_prior(data)
    with pytest.raises(ValueError, match=r"^n must lie in \[1, 2\]"):
        recommend(np.eye(2), [1, 1], n=3)
