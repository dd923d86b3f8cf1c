"""Each property test lets the honest pipeline pass and catches the fault planted into it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from fewshot_course.data import EpisodeSampler
from fewshot_course.evaluation import leaks
from fewshot_course.evaluation.leaks import LeakFound

SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None, derandomize=True)


def scores(X_train, y_train, X_query):
    """Minus the squared distance to each class mean, (m, C)."""
    means = np.stack([X_train[y_train == k].mean(0) for k in np.unique(y_train)])
    return -np.square(X_query[:, None] - means).sum(2)


def honest(X_train, y_train, X_query):
    return np.unique(y_train)[scores(X_train, y_train, X_query).argmax(1)]


def query_statistics(X_train, y_train, X_query):
    both = [(X - X.mean(0)) / (X.std(0) + 1e-9) for X in (X_train, X_query)]
    return honest(both[0], y_train, both[1])


def class_balance(X_train, y_train, X_query):
    cost = -scores(X_train, y_train, X_query)
    per_class = -(-len(X_query) // cost.shape[1])
    rows, columns = linear_sum_assignment(np.repeat(cost, per_class, axis=1))
    return np.unique(y_train)[columns[np.argsort(rows)] // per_class]


def wrong_axis(X_train, y_train, X_query):
    return scores(X_train, y_train, X_query).argmax(0)


def neighbours_in_the_file(X_train, y_train, X_query):
    s = scores(X_train, y_train, X_query)
    padded = np.pad(s, ((1, 1), (0, 0)), mode="edge")
    return np.unique(y_train)[(padded[:-2] + padded[1:-1] + padded[2:]).argmax(1)]


def low_numbers_first(X_train, y_train, X_query):
    """Averages class numbers as if they were amounts."""
    near = -np.square(X_query[:, None] - X_train).sum(2)
    return np.round(y_train[np.argsort(near, axis=1)[:, -3:]].mean(1)).astype(int)


def task(seed, ways=4, shots=3, queries=6, spread=1.5):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(ways, 5)) * spread
    y, q = np.repeat(np.arange(ways), shots), np.repeat(np.arange(ways), queries)
    return (
        centres[y] + rng.normal(size=(len(y), 5)),
        y,
        centres[q] + rng.normal(size=(len(q), 5)),
        q,
    )


@few
@given(SEEDS)
def test_the_honest_pipeline_passes_every_check(seed):
    X, y, Q, y_query = task(seed)
    leaks.check_one_query_at_a_time(honest, X, y, Q)
    leaks.check_query_order(honest, X, y, Q, seed)
    leaks.check_label_names(honest, X, y, Q, seed)
    leaks.check_test_labels_unused(lambda X, y, Q, _: honest(X, y, Q), X, y, Q, y_query, seed)
    leaks.check_no_near_duplicates(X, Q, 1e-6)


@few
@given(SEEDS)
def test_the_courses_own_sampler_passes(seed):
    X, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 6
    support, query = EpisodeSampler(X, y, 4, 2, 3).sample_indices(seed, 1)
    leaks.check_disjoint(support, query)
    leaks.check_distinct_classes(y[support])


@pytest.mark.parametrize("fault", [query_statistics, class_balance, neighbours_in_the_file])
def test_dependence_on_other_queries_is_caught(fault):
    with pytest.raises(LeakFound, match=r"\d+ of 24 predictions change when a query is alone"):
        leaks.check_one_query_at_a_time(fault, *task(0)[:3])


def test_neighbours_in_the_file_are_caught_by_another_order():
    with pytest.raises(LeakFound, match="order"):
        leaks.check_query_order(neighbours_in_the_file, *task(0)[:3], 1)
    # Statistics of the batch do not depend on the order: only the other check sees them.
    leaks.check_query_order(query_statistics, *task(0)[:3], 1)


def test_the_wrong_axis_is_caught_with_any_number_of_queries():
    for queries in (1, 6):  # with one query a class even the shape is right
        with pytest.raises(LeakFound, match="shape"):
            leaks.check_one_query_at_a_time(wrong_axis, *task(0, queries=queries)[:3])


def test_class_numbers_used_as_amounts_are_caught():
    X, y, Q, _ = task(0, spread=0.3)
    with pytest.raises(LeakFound, match="other numbers"):
        leaks.check_label_names(low_numbers_first, X, y, Q, 0)
    with pytest.raises(LeakFound, match="no known class"):
        leaks.check_label_names(lambda X, y, Q: np.full(len(Q), 9), X, y, Q, 0)


@few
@given(SEEDS, st.lists(st.integers(0, 30), min_size=2, max_size=8, unique=True))
def test_a_fixed_answer_is_caught_whatever_the_classes_are_called(seed, names):
    """Every class gets a new number, so an answer that ignores the labels cannot pass."""
    X, y = np.zeros((len(names), 2)), np.array(names)
    with pytest.raises(LeakFound, match="other numbers"):
        leaks.check_label_names(
            lambda X, y, Q: np.full(len(Q), names[0]), X, y, np.zeros((3, 2)), seed
        )


def test_a_choice_by_the_test_score_is_caught():
    X, y, Q, y_query = task(0, spread=0.3)

    def candidates(X, y, Q):
        for seed in range(20):
            A = np.random.default_rng(seed).normal(size=(5, 3))
            yield honest(X @ A, y, Q @ A)

    def best_on_test(X, y, Q, y_query):
        return max(candidates(X, y, Q), key=lambda found: (found == y_query).mean())

    def first(X, y, Q, y_query):
        return next(candidates(X, y, Q))

    leaks.check_test_labels_unused(first, X, y, Q, y_query, 0)
    with pytest.raises(LeakFound, match="labels of the test"):
        leaks.check_test_labels_unused(best_on_test, X, y, Q, y_query, 0)


@few
@given(SEEDS, st.integers(2, 6), st.integers(1, 4), st.integers(1, 4))
def test_one_shared_index_is_enough(seed, ways, shots, queries):
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(ways * (shots + queries)).reshape(ways, shots + queries)
    support, query = drawn[:, :shots], drawn[:, shots:].copy()
    leaks.check_disjoint(support, query)
    query[rng.integers(ways), 0] = support[0, 0]
    with pytest.raises(LeakFound, match="training examples too"):
        leaks.check_disjoint(support, query)
    with pytest.raises(LeakFound, match="more than once"):
        leaks.check_disjoint(np.repeat(support, 2), drawn[:, shots:])


@few
@given(SEEDS, st.integers(2, 6), st.integers(1, 4))
def test_a_class_that_fills_two_ways_is_caught(seed, ways, shots):
    rng = np.random.default_rng(seed)
    classes = np.repeat(rng.permutation(20)[:ways, None], shots, axis=1)
    leaks.check_distinct_classes(classes)
    wrong = classes.copy()
    wrong[-1] = wrong[0]
    with pytest.raises(LeakFound, match="1 of 2 episodes have a class twice"):
        leaks.check_distinct_classes(np.stack([classes, wrong]))
    if shots > 1:
        wrong = classes.copy()
        wrong[0, 0] = 30
        with pytest.raises(LeakFound, match="more than one class"):
            leaks.check_distinct_classes(wrong)


# --- the whole protocol with shuffled labels ---------------------------------------------------


def halves(y, rng):
    order = rng.permutation(len(y))
    return order[: len(y) // 2], order[len(y) // 2 :]


def held_out(X, y, rng):
    train, test = halves(y, rng)
    return float((honest(X[train], y[train], X[test]) == y[test]).mean())


def on_the_training_data(X, y, rng):
    train, _ = halves(y, rng)
    near = np.square(X[train][:, None] - X[train]).sum(2).argmin(1)
    return float((y[train][near] == y[train]).mean())


def selected_on_all(X, y, rng):
    """Keeps the features whose class means differ most, with the test labels in sight."""
    gap = np.abs(X[y == 0].mean(0) - X[y == 1].mean(0))
    return held_out(X[:, np.argsort(gap)[-10:]], y, rng)


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, 300))
    X[:, :5] += 4 * y[:, None]
    return X, y


def test_an_honest_protocol_is_at_chance_with_shuffled_labels(wide):
    X, y = wide
    assert held_out(X, y, np.random.default_rng(0)) > 0.7  # there is something to learn
    leaks.check_chance_level(held_out, X, y, 0)


@pytest.mark.parametrize("fault", [on_the_training_data, selected_on_all])
def test_labels_that_leak_are_caught_by_shuffling_them(fault, wide):
    with pytest.raises(LeakFound, match=r"shuffled labels score .* guessing has 50.0 %"):
        leaks.check_chance_level(fault, *wide, 0)


def test_the_false_alarms_of_the_chance_check_are_as_rare_as_it_says(wide):
    """A coin is honest. At confidence 0.9 it may fail once in 20, and must do so sometimes."""
    X, y = wide

    def coin(X, y, rng):
        return rng.binomial(100, 0.5) / 100

    alarms = 0
    for seed in range(400):
        try:
            leaks.check_chance_level(coin, X, y, seed, confidence=0.9)
        except LeakFound:
            alarms += 1
    assert 8 <= alarms <= 36  # 20 expected; four standard deviations


@few
@given(SEEDS, st.floats(0.001, 1000), st.integers(0, 9))
def test_near_duplicates_are_caught_at_any_scale(seed, unit, which):
    rng = np.random.default_rng(seed)
    train, test = unit * rng.normal(size=(10, 40)), unit * rng.normal(size=(6, 40))
    leaks.check_no_near_duplicates(train, test)
    test[2] = train[which] + 0.001 * unit
    with pytest.raises(LeakFound, match="1 of 6 test examples"):
        leaks.check_no_near_duplicates(train, test)
    test[2] = train[which]
    with pytest.raises(LeakFound):
        leaks.check_no_near_duplicates(train, test, 0.0)


def test_bad_input_is_named():
    X, y, Q, _ = task(0)
    with pytest.raises(ValueError, match="X_query needs at least 2"):
        leaks.check_one_query_at_a_time(honest, X, y, Q[:1])
    with pytest.raises(ValueError, match="y_train needs at least two classes"):
        leaks.check_label_names(honest, X, np.zeros(len(X), int), Q, 0)
    with pytest.raises(ValueError, match="y_test needs at least two classes"):
        leaks.check_test_labels_unused(lambda *a: 0, X, y, Q, np.zeros(len(Q), int), 0)
    with pytest.raises(TypeError, match="train must hold indices"):
        leaks.check_disjoint([0.5], [1])
    with pytest.raises(ValueError, match=r"\(N, K\) or \(T, N, K\)"):
        leaks.check_distinct_classes([1, 2])
    with pytest.raises(TypeError, match="classes must hold whole numbers"):
        leaks.check_distinct_classes([[0.5]])
    with pytest.raises(ValueError, match="score of evaluate"):
        leaks.check_chance_level(lambda X, y, rng: 70.0, X, y, 0)
    with pytest.raises(ValueError, match="mostly equal"):
        leaks.check_no_near_duplicates(np.zeros((3, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="X_test has examples of shape"):
        leaks.check_no_near_duplicates(X, Q[:, :2])


def checks_of_a_pipeline(predict, X, y, Q, labels):
    """Return every check that looks at examples, ready to be called."""
    return {
        "one query at a time": lambda: leaks.check_one_query_at_a_time(predict, X, y, Q),
        "order": lambda: leaks.check_query_order(predict, X, y, Q, 0),
        "names": lambda: leaks.check_label_names(predict, X, y, Q, 0),
        "test labels": lambda: leaks.check_test_labels_unused(
            lambda a, b, c, d: predict(a, b, c), X, y, Q, labels, 0
        ),
        "chance": lambda: leaks.check_chance_level(lambda a, b, rng: 0.0, X, y, 0),
        "near duplicates": lambda: leaks.check_no_near_duplicates(X, Q),
    }


@pytest.mark.parametrize("where", ["training", "queries"])
def test_no_check_passes_what_it_cannot_see(where):
    """One NaN in the data made a planted leaker "no leak"."""
    X, y, Q, labels = (np.array(part) for part in task(0))
    (X if where == "training" else Q)[0, 0] = np.nan
    checks = checks_of_a_pipeline(query_statistics, X, y, Q, labels)
    if where == "queries":
        del checks["chance"]  # it has no queries
    for check in checks.values():
        with pytest.raises(ValueError, match=r"X.* NaN or infinite"):
            check()


def test_predictions_that_are_no_number_are_no_evidence():
    X, y, Q, _ = task(0)
    with pytest.raises(ValueError, match="predicts NaN"):
        leaks.check_one_query_at_a_time(lambda a, b, c: np.full(len(c), np.nan), X, y, Q)


def test_texts_can_be_checked_too():
    texts, y = ["a", "b", "c", "d"], np.array([0, 1, 0, 1])
    leaks.check_query_order(lambda a, b, c: [len(text) % 2 for text in c], texts, y, texts, 0)
    with pytest.raises(TypeError, match="X_query must hold numbers or texts"):
        leaks.check_query_order(lambda a, b, c: c, texts, y, [object(), None], 0)


def test_sparse_examples_reach_the_pipeline_as_they_are(wide):
    X, y = wide
    seen = []

    def protocol(X, y, rng):
        seen.append(sparse.issparse(X))
        return 0.5

    leaks.check_chance_level(protocol, sparse.csr_array(X), y, 0)
    assert all(seen)
    spoiled = sparse.csr_array(np.where(X[0, 0] == X, np.nan, X))
    with pytest.raises(ValueError, match="NaN"):
        leaks.check_chance_level(protocol, spoiled, y, 0)


def test_examples_of_different_sizes_are_left_to_the_protocol():
    X, y = [[1.0], [2.0, 3.0], [4.0], [5.0]], [0, 1, 0, 1]
    leaks.check_chance_level(lambda X, y, rng: 0.5, X, y, 0)
    with pytest.raises(ValueError, match="NaN"):
        leaks.check_chance_level(lambda X, y, rng: 0.5, [*X[:3], [np.nan, 1.0]], y, 0)
