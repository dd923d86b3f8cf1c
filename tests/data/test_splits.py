import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fewshot_course.data import BatchStream, few_shot_split, mask_labels

PARTS = ("labelled", "unlabelled", "validation", "test")
labels = st.lists(st.integers(0, 4), min_size=12, max_size=80).map(np.array)
seeds = st.integers(0, 2**32 - 1)


def draw(y, shots, seed, **sizes):
    try:
        return few_shot_split(y, shots, seed, **sizes)
    except ValueError as error:
        assume("shots" not in str(error))
        raise


@settings(derandomize=True, max_examples=50, deadline=None)
@given(labels, st.integers(1, 3), seeds, st.integers(0, 4), st.integers(0, 5))
def test_split_is_a_stratified_partition(y, shots, seed, n_validation, n_test):
    split = draw(y, shots, seed, n_validation=n_validation, n_test=n_test)
    everything = np.concatenate([getattr(split, part) for part in PARTS])
    assert np.array_equal(np.sort(everything), np.arange(len(y)))
    classes, counts = np.unique(y, return_counts=True)
    assert [np.sum(y[split.labelled] == c) for c in classes] == [shots] * len(classes)
    assert len(split.validation) == n_validation
    assert len(split.test) == n_test
    held_out = np.concatenate([split.validation, split.test])
    for label, count in zip(classes, counts, strict=True):
        share = len(held_out) * count / len(y)
        assert abs(np.sum(y[held_out] == label) - share) < 1


@settings(derandomize=True, max_examples=50, deadline=None)
@given(labels, seeds)
def test_split_is_reproducible_and_takes_half_for_the_test(y, seed):
    first, again = draw(y, 1, seed), draw(y, 1, np.random.default_rng(seed))
    for part in PARTS:
        assert np.array_equal(getattr(first, part), getattr(again, part))
    assert len(first.test) == len(y) // 2


@settings(derandomize=True, max_examples=50, deadline=None)
@given(labels, seeds)
def test_fewer_shots_are_among_more_shots_and_the_test_stays(y, seed):
    few = draw(y, 1, seed, n_validation=3, n_test=4)
    more = draw(y, 2, seed, n_validation=3, n_test=4)
    assert set(few.labelled) < set(more.labelled)
    assert np.array_equal(few.test, more.test)
    assert np.array_equal(few.validation, more.validation)


def test_another_seed_gives_another_split():
    y = np.repeat(np.arange(5), 20)
    assert not np.array_equal(few_shot_split(y, 3, 0).labelled, few_shot_split(y, 3, 1).labelled)


def test_every_example_can_be_drawn():
    y = np.repeat([0, 1], 4)
    seen = {i for seed in range(50) for i in few_shot_split(y, 1, seed, n_test=0).labelled}
    assert seen == set(range(8))


@pytest.mark.parametrize(
    ("arguments", "sizes", "kind", "message"),
    [
        (([0, 0, 1, 1], 3, 0), {"n_test": 0}, ValueError, "class 0 has 2 examples, but shots=3"),
        (([0, 0, 0, 1], 1, 0), {"n_test": 3}, ValueError, "class 1 has 1 examples"),
        (([0, 0, 1, 1], 1, 0), {"n_test": 9}, ValueError, "ask for more than the 4 examples"),
        (([0, 0, 1, 1], 0, 0), {}, ValueError, "shots"),
        (([0, 0, 1, 1], 1.5, 0), {}, TypeError, "shots"),
        (([0, -1], 1, 0), {}, ValueError, "y holds the label -1"),
        (([[0, 1]], 1, 0), {}, ValueError, r"y must have shape \(n,\)"),
        (([], 1, 0), {}, (TypeError, ValueError), "y"),
    ],
)
def test_split_names_what_is_wrong(arguments, sizes, kind, message):
    with pytest.raises(kind, match=message):
        few_shot_split(*arguments, **sizes)


def test_mask_labels_hides_all_but_the_labelled():
    y = np.array([3, 1, 2, 0])
    assert mask_labels(y, [2, 0]).tolist() == [3, -1, 2, -1]
    assert mask_labels(y, []).tolist() == [-1] * 4
    assert y.tolist() == [3, 1, 2, 0]


def test_mask_labels_refuses_masks_and_indices_outside():
    with pytest.raises(TypeError, match="list of indices"):
        mask_labels([0, 1], [True, False])
    for outside in ([2], [-1]):
        with pytest.raises(ValueError, match=r"outside 0\.\.1"):
            mask_labels([0, 1], outside)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), seeds, st.integers(0, 20))
def test_a_resumed_stream_goes_on_as_if_never_stopped(n, batch_size, seed, steps):
    stream = BatchStream(n, batch_size, seed)
    for _ in range(steps):
        stream.next()
    state = json.loads(json.dumps(stream.state()))
    resumed = BatchStream(n, batch_size, seed + 1)
    resumed.restore(state)
    for _ in range(10):
        assert np.array_equal(stream.next(), resumed.next())


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), seeds)
def test_an_epoch_shows_no_example_twice(n, batch_size, seed):
    stream = BatchStream(n, batch_size, seed)
    for _ in range(3):
        epoch = np.concatenate([next(stream) for _ in range(stream.batches_per_epoch)])
        assert len(set(epoch)) == len(epoch)
        assert len(epoch) > n - stream.batch_size
        assert set(epoch) <= set(range(n))


def test_streams_that_share_a_generator_do_not_disturb_each_other():
    def first_batches(use_other):
        rng = np.random.default_rng(0)
        one, other = BatchStream(20, 6, rng), BatchStream(20, 6, rng)
        batches = []
        for _ in range(8):
            batches.append(one.next())
            if use_other:
                other.next()
        return batches, other.next()

    alone, _ = first_batches(False)
    beside, _ = first_batches(True)
    assert np.array_equal(alone, beside)
    rng = np.random.default_rng(0)
    one, other = BatchStream(20, 20, rng), BatchStream(20, 20, rng)
    assert not np.array_equal(one.next(), other.next())


def test_epochs_differ_and_a_changed_batch_does_no_harm():
    stream = BatchStream(10, 10, 0)
    first = stream.next()
    kept = first.copy()
    assert not np.array_equal(kept, stream.next())
    again = BatchStream(10, 5, 0)
    again.next()[:] = 0
    assert len(set(again.next())) == 5


def test_stream_refuses_the_state_of_another_and_bad_sizes():
    with pytest.raises(ValueError, match="n=5"):
        BatchStream(6, 2, 0).restore(BatchStream(5, 2, 0).state())
    with pytest.raises(ValueError, match="batch_size"):
        BatchStream(6, 0, 0)
    with pytest.raises(ValueError, match="n must"):
        BatchStream(0, 1, 0)
