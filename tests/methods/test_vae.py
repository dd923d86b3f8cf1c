"""Variational autoencoders in both frameworks: bounds against oracles, then the estimator."""

import math

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp
from scipy.stats import bernoulli, multivariate_normal, norm
from sklearn.base import clone

from fewshot_course.data import mask_labels

MODELS = ("m1", "m2", "m1m2")
SMALL = {
    "hidden": (12, 8), "latent_dim": 3, "feature_steps": 10, "steps": 10, "batch_size": 6,
    "unlabelled_batch_size": 10,
}  # fmt: skip


def images(n=60, seed=0):
    """Three classes: a bright stripe at one of three places of a 6 x 6 image."""
    rng = np.random.default_rng(seed)
    X, y = rng.uniform(0, 0.3, size=(n, 6, 6)), np.arange(n) % 3
    for i, label in enumerate(y):
        X[i, 2 * label : 2 * label + 2] += 0.6
    return X, y


def labeler(framework, **options):
    return framework.estimator("VAEPseudoLabeler", **{**SMALL, "random_state": 0, **options})


@pytest.fixture
def vae_of(framework):
    return framework.module("vae")


# --- the maths, against other roads ---------------------------------------------------------------


def test_kl_to_the_prior_keeps_the_mean_and_sums_over_dimensions(framework, vae_of):
    """Against quadrature, one dimension at a time."""
    mean, log_var = np.array([[0.5, -2.0]]), np.array([[0.2, -1.0]])
    x = np.linspace(-12, 12, 100_001)
    wanted = 0.0
    for m, v in zip(mean[0], log_var[0], strict=True):
        log_q = norm.logpdf(x, m, math.exp(v / 2))
        wanted += np.trapezoid(np.exp(log_q) * (log_q - norm.logpdf(x)), x)
    found = framework.array(vae_of.kl_to_prior(framework.tensor(mean), framework.tensor(log_var)))
    assert found.shape == (1,)
    assert found[0] == pytest.approx(wanted, abs=1e-9)
    # The mistake of the articles: without -μ² the divergence of N(3, 1) would be 0.
    shifted = vae_of.kl_to_prior(framework.tensor([[3.0]]), framework.tensor([[0.0]]))
    assert framework.array(shifted)[0] == pytest.approx(4.5)


def test_bernoulli_log_prob_is_scipys_and_survives_large_logits(framework, vae_of):
    x = np.array([[1.0, 0.0, 1.0, 0.0]])
    logits = np.array([[0.3, -1.2, 800.0, -800.0]])
    found = framework.array(
        vae_of.bernoulli_log_prob(framework.tensor(x), framework.tensor(logits))
    )
    wanted = bernoulli.logpmf([1, 0], 1 / (1 + np.exp(-logits[0, :2]))).sum()
    assert found[0] == pytest.approx(wanted, abs=1e-12)


@pytest.fixture
def linear():
    """z ~ N(0, I), x = W z + b + s ε: everything is known."""
    rng = np.random.default_rng(3)
    W, b, s = rng.normal(size=(4, 2)), rng.normal(size=4), 0.7
    x = rng.normal(size=(5, 4))
    exact = multivariate_normal(b, W @ W.T + s**2 * np.eye(4)).logpdf(x)
    covariance = np.linalg.inv(np.eye(2) + W.T @ W / s**2)
    mean = (x - b) @ W @ covariance / s**2

    def log_px(z):
        return norm.logpdf(x, z @ W.T + b, s).sum(-1)

    return x, exact, mean, covariance, log_px


def linear_terms(framework, linear, mean, log_var, noise):
    _, _, _, _, log_px = linear
    t, module = framework.tensor, framework.module("vae")
    mean, log_var = np.broadcast_arrays(mean, log_var)
    z = framework.array(module.sample_codes(t(mean), t(log_var), t(noise)))
    return t(log_px(z)), t(z), t(mean.copy()), t(log_var.copy())


def test_elbo_is_a_lower_bound_on_the_exact_likelihood(framework, vae_of, linear):
    _, exact, mean, _, _ = linear
    noise = np.random.default_rng(0).standard_normal((20_000, 5, 2))
    for log_var in (-3.0, -1.0, 0.0):
        log_px, _, m, v = linear_terms(framework, linear, mean, np.full((5, 2), log_var), noise)
        gap = exact - framework.array(vae_of.elbo(log_px, m, v))
        assert (gap > 0.01).all()  # far above the Monte-Carlo error, about 0.005


