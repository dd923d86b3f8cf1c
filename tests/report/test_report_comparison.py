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

from fewshot_course.evaluation import mean_interval
from fewshot_course.report import read_examples
from fewshot_course.report._compare import (
    Cell,
    Comparison,
    Draw,
    Stage,
    choose,
    compare,
    draw_split,
    stages_of,
    widen,
)
from fewshot_course.report._copies import find_copies
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


@settings(max_examples=30)
@given(
    scores=st.lists(st.floats(0, 1), min_size=2, max_size=12),
    n_test=st.integers(1, 50),
    n_rest=st.integers(1, 50),
)
def test_intervals_are_those_of_nadeau_and_bengio(scores, n_test, n_rest):
    wide = widen(mean_interval(scores), n_test, n_rest)
    n = len(scores)
    variance = (1 / n + n_test / n_rest) * np.var(scores, ddof=1)
    half = stats.t.ppf(0.975, n - 1) * np.sqrt(variance)
    assert wide.low == pytest.approx(np.mean(scores) - half, abs=1e-9)
    assert wide.high == pytest.approx(np.mean(scores) + half, abs=1e-9)


@dataclass
class Named:
    name: str
    slow: bool = False


def made_up(scores):
    """A comparison with these scores, simplest method first."""
    stage = Stage(None, 40, 20)
    draws = [Draw([np.arange(20), np.arange(20, 40)], np.arange(20), np.arange(0))] * 10
    cells = {
        (name, 0): Cell(np.asarray(s, dtype=float), np.asarray(s, dtype=float), 0.0, [])
        for name, s in scores.items()
    }
    return Comparison([Named(name) for name in scores], [stage], cells, draws)


NOISE = np.array([1, -1, 2, -2, 0, 1, -1, 2, -2, 0]) / 100
FLAT = np.full(10, 0.5)


def test_the_simplest_is_taken_unless_another_one_is_clearly_better():
    # b is 1 point better than a, give or take 2; c is 10 points better, on every draw.
    base = 0.7 + NOISE
    unclear = base + 0.01 + NOISE[::-1]
    choice = choose(made_up({MAJORITY: FLAT, "a": base, "b": unclear}))
    assert (choice.name, choice.learns, list(choice.rivals)) == ("a", True, ["b"])
    choice = choose(made_up({MAJORITY: FLAT, "a": base, "b": unclear, "c": base + 0.1}))
    assert choice.name == "c"
    assert {name: winner for name, (winner, _) in choice.beaten.items()} == {"a": "c", "b": "c"}
    assert not choice.rivals


def test_noise_is_called_noise():
    choice = choose(made_up({MAJORITY: FLAT, "a": FLAT + NOISE, "b": FLAT + NOISE[::-1]}))
    assert choice.name == "a"
    assert not choice.learns


def test_a_method_that_failed_is_no_candidate():
    comparison = made_up({MAJORITY: FLAT, "a": FLAT, "b": FLAT + 0.1})
    cells = dict(comparison.cells)
    cells["a", 0] = replace(cells["a", 0], scores=np.empty(0), error="it broke")
    assert choose(replace(comparison, cells=cells)).name == "b"


def test_fewer_draws_are_compared_on_those_that_both_had():
    a, b = 0.6 + NOISE, (0.6 + NOISE)[:5] + 0.2
    comparison = made_up({MAJORITY: FLAT, "a": a, "b": b})
    difference = comparison.difference("b", "a")
    assert difference.n == 5
    assert difference.mean == pytest.approx(0.2)
