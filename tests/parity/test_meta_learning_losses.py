"""The losses of the meta-learners' steps: one value and gradient in both frameworks, and in fit."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch

pytest.importorskip("tensorflow", reason="tensorflow is not installed")
import tensorflow as tf

from fewshot_course._streams import Streams
from fewshot_course.both.maml import reptile_batches
from fewshot_course.data import EpisodeSampler, SinusoidSampler
from fewshot_course.tf import frozen_body as tf_frozen_body
from fewshot_course.tf import maml as tf_maml
from fewshot_course.tf import matching as tf_matching
from fewshot_course.tf import meta_networks as tf_meta_networks
from fewshot_course.tf import networks as tf_networks
from fewshot_course.tf import protonet as tf_protonet
from fewshot_course.torch import frozen_body as torch_frozen_body
from fewshot_course.torch import maml as torch_maml
from fewshot_course.torch import matching as torch_matching
from fewshot_course.torch import meta_networks as torch_meta_networks
from fewshot_course.torch import protonet as torch_protonet

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
AFTER_STEPS = {"float64": 1e-10, "float32": 1e-4}  # weights that several updates have moved
MAML = {"torch": torch_maml, "tensorflow": tf_maml}
PROTONET = {"torch": torch_protonet, "tensorflow": tf_protonet}
MATCHING = {"torch": torch_matching, "tensorflow": tf_matching}
FROZEN = {"torch": torch_frozen_body, "tensorflow": tf_frozen_body}
META_NETWORKS = {"torch": torch_meta_networks, "tensorflow": tf_meta_networks}
ITERATIONS = 3


def vectors():
    rng = np.random.default_rng(5)
    return EpisodeSampler(rng.normal(size=(32, 3)), np.repeat(np.arange(4), 8), 2, 2, 4)


def characters():
    rng = np.random.default_rng(5)
    return EpisodeSampler(rng.uniform(size=(24, 8, 8)), np.repeat(np.arange(4), 6), 2, 3, 2)


VECTORS = {"network": "mlp", "hidden": (6, 5)}
SINUSOIDS = {"network": "mlp", "hidden": (6,), "task": "regression"}
CHARACTERS = {"network": "conv4", "channels": 3, "inner_lr": 0.05}
# (estimator, its settings, the tasks); which way episode_loss takes stands behind.
CASES = {
    "MAML": ("MAML", VECTORS | {"inner_steps": 2}, vectors()),  # plain
    "MAML, one step": ("MAML", VECTORS, vectors()),  # shared weights
    "MAML, one step, many": ("MAML", VECTORS | {"hidden": (3,)}, vectors()),  # plain
    "FOMAML": ("FOMAML", VECTORS | {"inner_steps": 2}, vectors()),  # plain
    "FOMAML, one step": ("FOMAML", VECTORS, vectors()),  # shared weights
    "ANIL": ("ANIL", VECTORS | {"inner_steps": 2}, vectors()),  # the body once
    "sinusoids": ("MAML", SINUSOIDS | {"inner_steps": 2}, SinusoidSampler(5, 3)),  # plain
    "sinusoids, one step": ("MAML", SINUSOIDS, SinusoidSampler(5, 3)),  # shared weights
    "characters": ("MAML", CHARACTERS, characters()),  # plain
    "characters, transductive": (
        "MAML", CHARACTERS | {"statistics": "transductive"}, characters(),
    ),  # plain
    "ANIL, characters": ("ANIL", CHARACTERS | {"inner_steps": 2}, characters()),  # the body once
    "ANIL, characters, transductive": (
        "ANIL", CHARACTERS | {"statistics": "transductive"}, characters(),
    ),  # the body once
}  # fmt: skip


def prepared(modules, framework, name, settings, sampler, dtype="float64"):
    """A learner with a network of one seed, θ and two tasks, as ``fit`` has them."""
    learner = getattr(modules[framework], name)(dtype=dtype, **settings)
    episodes = sampler.sample(1, 2)
    learner.input_shape_ = episodes.X_support.shape[2:]
    learner.n_outputs_ = 1 if learner.task == "regression" else 2
    learner._device = "cpu"
    learner._build(Streams.from_seed(1).init, "cpu")
    return learner, learner._trained(), learner._tensors(episodes)


def value_and_gradient(framework, learner, theta, loss_of):
    """The loss, and its gradient by θ in the canonical layout."""
    if framework == "torch":
        loss = loss_of()
        gradients = torch.autograd.grad(loss, list(theta.values()))
        return loss.item(), {n: g.numpy() for n, g in zip(theta, gradients, strict=True)}
    with tf.GradientTape() as tape:
        loss = loss_of()
    gradients = tape.gradient(loss, list(theta.values()))
    return float(loss), canonical(learner, dict(zip(theta, gradients, strict=True)))


def canonical(learner, tensors):
    axes = {name: axes for name, (_, axes) in tf_networks._state(learner.network_).items()}
    return {name: np.transpose(t.numpy(), axes[name]) for name, t in tensors.items()}


def assert_agree(one, two, tolerance):
    assert abs(one[0] - two[0]) < tolerance * abs(one[0])
    assert set(one[1]) == set(two[1])
    largest = max(np.abs(g).max() for g in one[1].values())
    for name, gradient in one[1].items():
        assert np.abs(gradient - two[1][name]).max() < tolerance * largest, name


def by_episode_loss(framework, case, dtype="float64"):
    learner, theta, episode = prepared(MAML, framework, *CASES[case], dtype)
    return value_and_gradient(framework, learner, theta, lambda: MAML[framework].episode_loss(
        learner.network_, theta, episode, 0.3, learner.inner_steps, task=learner.task,
        first_order=learner._first_order, adapted=learner._adapted_names(),
        statistics=learner.statistics,
    ))  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_episode_loss_and_its_gradient_agree(case, dtype):
    found = [by_episode_loss(framework, case, dtype) for framework in MAML]
    assert_agree(*found, TOLERANCE[dtype])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("framework", MAML)
def test_episode_loss_is_the_mean_of_meta_loss_whichever_way_it_takes(framework, case):
    """What the notebook calls the whole story, written out: no shortcut changes it."""
    maml, run = MAML[framework], META_NETWORKS[framework]
    learner, theta, (Xs, ys, Xq, yq) = prepared(MAML, framework, *CASES[case])
    network, task = learner.network_, learner.task

    def support_loss(weights):
        return maml.task_loss(run.apply(network, weights, Xs), ys, task)

    def query_loss(weights):
        outputs = maml.query_outputs(network, weights, Xs, Xq, learner.statistics)
        return maml.task_loss(outputs, yq, task)

    def plain():
        return maml.meta_loss(
            support_loss, query_loss, run.expand(theta, 2), 0.3, learner.inner_steps,
            learner._first_order, learner._adapted_names(),
        ) / 2  # fmt: skip

    written_out = value_and_gradient(framework, learner, theta, plain)
    assert_agree(written_out, by_episode_loss(framework, case), 1e-10)


def by_reptile(framework, settings, sampler, dtype):
    learner, theta, (Xs, ys, Xq, yq) = prepared(
        MAML, framework, "Reptile", settings, sampler, dtype
    )
    put, join = (torch.as_tensor, torch.cat) if framework == "torch" else (tf.constant, tf.concat)
    X, y = join([Xs, Xq], 1), join([ys, yq], 1)
    drawn = reptile_batches(np.random.default_rng(0), 2, X.shape[1], 4, 3).transpose(1, 0, 2)
    loss, moved = MAML[framework].reptile_direction(
        learner.network_, theta, X, y, put(np.ascontiguousarray(drawn)), 0.3, learner.task
    )
    named = dict(zip(theta, moved, strict=True))
    if framework == "tensorflow":
        return float(loss), canonical(learner, named)
    return loss.item(), {name: value.numpy() for name, value in named.items()}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("settings", "sampler"),
    [(VECTORS, vectors()), (SINUSOIDS, SinusoidSampler(5, 3)), (CHARACTERS, characters())],
)
def test_reptile_direction_agrees(settings, sampler, dtype):
    found = [by_reptile(framework, settings, sampler, dtype) for framework in MAML]
    assert_agree(*found, AFTER_STEPS[dtype])


def by_prototype_loss(framework, settings, sampler, dtype):
    settings = {name: value for name, value in settings.items() if name != "inner_lr"}
    learner, theta, episode = prepared(PROTONET, framework, "ProtoNet", settings, sampler, dtype)
    return value_and_gradient(framework, learner, theta, lambda: PROTONET[framework].prototype_loss(
        learner.network_, theta, episode, 2, learner.statistics
    ))  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("settings", "sampler"),
    [
        (VECTORS, vectors()),
        (CHARACTERS, characters()),
        (CHARACTERS | {"statistics": "transductive"}, characters()),
    ],
)
def test_prototype_loss_and_its_gradient_agree(settings, sampler, dtype):
    found = [by_prototype_loss(framework, settings, sampler, dtype) for framework in PROTONET]
    assert_agree(*found, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("distance", ["cosine", "mahalanobis"])
def test_prototype_loss_of_other_distances_and_its_gradient_agree(distance, dtype):
    found = []
    for framework in PROTONET:
        learner, theta, episode = prepared(
            PROTONET, framework, "ProtoNet", VECTORS, vectors(), dtype
        )
        found.append(value_and_gradient(framework, learner, theta, lambda fw=framework, of=learner,
            t=theta, e=episode: PROTONET[fw].prototype_loss(
                of.network_, t, e, 2, distance=distance, scale=2.0
            )))  # fmt: skip
    assert_agree(*found, AFTER_STEPS[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("settings", [VECTORS, {"network": "conv4-strided", "channels": 3}])
def test_matching_loss_and_its_gradient_agree(settings, dtype):
    found, sampler = [], vectors() if settings is VECTORS else characters()
    for framework in MATCHING:
        learner, theta, episode = prepared(
            MATCHING, framework, "MatchingNet", settings, sampler, dtype
        )
        found.append(value_and_gradient(framework, learner, theta, lambda fw=framework, of=learner,
            t=theta, e=episode: MATCHING[fw].matching_loss(of.network_, t, e, 2, scale=5.0)
        ))  # fmt: skip
    assert_agree(*found, AFTER_STEPS[dtype])


@pytest.mark.parametrize("framework", FROZEN)
def test_fit_of_a_frozen_body_runs_the_loss_that_is_shown(framework, monkeypatch):
    calls = count(monkeypatch, FROZEN[framework], "base_loss")
    learner = FROZEN[framework].FrozenBody(iterations=ITERATIONS, n_tasks=2, random_state=0)
    learner.fit(vectors(), device="cpu")
    assert calls == {"base_loss": ITERATIONS if framework == "torch" else 1}


@pytest.mark.parametrize("framework", MATCHING)
def test_fit_of_a_matching_network_runs_the_functions_that_are_shown(framework, monkeypatch):
    calls = count(monkeypatch, MATCHING[framework], "matching_loss", "attention_logits", "embed")
    learner = MATCHING[framework].MatchingNet(iterations=ITERATIONS, n_tasks=2, random_state=0)
    learner.fit(vectors(), device="cpu")
    assert set(calls.values()) == {ITERATIONS if framework == "torch" else 1}


def count(monkeypatch, module, *names):
    """Name → number of calls of the module's function from now on."""
    calls = dict.fromkeys(names, 0)

    def counted(name, shown):
        def function(*args, **kwargs):
            calls[name] += 1
            return shown(*args, **kwargs)

        return function

    for name in names:
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    return calls


