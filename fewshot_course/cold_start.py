"""Recommendation to a new user: a few ratings, and many other users to learn a prior from.

The model is linear and Gaussian, so that everything has a closed form: user u has a taste
w_u ~ N(m, S) in R^d, an item has features φ in R^d, and a rating is r = φ·w_u + ε with
ε ~ N(0, σ²).  The prior (m, S) is learned from other users by EM; the taste of a new user is a
posterior mean (Bishop 2006, sections 2.3.3 and 9.3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course._arguments import COUNT, checked
from fewshot_course._checks import check_features, check_number

__all__ = [
    "Prior",
    "RatingWorld",
    "Ratings",
    "fit_prior",
    "log_likelihood",
    "posterior_taste",
    "recommend",
]


@dataclass(frozen=True)
class Prior:
    """A Gaussian over tastes.

    Attributes:
        mean: m, ``(d,)``.
        covariance: S, ``(d, d)``.
        noise: σ, the standard deviation of a rating, > 0.
    """

    mean: np.ndarray
    covariance: np.ndarray
    noise: float


@dataclass(frozen=True)
class Ratings:
    """Ratings of many users, each of the same number of items.

    Attributes:
        features: features of the rated items ``(users, k, d)``.
        ratings: the ratings ``(users, k)``.
    """

    features: np.ndarray
    ratings: np.ndarray

    def __post_init__(self) -> None:
        features, ratings = np.asarray(self.features, float), np.asarray(self.ratings, float)
        if features.ndim != 3 or ratings.shape != features.shape[:2]:
            raise ValueError(
                "features must have the shape (users, k, d) and ratings (users, k); got "
                f"{features.shape} and {ratings.shape}."
            )
        if not (np.isfinite(features).all() and np.isfinite(ratings).all()):
            raise ValueError("features and ratings must be finite.")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "ratings", ratings)

    def first(self, k: int) -> Ratings:
        """Return the first ``k`` ratings of each user."""
        return Ratings(self.features[:, :k], self.ratings[:, :k])


class RatingWorld:
    """Users and items drawn from a known prior, so that the best possible error is known.

    Args:
        rng: decides prior and items.
        n_items: number of items.
        dim: d, entries of a taste and of an item; the first feature of an item is 1.
        noise: σ of a rating, > 0.
    """

    def __init__(
        self,
        rng: np.random.Generator | int = 0,
        n_items: int = 200,
        dim: int = 8,
        noise: float = 0.5,
    ) -> None:
        rng = np.random.default_rng(rng)
        n_items = int(check_number("n_items", n_items, low=1, integer=True))
        dim = int(check_number("dim", dim, low=2, integer=True))
        noise = check_number("noise", noise, low=1e-6)
        self.items = rng.normal(size=(n_items, dim))
        self.items[:, 0] = 1.0
        mixing = rng.normal(size=(dim, dim)) * 0.7 ** np.arange(dim)  # a few directions matter
        self.prior = Prior(0.4 * rng.normal(size=dim), mixing @ mixing.T / dim, noise)

    def draw(self, rng: np.random.Generator, users: int, k: int) -> tuple[Ratings, np.ndarray]:
        """Draw users who rate ``k`` different items each.

        Returns:
            The ratings, and the tastes ``(users, d)`` behind them.

        Raises:
            ValueError: for more ratings than items.
        """
        if k > len(self.items):
            raise ValueError(f"k={k} ratings a user, but there are {len(self.items)} items.")
        tastes = rng.multivariate_normal(self.prior.mean, self.prior.covariance, size=users)
        chosen = np.stack([rng.permutation(len(self.items))[:k] for _ in range(users)])
        features = self.items[chosen]
        clean = np.einsum("ukd,ud->uk", features, tastes)
        return Ratings(features, clean + self.prior.noise * rng.normal(size=clean.shape)), tastes


@checked
def posterior_taste(data: Ratings, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """Return mean ``(users, d)`` and covariance ``(users, d, d)`` of each user's taste.

    With Φ the ``(k, d)`` features of the rated items, S' = (S⁻¹ + ΦᵀΦ/σ²)⁻¹ and
    m' = m + S' Φᵀ (r - Φm)/σ².  Computed through the ``(k, k)`` matrix ΦSΦᵀ + σ²I, so that S may
    be singular.  With no rating it is the prior.
    """
    phi, S = data.features, prior.covariance
    spread = S @ phi.transpose(0, 2, 1)  # (users, d, k)
    gram = phi @ spread + prior.noise**2 * np.eye(phi.shape[1])
    gain = np.linalg.solve(gram, spread.transpose(0, 2, 1)).transpose(0, 2, 1)
    residual = data.ratings - phi @ prior.mean
    means = prior.mean + (gain @ residual[..., None])[..., 0]
    covariances = S - gain @ spread.transpose(0, 2, 1)
    return means, (covariances + covariances.transpose(0, 2, 1)) / 2


@checked(steps=COUNT)
def fit_prior(data: Ratings, steps: int = 50) -> tuple[Prior, np.ndarray]:
    """Learn the prior from the ratings of many users, by EM.

    The E-step is :func:`posterior_taste`; the M-step takes m as the mean of the posterior means,
    S as the mean of posterior covariance plus spread of the means, σ² as the expected squared
    error of a rating.

    Args:
        data: ratings of at least two users.
        steps: EM updates, >= 1.

    Returns:
        The prior, and the log-likelihood before each update ``(steps,)``, which never falls.

    Raises:
        ValueError: for fewer than two users, or users without a rating.
    """
    users, k, dim = data.features.shape
    steps = int(check_number("steps", steps, low=1, integer=True))
    if users < 2 or k < 1:
        raise ValueError(f"a prior needs two users with a rating each; got {users} and {k}.")
    scale = float(np.std(data.ratings)) or 1.0
    prior = Prior(np.zeros(dim), np.eye(dim) * scale**2 / dim, scale)
    likelihood = np.empty(steps)
    for step in range(steps):
        likelihood[step] = log_likelihood(data, prior)
        means, covariances = posterior_taste(data, prior)
        mean = means.mean(0)
        away = means - mean
        S = covariances.mean(0) + away.T @ away / users
        error = data.ratings - np.einsum("ukd,ud->uk", data.features, means)
        left = np.einsum("ukd,ude,uke->uk", data.features, covariances, data.features)
        noise = float(np.sqrt(max(np.mean(error**2 + left), 1e-12)))
        prior = Prior(mean, S, noise)
    return prior, likelihood


@checked
def log_likelihood(data: Ratings, prior: Prior) -> float:
    """Return Σ_u log N(r_u; Φ_u m, Φ_u S Φ_uᵀ + σ²I)."""
    phi = data.features
    gram = phi @ prior.covariance @ phi.transpose(0, 2, 1)
    gram = gram + prior.noise**2 * np.eye(phi.shape[1])
    residual = (data.ratings - phi @ prior.mean)[..., None]
    fit = (residual * np.linalg.solve(gram, residual)).sum()
    _, logdet = np.linalg.slogdet(gram)
    return float(-0.5 * (fit + logdet.sum() + residual.size * np.log(2 * np.pi)))


@checked
def recommend(items: Any, taste: Any, n: int = 5) -> np.ndarray:
    """Return the numbers of the ``n`` items with the highest expected rating, best first.

    Args:
        items: features ``(items, d)``.
        taste: ``(d,)``.
        n: how many, between 1 and the number of items.
    """
    X = check_features("items", items)
    n = int(check_number("n", n, low=1, high=len(X), integer=True))
    w = check_features("taste", np.reshape(taste, (1, -1)), like=X.shape[1:])[0]
    return np.argsort(-(X @ w), kind="stable")[:n]
