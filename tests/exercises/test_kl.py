"""The oracles of the topic "kl" against further roads, and planted answers in both frameworks."""

import numpy as np
import pytest
import tensorflow as tf
import torch
from scipy import integrate, stats

from fewshot_course.exercises import check, exercise


def oracle(name):
    return exercise(f"kl.{name}").oracle


def test_gaussian_kl_oracle_is_scipy_quadrature_and_torch_distributions():
    rng = np.random.default_rng(0)
    m_p, v_p, m_q, v_q = rng.normal(size=(4, 3, 2))
    ours = oracle("gaussian_kl")(m_p, v_p, m_q, v_q)
    normal = torch.distributions.Normal
    p, q = (
        normal(torch.tensor(m), torch.tensor(v).div(2).exp()) for m, v in ((m_p, v_p), (m_q, v_q))
    )
    theirs = torch.distributions.kl_divergence(p, q).sum(-1).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    one_p, one_q = stats.norm(m_p[0, 0], np.exp(v_p[0, 0] / 2)), stats.norm(0, 1)
    value, _ = integrate.quad(
        lambda x: one_p.pdf(x) * (one_p.logpdf(x) - one_q.logpdf(x)), -20, 20, points=[m_p[0, 0]]
    )
    zero = np.zeros((1, 1))
    ours = oracle("gaussian_kl")(m_p[:1, :1], v_p[:1, :1], zero, zero)
    np.testing.assert_allclose(ours, [value], rtol=1e-8)


def test_monte_carlo_oracle_is_unbiased_never_negative_and_varies_less():
    x = np.random.default_rng(0).normal(size=(100_000, 1))
    log_p, log_q = stats.norm.logpdf(x), stats.norm.logpdf(x, 0.5)
    closed = 0.5 * 0.5**2
    estimates = oracle("monte_carlo_kl")(log_p.reshape(100, -1), log_q.reshape(100, -1))
    error = estimates.std(ddof=1) / np.sqrt(len(estimates))
    assert abs(estimates.mean() - closed) < 4 * error
    assert (oracle("monte_carlo_kl")(log_p[:50].T, log_q[:50].T) >= 0).all()
    assert np.var(np.expm1(log_q - log_p) - (log_q - log_p)) < 0.5 * np.var(log_p - log_q)


def test_leave_one_out_takes_the_bias_away():
    """Identical populations: the true KL is 0 (d = 16, sigma = 1, B = 256)."""
    rng = np.random.default_rng(0)
    mean_p, mean_q = rng.normal(size=(2, 256, 16))
    z, log_var = mean_p + rng.normal(size=(256, 16)), np.zeros((256, 16))
    from scipy.special import logsumexp

    def log_density(mean):
        scaled = ((z[:, None] - mean) ** 2).sum(-1)
        return logsumexp(-0.5 * scaled, 1) - np.log(256) - 8 * np.log(2 * np.pi)

    left_out = oracle("leave_one_out_log_prob")(z, mean_p, log_var)
    assert (log_density(mean_p) - log_density(mean_q)).mean() > 1.5
    assert abs((left_out - log_density(mean_q)).mean()) < 0.5


def test_coral_oracle_by_hand():
    # Covariances [[2, 2], [2, 2]] and [[2, -2], [-2, 2]]: the difference has 4 twice.
    source, target = np.array([[1.0, 1], [-1, -1]]), np.array([[1.0, -1], [-1, 1]])
    assert oracle("coral_loss")(source, target) == pytest.approx(32 / 16)


