"""Copies are found, and never lie on both sides of a split, where they would inflate a score."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import own_data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_course.evaluation.leaks import LeakFound, check_disjoint, check_no_near_duplicates
from fewshot_course.report import Examples, read_examples
from fewshot_course.report._compare import compare, draw_split
from fewshot_course.report._copies import find_copies, group_class
from fewshot_course.report._methods import methods_for


def of_texts(rows):
    names = sorted({label for _, label in rows if label})
    y = np.array([names.index(label) if label else -1 for _, label in rows])
    texts = [text for text, _ in rows]
    places = tuple(map(str, range(len(rows))))
    return Examples(Path("t.csv"), "texts", texts, y, tuple(names), places)


def of_vectors(X, y):
    names = tuple(str(c) for c in range(y.max() + 1))
    places = tuple(map(str, range(len(y))))
    columns = tuple(f"f{j}" for j in range(X.shape[1]))
    return Examples(Path("v.npz"), "vectors", X, y, names, places, columns)


def together(examples):
    """Return the groups of two or more as sets of indices."""
    group = find_copies(examples).group
    sets = [frozenset(np.flatnonzero(group == g).tolist()) for g in np.unique(group)]
    return {s for s in sets if len(s) > 1}


PLAIN = own_data.texts(4)


@pytest.mark.parametrize(
    "copy",
    [
        PLAIN[0][0],
        PLAIN[0][0].upper(),
        "  " + PLAIN[0][0].replace(" ", "\t "),
        PLAIN[0][0].replace("a", "\uff41"),
        PLAIN[0][0] + "!",
    ],
)
def test_copies_of_a_text(copy):
    assert together(of_texts([*PLAIN, (copy, PLAIN[0][1])])) == {frozenset({0, len(PLAIN)})}


def test_different_texts_are_no_copies():
    assert together(of_texts(PLAIN)) == set()


def test_exact_near_and_contradicting_copies_are_told_apart():
    rows = [*PLAIN, (PLAIN[0][0].upper(), PLAIN[1][1]), (PLAIN[2][0] + "s", PLAIN[2][1])]
    copies = find_copies(of_texts(rows))
    assert [group.tolist() for group in copies.exact] == [[0, len(PLAIN)]]
    assert [group.tolist() for group in copies.conflicts] == [[0, len(PLAIN)]]
    assert [group.tolist() for group in copies.near] == [[2, len(PLAIN) + 1]]


def test_near_copies_of_rows_are_those_that_the_leak_check_finds():
    X, y = own_data.vectors(12, d=20)
    rng = np.random.default_rng(1)
    X[3] = X[0] + 1e-3 * rng.standard_normal(20)
    X[17] = X[13]
    assert together(of_vectors(X, y)) == {frozenset({0, 3}), frozenset({13, 17})}
    with pytest.raises(LeakFound):
        check_no_near_duplicates(X[:3], X[3:5])


def test_with_few_features_near_points_are_nothing_special():
    X, y = own_data.vectors(200, d=2, classes=2)
    copies = find_copies(of_vectors(X, y))
    assert not copies.searched
    assert len(np.unique(copies.group)) == len(y)


def test_tight_classes_are_not_taken_for_one_example_each():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 6)
    X = 100.0 * y[:, None] + 0.1 * rng.standard_normal((12, 10))
    copies = find_copies(of_vectors(X, y))
    assert not copies.joined
    assert copies.near  # it is reported all the same
    assert len(np.unique(copies.group)) == 12


@given(
    y=st.lists(st.integers(-1, 2), min_size=0, max_size=20),
    twins=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=12),
    seed=st.integers(0, 1000),
)
def test_a_split_is_stratified_and_parts_no_copies(y, twins, seed):
    y = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, *y])
    X = np.random.default_rng(0).standard_normal((len(y), 3))
    for a, b in twins:  # never between the nine first, so that each class has three examples
        if max(a, b) < len(y) and max(a, b) >= 9:
            X[max(a, b)] = X[min(a, b)]
    examples = of_vectors(X, y)
    copies = find_copies(examples)
    split = draw_split(examples, copies, np.random.default_rng(seed))
    train = np.concatenate(split.train)
    check_disjoint(train, split.test)
    parts = [copies.group[index] for index in (train, split.test, split.unlabelled)]
    check_disjoint(np.concatenate(parts[:2]), parts[2])
    check_disjoint(parts[0], parts[1])
    assert (y[split.unlabelled] == -1).all()
    assert (y[train] >= 0).all()
    assert (y[split.test] >= 0).all()
    classes = group_class(examples, copies.group)
    for label in range(3):
        groups = (classes == label).sum()
        held_out = (y[split.test] == label).sum()
        assert held_out == max(1, round(groups / 3))
        assert len(split.train[label]) == groups - held_out
        assert (y[split.train[label]] == label).all()


def test_a_class_of_copies_is_refused(tmp_path):
    rows = [*own_data.texts(3), ("to be or not", "play"), ("To be  or not", "play")]
    examples = read_examples(own_data.write_csv(tmp_path / "t.csv", ["text", "label"], rows))
    with pytest.raises(ValueError, match="class 'play' are copies of one"):
        draw_split(examples, find_copies(examples), np.random.default_rng(0))


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_planted_copies_inflate_a_naive_score_and_not_this_one(noise):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1], 30))
    X = rng.standard_normal((60, 12))  # the labels mean nothing: nobody can beat 50 %
    X = np.concatenate([X + noise * rng.standard_normal(X.shape) for _ in range(4)])
    y = np.tile(y, 4)
    examples = of_vectors(X, y)
    copies = find_copies(examples)
    methods = [
        m
        for m in methods_for(examples, "torch", "off")[0]
        if m.name in ("majority class", "nearest neighbours")
    ]
    naive = replace(copies, group=np.arange(len(y)))
    leaking = compare(examples, naive, methods, draws=10, seed=0).score("nearest neighbours")
    honest = compare(examples, copies, methods, draws=10, seed=0).score("nearest neighbours")
    assert leaking.low > 0.7
    assert honest.low < 0.5
    assert honest.mean < 0.65
