"""The meta-gradient against closed forms, finite differences and a plain loop over tasks."""

import numpy as np
import pytest
from meta_gradients import of_learner, of_losses, prepared, set_weights

from fewshot_course.data import EpisodeSampler, SinusoidSampler

ALPHA = 0.1


@pytest.fixture(autouse=True)
def eager(framework, request):
    """Run convolutions uncompiled, to save seconds; the parity tests run what is compiled."""
    if framework.name == "torch" or "conv4" not in request.node.name:
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def quadratic(framework, matrix, centre):
    """The loss (w - c)ᵀ A (w - c) / 2 with a symmetric A."""
    A, c = framework.tensor(matrix, "float64"), framework.tensor(centre, "float64")

    def loss(w):
        apart = (w - c)[:, None]
        product = (A @ apart) * apart
        return 0.5 * (product.sum() if framework.name == "torch" else sum(product[:, 0]))

    return loss


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_quadratic_tasks_have_a_closed_form(framework, steps):
    """With L_s = (w-c)ᵀA(w-c)/2, one step is w' - c = (I - αA)(w - c).

    So after k steps w_k = c + Mᵏ(w - c) with M = I - αA, and with the query loss
    (w-d)ᵀB(w-d)/2 the meta-gradient is (Mᵏ)ᵀ B (w_k - d).  First order leaves (Mᵏ)ᵀ out.
    """
    rng = np.random.default_rng(0)
    A, B = (m @ m.T / 3 for m in rng.normal(size=(2, 3, 3)))
    w, c, d = rng.normal(size=(3, 3))
    power = np.linalg.matrix_power(np.eye(3) - ALPHA * A, steps)
    end = c + power @ (w - c)
    losses = quadratic(framework, A, c), quadratic(framework, B, d)
    value, gradient = of_losses(framework, *losses, w, ALPHA, steps)
    np.testing.assert_allclose(value, 0.5 * (end - d) @ B @ (end - d), rtol=1e-12)
    np.testing.assert_allclose(gradient, power.T @ B @ (end - d), rtol=1e-12, atol=1e-13)
    _, first = of_losses(framework, *losses, w, ALPHA, steps, first_order=True)
    np.testing.assert_allclose(first, B @ (end - d), rtol=1e-12, atol=1e-13)
    if steps:
        assert np.abs(first - gradient).max() > 1e-2


def test_inner_update_leaves_the_rest_alone(framework):
    parameters = {n: framework.tensor(np.full(2, v)) for n, v in (("a", 1.0), ("b", 2.0))}
    new = framework.module("maml").inner_update(
        parameters, {"a": framework.tensor(np.ones(2))}, 0.5
    )
    assert framework.array(new["a"]).tolist() == [0.5, 0.5]
    assert framework.array(new["b"]).tolist() == [2, 2]
    assert framework.array(parameters["a"]).tolist() == [1, 1]


def characters(n_tasks=2, ways=2, shots=4, side=8):
    rng = np.random.default_rng(5)
    X, y = rng.uniform(size=(24, side, side)), np.repeat(np.arange(4), 6)
    return EpisodeSampler(X, y, ways, shots, 2).sample(1, n_tasks)


def vectors(n_tasks=2):
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(24, 3)), np.repeat(np.arange(4), 6)
    return EpisodeSampler(X, y, 2, 2, 2).sample(1, n_tasks)


def user_module(framework, norm):
    """A module of the user's own: dense, norm, tanh, head."""
    if framework.name == "torch":
        from torch import nn

        torch_networks = framework.module("networks")
        layer = {"BatchNorm": torch_networks.BatchNorm, "LayerNorm": torch_networks.LayerNorm}
        return lambda: nn.Sequential(nn.Linear(3, 4), layer[norm](4), nn.Tanh(), nn.Linear(4, 2))
    import keras

    def build():
        layers = [
            keras.layers.Dense(4),
            getattr(framework.module("networks"), norm)(4),
            keras.layers.Activation("tanh"),
            keras.layers.Dense(2),
        ]
        return keras.Sequential([keras.Input((3,)), *layers])

    return build


