"""Choice of weights without target labels, on estimators whose behaviour is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from fewshot_course.evaluation.selection import (
    mean_entropy,
    mutual_information,
    reverse_validation_score,
    soft_neighbourhood_density,
    source_validation_score,
)


class NearestMean(BaseEstimator):
    """Nearest class mean; ``move`` is the part of the way that the source goes to the target."""

    def __init__(self, move=0.0):
        self.move = move

    def fit(self, X_source, y_source, X_target):
        assert len(X_source) == len(y_source)
        shift = self.move * (X_target.mean(0) - X_source.mean(0))
        self.classes_ = np.unique(y_source)
        self.means_ = np.stack([X_source[y_source == k].mean(0) + shift for k in self.classes_])
        self.seen_ = X_source, y_source, X_target
        return self

    def predict(self, X):
        return self.classes_[((X[:, None] - self.means_) ** 2).sum(-1).argmin(1)]


class Constant(BaseEstimator):
    def fit(self, X_source, y_source, X_target):
        assert len(np.unique(y_source)) > 1
        return self

    def predict(self, X):
        return np.zeros(len(X), dtype=np.int64)


def domains(shift=10.0, n=100):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = rng.normal(size=(n, 1)) * 0.3 + np.array([-1.0, 1.0])[y][:, None]
    return X, y, X[rng.permutation(n)] + shift


def score(function, make, *data, held_out=0.2, seed=0):
    return function(make, *data, np.random.default_rng(seed), held_out)


def test_mean_entropy():
    assert mean_entropy([[0.5, 0.5], [1.0, 0.0]]) == pytest.approx(np.log(2) / 2)
    assert mean_entropy(np.full((3, 4), 0.25)) == pytest.approx(np.log(4))
    assert mean_entropy([[0.0, 1.0]]) == 0


def test_mutual_information_is_that_of_a_table():
    proba = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]])
    joint = proba / 3  # every example is as likely as the next
    marginals = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    expected = (joint * np.log(joint / marginals)).sum()
    assert mutual_information(proba) == pytest.approx(expected, rel=1e-12)
    assert mutual_information(np.eye(4)) == pytest.approx(np.log(4))
    collapsed = np.tile([1.0, 0.0], (5, 1))  # surest of all, and says nothing
    assert mutual_information(collapsed) == 0 == mean_entropy(collapsed)


def test_neighbourhood_density_by_loops():
    proba = np.random.default_rng(0).dirichlet(np.ones(3), size=7)
    entropies = []
    for i, row in enumerate(proba):
        others = [other for j, other in enumerate(proba) if j != i]
        near = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in others]
        share = np.exp(np.array(near) / 0.05)
        share /= share.sum()
        entropies.append(-(share * np.log(share)).sum())
    assert soft_neighbourhood_density(proba) == pytest.approx(np.mean(entropies), rel=1e-10)


def test_neighbourhood_density_prefers_few_dense_clumps_and_a_collapse_most():
    clumps = np.repeat(np.eye(4), 25, axis=0)
    spread = np.random.default_rng(0).dirichlet(np.ones(4), size=100)
    collapsed = np.tile([1.0, 0, 0, 0], (100, 1))
    assert soft_neighbourhood_density(clumps) == pytest.approx(np.log(24), rel=1e-6)
    assert soft_neighbourhood_density(spread) < soft_neighbourhood_density(clumps)
    assert soft_neighbourhood_density(collapsed) == pytest.approx(np.log(99))


def test_criteria_name_what_is_wrong():
    with pytest.raises(ValueError, match="one row"):
        soft_neighbourhood_density([[0.5, 0.5]])
    with pytest.raises(ValueError, match="temperature"):
        soft_neighbourhood_density(np.eye(2), 0.0)
    for function in (mutual_information, soft_neighbourhood_density):
        with pytest.raises(ValueError, match="proba must hold probabilities"):
            function(np.ones((3, 2)))


def test_reverse_validation_finds_the_move_that_fits():
    # Unmoved, all of the target lies beside one class mean: one pseudo-label, and half are right.
    data = domains()
    assert score(reverse_validation_score, NearestMean(move=1.0), *data) == 1.0
    assert score(reverse_validation_score, NearestMean(move=0.0), *data) == 0.5


def test_source_validation_cannot_tell_what_reverse_validation_tells():
    data = domains()
    assert score(source_validation_score, NearestMean(move=0.0), *data) == 1.0
    # Moved source means no longer fit the source itself.
    assert score(source_validation_score, NearestMean(move=1.0), *data) == 0.5


def test_all_of_the_target_in_one_class():
    X, y, X_target = domains()
    y = np.where(np.arange(100) < 25, 1, 0)
    assert score(reverse_validation_score, Constant, X, y, X_target) == pytest.approx(0.75)


class Recorder:
    """A factory that keeps what it made."""

    def __init__(self):
        self.made = []

    def __call__(self):
        self.made.append(NearestMean(move=1.0))
        return self.made[-1]


@pytest.mark.parametrize("function", [source_validation_score, reverse_validation_score])
def test_held_out_examples_are_never_fitted(function):
    X, y, X_target = domains()
    factory = Recorder()
    scored = []
    factory_predict = NearestMean.predict

    def predict(self, X):
        scored.append(X)
        return factory_predict(self, X)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NearestMean, "predict", predict)
        score(function, factory, X, y, X_target)
    validation = set(scored[-1].ravel().tolist())
    assert len(validation) == 20
    for estimator in factory.made:
        for array in (estimator.seen_[0], estimator.seen_[2]):
            assert not validation & set(array.ravel().tolist())
    if function is reverse_validation_score:
        there, back = factory.made
        np.testing.assert_array_equal(back.seen_[0], X_target)
        np.testing.assert_array_equal(back.seen_[1], there.predict(X_target))
        np.testing.assert_array_equal(back.seen_[2], there.seen_[0])


@pytest.mark.parametrize("function", [source_validation_score, reverse_validation_score])
def test_an_estimator_stays_unfitted_and_the_seed_decides(function):
    data = domains(shift=0.5)
    estimator = NearestMean(move=0.5)
    first = score(function, estimator, *data, seed=1)
    assert not hasattr(estimator, "means_")
    assert score(function, lambda: NearestMean(move=0.5), *data, seed=1) == first


@pytest.mark.parametrize("held_out", [0.01, 1.0])
def test_every_class_stays_on_both_sides(held_out):
    X, y, X_target = domains()
    factory = Recorder()
    score(source_validation_score, factory, X, y, X_target, held_out=held_out)
    assert set(factory.made[0].seen_[1].tolist()) == {0, 1}


BAD_PROBA = {
    "sum": ([[0.5, 0.6]], "sum 1"),
    "negative": ([[-0.5, 1.5]], "sum 1"),
    "vector": ([0.5, 0.5], "proba"),
    "images": (np.full((1, 2, 2), 0.5), "proba"),
    "nan": ([[np.nan, 1.0]], "NaN"),
}


@pytest.mark.parametrize("case", BAD_PROBA)
def test_bad_probabilities(case):
    proba, words = BAD_PROBA[case]
    with pytest.raises(ValueError, match=words):
        mean_entropy(proba)


BAD_DATA = {
    "no factory": ({"make_estimator": 3}, TypeError, "make_estimator"),
    "length": ({"y_source": np.zeros(3, int)}, ValueError, "y_source"),
    "target": ({"X_target": np.ones((4, 2))}, ValueError, "X_target"),
    "part": ({"held_out": 0}, ValueError, "held_out"),
    "one each": ({"X_source": np.ones((2, 1)), "y_source": [0, 1]}, ValueError, "one example"),
}


@pytest.mark.parametrize("case", BAD_DATA)
@pytest.mark.parametrize("function", [source_validation_score, reverse_validation_score])
def test_bad_data(function, case):
    changes, error, words = BAD_DATA[case]
    X, y, X_target = domains()
    call = {
        "make_estimator": NearestMean(),
        "X_source": X,
        "y_source": y,
        "X_target": X_target,
        "rng": np.random.default_rng(0),
    } | changes
    with pytest.raises(error, match=words):
        function(**call)
