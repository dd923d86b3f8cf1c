"""Networks as functions of their weights: the order in which they compute changes nothing."""

import numpy as np
import pytest

from fewshot_course._streams import Streams

NETWORKS = ["mlp", "conv4", "conv4-strided"]


def prepared(framework, name, side=11, dtype="float64"):
    """A network whose batch norms have weights of both signs, and its weights by name."""
    networks, meta = framework.module("networks"), framework.module("meta_networks")
    kinds = {"conv4": networks.Conv4, "conv4-strided": networks.Conv4Strided}
    with_dtype = getattr(networks, "layer_dtype", None)
    if with_dtype is None:
        import torch

        made = kinds.get(name, networks.MLP)((side, side), 3, *((4,) if name in kinds else ()))
        network = made.to(getattr(torch, dtype))
    else:
        with with_dtype(dtype):
            network = kinds.get(name, networks.MLP)(
                (side, side), 3, *((4,) if name in kinds else ())
            )
    networks.initialise(network, Streams.from_seed(0).init)
    rng = np.random.default_rng(1)
    arrays = networks.to_numpy(network)
    for key, array in arrays.items():
        if array.ndim == 1 and "running" not in key:
            arrays[key] = rng.normal(size=array.shape)  # batch norm's weight and bias
    networks.from_numpy(network, arrays)
    return network, meta.parameters_of(network)


@pytest.mark.parametrize("n_reference", [None, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_body_for_all_tasks_gives_what_a_body_for_each_gives(framework, name, n_reference):
    meta = framework.module("meta_networks")
    network, theta = prepared(framework, name)
    X = framework.tensor(np.random.default_rng(0).uniform(size=(3, 6, 11, 11)))
    shared = meta.shared_features(network, theta, X, n_reference)
    each = meta.apply_features(network, meta.expand(theta, 3), X, n_reference)
    assert framework.array(shared).any()
    np.testing.assert_allclose(framework.array(shared), framework.array(each), rtol=1e-10)


def squares_and_gradients(framework, run, theta):
    """Sum of the squared outputs, its gradient, and the gradient of that gradient's squares."""
    names = list(theta)
    if framework.name == "torch":
        import torch

        values = list(theta.values())
        loss = run().square().sum()
        first = torch.autograd.grad(loss, values, create_graph=True, allow_unused=True)
        known = [g for g in first if g is not None]
        second = torch.autograd.grad(
            sum(g.square().sum() for g in known), values, allow_unused=True
        )
        found = [loss], first, second
    else:
        import tensorflow as tf

        values = list(theta.values())
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_sum(tf.square(run()))
            first = inner.gradient(loss, values)
            total = tf.add_n([tf.reduce_sum(tf.square(g)) for g in first if g is not None])
        found = [loss], first, outer.gradient(total, values)

    def array(g):
        return None if g is None else framework.array(g)

    loss, first, second = ([array(g) for g in part] for part in found)
    return loss[0], dict(zip(names, first, strict=True)), dict(zip(names, second, strict=True))


@pytest.mark.parametrize("name", ["conv4", "conv4-strided"])
def test_pooling_before_batch_norm_changes_no_value_and_no_derivative(framework, name):
    """Against the network's own layers in their usual order, batch norm with the batch."""
    meta = framework.module("meta_networks")
    network, theta = prepared(framework, name)
    X = framework.tensor(np.random.default_rng(0).uniform(size=(6, 11, 11)))
    assert framework.array(theta["body.1.weight"]).min() < 0

    def plain():
        if framework.name == "torch":
            return network.train().features(X)
        return network.features(X, training=True)

    usual = squares_and_gradients(framework, plain, theta)
    ours = squares_and_gradients(
        framework, lambda: meta.shared_features(network, theta, X[None])[0], theta
    )
    assert ours[0] == pytest.approx(usual[0], rel=1e-10)
    for found, expected in zip(ours[1:], usual[1:], strict=True):
        largest = max(np.abs(g).max() for g in expected.values() if g is not None)
        for key, gradient in expected.items():
            if gradient is None:
                assert found[key] is None or not found[key].any()
                continue
            np.testing.assert_allclose(found[key], gradient, rtol=1e-8, atol=1e-10 * largest)


@pytest.mark.parametrize("side", [5, 8, 11, 28])
def test_the_strided_network_halves_and_then_averages(framework, side):
    """Against PyTorch's convolution of an image that was padded by hand."""
    torch = pytest.importorskip("torch", reason="the oracle is torch.nn.functional.conv2d")
    import torch.nn.functional as F

    network, _ = prepared(framework, "conv4-strided", side)
    arrays = framework.module("networks").to_numpy(network)
    X = np.random.default_rng(0).uniform(size=(2, side, side))
    x = torch.as_tensor(X[:, None])
    for index in range(0, 12, 3):
        x = F.conv2d(
            F.pad(x, (1, 1, 1, 1)), torch.as_tensor(arrays[f"body.{index}.weight"]), stride=2
        )
        norm = [torch.as_tensor(arrays[f"body.{index + 1}.{part}"]).view(-1, 1, 1)
                for part in ("running_mean", "running_var", "weight", "bias")]  # fmt: skip
        x = F.relu((x - norm[0]) / torch.sqrt(norm[1] + 1e-5) * norm[2] + norm[3])
    expected = x.mean((2, 3)) @ torch.as_tensor(arrays["head.weight"]).T + torch.as_tensor(
        arrays["head.bias"]
    )
    x = framework.tensor(X)
    found = network.eval()(x) if framework.name == "torch" else network(x, training=False)
    np.testing.assert_allclose(framework.array(found), expected.numpy(), rtol=1e-10, atol=1e-12)
