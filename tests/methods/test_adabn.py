"""Batch norm's statistics from the target: against NumPy, block by block, through save."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone

from fewshot_course.both.adabn import Moments


def two_domains(n=60, m=50):
    rng = np.random.default_rng(1)
    y = np.arange(n) % 2
    X = rng.uniform(0, 0.5, size=(n, 6, 6)) + 0.4 * y[:, None, None]
    return X, y, rng.uniform(0.2, 1.0, size=(m, 6, 6)) ** 2


def adapter(framework, **params):
    settings = {
        "network": "conv4", "latent_dim": 3, "steps": 4, "batch_size": 16, "random_state": 0,
        "dtype": "float64",
    }  # fmt: skip
    return framework.estimator("AdaBNAdapter", **settings | params)


def encoder_arrays(framework, model):
    return framework.module("networks").to_numpy(model.network_.encoder)


def convolve(x, kernel):
    """3 × 3 convolution of ``(n, h, w, c)`` with zeros around; the kernel is ``(o, c, 3, 3)``."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,ocij->nhwo", windows, kernel)


def statistics_by_numpy(X, arrays):
    """Mean and unbiased variance of the inputs of each layer, those before adapted already."""
    x, found = X[..., None], []
    for position in sorted(int(k.split(".")[1]) for k in arrays if k.endswith("running_mean")):
        x = convolve(x, arrays[f"body.{position - 1}.weight"])
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        rows = x.shape[0] * x.shape[1] * x.shape[2]
        unbiased = variance * rows / (rows - 1)
        found.append((position, mean, unbiased))
        scale, bias = arrays[f"body.{position}.weight"], arrays[f"body.{position}.bias"]
        x = np.maximum((x - mean) / np.sqrt(unbiased + 1e-5) * scale + bias, 0)
        if min(x.shape[1:3]) >= 2:
            n, h, w, c = x.shape
            x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    return found


def test_statistics_are_those_of_all_target_examples(framework):
    X, y, X_target = two_domains()
    model = adapter(framework).fit(X, y, X_target, device="cpu")
    arrays = encoder_arrays(framework, model)
    expected = statistics_by_numpy(X_target, arrays)
    assert len(expected) == 4
    for position, mean, variance in expected:
        for name, value in (("running_mean", mean), ("running_var", variance)):
            np.testing.assert_allclose(arrays[f"body.{position}.{name}"], value, rtol=1e-9)
    source_only = framework.estimator(
        "KLAdapter", **adapter(framework).get_params(), weight=0.0, reverse_weight=0.0
    ).fit(X, y, X_target, device="cpu")
    before = encoder_arrays(framework, source_only)
    for name, value in arrays.items():
        same = np.array_equal(value, before[name])
        assert same != ("running" in name), name  # weights stay, statistics do not


@pytest.mark.parametrize("sizes", [(50,), (1, 49), (7, 20, 23)])
def test_blocks_of_any_size_give_the_same(framework, sizes):
    X, y, X_target = two_domains()
    model = adapter(framework).fit(X, y, X_target, device="cpu")
    before = encoder_arrays(framework, model)
    blocks = [framework.tensor(part) for part in np.split(X_target, np.cumsum(sizes)[:-1])]
    assert framework.module("adabn").adapt_batch_norm(model.network_.encoder, blocks) == 4
    for name, value in encoder_arrays(framework, model).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-9, atol=1e-14)


def own_network(framework, track=True):
    """A linear network with the framework's own batch norm on its inputs."""
    if framework.name == "torch":
        from torch import nn

        norm = nn.BatchNorm1d(4, track_running_stats=track)
        return lambda: nn.Sequential(nn.Flatten(), norm, nn.Linear(4, 6))
    import keras

    def build():
        layers = [keras.Input((4,)), keras.layers.BatchNormalization(epsilon=1e-5)]
        return keras.Sequential([*layers, keras.layers.Dense(6)])

    return build


