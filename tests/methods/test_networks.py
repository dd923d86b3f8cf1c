"""Networks: shapes, batch norm against torch's own, factories, and the canonical layout."""

import numpy as np
import pytest

from fewshot_course._streams import Streams


def build(framework, network, shape, n_outputs=3, dtype="float64"):
    rng = Streams.from_seed(0).init
    return framework.module("networks").build(network, shape, n_outputs, rng, dtype)


def run(framework, module, X, training=False):
    x = framework.tensor(X)
    if framework.name == "torch":
        return framework.array(module.train(training)(x))
    return framework.array(module(x, training=training))


def a_factory(framework, n_outputs=3, n_inputs=4):
    """What a user would write, with the framework's own layers."""
    if framework.name == "torch":
        from torch import nn

        return lambda: nn.Sequential(nn.Linear(n_inputs, 6), nn.Tanh(), nn.Linear(6, n_outputs))
    import keras

    return lambda: keras.Sequential(
        [
            keras.Input((n_inputs,)),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.Dense(n_outputs),
        ]
    )


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        ("mlp", (4,)),
        ("mlp", (5, 4)),
        ("mlp", (5, 4, 2)),
        ("conv4", (8, 8)),
        ("conv4", (8, 8, 3)),
        ("conv4", (9, 5)),
        ("conv4", (28, 28)),
        (None, (4,)),
        (None, (8, 8)),
    ],
)
def test_shapes(framework, network, shape):
    module = build(framework, network, shape)
    X = np.random.default_rng(0).uniform(size=(2, *shape))
    assert run(framework, module, X).shape == (2, 3)
    assert len(framework.array(module.features(framework.tensor(X))).shape) == 2
    kind = type(module).__name__
    assert kind == {"mlp": "MLP", "conv4": "Conv4"}.get(network, "MLP" if len(shape) == 1 else kind)
    if network is None and len(shape) > 1:
        assert kind == "Conv4"