CONV4 = {"network": "conv4", "channels": 3, "inner_lr": 0.05}
CASES = {
    "mlp": (vectors, {"network": "mlp", "hidden": (5, 4)}),
    "sinusoid": (
        lambda: SinusoidSampler(4, 3).sample(0, 3),
        {"task": "regression", "network": "mlp", "hidden": (5,)},
    ),
    # One step and few examples: the tasks share their weights (module fast_weights).
    "mlp, one step": (vectors, {"network": "mlp", "hidden": (5, 4), "inner_steps": 1}),
    "sinusoid, one step": (
        lambda: SinusoidSampler(4, 3).sample(0, 3),
        {"task": "regression", "network": "mlp", "hidden": (5,), "inner_steps": 1},
    ),
    "conv4": (characters, CONV4),
    "conv4, transductive": (
        characters, CONV4 | {"statistics": "transductive"},
    ),
    "own module, BatchNorm": (vectors, {"network": "BatchNorm"}),
    "own module, BatchNorm, transductive": (
        vectors, {"network": "BatchNorm", "statistics": "transductive"},
    ),
    "own module, LayerNorm": (vectors, {"network": "LayerNorm"}),
}  # fmt: skip


def learner_of(framework, case, method="MAML", **changes):
    make, options = CASES[case]
    episodes = make()
    options = {"inner_lr": 0.3, "inner_steps": 2, "dtype": "float64", **options, **changes}
    if options["network"].endswith("Norm"):
        options["network"] = user_module(framework, options["network"])
    learner = prepared(getattr(framework.module("maml"), method)(**options), episodes)
    # Random weights in norms, too: an identity hides what depends on them.
    rng = np.random.default_rng(3)
    arrays = framework.module("networks").to_numpy(learner.network_)
    for name, array in arrays.items():
        if not name.endswith("running_var"):
            arrays[name] = array + 0.2 * rng.normal(size=array.shape)
    set_weights(framework, learner, arrays)
    return learner, episodes, arrays


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["MAML", "ANIL"])
def test_finite_differences(framework, case, method):
    if method == "ANIL" and case.startswith("own"):
        pytest.skip("ANIL needs a layer called head")
    learner, episodes, arrays = learner_of(framework, case, method)
    _, gradient = of_learner(learner, episodes)
    rng = np.random.default_rng(0)
    step = 1e-6
    for _ in range(3):
        direction = {name: rng.normal(size=g.shape) for name, g in gradient.items()}
        values = []
        for sign in (1, -1):
            moved = {n: a + sign * step * direction.get(n, 0) for n, a in arrays.items()}
            set_weights(framework, learner, moved)
            values.append(of_learner(learner, episodes)[0])
        slope = (values[0] - values[1]) / (2 * step)
        ours = sum((gradient[name] * direction[name]).sum() for name in gradient)
        assert ours == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_only_one_step_on_few_examples_shares_the_weights(framework):
    for case, method, n_support, shared in (
        ("mlp, one step", "MAML", 5, True),
        ("mlp, one step", "FOMAML", 5, True),
        ("mlp, one step", "MAML", 6, False),  # more examples than units
        ("mlp, one step", "ANIL", 5, False),
        ("mlp", "MAML", 4, False),
        ("own module, LayerNorm", "MAML", 1, False),
    ):
        learner, _, _ = learner_of(framework, case, method)
        found = framework.module("maml").shares_weights(
            learner.network_, learner._trained(), n_support, learner.inner_steps,
            learner._adapted_names(),
        )  # fmt: skip
        assert found is shared, (case, method, n_support)