def test_a_change_of_units_of_the_target_is_undone(framework):
    # The first layer normalises the inputs, so a shifted and scaled target is the old one again.
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 4)), np.arange(40) % 2
    answers = []
    for target in (X, 3 * X + 2):
        network = own_network(framework)
        if framework.name == "torch":
            import torch

            torch.manual_seed(0)
        else:
            import keras

            keras.utils.set_random_seed(0)
        model = adapter(framework, network=network, steps=2, dtype="float32")
        answers.append(model.fit(X, y, target, device="cpu").predict_proba(target))
        norm = model.network_.encoder.layers[0] if framework.name == "tensorflow" else None
        mean = norm.moving_mean if norm is not None else model.network_.encoder[1].running_mean
        np.testing.assert_allclose(framework.array(mean), target.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)


def test_channels_first_of_keras():
    keras = pytest.importorskip("keras", reason="keras is not installed")
    from fewshot_course.tf.adabn import adapt_batch_norm

    norm = keras.layers.BatchNormalization(axis=1)
    network = keras.Sequential([keras.Input((3, 2, 2)), norm])
    x = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)
    assert adapt_batch_norm(network, [keras.ops.convert_to_tensor(x)]) == 1
    np.testing.assert_allclose(norm.moving_mean.numpy(), x.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    assert "call" not in vars(norm)  # the watcher is gone


def test_a_network_without_batch_norm_is_refused(framework):
    X, y, X_target = two_domains()
    with pytest.raises(ValueError, match=r"network='mlp' has no batch norm.*conv4"):
        adapter(framework, network="mlp").fit(X, y, X_target)
    if framework.name == "torch":  # batch norm that keeps no statistics has nothing to be set
        untracked = own_network(framework, track=False)
        with pytest.raises(ValueError, match="running statistics"):
            adapter(framework, network=untracked).fit(X[:, 0, :4], y, X_target[:, 0, :4])


def test_no_examples_are_refused(framework):
    model = adapter(framework).fit(*two_domains(), device="cpu")
    with pytest.raises(ValueError, match="blocks must hold"):
        framework.module("adabn").adapt_batch_norm(model.network_.encoder, [])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_the_frameworks_agree(both, dtype, tolerance):
    X, y, X_target = two_domains()
    labels = np.r_[np.arange(24) % 2, np.full(26, -1)]
    one, two = (
        adapter(f, dtype=dtype, steps=10).fit(X, y, X_target, labels, device="cpu") for f in both
    )
    np.testing.assert_allclose(one.history_["loss"], two.history_["loss"], rtol=tolerance)
    assert (one.history_["alignment"] == 0).all()
    np.testing.assert_allclose(
        one.predict_proba(X_target), two.predict_proba(X_target), rtol=10 * tolerance
    )


def test_saved_and_read_by_the_twin(both, tmp_path):
    X, y, X_target = two_domains()
    for here, there in (both, both[::-1]):
        model = adapter(here).fit(X, y, X_target, device="cpu")
        path = model.save(tmp_path / f"{here.name}.safetensors")
        read = type(there.estimator("AdaBNAdapter")).load(path)
        np.testing.assert_allclose(
            read.predict_proba(X_target), model.predict_proba(X_target), rtol=1e-9
        )


def test_a_fit_that_was_done_is_adapted_again(framework, tmp_path):
    X, y, X_target = two_domains()
    first, again = (
        adapter(framework).fit(X, y, X_target, device="cpu", checkpoint_dir=tmp_path)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert not hasattr(clone(first), "network_")


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12),
        elements=st.floats(-1e3, 1e3),
    ),
    st.data(),
)
def test_moments_of_blocks_are_those_of_the_whole(rows, data):
    cut = data.draw(st.integers(1, len(rows) - 1))
    moments = Moments()
    for block in (rows[:cut], rows[cut:]):
        moments.add(block)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(moments.variance, rows.var(0, ddof=1), rtol=1e-9, atol=1e-6)


def test_moments_far_from_zero_keep_their_digits():
    rows = 1e8 + np.random.default_rng(0).normal(size=(1000, 1))
    moments = Moments()
    for block in np.array_split(rows, 10):
        moments.add(block)
    np.testing.assert_allclose(moments.variance, rows.var(0, ddof=1), rtol=1e-7)
