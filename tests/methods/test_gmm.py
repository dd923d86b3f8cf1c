"""The pure functions of EM: what must hold, against scikit-learn and by hand."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.mixture import GaussianMixture

from fewshot_course.both.gmm import COVARIANCE_TYPES, match_components, n_parameters, raised

COVARIANCES = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def blobs(n, d, k, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.integers(k, size=(n, 1))
    return X - X.mean(0), rng.dirichlet(np.ones(k), n)


def run(framework, X, R, covariance_type, **options):
    """EM from the M-step of ``R``: start and end as arrays, the likelihoods, and convergence."""
    gmm = framework.module("gmm")
    x = framework.tensor(X)
    tensors = {k: framework.tensor(v) if k in ("mask", "sample_weight") else v
               for k, v in options.items()}  # fmt: skip
    weighted = R * options["sample_weight"][:, None] if "sample_weight" in options else R
    floor = options.get("floor", 0.0)
    start = gmm.m_step(
        gmm.statistics(x, framework.tensor(weighted), covariance_type), covariance_type, floor
    )
    mixture, history, converged = gmm.em(x, start, covariance_type, **tensors)
    start, end = ([framework.array(part) for part in m] for m in (start, mixture))
    return start, end, np.array(history), converged


@COVARIANCES
@settings(max_examples=8)
@given(
    seed=st.integers(0, 10_000),
    n=st.sampled_from([3, 6, 40]),
    d=st.sampled_from([1, 4]),
    k=st.sampled_from([1, 3]),
    labelled=st.booleans(),
)
def test_likelihood_never_falls(framework, covariance_type, seed, n, d, k, labelled):
    """Also with clamps, weights, and covariances that need the floor (n < d, n < k)."""
    X, R = blobs(n, d, k, seed)
    options = {"floor": 1e-3 * X.var(), "max_iter": 8, "tol": -1.0}
    if labelled:
        rng = np.random.default_rng(seed)
        options["mask"] = np.where(rng.random((n, k)) < 0.3, -np.inf, 0.0)
        options["mask"][:, 0] = 0
        options["sample_weight"] = rng.uniform(0.1, 1, n)
    history = run(framework, X, R, covariance_type, **options)[2]
    assert np.isfinite(history).all()
    assert (np.diff(history) >= -1e-9 * (1 + np.abs(history[1:]))).all()


@COVARIANCES
def test_equals_scikit_learn_from_the_same_start(framework, covariance_type, monkeypatch):
    monkeypatch.setattr(framework.module("gmm"), "BLOCK", 1000)  # several, the last not full
    X, R = blobs(1300, 4, 3, 0)
    start, end, history, _ = run(framework, X, R, covariance_type, max_iter=20, tol=-1.0)
    precision = np.linalg.inv(start[2]) if start[2].shape[-1:] == start[2].shape[-2:-1] else None
    reference = GaussianMixture(
        3, covariance_type=covariance_type, tol=0, reg_covar=0, max_iter=20,
        weights_init=start[0], means_init=start[1],
        precisions_init=1 / start[2] if precision is None else precision,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 20 steps are not convergence
        reference.fit(X)
    for ours, theirs in zip(
        end, (reference.weights_, reference.means_, reference.covariances_), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(history[-1], reference.lower_bound_, rtol=1e-6)


@COVARIANCES
def test_one_component_is_mean_and_covariance(framework, covariance_type):
    X, _ = blobs(700, 3, 1, 1)
    _, end, history, converged = run(framework, X, np.ones((700, 1)), covariance_type)
    full = np.cov(X, rowvar=False, bias=True)
    wanted = {
        "full": full[None],
        "tied": full,
        "diag": np.diag(full)[None],
        "spherical": np.diag(full).mean(keepdims=True),
    }[covariance_type]
    np.testing.assert_allclose(end[0], [1])
    np.testing.assert_allclose(end[1][0], X.mean(0), atol=1e-12)
    np.testing.assert_allclose(end[2], wanted, rtol=1e-10, atol=1e-12)
    dense = {"full": full, "tied": full, "diag": np.diag(np.diag(full))}.get(
        covariance_type, np.eye(3) * wanted.mean()
    )
    by_scipy = stats.multivariate_normal(X.mean(0), dense).logpdf(X).mean()
    np.testing.assert_allclose(history[-1], by_scipy, rtol=1e-10)
    assert converged


@COVARIANCES
def test_frameworks_agree(both, covariance_type):
    X, R = blobs(1300, 5, 4, 2)
    rng = np.random.default_rng(0)
    mask = np.where(rng.random((1300, 4)) < 0.2, -np.inf, 0.0)
    mask[:, 0] = 0
    options = {"mask": mask, "sample_weight": rng.uniform(0.2, 1, 1300), "floor": 1e-3}
    (_, a, ha, _), (_, b, hb, _) = (
        run(framework, X, R, covariance_type, max_iter=25, tol=-1.0, **options)
        for framework in both
    )
    for ours, theirs in zip(a, b, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ha, hb, rtol=1e-12)


def test_e_step_by_hand(framework):
    """Two unit Gaussians at -1 and 1: p(second | x) = 1 / (1 + exp(-2x))."""
    gmm, t = framework.module("gmm"), framework.tensor
    mixture = gmm.Mixture(t([0.5, 0.5]), t([[-1.0], [1.0]]), t([1.0, 1.0]))
    x = np.array([[-2.0], [0.0], [0.5]])
    log_likelihood, R = gmm.e_step(t(x), mixture, "spherical")
    np.testing.assert_allclose(framework.array(R)[:, 1], 1 / (1 + np.exp(-2 * x[:, 0])))
    density = 0.5 * stats.norm.pdf(x[:, 0], -1) + 0.5 * stats.norm.pdf(x[:, 0], 1)
    np.testing.assert_allclose(framework.array(log_likelihood), np.log(density))
    mask = t(np.array([[-np.inf, 0.0], [0.0, 0.0], [0.0, -np.inf]]))
    log_likelihood, R = gmm.e_step(t(x), mixture, "spherical", mask)
    np.testing.assert_allclose(framework.array(R), [[0, 1], [0.5, 0.5], [1, 0]])
    np.testing.assert_allclose(
        framework.array(log_likelihood)[0], stats.norm.logpdf(-2, 1) - np.log(2)
    )


def test_floor_is_the_constrained_maximum(framework):
    """Points on a line: one eigenvalue is 0 and is raised; the other stays."""
    gmm, t = framework.module("gmm"), framework.tensor
    line = np.linspace(-1, 1, 50)[:, None] * np.array([[3.0, 4.0]]) / 5
    sums = gmm.statistics(t(line), t(np.ones((50, 1))), "full")
    covariance = framework.array(gmm.m_step(sums, "full", 0.01).covariances)[0]
    np.testing.assert_allclose(
        np.linalg.eigvalsh(covariance), [0.01, (line**2).sum(1).mean()], rtol=1e-9
    )
    assert raised(covariance[None], "full", 0.01) == 1

    def likelihood(c):
        return stats.multivariate_normal([0, 0], c).logpdf(line).mean()

    best = likelihood(covariance)
    for other in ((0.011, 1.0), (0.01, 1.02), (0.01, 0.98), (0.02, 1.1)):
        values, vectors = np.linalg.eigh(covariance)
        scaled = values * np.array([other[0] / 0.01, other[1]])
        assert likelihood((vectors * scaled) @ vectors.T) < best


def test_singular_without_floor_is_an_error_not_nan(framework):
    gmm, t = framework.module("gmm"), framework.tensor
    mixture = gmm.Mixture(t([1.0]), t([[0.0, 0.0]]), t(np.ones((1, 2, 2)) * -1))
    with pytest.raises(Exception, match=r"(?i)cholesky|positive-definite"):
        gmm.e_step(t(np.zeros((3, 2))), mixture, "full")


def test_number_of_parameters_and_matching():
    for covariance_type in COVARIANCE_TYPES:
        g = GaussianMixture(3, covariance_type=covariance_type, random_state=0)
        g.fit(blobs(80, 4, 3, 0)[0])
        assert n_parameters(covariance_type, 3, 4) == g._n_parameters()
    counts = np.array([[9.0, 1], [8, 0], [7, 6], [0, 0.5]])
    assert match_components(counts, "majority").tolist() == [0, 0, 0, 1]
    # One to one: class 1 needs two components; the third and fourth lose least.
    assert match_components(counts, "assignment").tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="multiple of 2 components, got 3"):
        match_components(counts[:3])