# Wrong answers as students write them, in each framework; none is made from the package's list.
PLANTED = {
    "kl.gaussian_kl": [
        lambda a, b, c, d: (
            0.5 * (d - b + torch.exp(b - d) + (a - c) ** 2 / torch.exp(b) - 1).sum(1)
        ),
        lambda a, b, c, d: -0.5 * (1 + b - a**2 - torch.exp(b)).sum(1),  # the VAE's, q is N(0, 1)
        lambda a, b, c, d: 0.5 * (d - b + torch.exp(b - d) + (a - c) ** 2 / torch.exp(d) - 1).sum(),
        lambda a, b, c, d: 0.5 * tf.reduce_sum(d - b + b / d + (a - c) ** 2 / d - 1, 1),
        lambda a, b, c, d: (
            0.5 * tf.reduce_sum(b - d + tf.exp(b - d) + (a - c) ** 2 / tf.exp(d) - 1, 1)
        ),
        lambda a, b, c, d: (
            0.5 * tf.reduce_mean(d - b + tf.exp(b - d) + (a - c) ** 2 / tf.exp(d) - 1, 1)
        ),
    ],
    "kl.monte_carlo_kl": [
        lambda p, q: (torch.exp(p) * (p - q)).mean(0),  # weighs samples of p by p again
        lambda p, q: (p - q).abs().mean(0),
        lambda p, q: (torch.exp(q - p) - 1 + (q - p)).mean(0),
        lambda p, q: tf.reduce_mean(tf.exp(q - p) * (q - p) - (tf.exp(q - p) - 1), 0),  # reverse
        lambda p, q: tf.reduce_mean(tf.math.expm1(q - p) - (q - p)),
        lambda p, q: tf.nn.relu(tf.reduce_mean(p - q, 0)),
    ],
    "kl.leave_one_out_log_prob": [
        lambda z, m, v: torch.logsumexp(-0.5 * ((z[:, None] - m) ** 2 / v.exp() + v).sum(2), 1),
        lambda z, m, v: torch.distributions.Normal(m, torch.exp(v / 2)).log_prob(z).sum(1),
        lambda z, m, v: (
            torch.distributions.Normal(m, torch.exp(v / 2))
            .log_prob(z[:, None])
            .sum(2)
            .fill_diagonal_(0)
            .logsumexp(1)
        ),
        lambda z, m, v: (
            tf.reduce_logsumexp(
                -0.5 * tf.reduce_sum((z[:, None] - m) ** 2 / tf.exp(v) + v + 1.8378771, 2), 1
            )
            - tf.math.log(tf.cast(len(z) - 1, tf.float32))
        ),
        lambda z, m, v: tf.zeros(len(z)),
        lambda z, m, v: tf.reduce_sum((z - m) ** 2, 1),
    ],
    "kl.coral_loss": [
        lambda s, t: ((s.mean(0) - t.mean(0)) ** 2).sum() * torch.ones(()),
        lambda s, t: torch.dist(torch.cov(s.T), torch.cov(t.T)),
        lambda s, t: torch.nn.functional.mse_loss(torch.cov(s.T), torch.cov(t.T)),  # 4 times
        lambda s, t: tf.reduce_mean((tf.transpose(s) @ s - tf.transpose(t) @ t) ** 2) / 4,
        lambda s, t: tf.reduce_sum(tf.math.reduce_variance(s, 0) - tf.math.reduce_variance(t, 0)),
        lambda s, t: tf.norm(tf.transpose(s) @ s / len(s) - tf.transpose(t) @ t / len(t)),
    ],
}


@pytest.mark.parametrize(("name", "i"), [(name, i) for name in PLANTED for i in range(6)])
def test_planted_answers_are_refused(name, i):
    outcome = check(name, PLANTED[name][i])
    assert not outcome.passed
    assert outcome.framework == ("torch" if i < 3 else "tensorflow")
    assert "Case" in repr(outcome)
    # Refused for its value, not for an error of the test's own making (one may also end in NaN).
    assert "it raised" not in repr(outcome)


def test_biased_estimator_is_named_in_a_framework_too():
    def plain(log_p, log_q):
        return torch.mean(log_p - log_q, dim=0)

    assert "This is the plain estimator" in repr(check("kl.monte_carlo_kl", plain))
