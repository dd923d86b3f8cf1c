"""The meta-learners as a user meets them: predictions, labels, files, resuming, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_course.both.maml import reptile_batches
from fewshot_course.both.training import TrainingDiverged
from fewshot_course.data import Episodes, EpisodeSampler, SinusoidSampler
from fewshot_course.weights import load_arrays, save_arrays

METHODS = ("MAML", "FOMAML", "ANIL", "Reptile", "ProtoNet", "MatchingNet", "FrozenBody")
SMALL = {"iterations": 3, "n_tasks": 2, "channels": 2, "dtype": "float64", "random_state": 0}


def blobs(rng, n_classes=8, per_class=8, spread=0.05):
    """Classes far apart in the plane, for tasks that a rule can solve."""
    centres = rng.uniform(-3, 3, (n_classes, 2))
    y = np.repeat(np.arange(n_classes), per_class)
    return centres[y] + spread * rng.normal(size=(len(y), 2)), y


def patches(rng, n_classes=6, per_class=6):
    X = rng.uniform(size=(n_classes * per_class, 8, 8))
    return X, np.repeat(np.arange(n_classes), per_class)


def trained(framework, method, rng, images=False, **params):
    X, y = patches(rng) if images else blobs(rng)
    sampler = EpisodeSampler(X, y, 3, 2, 2)
    learner = framework.estimator(method, **{**SMALL, **params})
    return learner.fit(sampler, device="cpu"), sampler


@pytest.fixture(autouse=True)
def eager(framework, request):
    """Run convolutions uncompiled, to save seconds; the parity tests run what is compiled."""
    images = ("query_never", "saved", "evaluate")
    if framework.name == "torch" or not any(word in request.node.name for word in images):
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("method", ["MAML", "ProtoNet"])
def test_a_query_never_changes_another_unless_transductive(framework, method, rng):
    learner, sampler = trained(framework, method, rng, images=True)
    X_support, y_support, X_query, _ = sampler.sample(5, 1).task(0)
    whole = learner.adapt(X_support, y_support).predict_proba(X_query)
    for index in range(len(X_query)):
        left = np.delete(np.arange(len(X_query)), index)
        part = learner.adapt(X_support, y_support).predict_proba(X_query[left])
        np.testing.assert_allclose(part, whole[left], rtol=1e-9, atol=1e-12)
    learner.statistics = "transductive"
    adapted = learner.adapt(X_support, y_support)
    whole, part = adapted.predict_proba(X_query), adapted.predict_proba(X_query[1:])
    assert np.abs(part - whole[1:]).max() > 1e-6


@settings(max_examples=10)
@given(data=st.data())
@pytest.mark.parametrize("method", METHODS)
def test_names_of_classes_change_nothing(framework, method, data):
    learner = _shared(framework, method)
    X_support, y_support, X_query, y_query = _SAMPLER.sample(5, 1).task(0)
    names = np.array(data.draw(st.permutations([0, 3, 7])))
    plain, renamed = learner.adapt(X_support, y_support), learner.adapt(X_support, names[y_support])
    assert renamed.classes_.tolist() == sorted(names)
    assert renamed.predict(X_query).tolist() == names[plain.predict(X_query)].tolist()
    columns = np.argsort(names)
    np.testing.assert_allclose(
        renamed.predict_proba(X_query), plain.predict_proba(X_query)[:, columns], rtol=1e-10
    )
    assert renamed.score(X_query, names[y_query]) == plain.score(X_query, y_query)


_X, _Y = blobs(np.random.default_rng(0))
_SAMPLER = EpisodeSampler(_X, _Y, 3, 2, 2)
_LEARNERS: dict = {}


def _shared(framework, method):
    key = framework.name, method
    if key not in _LEARNERS:
        _LEARNERS[key] = framework.estimator(method, **SMALL).fit(_SAMPLER, device="cpu")
    return _LEARNERS[key]


def test_shuffled_labels_give_chance_and_true_ones_do_not(framework):
    """Labels drawn at random carry nothing: the accuracy must be 1/ways within its error."""
    rng = np.random.default_rng(1)
    X, y = blobs(rng, n_classes=12, per_class=20)
    learner = framework.estimator("ProtoNet", **{**SMALL, "iterations": 20})
    learner.fit(EpisodeSampler(X, y, 3, 2, 5, classes=range(6)), device="cpu")
    sampler = EpisodeSampler(X, y, 3, 2, 5, classes=range(6, 12))
    true = learner.evaluate(sampler.sample(0, 60)).mean()
    shuffled = EpisodeSampler(X, rng.permutation(y), 3, 2, 5).sample(0, 60)
    scores = learner.evaluate(shuffled)
    assert abs(scores.mean() - 1 / 3) < 4 * scores.std() / np.sqrt(len(scores))
    assert true > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_evaluate_is_adapt_and_score_task_by_task(framework, method, rng):
    learner, sampler = trained(framework, method, rng, images=method in ("MAML", "ProtoNet"))
    episodes = sampler.sample(3, 3)
    one_by_one = [
        learner.adapt(X_s, y_s).score(X_q, y_q)
        for X_s, y_s, X_q, y_q in map(episodes.task, range(3))
    ]
    np.testing.assert_allclose(learner.evaluate(episodes), one_by_one)


@pytest.mark.parametrize("method", ["MAML", "ANIL", "ProtoNet"])
def test_statistics_that_are_set_anew_hold(framework, method):
    """A compiled function kept those of its first call: a wrong score, and no error."""
    rng = np.random.default_rng(0)
    learner, sampler = trained(framework, method, rng, images=True)
    fresh, _ = trained(framework, method, np.random.default_rng(0), images=True)
    episodes = sampler.sample(3, 2)

    def outputs(one, statistics):
        one.statistics = statistics
        return one._apply(episodes, one.inner_steps, one.inner_lr)

    inductive = outputs(learner, "inductive")
    transductive = outputs(learner, "transductive")
    assert np.abs(transductive - inductive).max() > 1e-6
    np.testing.assert_array_equal(transductive, outputs(fresh, "transductive"))
    np.testing.assert_array_equal(inductive, outputs(learner, "inductive"))


def test_regression_keeps_the_shape_of_its_targets(framework):
    sampler = SinusoidSampler(5, 4)
    learner = framework.estimator("MAML", task="regression", **SMALL).fit(sampler, device="cpu")
    X_s, y_s, X_q, y_q = sampler.sample(1, 1).task(0)
    assert learner.adapt(X_s, y_s).predict(X_q).shape == (4, 1)
    flat = learner.adapt(X_s, y_s[:, 0])
    assert flat.predict(X_q).shape == (4,)
    error = np.mean((flat.predict(X_q) - y_q[:, 0]) ** 2)
    episodes = Episodes(X_s[None], y_s[None], X_q[None], y_q[None])
    assert learner.evaluate(episodes)[0] == pytest.approx(error)
    assert learner.evaluate(episodes, steps=0)[0] != pytest.approx(error)


def test_training_lowers_the_loss_after_adaptation(framework):
    sampler = SinusoidSampler(10, 10)
    params = {**SMALL, "iterations": 150, "n_tasks": 10, "lr": 0.01}
    learner = framework.estimator("MAML", task="regression", **params).fit(sampler, device="cpu")
    losses = learner.history_["loss"]
    assert losses.shape == (150,)
    assert losses[-30:].mean() < 0.8 * losses[:10].mean()


@pytest.mark.parametrize("method", ["MAML", "ProtoNet"])
def test_what_is_saved_predicts_the_same_in_the_twin(framework, both, method, rng, tmp_path):
    learner, sampler = trained(framework, method, rng, images=True)
    X_support, y_support, X_query, _ = sampler.sample(5, 1).task(0)
    path = learner.save(tmp_path / "learner.safetensors")
    ours = learner.adapt(X_support, y_support).predict_proba(X_query)
    for other in both:
        loaded = type(other.estimator(method)).load(path)
        theirs = loaded.adapt(X_support, y_support).predict_proba(X_query)
        np.testing.assert_allclose(theirs, ours, rtol=1e-8)
    with pytest.raises(ValueError, match=r"holds a .*, not a FOMAML"):
        type(framework.estimator("FOMAML")).load(path)


@pytest.mark.parametrize("method", METHODS)
def test_older_files_whose_one_network_has_no_name_are_read(framework, both, method, rng, tmp_path):
    learner, sampler = trained(framework, method, rng)
    X_support, y_support, X_query, _ = sampler.sample(5, 1).task(0)
    ours = learner.adapt(X_support, y_support).predict_proba(X_query)
    arrays, header = load_arrays(learner.save(tmp_path / "new.safetensors"))
    assert all(name.startswith("network.") for name in arrays)
    nameless = {name.removeprefix("network."): array for name, array in arrays.items()}
    path = save_arrays(tmp_path / "old.safetensors", nameless, header)
    for other in both:
        loaded = type(other.estimator(method)).load(path)
        theirs = loaded.adapt(X_support, y_support).predict_proba(X_query)
        np.testing.assert_allclose(theirs, ours, rtol=1e-8)


def test_an_interrupted_fit_ends_like_one_never_interrupted(framework, tmp_path):
    class Stops(SinusoidSampler):
        left = 230

        def sample(self, rng, n_tasks):
            Stops.left -= 1
            if Stops.left == 0:
                raise KeyboardInterrupt
            return super().sample(rng, n_tasks)

    params = {**SMALL, "iterations": 260, "hidden": (3,), "task": "regression"}
    whole = framework.estimator("MAML", **params).fit(SinusoidSampler(3, 3), device="cpu")
    broken = framework.estimator("MAML", **params)
    for _ in range(2):
        try:
            broken.fit(Stops(3, 3), device="cpu", checkpoint_dir=tmp_path)
        except KeyboardInterrupt:
            continue
    np.testing.assert_array_equal(whole.history_["loss"], broken.history_["loss"])


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 6))
def test_reptile_takes_each_example_once_before_any_twice(n_tasks, n, batch_size, steps):
    batch_size = min(batch_size, n)
    drawn = reptile_batches(np.random.default_rng(0), n_tasks, n, batch_size, steps)
    assert drawn.shape == (steps, n_tasks, batch_size)
    for task in range(n_tasks):
        counts = np.bincount(drawn[:, task].ravel(), minlength=n)
        assert counts.max() - counts.min() <= 1


def one_class(sampler=_SAMPLER):
    episodes = sampler.sample(0, 2)
    return Episodes(episodes.X_support, 0 * episodes.y_support + 1, episodes.X_query,
                    episodes.y_query)  # fmt: skip


class Fixed:
    """A sampler of one and the same episodes."""

    def __init__(self, episodes):
        self.episodes = episodes

    def sample(self, rng, n_tasks):
        return self.episodes


def spoiled(**changes):
    episodes = _SAMPLER.sample(0, 2)
    parts = ("X_support", "y_support", "X_query", "y_query")
    return Fixed(Episodes(*(changes.get(name, getattr(episodes, name)) for name in parts)))


E = _SAMPLER.sample(0, 2)
BAD_FIT = [
    ({}, np.zeros((3, 2)), TypeError, r"sampler must have a method sample.*got ndarray"),
    ({}, Fixed(E.task(0)), TypeError, "expected Episodes, got tuple"),
    ({}, spoiled(X_support=E.X_support * np.nan), ValueError, "X_support.* NaN"),
    ({}, spoiled(X_query=E.X_query[:, :0], y_query=E.y_query[:, :0]), ValueError, "X_query"),
    ({}, spoiled(X_query=E.X_query[..., :1]), ValueError, r"\(2,\).*X_query of shape \(1,\)"),
    ({}, spoiled(y_support=E.y_support * 0.5), TypeError, "whole numbers"),
    ({}, Fixed(one_class()), ValueError, "labels 0 to 2"),
    ({"statistics": "inductiv"}, _SAMPLER, ValueError, "Did you mean 'inductive'"),
    ({"inner_steps": 1.5}, _SAMPLER, TypeError, "inner_steps"),
    ({"inner_lr": -1.0}, _SAMPLER, ValueError, "inner_lr"),
    ({"task": "ranking"}, _SAMPLER, ValueError, "task='ranking'"),
    ({"n_tasks": 0}, _SAMPLER, ValueError, "n_tasks"),
    ({"network": "conv4"}, _SAMPLER, ValueError, "conv4' needs images"),
    ({"network": "transformer"}, _SAMPLER, ValueError, "network='transformer' is not known"),
    ({"clip": 0.0}, _SAMPLER, ValueError, "clip"),
    ({"hidden": (0,)}, _SAMPLER, ValueError, r"hidden\[0\]"),
]


@pytest.mark.parametrize(("params", "sampler", "kind", "message"), BAD_FIT)
def test_bad_input_of_fit(framework, params, sampler, kind, message):
    with pytest.raises(kind, match=message):
        framework.estimator("MAML", **{**SMALL, **params}).fit(sampler, device="cpu")


BAD_ADAPT = [
    ((E.X_support[0][:, :1], E.y_support[0]), ValueError, r"X_support has examples of shape \(1,"),
    ((E.X_support[0] * np.nan, E.y_support[0]), ValueError, "NaN"),
    ((E.X_support[0], E.y_support[0][:2]), ValueError, "2 labels for 6 examples"),
    ((E.X_support[0], np.arange(6)), ValueError, "6 classes; the network was trained for 3"),
    ((E.X_support[0], np.full(6, 0.5)), TypeError, "whole numbers"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), BAD_ADAPT)
def test_bad_input_of_adapt(framework, arguments, kind, message):
    with pytest.raises(kind, match=message):
        _shared(framework, "MAML").adapt(*arguments)


@pytest.mark.parametrize("method", ["ProtoNet", "MatchingNet", "FrozenBody"])
@pytest.mark.parametrize("asked", [{"steps": 50}, {"lr": 99}, {"steps": 0}, {"lr": 0.0}])
def test_who_takes_no_inner_steps_says_so(framework, method, asked):
    learner = _shared(framework, method)
    ((name, value),) = asked.items()
    message = f"{name}={value!r}: a {method} .*steps.*leave {name} out"
    with pytest.raises(ValueError, match=message):
        learner.adapt(E.X_support[0], E.y_support[0], **asked)
    with pytest.raises(ValueError, match=message):
        learner.evaluate(E, **asked)


def test_a_diverging_inner_rate_is_named(framework):
    sampler = SinusoidSampler(5, 5)
    params = {**SMALL, "task": "regression", "inner_lr": 1e6, "inner_steps": 20, "iterations": 20}
    with pytest.raises(TrainingDiverged, match=r"inner_lr=1e\+06 with inner_steps=20"):
        framework.estimator("MAML", **params).fit(sampler, device="cpu")
    learner = framework.estimator("MAML", **{**SMALL, "task": "regression"})
    learner.fit(sampler, device="cpu")
    episodes = sampler.sample(0, 2)
    assert learner.evaluate(episodes, steps=60, lr=1e6).tolist() == [np.inf, np.inf]
    with pytest.raises(ValueError, match=r"lr=1e\+06: the adaptation diverged within 60 steps"):
        learner.adapt(*episodes.task(0)[:2], steps=60, lr=1e6)


def wrong_layers():
    import keras
    from torch import nn

    return {
        "torch": [
            (nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), "BatchNorm"),
        ],
        "tensorflow": [
            (keras.Sequential([keras.Input((2,)), layer, keras.layers.Dense(3)]), instead)
            for layer, instead in (
                (keras.layers.BatchNormalization(), "BatchNorm"),
                (keras.layers.LayerNormalization(), "LayerNorm"),
                (keras.layers.GroupNormalization(1), "LayerNorm"),
            )
        ],
    }


def test_layers_with_a_wrong_second_derivative_are_refused(framework, both):
    package = {"torch": "torch", "tensorflow": "tf"}[framework.name]
    for network, instead in wrong_layers()[framework.name]:
        with pytest.raises(ValueError, match=f"use fewshot_course.{package}.networks.{instead} "):
            framework.module("meta_networks").check_layers(network)
