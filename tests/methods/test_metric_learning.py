"""Metric learning against closed forms: distances, attention, a head on a frozen body."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from fewshot_course.data import Episodes, EpisodeSampler
from fewshot_course.experiments.maml import nearest_mean_accuracy

WAYS, SHOTS, DIM = 3, 4, 5
SMALL = {"iterations": 3, "n_tasks": 2, "dtype": "float64", "random_state": 0}


def task(seed=0, n_tasks=2, shots=SHOTS, ways=WAYS, dim=DIM):
    """Embeddings of support and query sets, and the support labels in no order."""
    rng = np.random.default_rng(seed)
    y = np.stack([rng.permutation(np.repeat(np.arange(ways), shots)) for _ in range(n_tasks)])
    return rng.normal(size=(n_tasks, ways * shots, dim)), y, rng.normal(size=(n_tasks, 6, dim))


def of_class(support, y, t, k):
    return support[t][y[t] == k]


def asked(framework, module, function, *arguments):
    tensors = [framework.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    found = getattr(framework.module(module), function)(*tensors)
    if isinstance(found, tuple):
        return tuple(framework.array(one) for one in found)
    return framework.array(found)


# ---------------------------------------------------------------------------- distances


def test_prototypes_are_class_means(framework):
    support, y, _ = task()
    found = asked(framework, "protonet", "prototypes", support, y, WAYS)
    for t, k in np.ndindex(2, WAYS):
        np.testing.assert_allclose(found[t, k], of_class(support, y, t, k).mean(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "metric"),
    [("squared_distances", "sqeuclidean"), ("cosine_distances", "cosine")],
)
def test_distances_are_those_of_scipy(framework, function, metric):
    support, _, queries = task()
    found = asked(framework, "protonet", function, queries, support)
    for t in range(2):
        expected = cdist(queries[t], support[t], metric)
        np.testing.assert_allclose(found[t], expected, rtol=1e-10, atol=1e-14)


def test_a_vector_of_zeros_has_the_cosine_zero_and_a_finite_gradient(framework):
    """A body of ReLUs may give one; 0/0 would spoil the whole training."""
    module = framework.module("protonet")
    queries, centres = np.zeros((1, 1, 3)), np.ones((1, 2, 3))

    def total(q, c):
        distances = module.cosine_distances(q, c)
        return distances.sum() if framework.name == "torch" else sum(distances[0, 0])

    value, gradients = framework.gradients(total, queries, centres)
    assert value == 2.0
    assert all(np.isfinite(g).all() for g in gradients)


@settings(max_examples=15)
@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(2, 4))
def test_covariances_are_shrunk_as_published(framework, seed, shots, ways):
    support, y, _ = task(seed, 1, shots, ways)
    found = asked(framework, "protonet", "shrunk_covariances", support, y, ways)
    share = shots / (shots + 1)
    of_task = np.cov(support[0], rowvar=False)
    for k in range(ways):
        own = np.cov(of_class(support, y, 0, k), rowvar=False) if shots > 1 else 0.0
        expected = share * own + (1 - share) * of_task + np.eye(DIM)
        np.testing.assert_allclose(found[0, k], expected, rtol=1e-10, atol=1e-12)
    assert np.linalg.eigvalsh(found).min() > 1 - 1e-9


def test_mahalanobis_distances_are_those_of_scipy(framework):
    support, y, queries = task()
    found = asked(
        framework, "protonet", "class_distances", queries, support, y, WAYS, "mahalanobis"
    )
    covariances = asked(framework, "protonet", "shrunk_covariances", support, y, WAYS)
    for t, k in np.ndindex(2, WAYS):
        centre = of_class(support, y, t, k).mean(0)[None]
        inverse = np.linalg.inv(covariances[t, k])
        expected = cdist(queries[t], centre, "mahalanobis", VI=inverse)[:, 0] ** 2
        np.testing.assert_allclose(found[t, :, k], expected, rtol=1e-9)


def test_mahalanobis_distances_with_the_identity_are_squared_distances(framework):
    support, _, queries = task()
    identity = np.broadcast_to(np.eye(DIM), (2, WAYS, DIM, DIM)).copy()
    centres = support[:, :WAYS]
    np.testing.assert_allclose(
        asked(framework, "protonet", "mahalanobis_distances", queries, centres, identity),
        asked(framework, "protonet", "squared_distances", queries, centres),
        rtol=1e-12,
    )


@settings(max_examples=20)
@given(st.integers(0, 2**16), st.integers(1, 5), st.integers(2, 6))
def test_a_prototypical_network_is_a_linear_classifier(framework, seed, dim, ways):
    """The softmax of -‖z - c‖² and that of 2 c·z - ‖c‖² are one and the same."""
    rng = np.random.default_rng(seed)
    queries, centres = rng.normal(size=(1, 7, dim)), rng.normal(size=(1, ways, dim))
    weights, biases = asked(framework, "protonet", "linear_classifier", centres)
    distances = asked(framework, "protonet", "squared_distances", queries, centres)
    linear = queries[0] @ weights[0].T + biases[0]
    np.testing.assert_allclose(softmax(linear, 1), softmax(-distances[0], 1), rtol=1e-10)


# ---------------------------------------------------------------------------- matching


@settings(max_examples=20)
@given(st.integers(0, 2**16), st.floats(0.5, 30.0))
def test_attention_is_the_weighted_mean_of_the_labels(framework, seed, scale):
    """Vinyals et al. 2016, equation 1, written down: Σ_i a_i y_i with one-hot labels y_i."""
    support, y, queries = task(seed)
    found = asked(framework, "matching", "attention_logits", queries, support, y, WAYS, scale)
    for t in range(2):
        attention = softmax(scale * (1 - cdist(queries[t], support[t], "cosine")), 1)
        expected = attention @ np.eye(WAYS)[y[t]]
        np.testing.assert_allclose(softmax(found[t], 1), expected, rtol=1e-9)


def test_with_one_shot_attention_is_the_softmax_of_cosines_to_prototypes(framework):
    support, y, queries = task(shots=1)
    distances = asked(framework, "protonet", "class_distances", queries, support, y, WAYS, "cosine")
    logits = asked(framework, "matching", "attention_logits", queries, support, y, WAYS, 7.0)
    np.testing.assert_allclose(softmax(logits, -1), softmax(-7 * distances, -1), rtol=1e-10)


# ---------------------------------------------------------------------------- estimators


def images(rng, n_classes=8, per_class=6):
    X = rng.uniform(size=(n_classes * per_class, 8, 8))
    return X, np.repeat(np.arange(n_classes), per_class)


def test_without_a_layer_a_prototypical_network_is_the_nearest_mean_of_the_pixels(framework, rng):
    sampler = EpisodeSampler(*images(rng), 3, 2, 3)
    learner = framework.estimator("ProtoNet", network="mlp", hidden=(), **SMALL)
    before = learner.fit(sampler, device="cpu").history_["loss"]
    assert before.shape == (3,)
    assert np.isfinite(before).all()
    episodes = sampler.sample(1, 20)
    np.testing.assert_array_equal(learner.evaluate(episodes), nearest_mean_accuracy(episodes))


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "mahalanobis"])
def test_a_distance_and_its_scale_that_are_set_anew_hold(framework, distance, rng):
    sampler = EpisodeSampler(*images(rng), 3, 2, 3)
    learner = framework.estimator("ProtoNet", network="mlp", hidden=(4,), **SMALL)
    learner.fit(sampler, device="cpu")
    episodes = sampler.sample(1, 3)
    before = learner._apply(episodes, 0, 0.0)
    learner.set_params(distance=distance, scale=3.0)
    after = learner._apply(episodes, 0, 0.0)
    X_s, y_s, X_q, _ = episodes.task(0)
    adapted = learner.adapt(X_s, y_s).predict_proba(X_q)
    np.testing.assert_allclose(softmax(after[0], 1), adapted, rtol=1e-9)
    if distance == "euclidean":
        np.testing.assert_allclose(after, 3 * before, rtol=1e-12)
    else:
        assert np.abs(after - before).max() > 1e-3


def test_tasks_scored_together_have_the_scores_of_tasks_scored_alone(framework, rng):
    sampler = EpisodeSampler(*images(rng), 3, 2, 3)
    for name, network in (("ProtoNet", "conv4"), ("MatchingNet", "conv4-strided")):
        learner = framework.estimator(name, network=network, channels=3, **SMALL)
        learner.fit(sampler, device="cpu")
        episodes = sampler.sample(1, 5)
        parts = (episodes.X_support, episodes.y_support, episodes.X_query, episodes.y_query)
        alone = [learner._apply(Episodes(*(p[i : i + 1] for p in parts)), 0, 0.0) for i in range(5)]
        np.testing.assert_allclose(
            learner._apply(episodes, 0, 0.0), np.concatenate(alone), rtol=1e-9, atol=1e-12
        )


# ---------------------------------------------------------------------------- frozen body


def frozen(framework, rng, **params):
    sampler = EpisodeSampler(*images(rng), 3, 2, 3, classes=[1, 3, 4, 6, 7])
    learner = framework.estimator("FrozenBody", channels=8, **{**SMALL, **params})
    return learner.fit(sampler, device="cpu"), sampler


def body_of(framework, learner, X):
    """Features by the network as it stands, batch norm with the running averages."""
    x = framework.tensor(X)
    if framework.name == "torch":
        return framework.array(learner.network_.eval().features(x))
    return framework.array(learner.network_.features(x))


def test_the_head_is_scikit_learns_optimum_on_features_of_length_one(framework, rng):
    learner, sampler = frozen(framework, rng, C=3.0)
    episodes = sampler.sample(1, 2)
    outputs = learner._apply(episodes, 0, 0.0)
    for t in range(2):
        X_s, y_s, X_q, _ = episodes.task(t)
        support, query = (body_of(framework, learner, X) for X in (X_s, X_q))
        support, query = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (support, query))
        oracle = LogisticRegression(C=3.0, tol=1e-10, max_iter=10_000).fit(support, y_s)
        proba = learner.adapt(X_s, y_s).predict_proba(X_q)
        np.testing.assert_allclose(proba, oracle.predict_proba(query), atol=1e-5)
        np.testing.assert_allclose(softmax(outputs[t], 1), proba, atol=1e-9)


def test_the_first_loss_is_the_cross_entropy_over_all_base_classes(framework, rng):
    """The head has an output for each of the five base classes, not for the three of a task."""
    learner, _ = frozen(framework, rng, lr=0.01)
    loss = learner.history_["loss"][0]
    assert abs(loss - np.log(5)) < 1.0
    module = framework.module("frozen_body")

    class Identity:
        def features(self, X, training=False):
            return X

    logits = rng.normal(size=(6, 5))
    y = np.arange(6) % 5
    found = module.base_loss(Identity(), lambda X: X, framework.tensor(logits), framework.tensor(y))
    expected = -log_softmax(logits, 1)[np.arange(6), y].mean()
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_it_learns_to_tell_base_classes_apart_and_then_new_ones(framework):
    """Classes are directions in the plane, buried under sixteen coordinates of noise."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 12)
    angle = 2 * np.pi * y / 40
    signal = np.stack([np.cos(angle), np.sin(angle)], 1)
    X = np.concatenate([6 * signal, 2 * rng.normal(size=(len(y), 16))], 1)
    base = EpisodeSampler(X, y, 20, 2, 2, classes=range(0, 40, 2))
    new = EpisodeSampler(X, y, 5, 2, 5, classes=range(1, 40, 8)).sample(0, 60)
    params = {**SMALL, "network": "mlp", "hidden": (16,), "lr": 0.02}
    few, many = (
        framework.estimator("FrozenBody", **{**params, "iterations": n}).fit(base, device="cpu")
        for n in (1, 150)
    )
    assert many.history_["loss"][-10:].mean() < 0.7 * many.history_["loss"][0]
    assert (many.evaluate(new) - few.evaluate(new)).mean() > 0.05


