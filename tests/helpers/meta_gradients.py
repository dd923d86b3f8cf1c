"""Meta-gradients in each framework, as arrays by canonical name, for the tests of meta-learning."""

import importlib

import numpy as np


def of_losses(framework, support_loss, query_loss, theta, lr, steps, **options):
    """Gradient of ``meta_loss`` of a vector θ; the losses take a tensor."""
    maml = framework.module("maml")
    start = framework.tensor(theta, "float64")

    def value(tensor):
        return maml.meta_loss(
            lambda p: support_loss(p["w"]), lambda p: query_loss(p["w"]), {"w": tensor},
            lr, steps, **options,
        )  # fmt: skip

    if framework.name == "torch":
        start.requires_grad_(True)
        loss = value(start)
        loss.backward()
        return float(loss.detach()), start.grad.numpy()
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(start)
        loss = value(start)
    return float(loss), tape.gradient(loss, start).numpy()


def prepared(learner, episodes, seed=0):
    """Build the learner's network for the episodes, without training."""
    learner._check_parameters()
    learner.input_shape_ = tuple(episodes.X_support.shape[2:])
    regression = learner.task == "regression"
    learner.n_outputs_ = 1 if regression else int(episodes.y_support.max()) + 1
    learner._build(np.random.default_rng(seed), "cpu")
    return learner


def of_learner(learner, episodes, streams=None):
    """Loss and gradient, canonical name → array in canonical layout."""
    theta = learner._trained()
    loss, gradients = learner._meta_gradient(theta, learner._tensors(episodes), streams)
    axes = {}
    if not hasattr(learner.network_, "named_parameters"):
        networks = importlib.import_module("fewshot_course.tf.networks")
        axes = {name: axes for name, (_, axes) in networks._state(learner.network_).items()}
    value = loss.detach() if hasattr(loss, "detach") else loss
    return float(value), {
        name: np.transpose(np.asarray(g), axes.get(name, range(len(g.shape))))
        for name, g in zip(theta, gradients, strict=True)
    }


def set_weights(framework, learner, arrays):
    framework.module("networks").from_numpy(learner.network_, arrays)
