"""Reliability bins and expected calibration error against a hand computation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_course.evaluation.calibration import (
    confidence_and_correct,
    expected_calibration_error,
    reliability_bins,
)

predictions = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def test_ece_computed_by_hand():
    # Two bins.  (0, 0.5]: confidences 0.4, 0.5, one of two right: gap |0.5 - 0.45| = 0.05.
    # (0.5, 1]: 0.6, 0.9, 0.9, two of three right: gap |2/3 - 0.8| = 2/15.
    # ECE = 2/5 * 0.05 + 3/5 * 2/15 = 0.02 + 0.08 = 0.10.
    confidence, correct = [0.4, 0.5, 0.6, 0.9, 0.9], [True, False, False, True, True]
    bins = reliability_bins(confidence, correct, n_bins=2)
    np.testing.assert_array_equal(bins.edges, [0, 0.5, 1])
    np.testing.assert_array_equal(bins.count, [2, 3])
    np.testing.assert_allclose(bins.confidence, [0.45, 0.8])
    np.testing.assert_allclose(bins.accuracy, [0.5, 2 / 3])
    assert bins.expected_calibration_error == pytest.approx(0.10)
    assert expected_calibration_error(confidence, correct, 2) == pytest.approx(0.10)


def test_empty_bins_are_nan_and_count_nothing():
    bins = reliability_bins([0.95, 0.95], [1, 1], n_bins=10)
    assert bins.count.tolist() == [0] * 9 + [2]
    assert np.isnan(bins.accuracy[:9]).all()
    assert bins.expected_calibration_error == pytest.approx(0.05)


@settings(derandomize=True, deadline=None)
@given(predictions, st.integers(1, 20))
def test_ece_against_a_loop(pairs, n_bins):
    confidence, correct = map(list, zip(*pairs, strict=True))
    edges = np.linspace(0, 1, n_bins + 1)
    expected = 0.0
    for m in range(n_bins):
        inside = [(c, r) for c, r in pairs if edges[m] < c <= edges[m + 1] or (m == 0 and c == 0)]
        if inside:
            mean_c, mean_r = np.mean([c for c, _ in inside]), np.mean([r for _, r in inside])
            expected += len(inside) / len(pairs) * abs(mean_r - mean_c)
    ece = expected_calibration_error(confidence, correct, n_bins)
    assert ece == pytest.approx(expected, abs=1e-12)
    # With one bin it is the gap of the means, and finer bins can only find more.
    one = expected_calibration_error(confidence, correct, 1)
    assert one == pytest.approx(abs(np.mean(correct) - np.mean(confidence)), abs=1e-12)
    assert ece >= one - 1e-12
    assert 0 <= ece <= 1


def test_ece_falls_towards_zero_for_a_calibrated_classifier():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 100_000)
    calibrated = rng.uniform(size=100_000) < confidence
    assert expected_calibration_error(confidence, calibrated) < 0.01
    overconfident = rng.uniform(size=100_000) < confidence - 0.2
    assert expected_calibration_error(confidence, overconfident) == pytest.approx(0.2, abs=0.01)


def test_confidence_and_correct_leave_out_unlabelled_rows():
    proba = np.array([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]], dtype=np.float32)
    confidence, correct = confidence_and_correct([0, -1, 0], proba)
    np.testing.assert_allclose(confidence, [0.7, 0.9], rtol=1e-6)
    assert correct.tolist() == [True, False]


BAD = [
    (lambda: reliability_bins([], []), ValueError, "confidence must have shape"),
    (lambda: reliability_bins([0.5], [1, 0]), ValueError, "confidence has 1 values and correct"),
    (lambda: reliability_bins([1.5], [1]), ValueError, r"confidence must lie in \[0, 1\]"),
    (lambda: reliability_bins([np.nan], [1]), ValueError, "confidence must lie in"),
    (lambda: reliability_bins([0.5], [0.5]), ValueError, "correct must be True or False"),
    (lambda: reliability_bins(["a"], [1]), TypeError, "confidence must hold numbers"),
    (lambda: reliability_bins([0.5], [1], 0), ValueError, "n_bins must lie in"),
    (lambda: reliability_bins([0.5], [1], 2.5), TypeError, "n_bins must be a whole number"),  # type: ignore[arg-type]
    (lambda: confidence_and_correct([0], [[2.0, 3.0]]), ValueError, "Were these logits"),
    (lambda: confidence_and_correct([0], [[np.nan, 1]]), ValueError, "proba must hold prob"),
    (lambda: confidence_and_correct([0, 1], [[0.5, 0.5]]), ValueError, "y_true has 2 labels"),
    (lambda: confidence_and_correct([2], [[0.5, 0.5]]), ValueError, "y_true holds 2"),
    (lambda: confidence_and_correct([-1], [[0.5, 0.5]]), ValueError, "no labelled example"),
    (lambda: confidence_and_correct([0], [0.5]), ValueError, "proba must have shape"),
    (lambda: confidence_and_correct([0], [["a", "b"]]), TypeError, "proba must hold numbers"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
