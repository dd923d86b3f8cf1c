"""Gaussian mixtures by EM in TensorFlow, with labels for some of the examples.

p(x) = Σ_k π_k N(x; μ_k, Σ_k).  One step of EM (Dempster, Laird & Rubin 1977) is one pass over
blocks of rows: of each block only the sums that the M-step needs are kept.  All in float64: in
float32 the log-likelihood drifts in the third decimal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from fewshot_course._arguments import COUNT, NOT_NEGATIVE, checked
from fewshot_course.both import gmm as settings
from fewshot_course.both.gmm import COVARIANCE_TYPES, Start, match_components, n_parameters
from fewshot_course.both.training import Run
from fewshot_course.tf._training import resolve_device, to_array, to_tensor

__all__ = [
    "GMMPseudoLabeler",
    "Mixture",
    "Statistics",
    "e_step",
    "em",
    "em_step",
    "log_density",
    "m_step",
    "match_components",
    "n_parameters",
    "statistics",
]

BLOCK = 2**18
"""Numbers that a block of rows makes: few enough for the processor's cache, many enough that
calls cost little."""

ROWS = 4096
"""Rows whose density is computed at a time, outside of EM."""


class Mixture(NamedTuple):
    """The parameters of a mixture.

    Attributes:
        weights: π, ``(K,)``, positive, with sum 1.
        means: μ, ``(K, d)``.
        covariances: ``(K, d, d)`` full, ``(d, d)`` tied, ``(K, d)`` diag, ``(K,)`` spherical.
    """

    weights: tf.Tensor
    means: tf.Tensor
    covariances: tf.Tensor


class Statistics(NamedTuple):
    """The sums that the M-step needs, with responsibilities r_ik.

    Attributes:
        counts: Σ_i r_ik, ``(K,)``.
        sums: Σ_i r_ik x_i, ``(K, d)``.
        squares: Σ_i r_ik x_i x_iᵀ, ``(K, d, d)``; tied: summed over k, ``(d, d)``; diag and
            spherical: its diagonal, ``(K, d)``.
    """

    counts: tf.Tensor
    sums: tf.Tensor
    squares: tf.Tensor


@checked(covariance_type=COVARIANCE_TYPES)
def log_density(mixture: Mixture, covariance_type: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the function x ``(n, d)`` → log π_k + log N(x; μ_k, Σ_k) ``(n, K)``.

    Covariances are factorised once, here; then all components take one matrix product.

    Raises:
        ValueError: if a covariance is not positive definite.
    """
    weights, means, covariances = mixture
    k, d = tf.unstack(tf.shape(means))
    constant = tf.math.log(weights) - 0.5 * tf.cast(d, means.dtype) * math.log(2 * math.pi)
    if covariance_type in ("diag", "spherical"):
        precision = tf.reshape(1 / covariances, [k, -1]) * tf.ones_like(means)
        norm = tf.math.log(precision) - tf.square(means) * precision
        constant += 0.5 * tf.reduce_sum(norm, 1)
        scaled = means * precision
        return lambda x: (
            constant
            + tf.matmul(x, scaled, transpose_b=True)
            - 0.5 * tf.matmul(tf.square(x), precision, transpose_b=True)
        )
    # Without this check a covariance that is not positive definite gives NaN, silently.
    lower = tf.debugging.check_numerics(tf.linalg.cholesky(covariances), "Cholesky failed")
    identity = tf.eye(d, dtype=means.dtype) + tf.zeros_like(lower)
    # Σ⁻¹ = W Wᵀ, so the distance of x is |xW - μW|².
    whiten = tf.linalg.matrix_transpose(tf.linalg.triangular_solve(lower, identity))
    constant += tf.reduce_sum(tf.math.log(tf.linalg.diag_part(whiten)), -1)
    centres = tf.squeeze(tf.matmul(means[:, None], whiten), 1)
    if covariance_type == "tied":
        constant -= 0.5 * tf.reduce_sum(tf.square(centres), 1)

        def shared(x: tf.Tensor) -> tf.Tensor:
            y = tf.matmul(x, whiten)
            distance = tf.reduce_sum(tf.square(y), 1, keepdims=True)
            return constant + tf.matmul(y, centres, transpose_b=True) - 0.5 * distance

        return shared
    side_by_side = tf.reshape(tf.transpose(whiten, [1, 0, 2]), [d, k * d])
    shift = tf.reshape(centres, [-1])

    def own(x: tf.Tensor) -> tf.Tensor:
        difference = tf.reshape(tf.matmul(x, side_by_side) - shift, [-1, k, d])
        return constant - 0.5 * tf.reduce_sum(tf.square(difference), 2)

    return own


