"""Self-training in both frameworks, and the loop around any classifier."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.semi_supervised import LabelSpreading

from fewshot_course.both.pseudo_labels import lee_weight, select_confident
from fewshot_course.data import mask_labels
from fewshot_course.pseudo_label_loop import pseudo_label_loop

SMALL = {"network": "mlp", "steps": 10, "batch_size": 4, "unlabelled_batch_size": 8}


def clusters(n=90, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return 3 * np.eye(3)[y] + rng.normal(size=(n, 3)), y


def self_training(framework, **options):
    return framework.estimator("SelfTraining", **{**SMALL, "random_state": 0, **options})


# --- the maths ----------------------------------------------------------------------------------


def test_weight_schedule_is_lees():
    weights = [lee_weight(t, 10, 0.2, 0.6, 3.0) for t in range(10)]
    np.testing.assert_allclose(weights, [0, 0, 0, 0.75, 1.5, 2.25, 3, 3, 3, 3])
    assert lee_weight(0, 10, 0.0, 0.0, 3.0) == 3.0  # no ramp at all


def test_pseudo_label_loss_by_hand(framework):
    logits = np.array([[2.0, 0.0], [0.0, 0.1], [-3.0, 1.0]])
    module, t = framework.module("pseudo_labels"), framework.tensor
    best = -log_softmax(logits, axis=1).max(1)
    loss, coverage = map(framework.array, module.pseudo_label_loss(t(logits)))
    assert (loss, coverage) == (pytest.approx(best.mean()), 1.0)
    loss, coverage = map(framework.array, module.pseudo_label_loss(t(logits), 0.8))
    assert loss == pytest.approx((best[0] + best[2]) / 3)  # the unsure one adds nothing
    assert coverage == pytest.approx(2 / 3)


def test_pseudo_label_loss_pulls_towards_the_own_class(framework, differences):
    """Its gradient is softmax - one-hot: the choice itself is not differentiated."""
    logits = np.array([[1.0, 0.0, 0.5], [0.2, 0.9, -1.0]])
    module = framework.module("pseudo_labels")
    _, (gradient,) = framework.gradients(lambda x: module.pseudo_label_loss(x)[0], logits)
    wanted = (np.exp(log_softmax(logits, 1)) - np.eye(3)[[0, 1]]) / 2
    np.testing.assert_allclose(gradient, wanted, atol=1e-12)


def test_selection():
    proba = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.55, 0.45], [0.3, 0.7]])
    assert select_confident(proba, threshold=0.8).tolist() == [True, False, True, False, False]
    # Half of class 0, and the only one of class 1 though it is less sure.
    assert select_confident(proba, quantile=0.5).tolist() == [True, False, True, False, True]
    assert select_confident(proba, quantile=0.0).all()
    for bad in ({}, {"threshold": 0.5, "quantile": 0.5}):
        with pytest.raises(ValueError, match="either threshold or quantile"):
            select_confident(proba, **bad)
    with pytest.raises(ValueError, match="threshold must lie"):
        select_confident(proba, threshold=1.5)


# --- SelfTraining -------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_ten_steps_agree(both, dtype, tolerance):
    X, y = clusters()
    masked = mask_labels(y, np.arange(9))
    a, b = (self_training(f, dtype=dtype, ramp_start=0.0).fit(X, masked) for f in both)
    for name in ("loss", "pseudo_loss", "coverage"):
        np.testing.assert_allclose(a.history_[name], b.history_[name], rtol=tolerance)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=tolerance)
    assert a.history_["pseudo_loss"][0] == 0.0  # α(0) = 0


def test_weight_zero_never_looks_at_unlabelled_examples(framework):
    X, y = clusters()
    masked = mask_labels(y, np.arange(9))
    alone = self_training(framework, weight=0.0).fit(X, masked)
    other = self_training(framework, weight=0.0).fit(X[:9], y[:9])
    np.testing.assert_array_equal(alone.predict_proba(X), other.predict_proba(X))
    changed = X.copy()
    changed[9:] += 1
    with_them = self_training(framework, weight=1.0, ramp_end=0.1).fit(changed, masked)
    assert not np.array_equal(with_them.predict_proba(X), alone.predict_proba(X))


def test_learns_labels_and_keeps_the_given_ones(framework):
    X, y = clusters()
    y = np.array([4, 1, 9])[y]
    model = self_training(framework, steps=150, lr=0.01).fit(X, mask_labels(y, np.arange(9)))
    assert model.score(X, y) > 0.9
    assert model.classes_.tolist() == [1, 4, 9]
    np.testing.assert_array_equal(model.pseudo_labels_[:9], y[:9])
    assert (model.confidence_[:9] == 1).all()
    np.testing.assert_array_equal(model.pseudo_labels_[9:], model.predict(X)[9:])


def test_pseudo_labels_make_the_network_surer_of_what_it_says(framework):
    """The loss is lowest where every prediction is certain, right or wrong."""
    X, y = clusters()
    masked = mask_labels(y, np.arange(3))
    before = self_training(framework, weight=0.0, steps=60).fit(X, masked)
    after = self_training(framework, weight=3.0, steps=60, ramp_start=0.0).fit(X, masked)
    assert after.confidence_[3:].mean() > before.confidence_[3:].mean()


def test_sample_weight_zero_is_absent(framework):
    X, y = clusters()
    weights = np.ones(90)
    flipped = y.copy()
    flipped[:10] = (flipped[:10] + 1) % 3
    weights[:10] = 0
    options = {"weight": 0.0, "steps": 60, "batch_size": 90, "lr": 0.01}
    ignored = self_training(framework, **options).fit(X, flipped, sample_weight=weights)
    assert ignored.score(X, y) > 0.9
    with pytest.raises(ValueError, match="90 finite numbers"):
        self_training(framework, weight=0.0).fit(X, y, sample_weight=-weights)


def test_resumed_run_is_the_uninterrupted_one(framework, tmp_path):
    X, y = clusters()
    masked = mask_labels(y, np.arange(9))
    whole = self_training(framework, steps=120).fit(X, masked)
    model = self_training(framework, steps=120)
    build = model._alpha

    def stop(step):
        if step == 110:
            raise KeyboardInterrupt
        return build(step)

    model._alpha = stop
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, masked, checkpoint_dir=tmp_path)
    again = self_training(framework, steps=120).fit(X, masked, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(again.history_["loss"], whole.history_["loss"])
    np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))


def test_saved_and_read_by_the_twin(both, tmp_path):
    X, y = clusters()
    for here, there in (both, both[::-1]):
        model = self_training(here).fit(X, mask_labels(y, np.arange(9)))
        path = model.save(tmp_path / here.name)
        twin = type(self_training(there)).load(path)
        np.testing.assert_allclose(twin.predict_proba(X), model.predict_proba(X), atol=1e-6)
        np.testing.assert_array_equal(twin.pseudo_labels_, model.pseudo_labels_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [-1] * 6}, "no labelled example"),
        ({"y": [1] * 3 + [-1] * 3}, "single class 1"),
        ({"classes": [0, 1, 5]}, r"classes \[5\]"),
        ({"X": np.full((6, 2), np.inf)}, "NaN or infinite"),
        ({"y": [0, 1]}, "2 labels for 6"),
        ({"weight": -1.0}, "weight must lie"),
        ({"ramp_start": 0.7}, "ramp_end"),
        ({"threshold": 2}, "threshold"),
        ({"steps": 0}, "steps"),
        ({"network": "mpl"}, "Did you mean 'mlp'"),
    ],
)
def test_bad_input_is_named(framework, change, message):
    change = dict(change)
    X = change.pop("X", np.zeros((6, 2)))
    y = change.pop("y", [0, 1, -1] * 2)
    classes = change.pop("classes", None)
    with pytest.raises(ValueError, match=message):
        self_training(framework, **change).fit(X, y, classes=classes)


def test_labels_only_is_told(framework):
    X, y = clusters(9)
    with pytest.warns(UserWarning, match="no unlabelled example"):
        self_training(framework).fit(X, y)


# --- the loop -----------------------------------------------------------------------------------


class NearestNeighbourLine(ClassifierMixin, BaseEstimator):
    """On a line: p(1|x) grows with the distance to the nearest 0, relative to the nearest 1."""

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        self.zeros_, self.ones_ = X[y == 0, 0], X[y == 1, 0]
        self.weights_ = sample_weight
        return self

    def predict_proba(self, X):
        d0 = np.abs(X - self.zeros_).min(1)
        d1 = np.abs(X - self.ones_).min(1)
        p = d0 / (d0 + d1)
        return np.stack([1 - p, p], axis=1)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]


# Labelled: 0 at x = 0, 1 at x = 10.  Unlabelled: x = 1, 2, 4, 9.
LINE = np.array([[0.0], [10.0], [1.0], [2.0], [4.0], [9.0]])
LINE_Y = np.array([0, 1, -1, -1, -1, -1])


def test_loop_by_hand():
    result = pseudo_label_loop(
        NearestNeighbourLine(), LINE, LINE_Y, rounds=2, threshold=0.75, weight=[0.5, 1.0],
        X_eval=[[3.0], [8.0]], y_eval=[0, 1], y_true=[0, 1, 0, 0, 1, 1],
    )  # fmt: skip
    start, first, second = result.history
    # Round 0: p(1|3) = 0.3 and p(1|8) = 0.8; both right; confidences 0.7 and 0.8.
    assert (start.number, start.n_pseudo, start.accuracy) == (0, 0, 1.0)
    assert start.calibration_error == pytest.approx((0.3 + 0.2) / 2)
    # Round 1: p(1) = 0.1, 0.2, 0.4, 0.9: all but x = 4 are sure enough.
    assert (first.n_pseudo, first.coverage, first.weight) == (3, 0.75, 0.5)
    assert (first.pseudo_accuracy, first.class_counts) == (1.0, (2, 1))
    # Round 2: 0 is known at 2 now, so p(1|4) = 2 / (2 + 5) = 0.29: still out.
    assert (second.n_pseudo, second.pseudo_accuracy) == (3, 1.0)
    assert result.pseudo_labels.tolist() == [0, 1, 0, 0, -1, 1]
    assert result.confidence[4] == pytest.approx(5 / 7)
    assert result.classifier.weights_ is None  # weight 1 needs no weights
    # With a lower threshold x = 4 is taken for 0, which is wrong: confirmation bias.
    bold = pseudo_label_loop(
        NearestNeighbourLine(), LINE, LINE_Y, rounds=2, threshold=0.7, y_true=[0, 1, 0, 0, 1, 1]
    )
    assert bold.pseudo_labels[4] == 0
    assert bold.history[2].pseudo_accuracy == 0.75
    assert np.isnan(bold.history[2].accuracy)


def test_loop_weights_and_unhidden_labels_do_not_leak():
    seen = []

    class Spy(NearestNeighbourLine):
        def fit(self, X, y, sample_weight=None):
            seen.append((y.tolist(), None if sample_weight is None else sample_weight.tolist()))
            return super().fit(X, y, sample_weight)

    options = {"rounds": 1, "threshold": 0.75, "weight": lambda number: 0.5 * number}
    for truth in (None, [0, 1, 1, 1, 1, 0]):
        pseudo_label_loop(Spy(), LINE, LINE_Y, y_true=truth, **options)
    assert seen[:2] == seen[2:]
    assert seen[1] == ([0, 1, 0, 0, 1], [1, 1, 0.5, 0.5, 0.5])


def test_loop_with_scikit_learn_and_with_a_labeller(framework):
    X, y = clusters()
    masked = mask_labels(y, np.arange(9))
    evaluation = {"X_eval": X, "y_eval": y, "y_true": y}
    gmm = framework.estimator("GMMPseudoLabeler", covariance_type="tied")
    for labeller in (None, gmm, LabelSpreading(kernel="knn", n_neighbors=5)):
        result = pseudo_label_loop(
            LogisticRegression(), X, masked, labeller=labeller, quantile=0.2, threshold=None,
            rounds=1, weight=0.5, **evaluation,
        )  # fmt: skip
        assert result.history[1].coverage == pytest.approx(0.8, abs=0.03)
        assert result.history[1].accuracy > 0.8
    network = self_training(framework, weight=0.0)
    result = pseudo_label_loop(network, X, masked, rounds=1, threshold=0.0, weight=0.5)
    assert len(result.history) == 2
    assert clone(network).get_params() == network.get_params()


def test_loop_hands_the_device_on(framework):
    X, y = clusters()
    masked = mask_labels(y, np.arange(9))
    network = self_training(framework, weight=0.0)
    mixture = framework.estimator("GMMPseudoLabeler", covariance_type="tied")
    for classifier, labeller in ((network, None), (network, mixture)):
        options = {"labeller": labeller, "rounds": 1, "weight": 0.5}
        with pytest.raises(ValueError, match="device='no-such-device'"):
            pseudo_label_loop(
                classifier, X, masked, fit_params={"device": "no-such-device"}, **options
            )
        found = pseudo_label_loop(classifier, X, masked, fit_params={"device": "cpu"}, **options)
        assert len(found.history) == 2


def test_loop_hands_the_device_to_a_labeller_that_takes_one(framework):
    """The classifier takes any device here; the mixture does not."""

    class Anywhere(NearestNeighbourLine):
        def fit(self, X, y, sample_weight=None, device="auto"):
            return super().fit(X, y, sample_weight)

    mixture = framework.estimator("GMMPseudoLabeler", covariance_type="tied")
    with pytest.raises(ValueError, match="device='no-such-device'"):
        pseudo_label_loop(
            Anywhere(), LINE, LINE_Y, labeller=mixture, fit_params={"device": "no-such-device"}
        )


def test_loop_hands_keywords_to_every_fit():
    seen = []

    class Spy(NearestNeighbourLine):
        def fit(self, X, y, sample_weight=None, device="auto"):
            seen.append(device)
            return super().fit(X, y, sample_weight)

    for weight in (1.0, 0.5):
        pseudo_label_loop(
            Spy(), LINE, LINE_Y, rounds=2, threshold=0.75, weight=weight,
            fit_params={"device": "there"},
        )  # fmt: skip
    assert seen == ["there"] * 6


def test_loop_names_bad_input():
    X, y = clusters()
    masked = mask_labels(y, np.arange(9))
    model = LogisticRegression()
    with pytest.raises(TypeError, match="KNeighborsClassifier does not"):
        pseudo_label_loop(KNeighborsClassifier(2), X, masked, weight=0.5)
    with pytest.raises(TypeError, match="labeller must have fit and predict_proba"):
        pseudo_label_loop(model, X, masked, labeller="gmm")
    with pytest.raises(TypeError, match="device"):
        pseudo_label_loop(model, X, masked, fit_params={"device": "cpu"})
    with pytest.raises(ValueError, match="weight has 2 values for rounds=3"):
        pseudo_label_loop(model, X, masked, weight=[1, 1])
    with pytest.raises(ValueError, match="X_eval and y_eval together"):
        pseudo_label_loop(model, X, masked, X_eval=X)
    with pytest.raises(ValueError, match=r"y_eval has the labels \[7\]"):
        pseudo_label_loop(model, X, masked, X_eval=X, y_eval=np.full(90, 7))
    with pytest.raises(ValueError, match=r"of the classes \[3\]"):
        pseudo_label_loop(model, X, masked, classes=[0, 1, 2, 3])
    with pytest.raises(ValueError, match="either threshold or quantile"):
        pseudo_label_loop(model, X, masked, quantile=0.5)
    with pytest.warns(UserWarning, match="no unlabelled example"):
        pseudo_label_loop(model, X, y)