def test_elbo_is_the_likelihood_at_the_true_posterior(framework, vae_of):
    """One latent dimension, so that the posterior is a diagonal Gaussian; no noise matters then:
    log p(x|z) p(z) / q(z|x) is the same number for every z."""
    w, s, x = 1.3, 0.6, np.array([[0.4], [-2.0]])
    variance = 1 / (1 + w**2 / s**2)
    mean, log_var = x * w / s**2 * variance, np.full((2, 1), math.log(variance))
    exact = norm.logpdf(x[:, 0], 0, math.sqrt(w**2 + s**2))
    t = framework.tensor
    for k in (1, 5):
        noise = np.random.default_rng(k).standard_normal((k, 2, 1))
        z = framework.array(vae_of.sample_codes(t(mean), t(log_var), t(noise)))
        log_px = norm.logpdf(x[:, 0], w * z[..., 0], s)
        tight = vae_of.importance_bound(t(log_px), t(z), t(mean), t(log_var))
        np.testing.assert_allclose(framework.array(tight), exact, atol=1e-12)
    # The ELBO needs the average over z: two points ±1 have the moments of the normal.
    noise = np.array([1.0, -1.0])[:, None, None] * np.ones((2, 2, 1))
    z = mean + math.exp(log_var[0, 0] / 2) * noise
    log_px = norm.logpdf(x[:, 0], w * z[..., 0], s)
    found = vae_of.elbo(t(log_px), t(mean), t(log_var))
    np.testing.assert_allclose(framework.array(found), exact, atol=1e-12)


def test_importance_bound_rises_with_k_towards_the_likelihood(framework, vae_of, linear):
    _, exact, mean, _, _ = linear
    means = []
    for k in (1, 2, 8, 64):
        rng = np.random.default_rng(k)
        noise = rng.standard_normal((k, 4000, 5, 2))
        parts = linear_terms(framework, linear, mean, np.full((4000, 5, 2), -0.5), noise)
        means.append(framework.array(vae_of.importance_bound(*parts)).mean(0))
    means = np.array(means)
    assert (np.diff(means, axis=0) > 0).all()
    assert (means < exact + 0.02).all()
    assert np.abs(means[-1] - exact).max() < 0.05
    parts = linear_terms(framework, linear, mean, np.full((4000, 5, 2), -0.5), noise[:1])
    log_px, _, m, v = parts
    with_one = framework.array(vae_of.importance_bound(*parts)).mean(0)
    by_elbo = framework.array(vae_of.elbo(log_px, m, v)).mean(0)
    np.testing.assert_allclose(with_one, by_elbo, atol=0.1)  # k = 1 is the ELBO, in the mean


def test_unlabelled_bound_is_the_sum_over_classes(framework, vae_of):
    rng = np.random.default_rng(1)
    bounds, log_q = rng.normal(-50, 4, size=(6, 4)), log_softmax(rng.normal(size=(6, 4)), axis=1)
    t = framework.tensor
    found = framework.array(vae_of.unlabelled_bound(t(bounds), t(log_q)))
    by_hand = [
        sum(math.exp(q) * (b - q) for b, q in zip(rb, rq, strict=True))
        for rb, rq in zip(bounds, log_q, strict=True)
    ]
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)
    ceiling = logsumexp(bounds, axis=1)
    assert (found < ceiling).all()
    best = framework.array(vae_of.unlabelled_bound(t(bounds), t(log_softmax(bounds, axis=1))))
    np.testing.assert_allclose(best, ceiling, rtol=1e-12)


def test_all_classes_in_one_pass_are_one_class_after_the_other(framework, vae_of):
    networks = framework.module("networks")
    context = getattr(networks, "layer_dtype", None)
    if context:  # Keras layers take their type when they are made
        with context("float64"):
            vae = vae_of.VAE(36, 3, (12, 8), "bernoulli", n_classes=4)
    else:
        vae = vae_of.VAE(36, 3, (12, 8), "bernoulli", n_classes=4).double()
    networks.initialise(vae, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    x, noise = rng.uniform(size=(5, 36)), rng.standard_normal((2, 4, 5, 3))
    t = framework.tensor
    together = framework.array(_detached(vae.bounds(t(x), t(noise), 4)))
    assert together.shape == (5, 4)
    for c in range(4):
        y = np.tile(np.eye(4)[c], (5, 1))
        alone = framework.array(_detached(vae.bound(t(x), t(noise[:, c]), t(y))))
        np.testing.assert_allclose(together[:, c], alone - math.log(4), rtol=1e-12)
    # The first layer taken apart is the first layer on [x, y].
    joined = np.concatenate([x, y], axis=1)
    apart = framework.array(_detached(vae.encoder(t(x), t(y))))
    np.testing.assert_allclose(
        apart, framework.array(_detached(vae.encoder.net(t(joined)))), rtol=1e-10
    )


def _detached(tensor):
    return tensor.detach() if hasattr(tensor, "detach") else tensor


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_losses_and_gradients_agree_with_noise_passed_in(both, dtype, tolerance):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(7, 5)).astype(dtype)
    logits, mean, log_var = (rng.normal(size=(7, d)).astype(dtype) for d in (5, 2, 2))
    noise = rng.standard_normal((3, 7, 2)).astype(dtype)
    found = []
    for framework in both:
        module = framework.module("vae")
        fixed = framework.tensor(x), framework.tensor(noise)

        def loss(logits, mean, log_var, module=module, fixed=fixed):
            x, noise = fixed
            z = module.sample_codes(mean, log_var, noise)
            shift = z[..., :1]
            log_px = module.bernoulli_log_prob(x, logits + shift)
            one = module.elbo(log_px, mean, log_var, 0.5)
            many = module.importance_bound(log_px, z, mean, log_var)
            return _sum(one + many)

        found.append(framework.gradients(loss, logits, mean, log_var))
    (value, gradients), (other, others) = found
    np.testing.assert_allclose(value, other, rtol=tolerance)
    for a, b in zip(gradients, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(a).max())


