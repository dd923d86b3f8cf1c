"""GMMPseudoLabeler: closed forms, invariances, clamps, warnings, and bad input."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import cross_val_score

from fewshot_course.both.gmm import COVARIANCE_TYPES
from fewshot_course.data import few_shot_split, load_dataset, mask_labels

QUIET = pytest.mark.filterwarnings("ignore::UserWarning")


def clusters(n=120, seed=0, distance=6.0):
    """Three round clusters in the plane, one a class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    centres = distance * np.array([[0.0, 0], [1, 0], [0, 1]])
    return centres[y] + rng.normal(size=(n, 2)), y


def few(y, per_class=2):
    return mask_labels(y, np.concatenate([np.flatnonzero(y == c)[:per_class] for c in set(y)]))


def labeler(framework, **options):
    return framework.estimator("GMMPseudoLabeler", **options)


@QUIET
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_all_labelled_is_the_class_wise_maximum_likelihood(framework, covariance_type):
    X, y = clusters()
    X = X + 100  # the mean must not cost digits
    model = labeler(framework, covariance_type=covariance_type, covariance_floor=1e-9).fit(X, y)
    means = np.stack([X[y == c].mean(0) for c in range(3)])
    np.testing.assert_allclose(model.means_ + model.centre_, means, rtol=1e-9)
    own = np.stack([np.cov(X[y == c], rowvar=False, bias=True) for c in range(3)])
    wanted = {
        "full": own,
        "tied": own.mean(0),
        "diag": own.diagonal(axis1=1, axis2=2),
        "spherical": own.diagonal(axis1=1, axis2=2).mean(1),
    }[covariance_type]
    np.testing.assert_allclose(model.covariances_, wanted, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.weights_, [1 / 3] * 3)
    np.testing.assert_array_equal(model.pseudo_labels_, y)


def test_not_clamped_is_plain_em_of_scikit_learn(framework):
    X, y = clusters(distance=3.0)
    model = labeler(framework, clamp=False, tol=0.0, max_iter=2000, random_state=0)
    model.fit(X, few(y))
    reference = GaussianMixture(3, reg_covar=0, tol=1e-12, max_iter=2000, random_state=0)
    reference.fit(X)
    np.testing.assert_allclose(
        np.sort(model.means_ + model.centre_, 0), np.sort(reference.means_, 0), atol=1e-3
    )
    np.testing.assert_allclose(model.bic(X), reference.bic(X), rtol=1e-4)


@pytest.mark.parametrize("clamp", [True, False])
def test_labels_may_be_renamed_and_rows_shuffled(framework, clamp):
    X, y = clusters()
    masked = few(y)
    model = labeler(framework, clamp=clamp, random_state=0).fit(X, masked)
    names = np.array([7, 2, 30])
    renamed = np.where(masked == -1, -1, names[masked])
    other = labeler(framework, clamp=clamp, random_state=0).fit(X, renamed)
    np.testing.assert_array_equal(other.pseudo_labels_, names[model.pseudo_labels_])
    assert other.classes_.tolist() == [2, 7, 30]
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = labeler(framework, clamp=clamp, random_state=0).fit(X[order], masked[order])
    np.testing.assert_array_equal(shuffled.pseudo_labels_, model.pseudo_labels_[order])


def test_component_numbers_are_not_classes(framework):
    """Mistake 9: matching is what turns components into classes."""
    X, y = clusters()
    model = labeler(framework, clamp=False, random_state=0).fit(X, few(y))
    assert model.score(X, y) == 1.0
    assert sorted(model.component_class_) == [0, 1, 2]


def test_clamped_examples_keep_their_label_and_confidence_is_a_probability(framework):
    X, y = clusters(distance=1.0)
    masked = few(y, 5)
    model = labeler(framework).fit(X, masked)
    known = masked != -1
    np.testing.assert_array_equal(model.pseudo_labels_[known], y[known])
    assert (model.confidence_[known] == 1).all()
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(1), 1)
    np.testing.assert_allclose(model.confidence_[~known], proba[~known].max(1))
    np.testing.assert_array_equal(model.predict(X)[~known], model.pseudo_labels_[~known])
    assert model.score(X, masked) == np.mean(model.predict(X)[known] == y[known])
    assert (np.diff(model.log_likelihood_) >= -1e-12).all()


def test_several_components_hold_a_class_of_two_clusters(framework):
    """Class 0 is the two outer clusters: one Gaussian cannot hold it, two can."""
    rng = np.random.default_rng(0)
    cluster = np.arange(300) % 3
    X = rng.normal(size=(300, 1)) + 8 * (cluster[:, None] - 1.0)
    y = np.array([0, 1, 0])[cluster]
    masked = mask_labels(y, np.arange(12))
    model = labeler(framework, components_per_class=2, random_state=0).fit(X, masked)
    assert model.component_class_.tolist() == [0, 0, 1, 1]
    assert model.score(X, y) > 0.99


