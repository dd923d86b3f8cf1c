"""Divergences against quadrature, torch.distributions, NumPy, SciPy and Monte Carlo."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import quad
from scipy.special import logsumexp, rel_entr
from scipy.stats import norm

SMALL = settings(max_examples=30)


@pytest.fixture
def call(framework):
    """Call a function of ``divergences`` on NumPy arrays; the result is NumPy too."""
    module = framework.module("divergences")

    def run(name, *args, **options):
        out = getattr(module, name)(*(framework.tensor(a) for a in args), **options)
        if isinstance(out, tuple):
            return tuple(framework.array(part) for part in out)
        return framework.array(out)

    return run


def gaussians(d, n=(), seed=0):
    rng = np.random.default_rng(seed)
    return [f(size=(*n, d)) for f in (rng.normal, rng.normal, rng.normal, rng.normal)]


def covariances(d, n, seed=0):
    roots = np.random.default_rng(seed).normal(size=(n, d, d))
    return roots @ roots.swapaxes(-1, -2) + 0.1 * np.eye(d)


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize(
    ("p", "q"), [((0.0, 1.0), (1.0, 2.0)), ((2.0, 0.3), (1.5, 0.7)), ((0.0, 3.0), (0.0, 0.5))]
)
def test_gaussian_kl_equals_quadrature(call, p, q):
    def integrand(x):
        log_p, log_q = norm.logpdf(x, *p), norm.logpdf(x, *q)
        return np.exp(log_p) * (log_p - log_q)

    width = 12 * p[1]
    exact, _ = quad(integrand, p[0] - width, p[0] + width, epsabs=1e-12, epsrel=1e-12, limit=200)
    moments = [np.array([v]) for m, s in (p, q) for v in (m, 2 * np.log(s))]
    assert call("gaussian_kl", *moments) == pytest.approx(exact, rel=1e-9)


def test_gaussian_kl_equals_torch_distributions(call):
    torch = pytest.importorskip("torch", reason="the oracle is torch.distributions")
    from torch.distributions import Independent, Normal, kl_divergence

    mean_p, log_var_p, mean_q, log_var_q = (torch.as_tensor(a) for a in gaussians(4, (3, 2)))
    exact = kl_divergence(
        Independent(Normal(mean_p, (log_var_p / 2).exp()), 1),
        Independent(Normal(mean_q, (log_var_q / 2).exp()), 1),
    )
    ours = call("gaussian_kl", *gaussians(4, (3, 2)))
    np.testing.assert_allclose(ours, exact.numpy(), rtol=1e-12)


def test_full_gaussian_kl_equals_numpy(call):
    """By inverse and determinant, which the code avoids."""
    rng = np.random.default_rng(1)
    mean_p, mean_q = rng.normal(size=(2, 5, 3))
    cov_p, cov_q = covariances(3, 5, 2), covariances(3, 5, 3)
    inverse, gap = np.linalg.inv(cov_q), mean_q - mean_p
    exact = 0.5 * (
        np.trace(inverse @ cov_p, axis1=1, axis2=2)
        + np.einsum("ni,nij,nj->n", gap, inverse, gap)
        - 3
        + np.log(np.linalg.det(cov_q) / np.linalg.det(cov_p))
    )
    ours = call("full_gaussian_kl", mean_p, cov_p, mean_q, cov_q)
    np.testing.assert_allclose(ours, exact, rtol=1e-10)


def test_the_diagonal_form_is_the_full_one_with_diagonal_covariance(call):
    mean_p, log_var_p, mean_q, log_var_q = gaussians(3, (4,))
    cov_p, cov_q = (np.exp(v)[..., None] * np.eye(3) for v in (log_var_p, log_var_q))
    np.testing.assert_allclose(
        call("gaussian_kl", mean_p, log_var_p, mean_q, log_var_q),
        call("full_gaussian_kl", mean_p, cov_p, mean_q, cov_q),
        rtol=1e-12,
    )


def test_closed_forms_lie_within_four_standard_errors_of_monte_carlo(call):
    mean_p, log_var_p, mean_q, log_var_q = gaussians(3, seed=4)
    rng = np.random.default_rng(0)
    x = mean_p + np.exp(log_var_p / 2) * rng.normal(size=(40_000, 3))

    def log_density(mean, log_var):
        return norm.logpdf(x, mean, np.exp(log_var / 2)).sum(1)

    terms = log_density(mean_p, log_var_p) - log_density(mean_q, log_var_q)
    error = terms.std(ddof=1) / np.sqrt(len(terms))
    exact = call("gaussian_kl", mean_p, log_var_p, mean_q, log_var_q)
    assert abs(terms.mean() - exact) < 4 * error
    assert error < 0.1 * exact  # else the test would say little


def test_kl_of_equals_is_zero(call):
    mean, log_var, *_ = gaussians(4, (3,))
    assert call("gaussian_kl", mean, log_var, mean, log_var).tolist() == [0, 0, 0]
    cov = covariances(4, 3)
    np.testing.assert_allclose(call("full_gaussian_kl", mean, cov, mean, cov), 0, atol=1e-12)
    log_p = np.log(np.random.default_rng(0).dirichlet(np.ones(5), size=3))
    assert call("categorical_kl", log_p, log_p).tolist() == [0, 0, 0]


vectors = arrays(np.float64, 3, elements=st.floats(-3, 3))


@SMALL
@given(mean_p=vectors, log_var_p=vectors, mean_q=vectors, log_var_q=vectors)
def test_gaussian_kl_is_not_negative(framework, mean_p, log_var_p, mean_q, log_var_q):
    parts = [framework.tensor(a) for a in (mean_p, log_var_p, mean_q, log_var_q)]
    kl = float(framework.module("divergences").gaussian_kl(*parts))
    assert kl >= -1e-12
    if kl < 1e-12:
        np.testing.assert_allclose(mean_p, mean_q, atol=1e-4)
        np.testing.assert_allclose(log_var_p, log_var_q, atol=1e-4)


@SMALL
@given(seed=st.integers(0, 10**6), d=st.integers(1, 4))
def test_full_gaussian_kl_is_not_negative(framework, seed, d):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(2, d))
    parts = (means[0], covariances(d, 1, seed)[0], means[1], covariances(d, 1, seed + 1)[0])
    kl = framework.module("divergences").full_gaussian_kl(*(framework.tensor(a) for a in parts))
    assert float(kl) >= -1e-12


def test_a_covariance_that_is_none_is_refused(framework):
    bad = np.array([[1.0, 2.0], [2.0, 1.0]])
    parts = [framework.tensor(a) for a in (np.zeros(2), bad, np.zeros(2), np.eye(2))]
    with pytest.raises(ValueError, match="cov_p"):
        framework.module("divergences").full_gaussian_kl(*parts)


def test_gaussian_log_prob_equals_scipy(call):
    x, mean, log_var, _ = gaussians(3, (4,))
    exact = norm.logpdf(x, mean, np.exp(log_var / 2)).sum(1)
    np.testing.assert_allclose(call("gaussian_log_prob", x, mean, log_var), exact, rtol=1e-12)


# ---------------------------------------------------------------- categorical


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_categorical_kl_equals_scipy_zeros_included(call):
    p = np.array([[0.2, 0.3, 0.5], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
    q = np.array([[0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    exact = rel_entr(p, q).sum(1)
    assert exact[-1] == np.inf
    np.testing.assert_allclose(call("categorical_kl", np.log(p), np.log(q)), exact, rtol=1e-12)


@SMALL
@given(seed=st.integers(0, 10**6), k=st.integers(2, 6))
def test_categorical_kl_is_not_negative(framework, seed, k):
    p, q = np.random.default_rng(seed).dirichlet(np.full(k, 0.3), size=2).clip(1e-300)
    parts = [framework.tensor(np.log(a)) for a in (p, q)]
    assert float(framework.module("divergences").categorical_kl(*parts)) >= -1e-12


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_categorical_kl_has_finite_gradients_where_p_is_zero(framework):
    log_p, log_q = np.log([0.0, 0.5, 0.5]), np.log([0.0, 0.25, 0.75])
    kl = framework.module("divergences").categorical_kl
    p, q = framework.tensor(log_p), framework.tensor(log_q)
    if framework.name == "torch":
        p, q = p.requires_grad_(), q.requires_grad_()
        kl(p, q).backward()
        gradients = [p.grad.numpy(), q.grad.numpy()]
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch([p, q])
            loss = kl(p, q)
        gradients = [g.numpy() for g in tape.gradient(loss, [p, q])]
    exact_p = [0.0, *(0.5 * (np.log([2.0, 2 / 3]) + 1))]
    np.testing.assert_allclose(gradients[0], exact_p, rtol=1e-12)
    np.testing.assert_allclose(gradients[1], [0.0, -0.5, -0.5], rtol=1e-12)


# ---------------------------------------------------------------- estimators


def test_monte_carlo_kl_is_unbiased_and_less_noisy_than_the_plain_one(call):
    """p = N(0, 1), q = N(0.3, 1): KL = 0.045; 400 estimates of 100 samples each."""
    x = np.random.default_rng(0).normal(size=(100, 400))
    log_p, log_q = norm.logpdf(x), norm.logpdf(x, 0.3)
    estimates = call("monte_carlo_kl", log_p, log_q)
    plain = (log_p - log_q).mean(0)
    error = estimates.std(ddof=1) / np.sqrt(400)
    assert abs(estimates.mean() - 0.045) < 4 * error
    assert (estimates >= 0).all()
    assert (plain < 0).any()
    assert estimates.var() < 0.25 * plain.var()


def test_batch_moments_are_those_of_the_mixture(call):
    mean, log_var, *_ = gaussians(2, (5,))
    centre, log_spread = call("batch_moments", mean, log_var)
    rng = np.random.default_rng(0)
    of = rng.integers(5, size=200_000)
    x = mean[of] + np.exp(log_var[of] / 2) * rng.normal(size=(200_000, 2))
    error = x.std(0) / np.sqrt(len(x))
    assert (np.abs(x.mean(0) - centre) < 4 * error).all()
    squares = (x - centre) ** 2
    error = squares.std(0) / np.sqrt(len(x))
    assert (np.abs(squares.mean(0) - np.exp(log_spread)) < 4 * error).all()


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_mixture_log_prob_equals_a_loop(call, leave_one_out):
    z, mean, log_var, _ = gaussians(3, (6,))
    exact = []
    for i in range(6):
        others = [j for j in range(6) if not (leave_one_out and j == i)]
        each = [norm.logpdf(z[i], mean[j], np.exp(log_var[j] / 2)).sum() for j in others]
        exact.append(logsumexp(each) - np.log(len(others)))
    ours = call("mixture_log_prob", z, mean, log_var, leave_one_out=leave_one_out)
    np.testing.assert_allclose(ours, exact, rtol=1e-10)


def test_mixture_log_prob_takes_another_number_of_components(call):
    z, mean = np.zeros((4, 2)), np.ones((7, 2))
    out = call("mixture_log_prob", z, mean, np.zeros((7, 2)), leave_one_out=False)
    np.testing.assert_allclose(out, norm.logpdf(0, 1) * 2, rtol=1e-12)


def test_mixture_log_prob_in_float32_far_from_the_origin(call):
    """Multiplied-out squares cancel: a shift of all codes must not cost the digits."""
    z, mean, log_var, _ = gaussians(8, (16,))
    log_var = log_var / 10 - 4
    exact = call("mixture_log_prob", z, mean, log_var, leave_one_out=False)
    shifted = (a.astype("float32") for a in (z + 32, mean + 32, log_var))
    ours = call("mixture_log_prob", *shifted, leave_one_out=False)
    np.testing.assert_allclose(ours, exact, rtol=1e-5)


def test_equal_populations_have_no_mixture_kl_only_if_a_sample_leaves_itself_out(call):
    """d = 16, σ = 1, batches of 256 of one population of codes N(0, I)."""
    rng = np.random.default_rng(0)
    with_itself, without = [], []
    for _ in range(20):
        mean_p, mean_q, noise = rng.normal(size=(3, 256, 16))
        zeros = np.zeros((256, 16))
        args = (mean_p + noise, mean_p, zeros, mean_q, zeros)
        with_itself.append(call("mixture_kl", *args, leave_one_out=False))
        without.append(call("mixture_kl", *args))
    assert np.mean(with_itself) == pytest.approx(1.95, abs=0.15)
    assert np.mean(without) == pytest.approx(0, abs=0.15)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "shapes", "wrong"),
    [
        ("gaussian_kl", [(2, 3), (2, 3), (2, 1), (2, 3)], "mean_q"),
        ("gaussian_log_prob", [(2, 3), (2, 3), (1,)], "log_var"),
        ("categorical_kl", [(2, 3), (2, 1)], "log_q"),
        ("full_gaussian_kl", [(3,), (1, 1), (3,), (3, 3)], "cov_p"),
        ("batch_moments", [(5, 3), (5, 1)], "log_var"),
        ("mixture_kl", [(5, 3), (5, 3), (5, 3), (5, 1), (5, 1)], "mean"),
    ],
)
def test_what_broadcasting_would_hide_is_refused(call, name, shapes, wrong):
    with pytest.raises(ValueError, match=f"last axes must have one size.*{wrong}"):
        call(name, *(np.ones(shape) for shape in shapes))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 3), (3, 4)])
def test_leave_one_out_needs_a_component_for_each_sample_and_another(call, n, m):
    with pytest.raises(ValueError, match=f"two at least; got {n} z and {m} components"):
        call("mixture_log_prob", np.ones((n, 2)), *np.ones((2, m, 2)), leave_one_out=True)
