"""KLIEP: against an independent solver, a known density ratio, and what EM must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.base import clone

SOURCE = np.random.default_rng(0).normal(size=(70, 2))
TARGET = np.random.default_rng(1).normal(size=(50, 2)) * 0.7 + 0.5
CENTRES, WIDTH = TARGET[:8], 0.8


def kernel(X, centres, width):
    return np.exp(-((X[:, None] - centres) ** 2).sum(-1) / (2 * width**2))


def two_domains(n=80, m=60):
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=n)
    return rng.normal(size=(n, 3)) + y[:, None], y, rng.normal(size=(m, 3)) + 0.5


def kliep(framework, **params):
    settings = {"steps": 10, "batch_size": 16, "random_state": 0} | params
    return framework.estimator("KLIEP", **settings)


def tensors(framework, *arrays):
    return [framework.tensor(array) for array in arrays]


def test_gaussian_kernel(framework):
    # A large offset: multiplied out without care, ‖x - c‖² would lose its digits.
    found = framework.module("kliep").gaussian_kernel(
        *tensors(framework, SOURCE + 1e6, CENTRES + 1e6), WIDTH
    )
    np.testing.assert_allclose(framework.array(found), kernel(SOURCE, CENTRES, WIDTH), rtol=1e-8)


def test_the_optimum_is_that_of_another_solver(framework):
    # The paper's own form: a ≥ 0, mean_S Σ_l a_l K(x, c_l) = 1, maximise the mean log w on T.
    on_source, on_target = kernel(SOURCE, CENTRES, WIDTH), kernel(TARGET, CENTRES, WIDTH)
    start = np.full(8, 1 / on_source.mean(0).sum())
    solution = minimize(
        lambda a: -np.log(on_target @ a).mean(),
        start,
        jac=lambda a: -(on_target / (on_target @ a)[:, None]).mean(0),
        bounds=[(0, None)] * 8,
        constraints={
            "type": "eq",
            "fun": lambda a: on_source.mean(0) @ a - 1,
            "jac": lambda a: on_source.mean(0),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert solution.success
    module = framework.module("kliep")
    source, target, centres = tensors(framework, SOURCE, TARGET, CENTRES)
    proportions = module.kliep_proportions(source, target, centres, WIDTH, 1e-8, 1_000_000)
    w = framework.array(module.density_ratio(target, source, centres, WIDTH, proportions))
    assert np.log(w).mean() == pytest.approx(-solution.fun, abs=1e-6)
    weights = module.importance_weights(source, target, centres, WIDTH, 1e-8, 1_000_000)
    np.testing.assert_allclose(framework.array(weights), on_source @ solution.x, atol=1e-2)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_likelihood_never_falls_and_the_bound_holds(framework, seed):
    rng = np.random.default_rng(seed)
    components = rng.gamma(0.5, size=(20, 5)) + 1e-9
    best = _best(components)
    step = framework.module("kliep").kliep_em_step
    proportions, likelihood = rng.dirichlet(np.ones(5)), -np.inf
    for _ in range(10):
        now = np.log(components @ proportions).mean()
        assert now >= likelihood - 1e-12
        new, bound = step(*tensors(framework, proportions, components))
        assert best - now <= framework.array(bound) + 1e-9
        proportions, likelihood = framework.array(new), now
        assert proportions.min() >= 0
        assert proportions.sum() == pytest.approx(1, abs=1e-12)


def _best(components):
    """The highest likelihood, by many plain steps in NumPy."""
    p = np.full(components.shape[1], 1 / components.shape[1])
    for _ in range(2000):
        p = p * (components / (components @ p)[:, None]).mean(0)
    return np.log(components @ p).mean()


def test_a_factor_on_a_row_cancels(framework, rng):
    components, p = rng.gamma(1.0, size=(6, 3)), np.array([0.2, 0.3, 0.5])
    scaled = components * rng.gamma(1.0, size=(6, 1))
    step = framework.module("kliep").kliep_em_step
    one, two = (framework.array(step(*tensors(framework, p, c))[0]) for c in (components, scaled))
    np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize("width", [0.01, 0.8, 100.0])
def test_weights_have_mean_one(framework, width):
    # At width 0.01 kernels of most pairs are exp(-5000): 0 in float64, but not in the logs.
    weights = framework.array(
        framework.module("kliep").importance_weights(
            *tensors(framework, SOURCE, TARGET, CENTRES), width
        )
    )
    assert weights.mean() == pytest.approx(1, abs=1e-9)
    assert weights.min() >= 0


def test_known_density_ratio(framework):
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(1000, 1)), rng.normal(0.7, 0.6, size=(500, 1))
    # log N(x; 0.7, 0.6²) - log N(x; 0, 1)
    x = source[:, 0]
    truth = np.exp(-0.5 * ((x - 0.7) / 0.6) ** 2 + 0.5 * x**2) / 0.6
    weights = framework.array(
        framework.module("kliep").importance_weights(
            *tensors(framework, source, target, target[:50]), 0.5
        )
    )
    assert np.corrcoef(weights, truth)[0, 1] > 0.95
    # The weighted source has the target's moments, which the plain source has not.
    assert (weights * x).mean() == pytest.approx(target.mean(), abs=0.1)
    assert (weights * x**2).mean() == pytest.approx((target**2).mean(), abs=0.1)


def test_equal_domains_get_equal_weights(framework, rng):
    X = rng.normal(size=(300, 1))
    weights = framework.module("kliep").importance_weights(
        *tensors(framework, X, X[::-1].copy(), X[:20]), 2.0
    )
    assert np.abs(framework.array(weights) - 1).mean() < 0.05


def test_frameworks_agree(both):
    found = []
    for framework in both:
        module = framework.module("kliep")
        source, target, centres = tensors(framework, SOURCE, TARGET, CENTRES)
        weights = module.importance_weights(source, target, centres, WIDTH)
        likelihood = module.cross_validated_likelihood(
            source, target, np.arange(8), WIDTH, np.arange(50) % 5
        )
        found.append((framework.array(weights), likelihood))
    (torch, torch_likelihood), (tf, tf_likelihood) = found
    np.testing.assert_allclose(torch, tf, rtol=1e-9)
    assert torch_likelihood == pytest.approx(tf_likelihood, rel=1e-9)


def test_cross_validation_refuses_a_width_that_memorises(framework):
    # A kernel on each of 50 points, far narrower than their distances: the fit looks perfect,
    # a point that was left out has next to no density.
    module = framework.module("kliep")
    source, target = tensors(framework, SOURCE, TARGET)
    folds, index = np.arange(50) % 5, np.arange(50)

    def fitted(width):
        p = module.kliep_proportions(source, target, target, width)
        return np.log(
            framework.array(module.density_ratio(target, source, target, width, p))
        ).mean()

    def held_out(width):
        return module.cross_validated_likelihood(source, target, index, width, folds)

    assert fitted(0.02) > fitted(0.8)
    assert held_out(0.02) < held_out(0.8)


def test_weighted_cross_entropy(framework, rng):
    logits, labels = rng.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    weights = np.array([0.0, 3.0, 1.0, 0.5, 0.5])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = framework.module("kliep").weighted_cross_entropy
    y = framework.tensor(labels)
    value, (gradient,) = framework.gradients(
        lambda t: loss(t, y, framework.tensor(weights)), logits
    )
    expected = -(weights * np.log(probabilities[np.arange(5), labels])).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    by_hand = weights[:, None] * (probabilities - np.eye(3)[labels]) / 5
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_ten_steps_agree(both, dtype, tolerance):
    X, y, X_target = two_domains()
    y_target = np.r_[0, 1, np.full(58, -1)]
    torch, tf = (kliep(f, dtype=dtype).fit(X, y, X_target, y_target) for f in both)
    assert torch.width_ == pytest.approx(tf.width_, rel=1e-12)
    np.testing.assert_allclose(torch.weights_, tf.weights_, rtol=1e-9)
    np.testing.assert_allclose(torch.history_["loss"], tf.history_["loss"], rtol=tolerance)
    np.testing.assert_allclose(
        torch.predict_proba(X_target), tf.predict_proba(X_target), rtol=tolerance
    )


def test_the_fit_uses_the_weights(framework):
    # Left of 0 the label follows feature 1, right of 0 its opposite.  The target lies right.
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 2)) * [0.5, 1]
    X[:, 0] += np.where(rng.random(400) < 0.8, -2, 2)
    y = ((X[:, 1] > 0) ^ (X[:, 0] > 0)).astype(int)
    target = rng.normal(size=(100, 2)) * [0.5, 1] + [2, 0]
    model = kliep(framework, width=1.0, steps=1).fit(X, y, target)
    right = X[:, 0] > 0
    assert model.weights_[right].mean() > 100 * model.weights_[~right].mean()

    def linear():  # one straight line cannot serve both sides: the weights decide which
        networks = framework.module("networks")
        network = networks.MLP((2,), 2, hidden=())
        return networks.initialise(network, np.random.default_rng(0))

    model = kliep(framework, network=linear, width=1.0, steps=200, lr=0.05).fit(X, y, target)
    assert model.score(target, (target[:, 1] <= 0).astype(int)) > 0.9


def test_target_labels_join(framework):
    X, y, X_target = two_domains()
    labels = np.r_[0, 1, np.full(58, -1)]
    plain = kliep(framework, width=1.0).fit(X, y, X_target)
    none = kliep(framework, width=1.0, target_weight=0.0).fit(X, y, X_target, labels)
    joined = kliep(framework, width=1.0, target_weight=2.0).fit(X, y, X_target, labels)
    assert none.history_["loss"][0] == pytest.approx(plain.history_["loss"][0], rel=1e-6)
    assert joined.history_["loss"][0] > plain.history_["loss"][0] + 0.5


def test_saved_and_read_by_the_twin(both, tmp_path):
    X, y, X_target = two_domains()
    for here, there in (both, both[::-1]):
        model = kliep(here).fit(X, y, X_target)
        assert model.width_ in model.width_scores_
        read = type(there.estimator("KLIEP")).load(model.save(tmp_path / here.name))
        np.testing.assert_allclose(read.predict_proba(X), model.predict_proba(X), atol=1e-6)
        np.testing.assert_array_equal(read.weights_, model.weights_)
        assert read.width_ == model.width_


def test_clone_is_unfitted_and_images_go_in(framework):
    rng = np.random.default_rng(0)
    X, y, X_target = rng.random((20, 8, 8)), np.arange(20) % 2, rng.random((12, 8, 8))
    model = clone(kliep(framework, n_centres=5, steps=2))
    assert not hasattr(model, "weights_")
    assert model.fit(X, y, X_target).predict_proba(X).shape == (20, 2)
    assert model.weights_.shape == (20,)


ONES = np.ones((3, 2))
BAD_CALLS = {
    "kernel rank": ("gaussian_kernel", (np.ones(3), ONES, 1.0), ValueError, "X has shape"),
    "kernel widths": ("gaussian_kernel", (ONES, np.ones((3, 4)), 1.0), ValueError, "one size"),
    "kernel empty": ("gaussian_kernel", (ONES, np.ones((0, 2)), 1.0), ValueError, "centres"),
    "kernel width": ("gaussian_kernel", (ONES, ONES, 0.0), ValueError, "width"),
    "kernel width text": ("gaussian_kernel", (ONES, ONES, "1"), TypeError, "width"),
    "em shapes": ("kliep_em_step", (np.ones(3), ONES), ValueError, "components"),
    "em vector": ("kliep_em_step", (np.ones(3), np.ones(3)), ValueError, "components"),
    "tolerance": ("kliep_proportions", (ONES, ONES, ONES, 1.0, -1), ValueError, "tolerance"),
    "steps": ("importance_weights", (ONES, ONES, ONES, 1.0, 0.1, 0), ValueError, "max_steps"),
    "ratio": ("density_ratio", (np.ones(3), ONES, ONES, 1.0, np.ones(3)), ValueError, "X has"),
    "ce": ("weighted_cross_entropy", (ONES, np.zeros(3, int), np.ones(2)), ValueError, "weights"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(framework, case):
    name, args, error, words = BAD_CALLS[case]
    args = [framework.tensor(a) if isinstance(a, np.ndarray) else a for a in args]
    with pytest.raises(error, match=words):
        getattr(framework.module("kliep"), name)(*args)


def test_arrays_are_no_tensors(framework):
    with pytest.raises(TypeError, match="ndarray"):
        framework.module("kliep").gaussian_kernel(ONES, ONES, 1.0)


BAD_FITS = {
    "width": ({"width": 0}, {}, ValueError, "width"),
    "centres": ({"n_centres": 1}, {}, ValueError, "n_centres"),
    "folds": ({"n_folds": 1}, {}, ValueError, "n_folds"),
    "steps": ({"steps": 0}, {}, ValueError, "steps"),
    "dtype": ({"dtype": "int8"}, {}, ValueError, "dtype"),
    "one target": ({}, {"X_target": np.ones((1, 3))}, ValueError, "give KLIEP a width"),
    "no distance": (
        {},
        {"X_source": np.ones((80, 3)), "X_target": np.ones((5, 3))},
        ValueError,
        "are 0",
    ),
    "shape": ({}, {"X_target": np.ones((4, 2))}, ValueError, "X_target"),
    "label": ({}, {"y_target": np.full(60, 9)}, ValueError, "y_target"),
    "one class": ({}, {"y_source": np.zeros(80, int)}, ValueError, "single class"),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_fits(framework, case):
    params, changes, error, words = BAD_FITS[case]
    X, y, X_target = two_domains()
    data = {"X_source": X, "y_source": y, "X_target": X_target} | changes
    with pytest.raises(error, match=words):
        kliep(framework, **params).fit(**data)


def test_tensors_are_made_where_their_arguments_are():
    """On another device than the default, nothing is made on the default."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fewshot_course.torch import kliep

    rng = np.random.default_rng(0)
    source, target = (torch.as_tensor(rng.normal(size=(12, 2))) for _ in range(2))
    expected = kliep.importance_weights(source, target, target[:4], 1.0)
    with torch.device("meta"):  # whatever is made without saying where has no values
        weights = kliep.importance_weights(source, target, target[:4], 1.0)
    assert weights.device == source.device
    torch.testing.assert_close(weights, expected)