@checked(covariance_type=COVARIANCE_TYPES)
def e_step(
    X: tf.Tensor, mixture: Mixture, covariance_type: str, mask: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what each example makes of the mixture.

    Args:
        X: ``(n, d)``.
        mixture: the present parameters.
        covariance_type: "full", "tied", "diag" or "spherical".
        mask: ``(n, K)``, 0 where an example may belong to a component and -∞ where its label
            forbids it; ``None``: everywhere allowed.

    Returns:
        Log-likelihoods log Σ_k π_k N(x; μ_k, Σ_k) over the allowed k, ``(n,)``, and
        responsibilities r_ik = p(k | x_i, label), ``(n, K)``, whose rows sum to 1.
    """
    joint = log_density(mixture, covariance_type)(X)
    return _normalise(joint if mask is None else joint + mask)


def _normalise(joint: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    log_likelihood = tf.reduce_logsumexp(joint, axis=1, keepdims=True)
    return tf.squeeze(log_likelihood, 1), tf.exp(joint - log_likelihood)


@checked(covariance_type=COVARIANCE_TYPES)
def statistics(
    X: tf.Tensor,
    responsibilities: tf.Tensor,
    covariance_type: str,
    squares: tf.Tensor | None = None,
) -> Statistics:
    """Return the sums over the examples.

    Args:
        X: ``(n, d)``.
        responsibilities: ``(n, K)``, ≥ 0.
        covariance_type: "full", "tied", "diag" or "spherical".
        squares: the sum of that name, if it is known already.
    """
    if squares is not None:
        pass
    elif covariance_type == "full":
        squares = _second_moments(X, responsibilities)
    elif covariance_type == "tied":
        weighted = tf.reduce_sum(responsibilities, 1, keepdims=True) * X
        squares = tf.matmul(weighted, X, transpose_a=True)
    else:
        squares = tf.matmul(responsibilities, tf.square(X), transpose_a=True)
    counts = tf.reduce_sum(responsibilities, 0)
    return Statistics(counts, tf.matmul(responsibilities, X, transpose_a=True), squares)


def _second_moments(X: tf.Tensor, responsibilities: tf.Tensor) -> tf.Tensor:
    """Return Σ_i r_ik x_i x_iᵀ, ``(K, d, d)``, by one matrix product."""
    n, d = tf.unstack(tf.shape(X))
    k = tf.shape(responsibilities)[1]
    weighted = tf.reshape(responsibilities[:, :, None] * X[:, None], [n, k * d])
    return tf.reshape(tf.matmul(weighted, X, transpose_a=True), [k, d, d])


@checked(covariance_type=COVARIANCE_TYPES, floor=NOT_NEGATIVE)
def m_step(sums: Statistics, covariance_type: str, floor: float = 0.0) -> Mixture:
    """Return the most likely mixture whose covariances have eigenvalues of at least ``floor``.

    π_k = N_k / N,  μ_k = Σ_i r_ik x_i / N_k,  Σ_k = Σ_i r_ik x_i x_iᵀ / N_k - μ_k μ_kᵀ, the
    latter with small eigenvalues raised to the floor.  X should have mean 0: the difference
    loses digits where means are far larger than spreads.
    """
    counts = sums.counts + 10 * np.finfo(np.float64).eps  # an empty component
    means = sums.sums / counts[:, None]
    if covariance_type == "full":
        covariances = sums.squares / counts[:, None, None] - means[:, :, None] * means[:, None]
    elif covariance_type == "tied":
        between = tf.matmul(counts[:, None] * means, means, transpose_a=True)
        covariances = (sums.squares - between) / tf.reduce_sum(counts)
    else:
        covariances = sums.squares / counts[:, None] - tf.square(means)
        if covariance_type == "spherical":
            covariances = tf.reduce_mean(covariances, 1)
    weights = counts / tf.reduce_sum(counts)
    return Mixture(weights, means, _raise(covariances, covariance_type, floor))


def _raise(covariances: tf.Tensor, covariance_type: str, floor: float) -> tf.Tensor:
    """Raise eigenvalues below the floor to it."""
    if covariance_type in ("diag", "spherical"):
        return tf.maximum(covariances, tf.constant(floor, covariances.dtype))
    values, vectors = tf.linalg.eigh(covariances)
    if tf.reduce_min(values) >= floor:
        return covariances  # the usual case, without rounding
    raised = tf.maximum(values, tf.constant(floor, values.dtype))
    return tf.matmul(vectors * raised[..., None, :], vectors, transpose_b=True)


@checked(covariance_type=COVARIANCE_TYPES, floor=NOT_NEGATIVE)
def em_step(
    X: tf.Tensor,
    mixture: Mixture,
    covariance_type: str,
    *,
    mask: tf.Tensor | None = None,
    sample_weight: tf.Tensor | None = None,
    floor: float = 0.0,
    squares: tf.Tensor | None = None,
) -> tuple[tf.Tensor, Mixture]:
    """Do one E-step and one M-step.

    Args:
        X: ``(n, d)``, with mean 0.
        mixture: the present parameters.
        covariance_type: "full", "tied", "diag" or "spherical".
        mask: as in :func:`e_step`.
        sample_weight: what each example counts, ``(n,)``; ``None``: 1.
        floor: smallest eigenvalue of a covariance, ≥ 0.
        squares: Σ_i w_i x_i x_iᵀ, ``(d, d)``, if known: it is the same in every step.  "tied" needs
            no other; "full" saves one component's sum, since those of all components add up to it.

    Returns:
        The (weighted) mean log-likelihood of the parameters that came, a scalar, and the next
        parameters, whose log-likelihood is not lower.
    """
    sums, log_likelihood = _one_pass(X, mixture, covariance_type, mask, sample_weight, squares)
    return log_likelihood / tf.reduce_sum(sums.counts), m_step(sums, covariance_type, floor)


@tf.function(reduce_retracing=True)
def _one_pass(
    X: tf.Tensor,
    mixture: Mixture,
    covariance_type: str,
    mask: tf.Tensor | None,
    sample_weight: tf.Tensor | None,
    squares: tf.Tensor | None,
) -> tuple[Statistics, tf.Tensor]:
    """Sum the statistics and log-likelihoods of all rows, block by block."""
    # The largest component takes what the others leave: there the difference loses no digits.
    whole = squares if covariance_type == "full" else None
    largest = tf.argmax(mixture.weights, output_type=tf.int32)
    others = tf.concat([tf.range(largest), tf.range(largest + 1, tf.size(mixture.weights))], 0)
    score = log_density(mixture, covariance_type)
    log_likelihood = tf.zeros((), X.dtype)
    counts, means = tf.zeros_like(mixture.weights), tf.zeros_like(mixture.means)
    zero = _zero_squares(means, covariance_type)
    total = Statistics(counts, means, zero if whole is None else zero[1:])
    size = _block_rows(mixture.means, covariance_type)
    for start in tf.range(0, tf.shape(X)[0], size):
        x = X[start : start + size]
        joint = score(x)
        if mask is not None:
            joint += mask[start : start + size]
        row_likelihood, responsibilities = _normalise(joint)
        if sample_weight is not None:
            weight = sample_weight[start : start + size]
            row_likelihood *= weight
            responsibilities *= weight[:, None]
        log_likelihood += tf.reduce_sum(row_likelihood)
        known = squares
        if whole is not None:
            known = _second_moments(x, tf.gather(responsibilities, others, axis=1))
        block = statistics(x, responsibilities, covariance_type, known)
        total = Statistics(*map(_add, total, block))
    if whole is not None:
        part, rest = total.squares, whole - tf.reduce_sum(total.squares, 0, keepdims=True)
        total = total._replace(squares=tf.concat([part[:largest], rest, part[largest:]], 0))
    elif squares is not None:
        total = total._replace(squares=squares)
    return total, log_likelihood


def _add(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(a + b, a.shape)  # the loop wants the shapes that it began with


def _zero_squares(means: tf.Tensor, covariance_type: str) -> tf.Tensor:
    k, d = tf.unstack(tf.shape(means))
    shape = {"full": [k, d, d], "tied": [d, d]}.get(covariance_type, [k, d])
    return tf.zeros(shape, means.dtype)


def _block_rows(means: tf.Tensor, covariance_type: str) -> tf.Tensor:
    """Return how many rows make ``BLOCK`` numbers: K·d a row if full, else K or d."""
    k, d = tf.unstack(tf.shape(means))
    return tf.maximum(64, BLOCK // (k * d if covariance_type == "full" else tf.maximum(k, d)))


@checked(covariance_type=COVARIANCE_TYPES, floor=NOT_NEGATIVE, max_iter=COUNT)
def em(
    X: tf.Tensor,
    mixture: Mixture,
    covariance_type: str,
    *,
    mask: tf.Tensor | None = None,
    sample_weight: tf.Tensor | None = None,
    floor: float = 0.0,
    max_iter: int = 100,
    tol: float = 1e-4,
) -> tuple[Mixture, list[float], bool]:
    """Repeat :func:`em_step` until the mean log-likelihood rises by less than ``tol``.

    Args and shapes: as :func:`em_step`.

    Returns:
        The mixture, the mean log-likelihood before each step, and whether EM has converged.
    """
    squares = None
    if covariance_type in ("full", "tied"):
        weighted = X if sample_weight is None else X * sample_weight[:, None]
        squares = tf.matmul(weighted, X, transpose_a=True)
    history: list[float] = []
    for _ in range(max_iter):
        log_likelihood, following = em_step(
            X, mixture, covariance_type,
            mask=mask, sample_weight=sample_weight, floor=floor, squares=squares,
        )  # fmt: skip
        history.append(float(log_likelihood))
        mixture = following
        if len(history) > 1 and history[-1] - history[-2] < tol:
            return mixture, history, True
    return mixture, history, False


class GMMPseudoLabeler(settings.GMMPseudoLabeler):
    __doc__ = settings.GMMPseudoLabeler.__doc__

    _resolve = staticmethod(resolve_device)

    def _build(self, start: Start, device: str) -> None:
        x, responsibilities = _put(start.X, device), _put(start.responsibilities, device)
        sums = statistics(x, responsibilities, self.covariance_type)
        self._keep(m_step(sums, self.covariance_type, start.floor))

    def _learn(self, start: Start, run: Run) -> dict[str, np.ndarray]:
        put = partial(_put, device=run.device)
        mixture, history, self.converged_ = em(
            put(start.X),
            self._mixture(),
            self.covariance_type,
            mask=None if start.mask is None else put(start.mask),
            sample_weight=None if start.sample_weight is None else put(start.sample_weight),
            floor=start.floor,
            max_iter=self.max_iter,
            tol=self.tol,
        )
        self._keep(mixture)
        return {"log_likelihood": np.asarray(history)}

    def _apply(self, X: np.ndarray) -> np.ndarray:
        """Return log π_k + log N(x; μ_k, Σ_k), ``(n, K)``."""
        score = log_density(self._mixture(), self.covariance_type)
        blocks = (X[start : start + ROWS] for start in range(0, len(X), ROWS))
        return np.concatenate([to_array(score(_put(block, self._device))) for block in blocks])

    def _keep(self, mixture: Mixture) -> None:
        self.weights_, self.means_, self.covariances_ = map(to_array, mixture)

    def _mixture(self) -> Mixture:
        arrays = (self.weights_, self.means_, self.covariances_)
        return Mixture(*(_put(array, self._device) for array in arrays))


def _put(array: np.ndarray, device: str) -> tf.Tensor:
    return to_tensor(array, device, "float64")
