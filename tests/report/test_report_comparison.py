"""Scores are those of the plain methods on the same draws; the choice follows its rule."""

from dataclasses import dataclass, replace

import numpy as np
import own_data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewshot_course.report import read_examples
from fewshot_course.report._compare import (
    Cell,
    Comparison,
    Draw,
    Stage,
    choose,
    compare,
    draw_split,
    next_gain,
    stages_of,
)
from fewshot_course.report._copies import find_copies
from fewshot_course.report._findings import wilson
from fewshot_course.report._intervals import paired_interval, share_interval
from fewshot_course.report._methods import MAJORITY, methods_for

DRAWS = 4


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    X, y = own_data.vectors(13, apart=1.5)
    X = X * [1, 100, 0.01, 1, 1, 1, 1, 1, 1] + 5
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    np.savez(path, X=X, y=y)
    examples = read_examples(path)
    copies = find_copies(examples)
    return examples, compare(examples, copies, methods_for(examples, "torch", "off")[0], DRAWS, 7)


REFERENCES = {
    "nearest class mean": NearestCentroid(),
    "nearest neighbours": KNeighborsClassifier(3),
    "logistic regression": LogisticRegression(max_iter=2000),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_scores_are_those_of_scikit_learn_on_the_same_draws(rows, name):
    examples, comparison = rows
    stage = 2  # four examples a class
    assert comparison.stages[stage] == Stage(4, 12, 4)
    expected = []
    for i in range(DRAWS):
        split = draw_split(examples, find_copies(examples), np.random.default_rng([7, i]))
        index = np.concatenate([of_class[:4] for of_class in split.train])
        model = make_pipeline(StandardScaler(), REFERENCES[name])
        model.fit(examples.X[index], examples.y[index])
        expected.append(model.score(examples.X[split.test], examples.y[split.test]))
    np.testing.assert_allclose(comparison.cells[name, stage].scores, expected, atol=1e-12)


def test_words_are_learned_from_the_training_part_only(tmp_path):
    examples = read_examples(own_data.text_csv(tmp_path, 6))
    copies = find_copies(examples)
    methods, left_out = methods_for(examples, "torch", "off")
    assert any("encoder" in reason for reason in left_out)
    comparison = compare(examples, copies, methods, DRAWS, 0)
    expected = []
    for i in range(DRAWS):
        split = draw_split(examples, copies, np.random.default_rng([0, i]))
        index = np.concatenate(split.train)
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\b\w+\b")
        model = make_pipeline(words, LogisticRegression(C=10, max_iter=2000))
        model.fit(examples.take(index), examples.y[index])
        expected.append(model.score(examples.take(split.test), examples.y[split.test]))
    found = comparison.last("logistic regression (words)").scores
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_majority_class_has_its_share(rows):
    _, comparison = rows
    assert comparison.score(MAJORITY).mean == pytest.approx(1 / 3)


def test_the_same_seed_gives_the_same_scores_and_another_one_others(rows):
    examples, comparison = rows
    methods = comparison.methods[:2]
    again = compare(examples, find_copies(examples), methods, DRAWS, 7)
    other = compare(examples, find_copies(examples), methods, DRAWS, 8)
    name = methods[1].name
    np.testing.assert_array_equal(again.last(name).scores, comparison.last(name).scores)
    assert (other.last(name).scores != comparison.last(name).scores).any()


@given(st.lists(st.integers(1, 200), min_size=2, max_size=5))
def test_stages_double_as_far_as_every_class_goes(counts):
    split = Draw([np.arange(c) for c in counts], np.arange(0), np.arange(0))
    stages = stages_of(split)
    shots = [stage.shots for stage in stages[:-1]]
    assert shots == [2**i for i in range(len(shots))]
    assert all(s <= min(min(counts), 64) for s in shots)
    assert stages[-1].shots is None
    assert stages[-1].n_train == sum(counts) == len(split.labelled(None))
    sizes = [stage.n_train for stage in stages]
    assert sizes == sorted(set(sizes))


@settings(max_examples=50)
@given(
    scores=st.lists(st.floats(0, 1), min_size=2, max_size=12),
    n_test=st.integers(1, 50),
    n_rest=st.integers(1, 50),
    n=st.integers(2, 150),
)
def test_intervals_of_shares_are_wide_enough(scores, n_test, n_rest, n):
    """Never narrower than Wilson's of the different answers, nor than Nadeau and Bengio's t."""
    found = share_interval(np.array(scores), n_test, n_rest, n)
    mean = float(np.mean(scores))
    low, high = wilson(mean, n)
    assert 0 <= found.low <= mean <= found.high <= 1
    assert found.high - found.low >= high - low - 1e-9
    variance = (1 / len(scores) + n_test / n_rest) * np.var(scores, ddof=1)
    if 0 < mean < 1 and variance > mean * (1 - mean) / n:
        size = mean * (1 - mean) / variance
        t = stats.t.ppf(0.975, len(scores) - 1)
        for end in (found.low, found.high):  # the ends solve (p - mean)² = t² p (1 - p) / size
            assert (end - mean) ** 2 == pytest.approx(t * t * end * (1 - end) / size, abs=1e-9)


def test_what_was_always_right_in_ten_may_be_wrong_in_the_next():
    found = share_interval(np.ones(10), 5, 10, 15)
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low < 0.8


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6), n_test=st.integers(1, 50), n_rest=st.integers(1, 50),
    n=st.integers(2, 150), won=st.floats(0, 0.5), lost=st.floats(0, 0.5),
)  # fmt: skip
def test_differences_are_wide_enough(seed, n_test, n_rest, n, won, lost):
    rng = np.random.default_rng(seed)
    a, b = 0.5 + 0.1 * rng.random(8), 0.5 + 0.1 * rng.random(8)
    found = paired_interval(a, b, n_test, n_rest, n, won, lost)
    nadeau = stats.t.ppf(0.975, 7) * np.sqrt((1 / 8 + n_test / n_rest) * np.var(a - b, ddof=1))
    # Agresti and Min's Wald interval of the four counts with half a pair added to each.
    cells = np.array([n * won, n * lost]) + 0.5
    rates = cells / (n + 2)
    agresti = np.sqrt((rates.sum() - (rates[0] - rates[1]) ** 2) / (n + 2))
    # As wide as the larger standard error says, so never narrower than the binomial one.
    by_draws = nadeau >= stats.t.ppf(0.975, 7) * agresti
    half = nadeau if by_draws else stats.t.ppf(0.975, max(n - 1, 1)) * agresti
    assert half >= stats.norm.ppf(0.975) * agresti
    assert found.low == pytest.approx(max(-1.0, found.mean - half))
    assert found.high == pytest.approx(min(1.0, found.mean + half))
    # The p-value and the interval tell the same.
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_methods_that_never_disagreed_may_yet():
    a = np.full(10, 0.8)
    found = paired_interval(a, a, 5, 10, 15, 0.0, 0.0)
    assert found.low < 0 < found.high