@pytest.mark.parametrize("framework", MAML)
@pytest.mark.parametrize(
    ("name", "loss", "steps", "inside"),
    [
        # Of the functions that the notebook shows: those inside the loss, and how often an
        # update calls each.  One step on few examples needs none of them.
        ("MAML", "episode_loss", 1, {"meta_loss": 0, "adapt": 0, "inner_update": 0}),
        ("MAML", "episode_loss", 2, {"meta_loss": 1, "adapt": 1, "inner_update": 2}),
        ("FOMAML", "episode_loss", 3, {"meta_loss": 1, "adapt": 1, "inner_update": 3}),
        ("ANIL", "episode_loss", 1, {"meta_loss": 1, "adapt": 1, "inner_update": 1}),
        ("Reptile", "reptile_direction", 2, {"meta_loss": 0, "adapt": 2, "inner_update": 2}),
    ],
)
def test_fit_runs_the_functions_that_are_shown(framework, name, loss, steps, inside, monkeypatch):
    calls = count(monkeypatch, MAML[framework], loss, *inside)
    learner = getattr(MAML[framework], name)(
        inner_steps=steps, iterations=ITERATIONS, n_tasks=2, random_state=0
    )
    learner.fit(vectors(), device="cpu")
    # TensorFlow calls them while it traces, once; torch in every update.
    updates = ITERATIONS if framework == "torch" else 1
    assert calls == {loss: updates} | {part: updates * times for part, times in inside.items()}


