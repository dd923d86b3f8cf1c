"""Intervals against SciPy, by simulation, and by the properties that any interval has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewshot_course.evaluation import (
    accuracy_difference,
    accuracy_interval,
    holm,
    intervals,
    mean_interval,
    paired_difference,
)

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


# --- draws that share items -----------------------------------------------------------------------


def answers(rng, draws, items, of_draws, of_items, level):
    """Return right and wrong answers: some draws are better, some items harder."""
    easy = level + of_draws * rng.normal(size=(draws, 1)) + of_items * rng.normal(size=(1, items))
    return (rng.random((draws, items)) < 1 / (1 + np.exp(-easy))).astype(float)


def truth_of(of_draws, of_items, level):
    z = np.random.default_rng(99).normal(size=(400_000, 2))
    return (1 / (1 + np.exp(-(level + of_draws * z[:, 0] + of_items * z[:, 1])))).mean()


@pytest.mark.parametrize(
    ("draws", "items", "of_draws", "of_items", "level", "old_lies"),
    [
        (10, 450, 0.1, 1.5, 0.8, True),  # items differ more than draws: texts of one test part
        (10, 100, 0.3, 2.0, 0.8, True),
        (10, 450, 0.5, 1.5, 0.8, False),
        (10, 450, 0.3, 1.0, 4.5, False),  # near 100 %
    ],
)
def test_the_interval_covers_where_draws_share_items(
    draws, items, of_draws, of_items, level, old_lies
):
    rng, truth = np.random.default_rng(0), truth_of(of_draws, of_items, level)
    hits = np.zeros(2)
    for _ in range(500):
        y = answers(rng, draws, items, of_draws, of_items, level)
        for k, found in enumerate((accuracy_interval(y), mean_interval(y.mean(axis=1)))):
            hits[k] += found.low <= truth <= found.high
    crossed, over_draws = hits / 500
    assert 0.93 <= crossed <= 0.97
    assert (over_draws < 0.85) == old_lies


def test_the_interval_covers_where_draws_have_other_items():
    rng, truth, hits = np.random.default_rng(0), truth_of(0.2, 1.5, 1.0), 0
    for _ in range(300):
        y = answers(rng, 10, 600, 0.2, 1.5, 1.0)
        for row in y:
            row[rng.permutation(600)[200:]] = np.nan
        found = accuracy_interval(y)
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 300 <= 0.98


def test_the_difference_is_null_as_often_as_it_says():
    """Two methods of one quality on the same items: "clear" in about one case of twenty."""
    rng, clear, p = np.random.default_rng(0), 0, []
    for _ in range(400):
        items = 1.5 * rng.normal(size=(1, 200))
        a, b = (
            (rng.random((10, 200)) < 1 / (1 + np.exp(-(items + 0.3 * rng.normal(size=(10, 1))))))
            for _ in range(2)
        )
        found = accuracy_difference(a, b)
        clear += found.excludes_zero
        p.append(found.p)
        assert found.excludes_zero == (found.p < 0.05)
    assert 6 <= clear <= 34  # 20 expected, three standard deviations
    assert 0.4 < np.mean(p) < 0.6


def test_sums_of_squares_by_hand():
    """The balanced case is the two-way analysis of variance without interaction."""
    y = answers(np.random.default_rng(3), 4, 9, 0.5, 1.0, 0.3)
    r, c = y.shape
    m, rows, columns = y.mean(), y.mean(axis=1), y.mean(axis=0)
    of_rows = c * ((rows - m) ** 2).sum() / (r - 1)
    of_columns = r * ((columns - m) ** 2).sum() / (c - 1)
    rest = ((y - rows[:, None] - columns + m) ** 2).sum() / ((r - 1) * (c - 1))
    a, b = max((of_rows - rest) / c, 0), max((of_columns - rest) / r, 0)
    expected = a / r + b / c + rest / (r * c)
    mean, variance, _ = intervals._mean_and_variance(y)
    assert mean == pytest.approx(m)
    assert variance == pytest.approx(expected)


def test_ends_stay_within_reach_and_certainty_is_not_claimed():
    right = np.ones((3, 20))
    found = accuracy_interval(right)
    assert found.mean == found.high == 1.0
    assert 0.7 < found.low < 0.95  # 20 items, whatever the number of draws
    assert accuracy_interval(1 - right).low == 0.0
    few = np.ones((3, 20))
    few[0, 0] = 0
    assert 0 < accuracy_interval(few).low < accuracy_interval(few).high <= 1


def test_one_draw_is_wilsons_interval():
    y = np.r_[np.ones(30), np.zeros(10)][None]
    found = accuracy_interval(y)
    wilson = stats.binomtest(30, 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=0.01)
    assert found.n == 1


def test_p_is_that_of_the_paired_t_test():
    a, b = np.random.default_rng(0).normal(size=(2, 8))
    assert paired_difference(a, b).p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert paired_difference(a, a).p == 1.0
    assert np.isnan(paired_difference(a[:1], b[:1]).p)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="p_values"):
        holm([1.5])


@pytest.mark.parametrize(
    "bad", [np.ones(3), np.full((2, 2), 0.5), np.array([[1, 0], [np.nan, np.nan]]), [["x"]]]
)
def test_answers_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="correct"):
        accuracy_interval(bad)
    with pytest.raises(ValueError, match="same items"):
        accuracy_difference(np.ones((2, 3)), np.ones((2, 4)))


def test_one_draw_gives_no_verdict():
    """An interval over its items is about this one training, not about the method."""
    found = accuracy_difference(np.ones((1, 50)), np.r_[np.ones(10), np.zeros(40)][None])
    assert found.low > 0
    assert not found.excludes_zero
    assert "no interval" in found.format()


def test_one_item_a_draw_is_refused():
    with pytest.raises(ValueError, match="correct has one item a draw"):
        accuracy_interval([[1], [0], [1]])