def _sum(value):
    if hasattr(value, "sum"):
        return value.sum()
    import tensorflow as tf

    return tf.reduce_sum(value)


# --- the estimator ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_ten_steps_agree(both, model, dtype, tolerance):
    X, y = images()
    masked = mask_labels(y, np.arange(9))
    a, b = (labeler(f, model=model, dtype=dtype, kl_warmup=0.5).fit(X, masked) for f in both)
    assert list(a.history_) == list(b.history_)
    for one, two in ((a.history_, b.history_), (a.feature_history_, b.feature_history_)):
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=tolerance, err_msg=name)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=tolerance)
    np.testing.assert_allclose(a.bound(X), b.bound(X), rtol=tolerance)
    np.testing.assert_allclose(a.sample(4)[0], b.sample(4)[0], rtol=10 * tolerance)
    assert ("unlabelled_bound" in a.history_) is (model != "m1")


@pytest.mark.parametrize("model", MODELS)
def test_learns_labels_and_keeps_the_given_ones(framework, model):
    X, y = images(150)
    y = np.array([4, 1, 9])[y]
    model = labeler(framework, model=model, steps=120, feature_steps=150, lr=0.005, hidden=(24,))
    model.fit(X, mask_labels(y, np.arange(9)))
    assert model.score(X, y) > 0.9
    assert model.classes_.tolist() == [1, 4, 9]
    np.testing.assert_array_equal(model.pseudo_labels_[:9], y[:9])
    assert (model.confidence_[:9] == 1).all()
    np.testing.assert_array_equal(model.pseudo_labels_[9:], model.predict(X)[9:])
    assert model.encode(X).shape == (150, 3)
    again = model.reconstruct(X)
    assert again.shape == X.shape
    assert np.square(again - X).mean() < X.var()
    made, of = model.sample(12)
    assert made.shape == (12, 6, 6)
    assert set(of.tolist()) <= {1, 4, 9}


def test_samples_are_of_the_class_that_is_asked_for(framework):
    X, y = images(90)
    model = labeler(framework, steps=150, lr=0.01).fit(X, mask_labels(y, np.arange(9)))
    made, of = model.sample(30)
    assert np.bincount(of).tolist() == [10, 10, 10]
    assert (made.reshape(30, 3, 12).mean(2).argmax(1) == of).mean() > 0.8
    np.testing.assert_array_equal(model.sample(5, y=2)[1], [2] * 5)
    with pytest.raises(ValueError, match=r"classes \[7\]"):
        model.sample(3, y=[0, 1, 7])
    with pytest.raises(ValueError, match="cannot be chosen"):
        labeler(framework, model="m1").fit(X, mask_labels(y, np.arange(9))).sample(3, y=1)


def test_the_bound_rises_and_the_kl_weight_warms_up(framework):
    X, y = images(150)
    masked = mask_labels(y, np.arange(9))
    model = labeler(framework, model="m1", feature_steps=200, kl_warmup=0.5, lr=0.005)
    model.fit(X, masked)
    weights = model.feature_history_["kl_weight"]
    np.testing.assert_allclose(weights[:100], np.arange(100) / 100)
    assert (weights[100:] == 1).all()
    early = labeler(framework, model="m1").fit(X, masked)
    assert model.bound(X).mean() > early.bound(X).mean() + 1
    many = model.bound(X, samples=20)
    assert np.abs(many - model.bound(X)).mean() > 0