@pytest.mark.parametrize("framework", PROTONET)
def test_fit_of_protonet_runs_the_functions_that_are_shown(framework, monkeypatch):
    shown = ("prototype_loss", "embed", "prototypes", "squared_distances")
    calls = count(monkeypatch, PROTONET[framework], *shown)
    learner = PROTONET[framework].ProtoNet(iterations=ITERATIONS, n_tasks=2, random_state=0)
    learner.fit(vectors(), device="cpu")
    assert calls == dict.fromkeys(shown, ITERATIONS if framework == "torch" else 1)


def lowered(free, loss_of, steps=200):
    """First and lowest loss while Adam lowers it."""
    optimizer, found = torch.optim.Adam(free, lr=0.1), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of()
        found.append(loss.item())
        loss.backward()
        optimizer.step()
    return found[0], min(found)


@pytest.mark.parametrize("case", ["MAML", "MAML, one step", "ANIL", "sinusoids", "characters"])
def test_no_adversary_gets_the_episode_loss_below_zero(case):
    """Let Adam move the weights, all examples, and the targets of a regression."""
    learner, theta, (Xs, ys, Xq, yq) = prepared(MAML, "torch", *CASES[case])
    free = [Xs.requires_grad_(True), Xq.requires_grad_(True), *theta.values()]
    if learner.task == "regression":
        free += [ys.requires_grad_(True), yq.requires_grad_(True)]
    first, lowest = lowered(free, lambda: torch_maml.episode_loss(
        learner.network_, theta, (Xs, ys, Xq, yq), 0.05, learner.inner_steps, task=learner.task,
        adapted=learner._adapted_names(),
    ))  # fmt: skip
    assert 0 <= lowest < 0.1 * first