@pytest.mark.parametrize("case", CASES)
def test_many_tasks_at_once_are_one_task_after_the_other(framework, case):
    learner, episodes, _ = learner_of(framework, case)
    _, together = of_learner(learner, episodes)
    alone = []
    for index in range(len(episodes)):
        one = type(episodes)(*(part[None] for part in episodes.task(index)))
        alone.append(of_learner(learner, one)[1])
    for name, gradient in together.items():
        mean = np.mean([one[name] for one in alone], axis=0)
        np.testing.assert_allclose(gradient, mean, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "case", ["mlp", "mlp, one step", "sinusoid", "sinusoid, one step", "conv4"]
)
def test_plain_modules_and_the_task_axis_agree(framework, case):
    """The named network, handed in as the user's own module, takes the general path."""
    learner, episodes, arrays = learner_of(framework, case)
    loss, fast = of_learner(learner, episodes)
    kind = type(learner.network_)
    arguments = (learner.input_shape_, learner.n_outputs_)
    extra = {"channels": 3} if case == "conv4" else {"hidden": learner.hidden}
    # A subclass is not the named network itself, so it is not recognised.
    factory = type("Own", (kind,), {})
    other, _, _ = learner_of(framework, case)
    other.network = lambda: factory(*arguments, **extra)
    prepared(other, episodes)
    set_weights(framework, other, arrays)
    slow_loss, slow = of_learner(other, episodes)
    assert slow_loss == pytest.approx(loss, rel=1e-12)
    for name in fast:
        np.testing.assert_allclose(slow[name], fast[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", ["mlp", "mlp, one step", "conv4"])
def test_first_order_differs_and_is_the_gradient_where_the_task_ended(framework, case):
    learner, episodes, arrays = learner_of(framework, case, "FOMAML")
    _, first = of_learner(learner, episodes)
    _, exact = of_learner(learner_of(framework, case)[0], episodes)
    apart = [np.abs(first[n] - exact[n]).max() / np.abs(exact[n]).max() for n in exact]
    assert max(apart) > 1e-2
    zero, _, _ = learner_of(framework, case, inner_steps=0)
    summed = {name: 0.0 for name in first}
    for index in range(len(episodes)):
        X_support, y_support, X_query, y_query = episodes.task(index)
        one = type(episodes)(*(part[None] for part in (X_support, y_support, X_query, y_query)))
        adapted = learner.adapt(X_support, y_support) if _mark_fitted(learner) else None
        set_weights(framework, zero, {**arrays, **adapted.weights_})
        for name, g in of_learner(zero, one)[1].items():
            summed[name] += g / len(episodes)
    for name in first:
        np.testing.assert_allclose(first[name], summed[name], rtol=1e-9, atol=1e-11)


def _mark_fitted(learner):
    learner.history_ = {}
    return True


@pytest.mark.parametrize("case", ["mlp", "mlp, one step", "conv4"])
def test_inner_rate_zero_is_joint_training(framework, case):
    still, episodes, _ = learner_of(framework, case, inner_lr=0.0)
    joint, _, _ = learner_of(framework, case, inner_steps=0)
    loss, gradient = of_learner(still, episodes)
    joint_loss, joint_gradient = of_learner(joint, episodes)
    assert loss == pytest.approx(joint_loss, rel=1e-12)
    for name in gradient:
        np.testing.assert_allclose(gradient[name], joint_gradient[name], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("case", ["mlp", "mlp, one step", "conv4", "conv4, transductive"])
def test_anil_is_maml_with_body_rate_zero(framework, case):
    anil, episodes, _ = learner_of(framework, case, "ANIL")
    maml, _, _ = learner_of(framework, case)
    maml._adapted_names = anil._adapted_names  # only the head has a rate
    # As a module of its own it takes the general path, where the body runs in every step.
    maml.network_.__class__ = type("Own", (type(maml.network_),), {})
    for (name, a), b in zip(
        of_learner(anil, episodes)[1].items(), of_learner(maml, episodes)[1].values(), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=name)


def test_reptile_moves_towards_where_training_ends(framework):
    from fewshot_course._streams import Streams

    learner, episodes, _ = learner_of(framework, "mlp", "Reptile", batch_size=8, inner_steps=3)
    # Batches of the whole task: the order does not matter, and the oracle is plain descent.
    joined = type(episodes)(
        np.concatenate([episodes.X_support, episodes.X_query], 1),
        np.concatenate([episodes.y_support, episodes.y_query], 1),
        episodes.X_query,
        episodes.y_query,
    )
    _, moved = of_learner(learner, episodes, Streams.from_seed(0))
    start = framework.module("networks").to_numpy(learner.network_)
    _mark_fitted(learner)
    ends = [learner.adapt(*joined.task(i)[:2], steps=3).weights_ for i in range(len(joined))]
    for name in moved:
        expected = start[name] - np.mean([end[name] for end in ends], axis=0)
        np.testing.assert_allclose(moved[name], expected, rtol=1e-9, atol=1e-12)
