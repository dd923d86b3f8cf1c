"""Intervals against SciPy, by simulation, and by the properties that any interval has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewshot_course.evaluation import mean_interval, paired_difference

scores = st.lists(st.floats(-100, 100).map(lambda v: round(v, 6)), min_size=2, max_size=20)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 10, 200])
def test_mean_interval_is_students(n, confidence):
    x = np.random.default_rng(n).normal(0.8, 0.1, n)
    interval = mean_interval(x, confidence)
    low, high = stats.t.interval(confidence, n - 1, loc=x.mean(), scale=stats.sem(x))
    np.testing.assert_allclose([interval.low, interval.high], [low, high], rtol=1e-12)
    assert (interval.mean, interval.n) == (pytest.approx(x.mean()), n)


def test_mean_interval_covers_the_true_mean_as_often_as_it_says():
    runs, hits = 4000, 0
    for x in np.random.default_rng(0).normal(3.0, 2.0, (runs, 5)):
        interval = mean_interval(x)
        hits += interval.low <= 3.0 <= interval.high
    # 1.96 in place of t's 2.78 would cover 88 % here: 20 standard errors away.
    assert abs(hits / runs - 0.95) < 3 * np.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_paired_difference_is_the_paired_t_test(confidence):
    rng = np.random.default_rng(1)
    b = rng.normal(0.7, 0.1, 12)
    a = b + rng.normal(0.03, 0.05, 12)
    difference = paired_difference(a, b, confidence)
    expected = stats.ttest_rel(a, b).confidence_interval(confidence)
    np.testing.assert_allclose([difference.low, difference.high], expected, rtol=1e-10)


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.02, 0.05, -0.05])
def test_excludes_zero_when_the_t_test_rejects(shift):
    rng = np.random.default_rng(2)
    b = rng.normal(0.7, 0.1, 10)
    a = b + shift + rng.normal(0, 0.02, 10)
    assert paired_difference(a, b).excludes_zero == (stats.ttest_rel(a, b).pvalue < 0.05)


def test_pairing_sees_what_separate_intervals_hide():
    b = np.array([0.4, 0.6, 0.5, 0.8, 0.7])
    a = b + np.array([0.02, 0.03, 0.02, 0.03, 0.02])
    assert mean_interval(a).low < mean_interval(b).high
    assert paired_difference(a, b).excludes_zero
    assert paired_difference(b, a).excludes_zero


@settings(derandomize=True, deadline=None)
@given(scores, st.floats(0.1, 10), st.floats(-50, 50))
def test_interval_moves_with_scale_and_shift(x, scale, shift):
    one = mean_interval(x)
    two = mean_interval(scale * np.array(x) + shift)
    assert one.low <= one.mean <= one.high
    np.testing.assert_allclose(
        [two.mean, two.low, two.high],
        np.array([one.mean, one.low, one.high]) * scale + shift,
        atol=1e-6,
    )


@settings(derandomize=True, deadline=None)
@given(scores)
def test_interval_does_not_depend_on_order_and_widens_with_confidence(x):
    one, reverse, wide = mean_interval(x), mean_interval(x[::-1]), mean_interval(x, 0.99)
    np.testing.assert_allclose([reverse.low, reverse.high], [one.low, one.high], atol=1e-9)
    assert wide.low <= one.low + 1e-12
    assert wide.high >= one.high - 1e-12


@settings(derandomize=True, deadline=None)
@given(scores.flatmap(lambda a: st.tuples(st.just(a), st.permutations(a))))
def test_difference_changes_sign_when_the_methods_change_places(pair):
    a, b = pair
    ab, ba = paired_difference(a, b), paired_difference(b, a)
    assert (ab.mean, ab.low, ab.high) == (-ba.mean, -ba.high, -ba.low)
    assert not paired_difference(a, a).excludes_zero


def test_one_draw_has_no_interval():
    for one in (mean_interval([0.8]), paired_difference([0.8], [0.6])):
        assert np.isnan(one.low)
        assert np.isnan(one.high)
        assert "n = 1, no interval" in one.format()
    assert mean_interval([0.8]).format() == "80.0 % (n = 1, no interval)"
    assert paired_difference([0.8], [0.6]).excludes_zero is False


def test_format():
    # Two scores 0.8 and 0.9: sem 0.05, t(0.975, 1) = 12.706, so the half-width is 0.6353.
    assert mean_interval([0.8, 0.9]).format() == "85.0 % [21.5, 148.5], n = 2"
    assert mean_interval([0.8, 0.9]).format(percent=False) == "0.850 [0.215, 1.485], n = 2"
    assert str(mean_interval([0.8, 0.9])) == "0.850 [0.215, 1.485], n = 2"
    assert mean_interval([1.5, 1.5]).format(percent=False, digits=1) == "1.5 [1.5, 1.5], n = 2"
    assert paired_difference([0.5, 0.5], [0.3, 0.3]).format() == (
        "+20.0 points [+20.0, +20.0], n = 2"
    )
    assert paired_difference([0.3, 0.3], [0.5, 0.5]).format().startswith("-20.0 points")
    assert mean_interval([-1e-9, -1e-9]).format() == "0.0 % [0.0, 0.0], n = 2"


BAD = [
    (lambda: mean_interval([]), ValueError, "scores is empty"),
    (lambda: mean_interval([0.5, float("nan")]), ValueError, "scores has NaN .* 1 of 2"),
    (lambda: mean_interval([0.5, float("inf")]), ValueError, "scores has NaN or inf"),
    (lambda: mean_interval([[0.5, 0.6]]), ValueError, r"scores must have shape \(n,\)"),
    (lambda: mean_interval(0.5), ValueError, r"scores must have shape \(n,\)"),
    (lambda: mean_interval([[1], [1, 2]]), ValueError, "scores is ragged"),
    (lambda: mean_interval(["a"]), TypeError, "scores must hold numbers"),
    (lambda: mean_interval([1, 2], 95), ValueError, "confidence must lie in"),
    (lambda: mean_interval([1, 2], 0), ValueError, "confidence must lie in"),
    (lambda: mean_interval([1, 2], 1), ValueError, "confidence must be below 1"),
    (lambda: mean_interval([1, 2], "95 %"), TypeError, "confidence must be a number"),  # type: ignore[arg-type]
    (lambda: paired_difference([1, 2], [1]), ValueError, "a has 2 scores and b has 1"),
    (lambda: paired_difference([1, 2], [1, np.nan]), ValueError, "b has NaN"),
    (lambda: paired_difference([], []), ValueError, "a is empty"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