def test_a_last_axis_of_one_channel_changes_nothing(framework):
    X = np.random.default_rng(0).uniform(size=(2, 8, 8))
    flat, deep = build(framework, "conv4", (8, 8)), build(framework, "conv4", (8, 8, 1))
    # The strides differ, and with them the kernel that some processors take: one bit.
    np.testing.assert_allclose(
        run(framework, flat, X), run(framework, deep, X[..., None]), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("spatial", [(), (3, 2)])
def test_batch_norm_equals_torchs(framework, spatial):
    """Output, running averages, and output in prediction, after three batches."""
    torch = pytest.importorskip("torch", reason="the oracle is torch.nn.BatchNorm")
    rng = np.random.default_rng(0)
    X = rng.normal(2.0, 3.0, size=(3, 6, *spatial, 4))  # channels last
    oracle = (torch.nn.BatchNorm2d if spatial else torch.nn.BatchNorm1d)(4).double()
    if framework.name == "torch":
        ours = framework.module("networks").BatchNorm(4).double()
    else:
        with framework.module("networks").layer_dtype("float64"):
            ours = framework.module("networks").BatchNorm(4)

    def channels_first(x):
        return np.moveaxis(x, -1, 1).copy()

    def ours_of(x, training):
        if framework.name == "torch":
            out = run(framework, ours, channels_first(x), training)
            return np.moveaxis(out, 1, -1)
        return run(framework, ours, x, training)

    def oracle_of(x, training):
        out = oracle.train(training)(torch.as_tensor(channels_first(x)))
        return np.moveaxis(out.detach().numpy(), 1, -1)

    for batch in X:
        np.testing.assert_allclose(ours_of(batch, True), oracle_of(batch, True), rtol=1e-9)
    weights = framework.module("networks").to_numpy(ours)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(weights[name], getattr(oracle, name).numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours_of(X[0], False), oracle_of(X[0], False), rtol=1e-9)


def second_order(framework, norm, x, v):
    """Output of a batch norm, its gradient by x, and that of gradient · v by x and the weight."""
    if framework.name == "torch":
        import torch

        x = framework.tensor(np.moveaxis(x, -1, 1).copy()).requires_grad_()
        out = norm.train()(x)
        (gradient,) = torch.autograd.grad((out**3).sum(), x, create_graph=True)
        weighted = (gradient * framework.tensor(np.moveaxis(v, -1, 1).copy())).sum()
        parts = (out, gradient, *torch.autograd.grad(weighted, (x, norm.weight)))
        arrays = [framework.array(part.detach()) for part in parts]
        return [np.moveaxis(array, 1, -1) if array.ndim == 4 else array for array in arrays]
    import tensorflow as tf

    x = framework.tensor(x)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            out = norm(x, training=True)
            cubes = tf.reduce_sum(out**3)
        gradient = inner.gradient(cubes, x)
        weighted = tf.reduce_sum(gradient * framework.tensor(v))
    return list(map(framework.array, (out, gradient, *outer.gradient(weighted, (x, norm.weight)))))


def test_the_fused_batch_norm_equals_the_written_out_one(framework, monkeypatch):
    """Values, gradient and second derivative by input and weight, running averages, prediction."""
    rng = np.random.default_rng(0)
    X, V = rng.normal(1.0, 2.0, size=(2, 3, 6, 5, 5, 4)).astype(np.float32)
    cls = framework.module("networks").BatchNorm
    results = {}
    for limit in (cls.fused_above, 0):
        monkeypatch.setattr(cls, "fused_above", limit)
        norm = cls(4)
        parts = [second_order(framework, norm, x, v) for x, v in zip(X, V, strict=True)]
        averages = framework.module("networks").to_numpy(norm)
        x = X[0] if framework.name == "tensorflow" else np.moveaxis(X[0], -1, 1).copy()
        results[limit] = [array for four in parts for array in four]
        results[limit] += [averages["running_mean"], averages["running_var"]]
        results[limit].append(run(framework, norm, x))
    plain, fused = results.values()
    assert any((a != b).any() for a, b in zip(plain, fused, strict=True)), "not another kernel"
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * np.abs(a).max())


TWO_PASSES = {
    "KLAdapter": {"latent_dim": 3},
    "CORALAdapter": {"latent_dim": 3},
    "DANNAdapter": {"latent_dim": 3},
    "KLIEP": {"width": 1.0},
    "SelfTraining": {"unlabelled_batch_size": 16, "ramp_start": 0.0, "ramp_end": 0.0},
    "ImageClassifier": {},
}


@pytest.mark.parametrize("name", TWO_PASSES)
def test_a_large_and_a_small_pass_may_stand_in_one_step(framework, name, monkeypatch):
    """Large batches take another kernel of batch norm than small ones: both in one gradient."""
    rng = np.random.default_rng(0)
    X, y = rng.uniform(size=(36, 16, 16)).astype(np.float32), np.arange(36) % 2
    few = np.where(np.arange(36) < 4, y, -1)
    module = framework.module("networks")
    passes = []

    def kernel_of(limit):
        monkeypatch.setattr(module.BatchNorm, "fused_above", limit)
        batch = {"batch_size": 16} if name != "SelfTraining" else {"batch_size": 4}
        model = framework.estimator(
            name, network="conv4", random_state=0, steps=2, **batch, **TWO_PASSES[name]
        )
        if name in ("SelfTraining", "ImageClassifier"):
            return model.fit(X, few if name == "SelfTraining" else y, device="cpu")
        return model.fit(X, y, X[::-1], few, device="cpu")

    # 4 images pass as 4·64·16·16 = 65,536 numbers through the first layer, 16 as four times that.
    for limit in (2**17, 2**40):
        passes.append(kernel_of(limit).history_["loss"])
    np.testing.assert_allclose(passes[0], passes[1], rtol=2e-3)


