"""Quality of augmented texts, against scikit-learn, SciPy and cases with a known answer."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf

from fewshot_course.evaluation.embedding_quality import (
    fit_class_gaussians,
    label_agreement,
    nearest_novelty,
    shrunk_covariance,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "d"), [(5, 30), (40, 8), (2, 3), (200, 20)])
def test_shrinkage_is_that_of_ledoit_and_wolf(n, d):
    X = RNG.normal(size=(n, d)) * np.linspace(0.1, 3, d)
    covariance, share = shrunk_covariance(X)
    theirs, their_share = ledoit_wolf(X, assume_centered=True)
    np.testing.assert_allclose(covariance, theirs, rtol=1e-9, atol=1e-12)
    assert share == pytest.approx(their_share)
    assert np.linalg.eigvalsh(covariance).min() > 0


def gaussians(n=6, d=10):
    X = RNG.normal(size=(2 * n, d))
    y = np.repeat([0, 3], n)
    X[n:] += 5
    return fit_class_gaussians(X, y), X, y


def test_distances_are_scipys():
    model, X, y = gaussians()
    centred = X - np.where(y[:, None] == 0, X[:6].mean(0), X[6:].mean(0))
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    inverse = np.linalg.inv(covariance)
    new, labels = RNG.normal(size=(4, 10)), np.array([0, 3, 3, 0])
    means = {0: X[:6].mean(0), 3: X[6:].mean(0)}
    expected = [mahalanobis(h, means[c], inverse) for h, c in zip(new, labels, strict=True)]
    np.testing.assert_allclose(model.mahalanobis(new, labels), expected, rtol=1e-9)
    expected = [np.linalg.norm(h - means[c]) for h, c in zip(new, labels, strict=True)]
    np.testing.assert_allclose(model.euclidean(new, labels), expected)


def test_mahalanobis_punishes_the_direction_in_which_the_class_is_narrow():
    X = RNG.normal(size=(500, 2)) * [10.0, 0.1]
    model = fit_class_gaussians(X, np.zeros(500))
    along, across = model.means[0] + [3, 0], model.means[0] + [0, 3]
    same = model.euclidean([along, across], [0, 0])
    assert same[0] == pytest.approx(same[1])
    near, far = model.mahalanobis([along, across], [0, 0])
    assert far > 3 * near


def test_a_class_without_spread_is_refused():
    with pytest.raises(ValueError, match="do not vary within the classes"):
        fit_class_gaussians(np.ones((3, 2)), [0, 0, 0])


def test_an_unknown_class_is_named():
    model, X, _ = gaussians()
    with pytest.raises(ValueError, match="labels holds 1, a class that was not fitted"):
        model.euclidean(X[:1], [1])


def test_novelty_is_the_angle_to_the_nearest_original():
    originals = np.array([[2.0, 0, 0], [0, 1, 0]])
    new = np.array([[5.0, 0, 0], [0, 0, 3], [1, 1, 0], [-1, 0, 0]])
    np.testing.assert_allclose(
        nearest_novelty(new, originals), [0, 1, 1 - np.sqrt(0.5), 1], atol=1e-12
    )
    with pytest.raises(ValueError, match="features has vectors of length 0"):
        nearest_novelty(np.zeros((1, 3)), originals)
    with pytest.raises(ValueError, match="originals has examples of shape"):
        nearest_novelty(new, np.ones((2, 4)))


def test_label_agreement_counts_right_columns():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert label_agreement(p, [0, 1, 1]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="labels has 2 labels for 3 examples"):
        label_agreement(p, [0, 1])
