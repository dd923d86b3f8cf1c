"""CORAL and the domain-adversarial baseline: against NumPy, against each other, through save."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from fewshot_course.both import training as _loop

ADAPTERS = ["CORALAdapter", "DANNAdapter", "MMDAdapter"]


def two_domains(n=80, m=60):
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=n)
    X = rng.normal(size=(n, 3)) + y[:, None]
    return X, y, rng.normal(size=(m, 3)) * 1.5 + 0.5


def adapter(framework, name, **params):
    settings = {"latent_dim": 4, "steps": 10, "batch_size": 16, "random_state": 0} | params
    return framework.estimator(name, **settings)


def test_coral_loss_and_gradient(framework, rng):
    # L = ‖D‖²/(4d²) with D = C_S - C_T and C = Z'ᵀZ'/(n-1), Z' centred, so by the chain rule
    # dL/dZ_S = 2/(n-1) · Z'_S · D/(2d²), and the same with a minus and m for Z_T.
    source, target = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) * 2
    d = np.cov(source.T) - np.cov(target.T)  # NumPy's own covariance, unbiased
    value, (by_source, by_target) = framework.gradients(
        framework.module("alignment").coral_loss, source, target
    )
    np.testing.assert_allclose(value, (d**2).sum() / 36, rtol=1e-12)
    expected_source = (source - source.mean(0)) @ d / (6 * 9)
    expected_target = -(target - target.mean(0)) @ d / (4 * 9)
    np.testing.assert_allclose(by_source, expected_source, rtol=1e-10)
    np.testing.assert_allclose(by_target, expected_target, rtol=1e-10)


def test_coral_does_not_see_a_shift(framework, rng):
    z = rng.normal(size=(6, 2))
    loss = framework.module("alignment").coral_loss(framework.tensor(z), framework.tensor(z + 5))
    assert framework.array(loss) == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("column", [False, True])
def test_domain_loss_and_gradient(framework, rng, column):
    source, target = rng.normal(size=6) * 3, rng.normal(size=4) * 3
    sigmoid_s, sigmoid_t = 1 / (1 + np.exp(-source)), 1 / (1 + np.exp(-target))
    expected = -0.5 * (np.log(1 - sigmoid_s).mean() + np.log(sigmoid_t).mean())
    shape = (-1, 1) if column else (-1,)
    value, (by_source, by_target) = framework.gradients(
        framework.module("alignment").domain_loss, source.reshape(shape), target.reshape(shape)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(by_source.ravel(), 0.5 * sigmoid_s / 6, rtol=1e-12)
    np.testing.assert_allclose(by_target.ravel(), -0.5 * (1 - sigmoid_t) / 4, rtol=1e-12)


def test_domain_loss_at_chance_and_far_out(framework):
    loss = framework.module("alignment").domain_loss
    zeros = framework.tensor(np.zeros(3))
    np.testing.assert_allclose(framework.array(loss(zeros, zeros)), np.log(2), rtol=1e-12)
    far = framework.tensor(
        np.array([1000.0])
    )  # 1 - sigmoid(1000) is 0 in float64; its log is -1000
    np.testing.assert_allclose(framework.array(loss(far, -far)), 1000, rtol=1e-12)


def test_reverse_gradient(framework, rng):
    # f(x) = CORAL(x, 0): any scalar function of x would do.
    module = framework.module("alignment")
    x, zero = rng.normal(size=(3, 2)), framework.tensor(np.zeros((2, 2)))
    np.testing.assert_array_equal(
        framework.array(module.reverse_gradient(framework.tensor(x), 0.3)), x
    )
    plain_value, (plain,) = framework.gradients(lambda t: module.coral_loss(t, zero), x)
    value, (found,) = framework.gradients(
        lambda t: module.coral_loss(module.reverse_gradient(t, 0.3), zero), x
    )
    assert value == plain_value
    np.testing.assert_allclose(found, -0.3 * plain, rtol=1e-12)
    assert np.abs(plain).max() > 0


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_moment_kl_and_gradient(framework, rng, differences, direction):
    arrays = [rng.normal(size=(n, 3)) * scale for n in (6, 5) for scale in (1.0, 0.3)]
    noise = np.zeros((1, 3))
    module = framework.module("kl_adaptation")

    def loss(mean_s, log_var_s, mean_t, log_var_t):
        zero = framework.tensor(noise)
        source = module.Codes(mean_s, log_var_s, zero)
        target = module.Codes(mean_t, log_var_t, zero)
        weights = (0.7, 0.0) if direction == "forward" else (0.0, 0.7)
        return module.two_way_kl(source, target, "moments", *weights)

    def independent(arrays):
        # Law of total variance, then ∫ p log(p/q) of two normal densities, dimension by dimension.
        (m_s, v_s), (m_t, v_t) = (
            (mean.mean(0), np.exp(log_var).mean(0) + mean.var(0))
            for mean, log_var in (arrays[:2], arrays[2:])
        )
        if direction == "forward":  # KL(target‖source)
            m_p, v_p, m_q, v_q = m_t, v_t, m_s, v_s
        else:
            m_p, v_p, m_q, v_q = m_s, v_s, m_t, v_t
        cross_entropy = 0.5 * np.log(2 * np.pi * v_q) + (v_p + (m_p - m_q) ** 2) / (2 * v_q)
        entropy = 0.5 * np.log(2 * np.pi * np.e * v_p)
        return 0.7 * (cross_entropy - entropy).sum()

    value, gradients = framework.gradients(loss, *arrays)
    np.testing.assert_allclose(value, independent(arrays), rtol=1e-12)
    for position, gradient in enumerate(gradients):

        def moved(x, position=position):
            return independent([*arrays[:position], x, *arrays[position + 1 :]])

        np.testing.assert_allclose(
            gradient, differences(moved, arrays[position]), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("name", ADAPTERS)
def test_ten_steps_agree(both, name, dtype, tolerance):
    X, y, X_target = two_domains()
    y_target = np.r_[0, 1, np.full(58, -1)]
    torch, tf = (
        adapter(f, name, dtype=dtype, warmup=0.5).fit(X, y, X_target, y_target) for f in both
    )
    for key in ("loss", "alignment"):
        # The first step's ramp is 0, and so is CORAL's alignment there.
        np.testing.assert_allclose(
            torch.history_[key], tf.history_[key], rtol=tolerance, atol=tolerance * 1e-2
        )
    np.testing.assert_allclose(
        torch.predict_proba(X_target), tf.predict_proba(X_target), rtol=tolerance
    )


@pytest.mark.parametrize("name", ADAPTERS)
def test_weight_zero_is_source_only(framework, name):
    # The discriminator draws its weights after the encoder, which starts as without it.
    X, y, X_target = two_domains()
    found = adapter(framework, name, weight=0.0).fit(X, y, X_target)
    source_only = adapter(framework, "KLAdapter", weight=0.0, reverse_weight=0.0)
    source_only.fit(X, y, X_target)
    np.testing.assert_allclose(
        found.predict_proba(X), source_only.predict_proba(X), rtol=0, atol=1e-6
    )


def test_coral_moves_covariances_together(framework):
    X, y, X_target = two_domains()
    params = {"steps": 60, "lr": 1e-2, "warmup": 0.0, "dtype": "float64"}
    gaps = []
    for weight in (0.0, 100.0):
        model = adapter(framework, "CORALAdapter", weight=weight, **params).fit(X, y, X_target)
        gaps.append(np.abs(np.cov(model.encode(X).T) - np.cov(model.encode(X_target).T)).max())
    assert gaps[1] < 0.5 * gaps[0]


def test_the_discriminator_learns_the_domains(framework):
    # With next to no reversed gradient it must get well below chance on domains far apart.
    X, y, X_target = two_domains()
    params = {"steps": 100, "lr": 1e-2, "weight": 1e-9}
    model = adapter(framework, "DANNAdapter", **params).fit(X, y, X_target + 10)
    assert model.history_["alignment"][0] == pytest.approx(np.log(2), abs=0.5)
    assert model.history_["alignment"][-10:].mean() < 0.1


@pytest.mark.parametrize("name", ADAPTERS)
def test_saved_and_read_by_the_twin(both, name, tmp_path):
    X, y, X_target = two_domains()
    for here, there in (both, both[::-1]):
        model = adapter(here, name).fit(X, y, X_target)
        path = model.save(tmp_path / f"{here.name}.safetensors")
        read = type(there.estimator(name)).load(path)
        np.testing.assert_allclose(read.predict_proba(X), model.predict_proba(X), atol=1e-6)
        assert read.get_params() == model.get_params()


@pytest.mark.parametrize("name", ADAPTERS)
def test_clone_is_unfitted(framework, name):
    model = clone(adapter(framework, name, weight=0.5))
    assert model.weight == 0.5
    assert not hasattr(model, "network_")


def test_an_interrupted_fit_resumes_with_its_discriminator(framework, tmp_path, monkeypatch):
    X, y, X_target = two_domains()
    whole = adapter(framework, "DANNAdapter").fit(X, y, X_target)
    monkeypatch.setattr(_loop, "CHECKPOINT_EVERY", 4)

    def save_and_stop(*args, **kwargs):
        real(*args, **kwargs)
        raise KeyboardInterrupt

    real = _loop.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(_loop, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            adapter(framework, "DANNAdapter").fit(X, y, X_target, checkpoint_dir=tmp_path)
    resumed = adapter(framework, "DANNAdapter").fit(X, y, X_target, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(resumed.history_["alignment"], whole.history_["alignment"])
    np.testing.assert_array_equal(resumed.predict_proba(X), whole.predict_proba(X))


BAD_CALLS = {
    "coral one row": ("coral_loss", (np.ones((1, 2)), np.ones((3, 2))), ValueError, "source"),
    "coral vector": ("coral_loss", (np.ones((3, 2)), np.ones(3)), ValueError, "target"),
    "coral widths": ("coral_loss", (np.ones((3, 2)), np.ones((3, 4))), ValueError, "one width"),
    "domain empty": ("domain_loss", (np.ones(0), np.ones(2)), ValueError, "logits_source"),
    "domain wide": ("domain_loss", (np.ones(2), np.ones((2, 2))), ValueError, "logits_target"),
    "factor < 0": ("reverse_gradient", (np.ones(2), -1.0), ValueError, "factor"),
    "factor text": ("reverse_gradient", (np.ones(2), "1"), TypeError, "factor"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(framework, case):
    name, args, error, words = BAD_CALLS[case]
    args = [framework.tensor(a) if isinstance(a, np.ndarray) else a for a in args]
    with pytest.raises(error, match=words):
        getattr(framework.module("alignment"), name)(*args)


@pytest.mark.parametrize("name", ["coral_loss", "domain_loss", "reverse_gradient"])
def test_arrays_are_no_tensors(framework, name):
    with pytest.raises(TypeError, match="ndarray"):
        getattr(framework.module("alignment"), name)(np.ones((3, 1)), np.ones((3, 1)))


BAD_FITS = {
    "weight": ("CORALAdapter", {"weight": -1}, {}, ValueError, "weight"),
    "dann weight": ("DANNAdapter", {"weight": "a"}, {}, TypeError, "weight"),
    "width": ("DANNAdapter", {"discriminator_width": 0}, {}, ValueError, "discriminator_width"),
    "one target": ("CORALAdapter", {}, {"X_target": np.ones((1, 3))}, ValueError, "two rows"),
    "target shape": ("DANNAdapter", {}, {"X_target": np.ones((4, 2))}, ValueError, "X_target"),
    "one class": ("CORALAdapter", {}, {"y_source": np.ones(80, int)}, ValueError, "single class"),
    "label": ("DANNAdapter", {}, {"y_target": np.full(60, 7)}, ValueError, "y_target"),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_fits(framework, case):
    name, params, changes, error, words = BAD_FITS[case]
    X, y, X_target = two_domains()
    data = {"X_source": X, "y_source": y, "X_target": X_target} | changes
    with pytest.raises(error, match=words):
        adapter(framework, name, **params).fit(**data)


def mmd_by_loops(source, target):
    """Squared MMD over all pairs, kernel by kernel (Gretton et al. 2012, equation 5)."""
    both = np.concatenate([source, target])
    scale = np.mean([np.sum((a - b) ** 2) for a in both for b in both])

    def mean_kernel(first, second):
        values = [
            np.mean([np.exp(-np.sum((a - b) ** 2) / (c * scale)) for c in (0.25, 0.5, 1, 2, 4)])
            for a in first
            for b in second
        ]
        return np.mean(values)

    cross = mean_kernel(source, target)
    return mean_kernel(source, source) - 2 * cross + mean_kernel(target, target), scale


def test_mmd_loss_and_gradient(framework, rng, differences):
    source, target = rng.normal(size=(6, 3)), rng.normal(size=(4, 3)) * 2 + 1
    value, gradients = framework.gradients(framework.module("alignment").mmd_loss, source, target)
    expected, scale = mmd_by_loops(source, target)
    np.testing.assert_allclose(value, expected, rtol=1e-12)

    def with_that_scale(x, y):  # the scale is a constant to the gradient
        both = np.concatenate([x, y])
        squares = np.square(both[:, None] - both).sum(-1)
        kernel = np.mean([np.exp(-squares / (c * scale)) for c in (0.25, 0.5, 1, 2, 4)], axis=0)
        n = len(x)
        return kernel[:n, :n].mean() - 2 * kernel[:n, n:].mean() + kernel[n:, n:].mean()

    by_source = differences(lambda x: with_that_scale(x, target), source)
    by_target = differences(lambda y: with_that_scale(source, y), target)
    np.testing.assert_allclose(gradients[0], by_source, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(gradients[1], by_target, rtol=1e-6, atol=1e-9)


def test_mmd_sees_a_shift_and_nothing_between_equal_batches(framework, rng):
    loss, t = framework.module("alignment").mmd_loss, framework.tensor
    z = rng.normal(size=(40, 2))
    assert framework.array(loss(t(z), t(z))) == pytest.approx(0, abs=1e-12)
    assert framework.array(loss(t(z), t(z + 5))) > 0.5
    same = np.ones((3, 2))
    assert framework.array(loss(t(same), t(same))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_two_way_kl_by_the_mixture_is_the_sum_of_both_ways(framework, rng, leave_one_out):
    module, mixture = framework.module("kl_adaptation"), framework.module("divergences").mixture_kl
    source, target = (
        module.Codes(*(framework.tensor(rng.normal(size=(6, 3))) for _ in range(3)))
        for _ in range(2)
    )
    of_source, of_target = (source.mean, source.log_var), (target.mean, target.log_var)
    expected = 0.7 * mixture(target.z, *of_target, *of_source, leave_one_out) + 0.2 * mixture(
        source.z, *of_source, *of_target, leave_one_out
    )
    found = module.two_way_kl(source, target, "mixture", 0.7, 0.2, leave_one_out)
    np.testing.assert_allclose(framework.array(found), framework.array(expected), rtol=1e-12)
    if not leave_one_out:  # what training takes unless told otherwise
        default = module.two_way_kl(source, target, "mixture", 0.7, 0.2)
        assert framework.array(default) == framework.array(found)
