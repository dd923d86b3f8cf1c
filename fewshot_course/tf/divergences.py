"""Kullback-Leibler divergences in TensorFlow: closed forms and estimators.

KL(p‖q) = E_p[log p(x) - log q(x)] ≥ 0, in nats; 0 only where p = q (Kullback & Leibler 1951).
"""

from __future__ import annotations

import math

import tensorflow as tf

from fewshot_course._arguments import checked

__all__ = [
    "batch_moments",
    "categorical_kl",
    "full_gaussian_kl",
    "gaussian_kl",
    "gaussian_log_prob",
    "mixture_kl",
    "mixture_log_prob",
    "monte_carlo_kl",
]


@checked
def categorical_kl(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """KL(p‖q) of categorical distributions, Σ_k p_k (log p_k - log q_k).

    Args:
        log_p: log-probabilities ``(..., k)``, normalised; -inf where p_k = 0.
        log_q: log-probabilities ``(..., k)``.

    Returns:
        ``(...)``; infinite where q_k = 0 < p_k.
    """
    _same_width(log_p=log_p, log_q=log_q)
    p = tf.exp(log_p)
    # The choice is made before the product, so that gradients are finite too where p = 0.
    return tf.reduce_sum(p * tf.where(p > 0, log_p - log_q, tf.zeros_like(p)), -1)


@checked
def gaussian_kl(
    mean_p: tf.Tensor, log_var_p: tf.Tensor, mean_q: tf.Tensor, log_var_q: tf.Tensor
) -> tf.Tensor:
    """KL(p‖q) of diagonal Gaussians, summed over dimensions.

    ½ Σ_j [log(σ_q²/σ_p²) + (σ_p² + (μ_p - μ_q)²)/σ_q² - 1]

    Args:
        mean_p: μ_p, ``(..., d)``.
        log_var_p: log σ_p², ``(..., d)``.
        mean_q: μ_q, ``(..., d)``.
        log_var_q: log σ_q², ``(..., d)``.

    Returns:
        ``(...)``, ≥ 0.
    """
    _same_width(mean_p=mean_p, log_var_p=log_var_p, mean_q=mean_q, log_var_q=log_var_q)
    log_ratio = log_var_q - log_var_p
    distance = tf.square(mean_p - mean_q) / tf.exp(log_var_q)
    return 0.5 * tf.reduce_sum(log_ratio + tf.exp(-log_ratio) + distance - 1, -1)


@checked
def full_gaussian_kl(
    mean_p: tf.Tensor, cov_p: tf.Tensor, mean_q: tf.Tensor, cov_q: tf.Tensor
) -> tf.Tensor:
    """KL(p‖q) of Gaussians with full covariance.

    ½ [tr(Σ_q⁻¹ Σ_p) + (μ_q - μ_p)ᵀ Σ_q⁻¹ (μ_q - μ_p) - d + log(det Σ_q / det Σ_p)]

    Args:
        mean_p: μ_p, ``(..., d)``.
        cov_p: Σ_p, ``(..., d, d)``, symmetric positive definite.
        mean_q: μ_q, ``(..., d)``.
        cov_q: Σ_q, ``(..., d, d)``, symmetric positive definite.

    Returns:
        ``(...)``, ≥ 0.

    Raises:
        ValueError: if a covariance is not positive definite.
    """
    _same_width(mean_p=mean_p, cov_p=cov_p, mean_q=mean_q, cov_q=cov_q)
    root_p, root_q = _cholesky("cov_p", cov_p), _cholesky("cov_q", cov_q)
    whitened = tf.linalg.triangular_solve(root_q, root_p)
    difference = tf.linalg.triangular_solve(root_q, (mean_q - mean_p)[..., None])
    trace = tf.reduce_sum(tf.square(whitened), (-2, -1))
    distance = tf.reduce_sum(tf.square(difference), (-2, -1))
    return (
        0.5 * (trace + distance - mean_p.shape[-1]) + _half_log_det(root_q) - _half_log_det(root_p)
    )


@checked
def gaussian_log_prob(x: tf.Tensor, mean: tf.Tensor, log_var: tf.Tensor) -> tf.Tensor:
    """Log-density of diagonal Gaussians, summed over dimensions.

    Args:
        x: ``(..., d)``.
        mean: ``(..., d)``.
        log_var: log σ², ``(..., d)``.

    Returns:
        ``(...)``.
    """
    _same_width(x=x, mean=mean, log_var=log_var)
    scaled = tf.square(x - mean) / tf.exp(log_var)
    return -0.5 * tf.reduce_sum(scaled + log_var + math.log(2 * math.pi), -1)


@checked
def monte_carlo_kl(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """Estimate KL(p‖q) from samples x ~ p, each term ≥ 0.

    With r = q(x)/p(x), every sample gives (r - 1) - log r.  Since E_p[r - 1] = 0, it has the
    mean of -log r, and mostly a smaller variance (Schulman 2020, "Approximating KL divergence").

    Args:
        log_p: log p(x) of the samples, ``(n, ...)``.
        log_q: log q(x) of the samples, ``(n, ...)``.

    Returns:
        The mean over the samples, ``(...)``, ≥ 0.
    """
    log_ratio = log_q - log_p
    return tf.reduce_mean(tf.math.expm1(log_ratio) - log_ratio, 0)


@checked
def batch_moments(mean: tf.Tensor, log_var: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and log-variance of the mixture of a batch of Gaussians, 1/n Σ N(μ_i, σ_i²).

    Args:
        mean: μ_i, ``(n, d)``.
        log_var: log σ_i², ``(n, d)``.

    Returns:
        mean ``(d,)`` and log-variance ``(d,)`` of the mixture, exactly:
        its variance is the mean of σ_i² plus the variance of μ_i.
    """
    _same_width(mean=mean, log_var=log_var)
    centre = tf.reduce_mean(mean, 0)
    var = tf.reduce_mean(tf.exp(log_var), 0) + tf.reduce_mean(tf.square(mean - centre), 0)
    return centre, tf.math.log(var)


@checked
def mixture_log_prob(
    z: tf.Tensor, mean: tf.Tensor, log_var: tf.Tensor, leave_one_out: bool
) -> tf.Tensor:
    """Log-density of ``z`` under a mixture of Gaussians, one component an example.

    Args:
        z: ``(n, d)``.
        mean: component means ``(m, d)``.
        log_var: component log-variances ``(m, d)``.
        leave_one_out: leave component i out for z_i (then m = n).  A sample always lies near
            the component it was drawn from; counting that one makes the density look too high.

    Returns:
        ``(n,)``.

    Raises:
        ValueError: if widths differ, or ``leave_one_out`` is asked of m ≠ n or m = 1.
    """
    _same_width(z=z, mean=mean, log_var=log_var)
    log_prob = _pairwise_log_prob(z, mean, log_var)
    count = mean.shape[0]
    if leave_one_out:
        _check_own(z, mean)
        lowest = tf.fill((count,), tf.constant(-math.inf, z.dtype))
        log_prob = tf.linalg.set_diag(log_prob, lowest)
        count -= 1
    return tf.reduce_logsumexp(log_prob, 1) - math.log(count)


@checked
def mixture_kl(
    z: tf.Tensor,
    mean_p: tf.Tensor,
    log_var_p: tf.Tensor,
    mean_q: tf.Tensor,
    log_var_q: tf.Tensor,
    leave_one_out: bool = True,
) -> tf.Tensor:
    """Estimate KL(p‖q) of two encoded populations from a minibatch of each.

    p(z) = E_x[p(z|x)] is replaced by the mixture of the batch's encodings (Nguyen et al. 2022,
    section 3.2).  A sample lies near its own component: where that one counts, p(z_i) looks too
    large and two equal populations seem far apart.  Left out, the *estimate* has next to no bias,
    but it is no *loss*: codes far from each other, each beside one of q's, make it fall for
    ever, for nothing holds log p(z_i) from below.  With its own component log p(z_i) is at least
    -log n + log N(z_i; μ_i, σ_i²).  So leave it out to measure, and keep it to train.

    Args:
        z: one sample of each encoding of p's batch, ``(n, d)``.
        mean_p: ``(n, d)``.
        log_var_p: ``(n, d)``.
        mean_q: ``(m, d)``.
        log_var_q: ``(m, d)``.
        leave_one_out: whether the own component is left out.

    Returns:
        A scalar; it can be slightly negative.
    """
    log_p = mixture_log_prob(z, mean_p, log_var_p, leave_one_out)
    log_q = mixture_log_prob(z, mean_q, log_var_q, leave_one_out=False)
    return tf.reduce_mean(log_p - log_q)


def _pairwise_log_prob(z: tf.Tensor, mean: tf.Tensor, log_var: tf.Tensor) -> tf.Tensor:
    # Σ_j (z_j - μ_j)²/σ_j², multiplied out: two matrix products instead of an (n, m, d) array.
    # A shift of both changes nothing, and small numbers keep more digits.
    centre = tf.reduce_mean(mean, 0)
    z, mean, precision = z - centre, mean - centre, tf.exp(-log_var)
    squares = (
        tf.matmul(tf.square(z), precision, transpose_b=True)
        - 2 * tf.matmul(z, mean * precision, transpose_b=True)
        + tf.reduce_sum(tf.square(mean) * precision, 1)
    )
    constant = tf.reduce_sum(log_var + math.log(2 * math.pi), 1)
    return -0.5 * (squares + constant)


def _cholesky(name: str, cov: tf.Tensor) -> tf.Tensor:
    # TensorFlow's own gives NaN where torch's raises.
    root = tf.linalg.cholesky(cov)
    return tf.debugging.assert_all_finite(root, f"{name} is not positive definite")


def _check_own(z: tf.Tensor, mean: tf.Tensor) -> None:
    if not z.shape[0] == mean.shape[0] >= 2:
        raise ValueError(
            f"leave_one_out needs one component for each z, and two at least; got {z.shape[0]} z "
            f"and {mean.shape[0]} components."
        )


def _half_log_det(root: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)), -1)


def _same_width(**arrays: tf.Tensor) -> None:
    """Refuse what broadcasting would hide: a width of 1 or d beside a width of d'."""
    widths = {name: tuple(array.shape)[-1:] for name, array in arrays.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"the last axes must have one size, got {widths}.")