def test_simulated_intervals_hold_the_truth():
    """Scores of repeated splits of one sample, a classifier that is right with 0.8."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        right = rng.random(45) < 0.8
        draws = [rng.permutation(45)[:15] for _ in range(10)]
        scores = np.array([right[d].mean() for d in draws])
        n = len(np.unique(np.concatenate(draws)))
        found = share_interval(scores, 15, 30, n)
        hits += found.low <= 0.8 <= found.high
    assert hits >= 0.93 * 300


@dataclass
class Named:
    name: str
    slow: bool = False
    lead: float = 0.0


def made_up(scores, draws=10):
    """A comparison with these shares of right answers, simplest method first.

    Twenty examples of each of two classes; all are scored in each draw.
    """
    y = np.repeat([0, 1], 20)
    stage = Stage(None, 80, 40)
    splits = [Draw([np.arange(40, 80)], np.arange(40), np.arange(0))] * draws
    y = np.concatenate([y, y])
    cells = {}
    for name, shares in scores.items():
        predictions = []
        for share in shares:
            wrong = np.arange(40) >= round(40 * share)
            predictions.append(np.where(wrong, 1 - y[:40], y[:40]))
        values = np.asarray(shares, dtype=float)
        cells[name, 0] = Cell(values, values, 0.0, predictions)
    methods = [Named(name) for name in scores]
    return Comparison(methods, [stage], cells, splits, y, np.arange(80))


NOISE = np.array([1, -1, 2, -2, 0, 1, -1, 2, -2, 0]) / 40
FLAT = np.full(10, 0.5)


def test_the_headline_looks_at_all_methods():
    """The chosen method alone decided: a page said that nothing is better where another was."""
    noisy = 0.7 + 6 * NOISE
    choice = choose(made_up({MAJORITY: FLAT, "a": noisy, "b": 0.75 + NOISE}))
    assert choice.learns
    assert "b" in choice.clear
    assert choice.name == "b"


def test_a_method_that_learns_goes_before_one_that_may_not():
    wild = 0.78 + np.array([-9, 9, -9, 9, -9, 9, -9, 9, -9, 8]) / 40
    choice = choose(made_up({MAJORITY: FLAT, "sure": 0.75 + NOISE, "wild": wild}))
    assert "wild" not in choice.clear
    assert choice.name == "sure"
    assert choice.best == "wild"
    assert choice.behind.mean < 0


def test_noise_is_called_noise():
    choice = choose(made_up({MAJORITY: FLAT, "a": FLAT + NOISE, "b": FLAT + NOISE[::-1]}))
    assert not choice.learns
    assert choice.clear == {}


def test_many_methods_need_more_evidence():
    """Holm: what is clear for one method alone may not be for the luckiest of twenty."""
    alone = {MAJORITY: FLAT, "lucky": 0.69 + NOISE}
    assert choose(made_up(alone)).learns
    others = {f"m{i}": FLAT + NOISE for i in range(30)}
    assert not choose(made_up(alone | others)).learns


def test_a_method_that_failed_is_no_candidate():
    comparison = made_up({MAJORITY: FLAT, "a": FLAT, "b": FLAT + 0.1})
    cells = dict(comparison.cells)
    cells["a", 0] = replace(cells["a", 0], scores=np.empty(0), error="it broke")
    assert choose(replace(comparison, cells=cells)).name == "b"


def test_fewer_draws_are_compared_on_those_that_both_had():
    a, b = 0.6 + NOISE, (0.6 + NOISE)[:5] + 0.2
    difference = made_up({MAJORITY: FLAT, "a": a, "b": b}).difference("b", "a")
    assert difference.n == 5
    assert difference.mean == pytest.approx(0.2)


def test_the_curve_goes_on_as_it_did():
    """Errors that are 0.1 + 0.8/√n: twice as many examples bring 0.8/√n - 0.8/√(2n)."""
    y = np.repeat([0, 1], 20)
    sizes = [4, 8, 16, 32]
    stages = [Stage(n // 2, n, n // 2) for n in sizes]
    draws = [Draw([np.arange(20, 40)], np.arange(20), np.arange(0))] * 3
    cells = {}
    for i, n in enumerate(sizes):
        values = np.full(3, 0.9 - 0.8 / np.sqrt(n))
        cells["a", i] = Cell(values, values, 0.0, [y[:20]] * 3)
    comparison = Comparison([Named("a")], stages, cells, draws, y, np.arange(40))
    expected = 0.8 / np.sqrt(32) - 0.8 / np.sqrt(64)
    assert next_gain(comparison, "a") == pytest.approx(expected)


def test_few_examples_lean_on_other_data_and_many_on_their_own():
    """Two methods that learn; the second is ahead here, the first was ahead elsewhere."""
    comparison = made_up({MAJORITY: FLAT, "a": 0.9 + NOISE, "b": 0.95 + NOISE})
    a, b = (replace_lead(m, lead) for m, lead in zip(comparison.methods[1:], (0.1, 0), strict=True))
    leaning = replace(comparison, methods=[comparison.methods[0], a, b])
    assert choose(comparison).name == "b"
    assert choose(leaning).name == "a"  # n = 120: 0.43 · 0.05 is less than 0.57 · 0.1
    many = replace(leaning, stages=[Stage(None, 10_000, 5_000)])
    assert choose(many).name == "b"


def replace_lead(method, lead):
    return Named(method.name, lead=lead)