def test_a_heavy_kl_without_warm_up_collapses_the_posterior(framework):
    """By construction: what z costs is more than it can ever save."""
    from fewshot_course.evaluation.generated import active_units

    X, y = images(150)
    masked = mask_labels(y, np.arange(9))
    options = {"model": "m1", "feature_steps": 150, "lr": 0.01}
    collapsed = labeler(framework, kl_weight=50.0, kl_warmup=0.0, **options).fit(X, masked)
    sound = labeler(framework, **options).fit(X, masked)
    assert active_units(collapsed.encode(X)) == 0
    assert active_units(sound.encode(X)) > 0


def test_vectors_have_a_gaussian_decoder(framework):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = 2 * np.eye(3)[y] + 0.3 * rng.normal(size=(90, 3))
    model = labeler(framework, steps=150, lr=0.01).fit(X, mask_labels(y, np.arange(9)))
    assert model.score(X, y) > 0.9
    assert np.isfinite(model.bound(X)).all()


def test_resumed_run_is_the_uninterrupted_one(framework, tmp_path):
    X, y = images()
    masked = mask_labels(y, np.arange(9))
    options = {"model": "m1m2", "steps": 120}
    whole = labeler(framework, **options).fit(X, masked)
    model = labeler(framework, **options)
    weight = model._kl_weight

    def stop(step, steps):
        if (step, steps) == (110, 120):
            raise KeyboardInterrupt
        return weight(step, steps)

    model._kl_weight = stop
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, masked, checkpoint_dir=tmp_path)
    again = labeler(framework, **options).fit(X, masked, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(again.history_["loss"], whole.history_["loss"])
    np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))


@pytest.mark.parametrize("model", MODELS)
def test_saved_and_read_by_the_twin(both, model, tmp_path):
    X, y = images()
    for here, there in (both, both[::-1]):
        fitted = labeler(here, model=model).fit(X, mask_labels(y, np.arange(9)))
        twin = type(labeler(there)).load(fitted.save(tmp_path / here.name))
        np.testing.assert_allclose(twin.predict_proba(X), fitted.predict_proba(X), atol=1e-6)
        np.testing.assert_allclose(twin.sample(5)[0], fitted.sample(5)[0], atol=1e-5)
        np.testing.assert_array_equal(twin.pseudo_labels_, fitted.pseudo_labels_)


def test_clone_has_the_same_settings_and_is_not_fitted(framework):
    model = labeler(framework, model="m1m2")
    assert clone(model).get_params() == model.get_params()
    with pytest.raises(ValueError, match="not fitted"):
        model.predict(images()[0])


GOOD_X, GOOD_Y = images(12)[0], np.array([0, 1, -1] * 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "m3"}, "Did you mean"),
        ({"latent_dim": 0}, "latent_dim must lie in"),
        ({"decoder": "bernouli"}, "Did you mean 'bernoulli'"),
        ({"X": GOOD_X.reshape(12, -1) * 3, "decoder": "bernoulli"}, r"needs values in \[0, 1\]"),
        ({"X": (GOOD_X * 255).astype(np.uint8)}, "divide by 255"),
        ({"X": GOOD_X * 2}, r"expected \[0, 1\]"),
        ({"X": np.where(GOOD_X > 0.5, np.nan, GOOD_X)}, "NaN or infinite"),
        ({"y": [1] * 3 + [-1] * 9}, "single class 1"),
        ({"y": [-1] * 12}, "no labelled example"),
        ({"y": [0, 1]}, "2 labels for 12"),
        ({"noise_bounds": (0.5, 0.1)}, r"noise_bounds\[1\]"),
        ({"hidden": (0,)}, "hidden"),
        ({"kl_warmup": 1.5}, "kl_warmup"),
        ({"classifier_weight": -1}, "classifier_weight"),
        ({"unlabelled_batch_size": 1}, "unlabelled_batch_size"),
    ],
)
def test_bad_input_is_named(framework, change, message):
    change = dict(change)
    X, y = change.pop("X", GOOD_X), change.pop("y", GOOD_Y)
    with pytest.raises(ValueError, match=message):
        labeler(framework, **change).fit(X, y)


def test_widths_that_are_no_tuple_are_refused(framework):
    with pytest.raises(TypeError, match="hidden must be a tuple"):
        labeler(framework, hidden=500).fit(GOOD_X, GOOD_Y)


def test_a_run_that_diverges_names_the_step(framework):
    X, y = images()
    big = labeler(framework, model="m2", decoder="gaussian", lr=1e30)
    with pytest.raises(FloatingPointError, match=r"at step \d+ \(learning rate 1e\+30\)"):
        big.fit(X, mask_labels(y, np.arange(9)))