@pytest.mark.parametrize("options", [{"clamp": False}, {}, {"covariance_type": "tied"}])
def test_contradiction_is_told(framework, options):
    """Two clusters, left and right, but the classes are above and below."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2)) + [[4.0, 0.0]] * np.sign(rng.normal(size=(400, 1)))
    y = (X[:, 1] > 0).astype(int)
    corners = [np.flatnonzero((y == c) & ((X[:, 0] > 0) == r))[:3] for c in (0, 1) for r in (0, 1)]
    masked = mask_labels(y, np.concatenate(corners))
    with pytest.warns(UserWarning, match="contradict the labels.*components_per_class"):
        model = labeler(framework, random_state=0, **options).fit(X, masked)
    known = masked != -1
    assert model.label_contradiction_ == np.mean(model.predict(X)[known] != y[known]) > 0.25


@pytest.mark.filterwarnings("error")
def test_no_warning_where_all_is_well(framework):
    X, y = clusters()
    labeler(framework).fit(X, few(y, 3))


def test_singular_covariance_is_told_with_how_much(framework):
    X, y = clusters()
    X = np.concatenate([X, X[:, :1]], axis=1)  # a feature twice
    with pytest.warns(UserWarning, match=r"3 eigenvalues .* raised to 0\.0\d+") as caught:
        model = labeler(framework).fit(X, few(y))
    floor = 1e-3 * X.var(0).mean()
    assert f"{floor:.3g}" in str(caught[0].message)
    assert np.linalg.eigvalsh(model.covariances_).min() >= floor * (1 - 1e-6)


def test_not_converged_is_told(framework):
    X, y = clusters(distance=1.0)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        labeler(framework, max_iter=2, tol=0.0).fit(X, few(y))


def test_unlabelled_weight_near_zero_is_supervised(framework):
    X, y = clusters(distance=2.0)
    masked = few(y, 10)
    known = masked != -1
    little = labeler(framework, unlabelled_weight=1e-9, tol=1e-9).fit(X, masked)
    with pytest.warns(UserWarning, match="no unlabelled example"):
        supervised = labeler(framework).fit(X[known], masked[known])
    np.testing.assert_allclose(
        little.means_ + little.centre_, supervised.means_ + supervised.centre_, atol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [-1] * 12}, "no labelled example: every label is -1"),
        ({"y": [0] * 4 + [-1] * 8}, "single class 0"),
        ({"y": [0, 1, 2] * 4, "classes": [0, 1, 2, 3]}, r"example of the classes \[3\]"),
        ({"y": [0, 1, 2] * 4, "classes": [0, 1]}, r"labels \[2\], which classes does not name"),
        ({"y": [0, 1, -2] * 4}, "label -2"),
        ({"y": [0, 1] * 3}, "6 labels for 12 examples"),
        ({"X": np.full((12, 2), np.nan)}, "NaN"),
        ({"X": np.ones((12, 2))}, "does not vary"),
        ({"components_per_class": 5}, "12 examples for 15 components"),
        ({"components_per_class": 0}, "components_per_class"),
        ({"covariance_type": "diagonal"}, "Did you mean 'diag'"),
        ({"matching": "best"}, "matching='best'"),
        ({"n_pca": 3}, "n_pca"),
        ({"unlabelled_weight": 0}, "unlabelled_weight"),
        ({"covariance_floor": 0}, "covariance_floor"),
        ({"max_iter": 0}, "max_iter"),
        ({"random_state": -1}, "random_state"),
    ],
)  # fmt: skip
def test_bad_input_is_named(framework, change, message):
    change = dict(change)
    X = change.pop("X", np.random.default_rng(0).normal(size=(12, 2)))
    y = change.pop("y", [0, 1, 2, -1] * 3)
    classes = change.pop("classes", None)
    with pytest.raises(ValueError, match=message):
        labeler(framework, **change).fit(X, y, classes=classes)


def test_images_pca_saved_and_loaded_by_the_twin(framework, both, tmp_path):
    data = load_dataset("uci_digits")
    X, y = data.X[:300], data.y[:300]
    split = few_shot_split(y, 3, 0, n_test=50)
    masked = mask_labels(y, split.labelled)
    model = labeler(framework, n_pca=10, covariance_type="tied").fit(X, masked)
    path = model.save(tmp_path / "gmm.safetensors")
    for other in both:
        twin = other.module("gmm").GMMPseudoLabeler.load(path)
        np.testing.assert_allclose(twin.predict_proba(X), model.predict_proba(X), atol=1e-12)
        assert twin.get_params() == model.get_params()
    flat = labeler(framework, n_pca=10, covariance_type="tied").fit(X.reshape(300, -1), masked)
    np.testing.assert_array_equal(flat.pseudo_labels_, model.pseudo_labels_)
    with pytest.raises(ValueError, match="examples of shape"):
        model.predict(X[:, :4])


def test_a_file_sets_what_is_declared_and_nothing_else(framework, tmp_path):
    X, y = clusters()
    model = labeler(framework).fit(X, few(y))
    arrays = model._fitted_arrays() | {"_apply": np.zeros(1)}
    model._fitted_arrays = lambda: arrays
    path = model.save(tmp_path / "crafted.safetensors")
    with pytest.raises(ValueError, match=r"no arrays.*_apply"):
        type(model).load(path)


def test_fit_runs_the_step_that_is_shown(framework, monkeypatch):
    module, calls = framework.module("gmm"), []
    shown = module.em_step
    monkeypatch.setattr(module, "em_step", lambda *a, **k: calls.append(a) or shown(*a, **k))
    X, y = clusters()
    model = labeler(framework).fit(X, few(y))
    assert len(calls) == len(model.log_likelihood_) > 1


@QUIET
def test_the_twins_fit_the_same(both):
    data = load_dataset("uci_digits")
    masked = mask_labels(data.y, few_shot_split(data.y, 5, 0).labelled)
    a, b = (
        labeler(framework, n_pca=15, components_per_class=2, random_state=0) for framework in both
    )
    a.fit(data.X, masked)
    b.fit(data.X, masked)
    np.testing.assert_allclose(a.means_, b.means_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a.covariances_, b.covariances_, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(a.pseudo_labels_, b.pseudo_labels_)


@QUIET
def test_scikit_learn_conventions(framework):
    X, y = clusters()
    model = labeler(framework, covariance_type="tied")
    with pytest.raises(NotFittedError):
        model.predict(X)
    assert clone(model.fit(X, few(y))).get_params() == model.get_params()
    assert cross_val_score(labeler(framework), X, y, cv=3).min() > 0.9
