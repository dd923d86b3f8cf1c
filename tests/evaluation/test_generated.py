"""How generated examples are judged: what must hold for copies, collapse and too few classes."""

import numpy as np
import pytest

from fewshot_course.evaluation.generated import (
    active_units,
    class_histogram,
    coverage,
    nearest_distances,
    variety,
)


def test_class_histogram_shows_a_missing_class():
    np.testing.assert_allclose(class_histogram([1, 1, 5, 1], [1, 3, 5]), [0.75, 0, 0.25])
    with pytest.raises(ValueError, match=r"labels has \[4\]"):
        class_histogram([4], [1, 3])
    with pytest.raises(ValueError, match="empty"):
        class_histogram(np.array([], dtype=int), [1, 3])


def test_nearest_distances_by_hand():
    X = np.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(nearest_distances([[3.0, 4.0], [0.0, 1.0]], X), [0, 1])
    images = np.stack([np.zeros((2, 2)), np.ones((2, 2))])
    np.testing.assert_allclose(nearest_distances(images * 0.9, images), [0, 0.2])


def test_coverage_tells_copies_from_collapse():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    assert coverage(X, X) == 1.0
    one = np.repeat(X[:1], 200, axis=0)
    assert coverage(one, X) < 0.1
    assert coverage(X + 100, X) == 0.0
    fresh = rng.normal(size=(200, 3))
    assert coverage(one, X) < coverage(fresh[:20], X) < coverage(fresh, X) < 1.0
    with pytest.raises(ValueError, match="neighbours"):
        coverage(X, X[:5], neighbours=5)


def test_variety_is_a_ratio_of_mean_squared_distances():
    rng = np.random.default_rng(0)
    X, samples = rng.normal(size=(40, 4)), 0.5 * rng.normal(size=(30, 4))

    def mean_square(A):
        return ((A[:, None] - A) ** 2).sum(2).mean()

    assert variety(samples, X) == pytest.approx(mean_square(samples) / mean_square(X))
    assert variety(np.zeros((5, 4)), X) == 0.0
    assert variety(X, X) == pytest.approx(1.0)


def test_active_units_counts_dimensions_that_vary():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(500, 4)) * [1.0, 0.2, 0.05, 0.0]
    assert active_units(means) == 2
    assert active_units(means, threshold=0.0) == 3
