"""Semi-supervised GANs in both frameworks: losses against oracles, then the estimator."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.base import clone

from fewshot_course.data import mask_labels

SMALL = {
    "hidden": (12, 8), "generator_hidden": (8, 6), "latent_dim": 4, "steps": 10, "batch_size": 6,
    "unlabelled_batch_size": 10,
}  # fmt: skip


def images(n=60, seed=0):
    """Three classes: a bright stripe at one of three places; 8 x 8 pixels."""
    rng = np.random.default_rng(seed)
    X, y = rng.uniform(0, 0.3, size=(n, 8, 8)), np.arange(n) % 3
    for i, label in enumerate(y):
        X[i, 2 * label : 2 * label + 3] += 0.6
    return X, y


def labeler(framework, **options):
    return framework.estimator("GANPseudoLabeler", **{**SMALL, "random_state": 0, **options})


# --- the maths ----------------------------------------------------------------------------------


def test_real_probability_is_z_over_z_plus_1(framework):
    """The softmax over K+1 logits, the last of which is 0, gives the same."""
    logits = np.array([[1.0, -2.0, 0.3], [60.0, 0.0, -5.0], [-40.0, -41.0, -50.0]])
    module = framework.module("gan")
    found = framework.array(module.real_probability(framework.tensor(logits)))
    z = np.exp(logits).sum(1)
    np.testing.assert_allclose(found, z / (z + 1), rtol=1e-12)
    whole = softmax(np.c_[logits, np.zeros(3)], axis=1)
    np.testing.assert_allclose(found, 1 - whole[:, -1], atol=1e-12)


def test_discriminator_loss_is_cross_entropy_over_k_plus_1_classes(framework):
    rng = np.random.default_rng(0)
    labelled, unlabelled, generated = (3 * rng.normal(size=(n, 4)) for n in (5, 6, 7))
    labels = np.array([0, 3, 1, 1, 2])
    t, module = framework.tensor, framework.module("gan")
    parts = module.discriminator_loss(t(labelled), t(labels), t(unlabelled), t(generated))

    def extended(logits):
        return log_softmax(np.c_[logits, np.zeros(len(logits))], axis=1)

    # The probability of "real" is the sum over the K classes, that of "generated" the last one.
    real = -logsumexp(extended(unlabelled)[:, :-1], axis=1).mean()
    fake = -extended(generated)[:, -1].mean()
    supervised = -log_softmax(labelled, axis=1)[np.arange(5), labels].mean()
    assert framework.array(parts.supervised) == pytest.approx(supervised)
    assert framework.array(parts.unsupervised) == pytest.approx((real + fake) / 2)
    plain = framework.array(module.plain_generator_loss(t(generated)))
    z = np.exp(generated).sum(1)
    assert plain == pytest.approx(-np.log(z / (z + 1)).mean())


def test_losses_survive_large_logits(framework):
    t, module = framework.tensor, framework.module("gan")
    logits = t(np.array([[900.0, -900.0], [-900.0, -901.0]]))
    parts = module.discriminator_loss(logits, t(np.array([0, 1])), logits, logits)
    for part in (*parts, module.plain_generator_loss(logits)):
        assert np.isfinite(framework.array(part))


def test_feature_matching_compares_means(framework):
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(6, 3)), rng.normal(size=(9, 3))
    t, module = framework.tensor, framework.module("gan")
    found = framework.array(module.feature_matching_loss(t(real), t(made)))
    wanted = sum((real[:, j].mean() - made[:, j].mean()) ** 2 for j in range(3))
    assert found == pytest.approx(wanted)
    # It cannot tell two sets with one mean apart: that is why it does not punish collapse alone.
    same_mean = np.tile(real.mean(0), (4, 1))
    assert framework.array(module.feature_matching_loss(t(real), t(same_mean))) < 1e-25


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_losses_and_gradients_agree(both, dtype, tolerance):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 4)).astype(dtype) for n in (5, 6, 7)]
    labels = np.array([0, 3, 1, 1, 2])
    found = []
    for framework in both:
        module = framework.module("gan")
        y = framework.tensor(labels)

        def loss(labelled, unlabelled, generated, module=module, y=y):
            parts = module.discriminator_loss(labelled, y, unlabelled, generated)
            plain = module.plain_generator_loss(generated)
            matching = module.feature_matching_loss(unlabelled, generated)
            return parts.supervised + 2 * parts.unsupervised + plain + matching

        found.append(framework.gradients(loss, *arrays))
    (value, gradients), (other, others) = found
    np.testing.assert_allclose(value, other, rtol=tolerance)
    for a, b in zip(gradients, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# --- the estimator ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "generator_loss", "class_weight"),
    [("mlp", "feature_matching", 0.0), ("mlp", "plain", 0.5), ("conv", "feature_matching", 0.5)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_ten_steps_agree(both, network, generator_loss, class_weight, dtype, tolerance):
    X, y = images()
    masked = mask_labels(y, np.arange(9))
    options = {"generator_loss": generator_loss, "class_weight": class_weight, "dtype": dtype}
    a, b = (labeler(f, network=network, **options).fit(X, masked) for f in both)
    for name in ("loss", "supervised", "unsupervised", "generator"):
        np.testing.assert_allclose(a.history_[name], b.history_[name], rtol=tolerance)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=tolerance)
    np.testing.assert_allclose(a.real_probability(X), b.real_probability(X), rtol=tolerance)
    made, other = a.sample(5), b.sample(5)
    np.testing.assert_allclose(made[0], other[0], rtol=10 * tolerance)
    np.testing.assert_array_equal(made[1], other[1])


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_learns_labels_and_keeps_the_given_ones(framework, network):
    X, y = images(150)
    y = np.array([4, 1, 9])[y]
    model = labeler(framework, network=network, steps=120, lr=0.005)
    model.fit(X, mask_labels(y, np.arange(9)))
    assert model.score(X, y) > 0.9
    assert model.classes_.tolist() == [1, 4, 9]
    np.testing.assert_array_equal(model.pseudo_labels_[:9], y[:9])
    assert (model.confidence_[:9] == 1).all()
    np.testing.assert_array_equal(model.pseudo_labels_[9:], model.predict(X)[9:])
    made, of = model.sample(11)
    assert made.shape == (11, 8, 8)
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_array_equal(of, model.predict(made))


def test_a_class_conditional_generator_makes_the_class_that_is_asked_for(framework):
    X, y = images(150)
    model = labeler(framework, steps=300, lr=0.005, class_weight=1.0)
    model.fit(X, mask_labels(y, np.arange(9)))
    made, of = model.sample(60)
    assert np.bincount(of).tolist() == [20, 20, 20]
    assert (model.predict(made) == of).mean() > 0.9
    np.testing.assert_array_equal(model.sample(4, y=1)[1], [1] * 4)
    with pytest.raises(ValueError, match=r"classes \[7\]"):
        model.sample(2, y=[0, 7])
    with pytest.raises(ValueError, match="cannot be chosen"):
        labeler(framework).fit(X, mask_labels(y, np.arange(9))).sample(3, y=1)


def test_vectors_are_not_squeezed_into_the_unit_interval(framework):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = 5 * np.eye(3)[y] - 2 + 0.3 * rng.normal(size=(90, 3))
    model = labeler(framework, steps=200, lr=0.01).fit(X, mask_labels(y, np.arange(9)))
    assert model.score(X, y) > 0.9
    assert model.sample(200)[0].min() < -0.5


def test_the_discriminator_is_not_moved_by_the_generators_step(framework):
    """With the weight of the unsupervised loss at 0 the generator has no say in the classifier."""
    X, y = images()
    masked = mask_labels(y, np.arange(9))
    plain, matching = (
        labeler(framework, weight=0.0, generator_loss=loss).fit(X, masked)
        for loss in ("plain", "feature_matching")
    )
    np.testing.assert_array_equal(plain.predict_proba(X), matching.predict_proba(X))
    assert not np.array_equal(plain.sample(5)[0], matching.sample(5)[0])
    other = labeler(framework, weight=1.0).fit(X, masked)
    assert not np.array_equal(other.predict_proba(X), plain.predict_proba(X))


def test_resumed_run_is_the_uninterrupted_one(framework, tmp_path, monkeypatch):
    X, y = images()
    masked = mask_labels(y, np.arange(9))
    whole = labeler(framework, steps=120).fit(X, masked)
    module = framework.module("gan")
    decay = module.final_decay

    def stop(step, steps, part):
        if step == 110:
            raise KeyboardInterrupt
        return decay(step, steps, part)

    with monkeypatch.context() as patch:
        patch.setattr(module, "final_decay", stop)
        with pytest.raises(KeyboardInterrupt):
            labeler(framework, steps=120).fit(X, masked, checkpoint_dir=tmp_path)
    again = labeler(framework, steps=120).fit(X, masked, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(again.history_["loss"], whole.history_["loss"])
    np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))
    np.testing.assert_array_equal(again.sample(4)[0], whole.sample(4)[0])


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_saved_and_read_by_the_twin(both, network, tmp_path):
    X, y = images()
    for here, there in (both, both[::-1]):
        fitted = labeler(here, network=network, class_weight=0.5)
        fitted.fit(X, mask_labels(y, np.arange(9)))
        twin = type(labeler(there)).load(fitted.save(tmp_path / here.name))
        np.testing.assert_allclose(twin.predict_proba(X), fitted.predict_proba(X), atol=1e-6)
        np.testing.assert_allclose(twin.sample(5)[0], fitted.sample(5)[0], atol=1e-5)
        np.testing.assert_array_equal(twin.pseudo_labels_, fitted.pseudo_labels_)


def test_clone_has_the_same_settings_and_is_not_fitted(framework):
    model = labeler(framework, network="conv")
    assert clone(model).get_params() == model.get_params()
    with pytest.raises(ValueError, match="not fitted"):
        model.predict(images()[0])


GOOD_X, GOOD_Y = images(12)[0], np.array([0, 1, -1] * 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "cnn"}, "Did you mean 'conv'|expected one of mlp, conv"),
        ({"generator_loss": "feature-matching"}, "Did you mean 'feature_matching'"),
        ({"latent_dim": 0}, "latent_dim must lie in"),
        ({"X": (GOOD_X * 255).astype(np.uint8)}, "divide by 255"),
        ({"X": GOOD_X * 2}, r"expected \[0, 1\]"),
        ({"X": np.where(GOOD_X > 0.5, np.nan, GOOD_X)}, "NaN or infinite"),
        ({"y": [1] * 3 + [-1] * 9}, "single class 1"),
        ({"y": [-1] * 12}, "no labelled example"),
        ({"y": [0, 1]}, "2 labels for 12"),
        ({"network": "conv", "X": GOOD_X.reshape(12, -1)}, "needs images"),
        ({"network": "conv", "X": GOOD_X[:, :7]}, "sides 4 divides"),
        ({"decay": 2}, "decay"),
        ({"class_weight": -1}, "class_weight"),
        ({"lr": 0}, "lr"),
    ],
)
def test_bad_input_is_named(framework, change, message):
    change = dict(change)
    X, y = change.pop("X", GOOD_X), change.pop("y", GOOD_Y)
    with pytest.raises(ValueError, match=message):
        labeler(framework, **change).fit(X, y)


def test_without_unlabelled_examples_there_is_nothing_to_imitate(framework):
    X, y = images(12)
    with (
        pytest.warns(UserWarning, match="no unlabelled example"),
        pytest.raises(ValueError, match="a GAN needs some"),
    ):
        labeler(framework).fit(X, y)


def test_a_generator_that_diverges_is_told(framework):
    X, y = images()
    with pytest.raises(FloatingPointError, match=r"at step \d+ \(learning rate 1e\+30\)"):
        labeler(framework, lr=1e30, decay=0.0).fit(X, mask_labels(y, np.arange(9)))


def test_the_page_feeds_a_generator_that_stands_on_another_device():
    """On the device "meta", which every machine has and which takes no tensor of the CPU."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fewshot_course.torch import gan, optim

    page = Path(__file__).parents[2] / "chapters/pseudo_labels/gan/torch.md"
    cell = re.search(r":label: collapse\n.*?\n\n(.*?)collapsed =", page.read_text(), re.DOTALL)[1]

    class Fitted:
        generator_ = gan.Generator(10, 0, (8, 8), (6,)).double().to("meta").eval()
        network_ = gan.Discriminator((8, 8), 3, (6,)).double().to("meta")

    here = {"fitted": {"plain": Fitted}, "np": np, "torch": torch, "gan": gan, "optim": optim}
    exec(cell.replace("range(200)", "range(2)"), here)
    assert here["loss"].device.type == "meta"