def test_layer_norm_equals_torchs(framework):
    torch = pytest.importorskip("torch", reason="the oracle is torch.nn.LayerNorm")
    X = np.random.default_rng(0).normal(size=(3, 5, 4))
    for eps in (1e-5, 1e-12):
        if framework.name == "torch":
            ours = framework.module("networks").LayerNorm(4, eps).double()
        else:
            with framework.module("networks").layer_dtype("float64"):
                ours = framework.module("networks").LayerNorm(4, eps)
        oracle = torch.nn.LayerNorm(4, eps).double()(torch.as_tensor(X)).detach().numpy()
        np.testing.assert_allclose(
            framework.array(ours(framework.tensor(X))), oracle, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize(("network", "shape"), [("mlp", (4,)), ("conv4", (8, 8))])
def test_weights_go_to_numpy_and_back(framework, network, shape):
    networks = framework.module("networks")
    one = build(framework, network, shape)
    other = networks.build(network, shape, 3, np.random.default_rng(9), "float64")
    weights = networks.to_numpy(one)
    X = np.random.default_rng(0).uniform(size=(2, *shape))
    assert not np.allclose(run(framework, one, X), run(framework, other, X))
    networks.from_numpy(other, weights)
    np.testing.assert_array_equal(run(framework, one, X), run(framework, other, X))
    for value in weights.values():
        value[...] = 7.0  # to_numpy gives copies
    np.testing.assert_array_equal(run(framework, one, X), run(framework, other, X))


def test_the_layout_is_torchs(framework):
    names = list(framework.module("networks").to_numpy(build(framework, "conv4", (8, 8))))
    assert names[:5] == [
        "body.0.weight", "body.1.weight", "body.1.bias", "body.1.running_mean",
        "body.1.running_var",
    ]  # fmt: skip
    assert names[-2:] == ["head.weight", "head.bias"]
    shapes = framework.module("networks").to_numpy(build(framework, "mlp", (4,)))
    assert {k: v.shape for k, v in shapes.items()} == {
        "body.0.weight": (256, 4), "body.0.bias": (256,),
        "head.weight": (3, 256), "head.bias": (3,),
    }  # fmt: skip


def test_a_wrong_layout_is_refused(framework):
    networks = framework.module("networks")
    module = build(framework, "mlp", (4,))
    weights = networks.to_numpy(module)
    with pytest.raises(ValueError, match=r"missing \['head.bias'\]"):
        networks.from_numpy(module, {k: v for k, v in weights.items() if k != "head.bias"})
    with pytest.raises(ValueError, match=r"unexpected \['extra'\]"):
        networks.from_numpy(module, {**weights, "extra": np.zeros(1)})
    with pytest.raises(ValueError, match=r"'head.weight' has shape \(256, 3\)"):
        networks.from_numpy(module, {**weights, "head.weight": weights["head.weight"].T})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_factory_is_accepted_in_both_dtypes(framework, dtype):
    module = build(framework, a_factory(framework), (4,), dtype=dtype)
    out = run(framework, module, np.zeros((2, 4), dtype))
    assert out.dtype == dtype
    names = framework.module("networks").to_numpy(module)
    assert len(names) == 4
    assert all(value.dtype == dtype for value in names.values())


def test_two_copies_of_a_factorys_network_have_one_layout(framework):
    """Keras numbers its layers through the whole process; the canonical names must not."""
    networks = framework.module("networks")
    one, two = (build(framework, a_factory(framework), (4,)) for _ in range(2))
    assert list(networks.to_numpy(one)) == list(networks.to_numpy(two))
    networks.from_numpy(two, networks.to_numpy(one))
    X = np.random.default_rng(0).normal(size=(2, 4))
    np.testing.assert_array_equal(run(framework, one, X), run(framework, two, X))


def test_no_weight_of_a_users_network_is_lost():
    """Weights of a Keras model's own, and layers inside a layer, whose weights share a name."""
    keras = pytest.importorskip("keras", reason="tensorflow is not installed")
    from fewshot_course.tf import networks

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.attention = keras.layers.MultiHeadAttention(num_heads=2, key_dim=3)
            self.dense = keras.layers.Dense(3)
            self.shift = self.add_weight(shape=(3,), name="shift", initializer="normal")

        def call(self, x, training=False):
            x = x[:, None]
            return self.dense(self.attention(x, x)[:, 0]) + self.shift

    rng = np.random.default_rng(0)
    one, two = (networks.build(Own, (4,), 3, rng) for _ in range(2))
    weights = networks.to_numpy(one)
    assert sum(v.size for v in weights.values()) == one.count_params()
    networks.from_numpy(two, weights)
    X = rng.normal(size=(2, 4)).astype("float32")
    np.testing.assert_array_equal(one(X), two(X))


def test_bad_networks_are_named(framework):
    with pytest.raises(ValueError, match=r"network='conv5' is not known.*conv4"):
        build(framework, "conv5", (8, 8))
    with pytest.raises(ValueError, match=r"network='conv4' needs images"):
        build(framework, "conv4", (4,))
    with pytest.raises(ValueError, match=r"dtype='float16' is not known"):
        build(framework, "mlp", (4,), dtype="float16")
    with pytest.raises(
        ValueError, match=r"network factory's \w+ maps 2 examples to shape \(2, 5\)"
    ):
        build(framework, a_factory(framework, n_outputs=5), (4,))
    with pytest.raises(ValueError, match=r"cannot map examples of shape \(4,\)"):
        build(framework, a_factory(framework, n_inputs=7), (4,))
    with pytest.raises(TypeError, match="network must be a name or a function"):
        build(framework, a_factory(framework)(), (4,))
    with pytest.raises(TypeError, match="returned a NoneType"):
        build(framework, lambda: None, (4,))


# ---------------------------------------------------------------- half precision


def test_pooling_before_the_relu_changes_nothing(framework):
    """The network as it is published, written out: ReLU, then the largest of four."""
    module = build(framework, "conv4", (8, 8))
    X = np.random.default_rng(0).uniform(size=(6, 8, 8))
    if framework.name == "torch":
        from torch.nn import functional as F

        x = framework.tensor(X)[:, None]
        for layer in module.eval().body:
            name = type(layer).__name__
            if name == "MaxPool2d":
                x = layer(F.relu(x))
            elif name != "ReLU":
                x = layer(x)
        expected = framework.array(module.head(F.relu(x).permute(0, 2, 3, 1).flatten(1)))
    else:
        import tensorflow as tf

        x = framework.tensor(X)[..., None]
        for conv, norm in zip(module.body[::2], module.body[1::2], strict=True):
            x = tf.nn.relu(norm(conv(x)))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID") if x.shape[1] > 1 else x
        expected = framework.array(module.head(tf.reshape(x, (len(X), -1))))
    np.testing.assert_allclose(run(framework, module, X), expected, rtol=1e-12)


def test_batch_norm_of_half_precision_sums_with_all_digits(both):
    """Many numbers far from zero: sums in half precision itself would be off by a third."""
    import torch

    x = torch.as_tensor(np.random.default_rng(0).normal(5.0, 0.5, size=(400, 2, 6, 6)))
    half = x.to(torch.bfloat16)
    norm = both[0].module("networks").BatchNorm(2)
    out = norm.train()(half)
    exact = half.double()
    mean, var = exact.mean((0, 2, 3)), exact.var((0, 2, 3), unbiased=False)
    expected = (exact - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    assert out.dtype == torch.bfloat16
    np.testing.assert_allclose(out.double().detach(), expected, rtol=2**-8, atol=2**-7)
    np.testing.assert_allclose(norm.running_mean, 0.1 * mean.float(), rtol=1e-5)
    n = half.numel() // 2
    np.testing.assert_allclose(norm.running_var, 0.9 + 0.1 * var * n / (n - 1), rtol=1e-5)
