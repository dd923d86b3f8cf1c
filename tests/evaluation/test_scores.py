"""Accuracy: known values, unlabelled examples, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from fewshot_course.evaluation import accuracy

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


@settings(derandomize=True, deadline=None)
@given(pairs, st.integers(0, 5))
def test_accuracy_is_scikit_learns_and_ignores_unlabelled(pair, n_unlabelled):
    true, predicted = map(np.array, zip(*pair, strict=True))
    expected = accuracy_score(true, predicted)
    assert accuracy(true, predicted) == pytest.approx(expected)
    longer = np.append(true, [-1] * n_unlabelled), np.append(predicted, [0] * n_unlabelled)
    assert accuracy(*longer) == pytest.approx(expected)


def test_accuracy_is_a_plain_float():
    assert type(accuracy([0, 1, 2, -1], [0, 1, 1, 1])) is float
    assert accuracy([0, 1, 2, -1], [0, 1, 1, 1]) == 2 / 3


BAD = [
    (([0, 1], [0]), ValueError, "y_pred has 1 labels for 2"),
    (([-1, -1], [0, 1]), ValueError, "y_true has no labelled example"),
    (([], []), (ValueError, TypeError), "y_true"),
    (([0, 1], [0, -1]), ValueError, "y_pred holds the label -1"),
    (([0, -2], [0, 1]), ValueError, "y_true holds the label -2"),
    (([0, 1], [0.5, 0.5]), TypeError, "y_pred must hold whole numbers"),
    (([0, 1], [0.0, float("nan")]), TypeError, "y_pred must hold whole numbers"),
    (([0, 1], ["a", "b"]), TypeError, "y_pred must hold whole numbers"),
    (([[0, 1]], [[0, 1]]), ValueError, "y_true must have shape"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        accuracy(*arguments)