def test_a_sampler_that_hides_its_classes_is_refused(framework, rng):
    sampler = EpisodeSampler(*images(rng), 3, 2, 3)

    class NoList:
        def sample(self, rng, n_tasks):
            return sampler.sample(rng, n_tasks)

    class NoNames(NoList):
        classes = sampler.classes

        def sample(self, rng, n_tasks):
            e = sampler.sample(rng, n_tasks)
            return Episodes(e.X_support, e.y_support, e.X_query, e.y_query)

    learner = framework.estimator("FrozenBody", channels=2, **SMALL)
    with pytest.raises(TypeError, match=r"sampler must tell all its classes.*NoList has none"):
        learner.fit(NoList(), device="cpu")
    with pytest.raises(TypeError, match=r"sampler must tell each task's classes in Episodes"):
        learner.fit(NoNames(), device="cpu")


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ({"C": 0.0}, ValueError, "C must lie in"),
        ({"hidden": ()}, ValueError, r"hidden=\(\) leaves no body"),
        ({"network": lambda: None}, TypeError, "network must be the name of a network"),
    ],
)
def test_bad_settings_of_a_frozen_body(framework, rng, params, kind, message):
    with pytest.raises(kind, match=message):
        frozen(framework, rng, **params)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("ProtoNet", {"distance": "manhattan"}, "distance='manhattan'"),
        ("ProtoNet", {"scale": 0.0}, "scale"),
        ("MatchingNet", {"scale": -1.0}, "scale"),
    ],
)
def test_bad_settings_of_metric_learners(framework, rng, name, params, message):
    sampler = EpisodeSampler(*images(rng), 3, 2, 3)
    with pytest.raises(ValueError, match=message):
        framework.estimator(name, network="mlp", **SMALL, **params).fit(sampler, device="cpu")