def test_no_adversary_gets_the_prototype_loss_below_zero():
    learner, theta, (Xs, ys, Xq, yq) = prepared(PROTONET, "torch", "ProtoNet", VECTORS, vectors())
    free = [Xs.requires_grad_(True), Xq.requires_grad_(True), *theta.values()]
    first, lowest = lowered(free, lambda: torch_protonet.prototype_loss(
        learner.network_, theta, (Xs, ys, Xq, yq), 2
    ))  # fmt: skip
    assert 0 <= lowest < 0.01 * first


@pytest.mark.parametrize("distance", ["cosine", "mahalanobis"])
def test_no_adversary_gets_another_distances_loss_below_zero(distance):
    learner, theta, (Xs, ys, Xq, yq) = prepared(PROTONET, "torch", "ProtoNet", VECTORS, vectors())
    free = [Xs.requires_grad_(True), Xq.requires_grad_(True), *theta.values()]
    first, lowest = lowered(free, lambda: torch_protonet.prototype_loss(
        learner.network_, theta, (Xs, ys, Xq, yq), 2, distance=distance, scale=10.0
    ))  # fmt: skip
    assert 0 <= lowest < 0.1 * first


def test_no_adversary_gets_the_matching_loss_below_zero():
    learner, theta, (Xs, ys, Xq, yq) = prepared(
        MATCHING, "torch", "MatchingNet", VECTORS, vectors()
    )
    free = [Xs.requires_grad_(True), Xq.requires_grad_(True), *theta.values()]
    first, lowest = lowered(free, lambda: torch_matching.matching_loss(
        learner.network_, theta, (Xs, ys, Xq, yq), 2, scale=10.0
    ))  # fmt: skip
    assert 0 <= lowest < 0.1 * first
