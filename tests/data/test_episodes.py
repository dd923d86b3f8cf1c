import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_course.data import Episodes, EpisodeSampler, SinusoidSampler

N_CLASSES, PER_CLASS = 6, 7


def numbered():
    """Examples that carry their own index, and labels in mixed order."""
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(N_CLASSES), PER_CLASS))
    return np.arange(len(y), dtype=float)[:, None], y


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.integers(2, N_CLASSES), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_tasks_repeat_no_class_and_no_example(ways, shots, queries, seed):
    X, y = numbered()
    sampler = EpisodeSampler(X, y, ways, shots, queries)
    episodes = sampler.sample(seed, 5)
    assert episodes.X_support.shape == (5, ways * shots, 1)
    assert episodes.X_query.shape == (5, ways * queries, 1)
    assert episodes.y_support.dtype == episodes.y_query.dtype == np.int64
    for index in range(len(episodes)):
        X_support, y_support, X_query, y_query = episodes.task(index)
        used = np.concatenate([X_support, X_query]).ravel().astype(int)
        assert len(set(used)) == len(used) == ways * (shots + queries)
        new = np.concatenate([y_support, y_query])
        # one class a number, and one number a class
        pairs = set(zip(new.tolist(), y[used].tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == ways
        assert np.bincount(y_support).tolist() == [shots] * ways
        assert np.bincount(y_query).tolist() == [queries] * ways
    again = sampler.sample(np.random.default_rng(seed), 5)
    for name in ("X_support", "y_support", "X_query", "y_query"):
        assert np.array_equal(getattr(episodes, name), getattr(again, name))


def test_held_out_classes_never_come():
    X, y = numbered()
    episodes = EpisodeSampler(X, y, 3, 1, 1, classes=[1, 3, 5]).sample(0, 40)
    used = y[np.concatenate([episodes.X_support, episodes.X_query], axis=1).astype(int)]
    assert set(used.ravel()) == {1, 3, 5}


def test_every_class_gets_every_number():
    X, y = numbered()
    episodes = EpisodeSampler(X, y, 3, 1, 1).sample(0, 200)
    classes = y[episodes.X_support[:, :, 0].astype(int)]
    for number in range(3):
        assert set(classes[:, number]) == set(range(N_CLASSES))


def test_images_and_whole_numbers_pass_through():
    X = np.arange(10 * 4 * 4).reshape(10, 4, 4)
    episodes = EpisodeSampler(X, np.repeat([0, 1], 5), 2, 1, 2).sample(0, 3)
    assert episodes.X_query.shape == (3, 4, 4, 4)
    assert episodes.X_query.dtype == X.dtype


X, Y = np.zeros((12, 2)), np.repeat([0, 1, 2], 4)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((X, Y, 4, 1, 1), ValueError, "ways=4 asks for more than the 3 classes"),
        ((X, Y, 2, 3, 2), ValueError, "class 0 has 4 examples, but shots=3 and queries=2 need 5"),
        ((X, Y, 2, 1, 0), ValueError, "queries"),
        ((X, Y, 1, 1, 1), ValueError, "ways"),
        ((X, Y, 2, 0, 1), ValueError, "shots"),
        ((np.full((12, 2), np.nan), Y, 2, 1, 1), ValueError, "NaN or infinite values in 12 of 12"),
        ((X[:5], Y, 2, 1, 1), ValueError, "y has 12 labels for 5 examples"),
        ((np.array(["a"] * 12)[:, None], Y, 2, 1, 1), TypeError, "numeric"),
        ((np.zeros(12), Y, 2, 1, 1), ValueError, "shape"),
        ((X, Y, 2, 1, 1, [0, 9]), ValueError, r"classes names \[9\]"),
        ((X, Y, 3, 1, 1, [0, 1]), ValueError, "2 classes"),
    ],
)
def test_sampler_names_what_is_wrong(arguments, kind, message):
    with pytest.raises(kind, match=message):
        EpisodeSampler(*arguments)


def test_episodes_refuse_parts_that_do_not_fit():
    with pytest.raises(ValueError, match="X_support"):
        Episodes(np.zeros((2, 3, 1)), np.zeros((2, 4)), np.zeros((2, 3, 1)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="2 tasks, X_query 3"):
        Episodes(np.zeros((2, 3, 1)), np.zeros((2, 3)), np.zeros((3, 3, 1)), np.zeros((3, 3)))


def test_sinusoids_are_the_papers():
    episodes = SinusoidSampler(n_support=10, n_query=7).sample(0, 500)
    assert episodes.X_support.shape == episodes.y_support.shape == (500, 10, 1)
    assert episodes.X_query.shape == episodes.y_query.shape == (500, 7, 1)
    X = np.concatenate([episodes.X_support, episodes.X_query], axis=1)[:, :, 0]
    y = np.concatenate([episodes.y_support, episodes.y_query], axis=1)[:, :, 0]
    assert -5 <= X.min() < -4.9
    assert 4.9 < X.max() <= 5
    # a sin(x - b) = u sin x + v cos x: two numbers explain all 17 points of a task
    amplitudes, phases = [], []
    for task_x, task_y in zip(X, y, strict=True):
        basis = np.stack([np.sin(task_x), np.cos(task_x)], axis=1)
        (u, v), *_ = np.linalg.lstsq(basis, task_y)
        np.testing.assert_allclose(basis @ [u, v], task_y, atol=1e-9)
        amplitudes.append(np.hypot(u, v))
        phases.append(np.arctan2(-v, u))
    assert 0.1 <= min(amplitudes) < 0.3
    assert 4.8 < max(amplitudes) <= 5
    assert -1e-9 <= min(phases) < 0.1
    assert 3.0 < max(phases) <= np.pi
    again = SinusoidSampler(n_support=10, n_query=7).sample(0, 500)
    assert np.array_equal(episodes.y_query, again.y_query)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"n_support": 0}, ValueError, "n_support"),
        ({"n_query": 0}, ValueError, "n_query"),
        ({"amplitude": (5, 0.1)}, ValueError, "amplitude must be .* lowest < highest"),
        ({"phase": 3}, TypeError, "phase"),
        ({"x": (0, np.nan)}, ValueError, "x must"),
    ],
)
def test_sinusoids_name_what_is_wrong(arguments, kind, message):
    with pytest.raises(kind, match=message):
        SinusoidSampler(**arguments)
