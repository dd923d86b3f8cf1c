"""Mixed precision, gradient accumulation and data-parallel training."""

import importlib.util
import json
import sys
import time

import numpy as np
import pytest
import tiny_bert
from hypothesis import given
from hypothesis import strategies as st

from fewshot_course.both import scaling as _scaling
from fewshot_course.both import training as _loop
from fewshot_course.both.training import LossScale, check_precision, loss_scale, split_batch
from fewshot_course.checkpoints import load_checkpoint

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 6)), np.arange(60) % 3
TEXTS, LABELS = tiny_bert.texts_and_labels(20, classes=3)
TEXT_SETTINGS = {
    "tune": "full", "epochs": 4, "batch_size": 8, "lr": 1e-3, "max_length": 24, "random_state": 3,
}  # fmt: skip
SETTINGS = {"steps": 8, "batch_size": 12, "dtype": "float64", "random_state": 0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    return tiny_bert.make(tmp_path_factory.mktemp("model") / "tiny")


def fit_texts(framework, tiny, **settings):
    if framework.name == "torch":
        pytest.importorskip("transformers", reason="transformers is not installed")
    model = framework.estimator("TextClassifier", model=tiny, **(TEXT_SETTINGS | settings))
    return model.fit(TEXTS, LABELS, device="cpu")


def classifier(framework, **settings):
    return framework.module("scaling").DataParallelClassifier(**(SETTINGS | settings))


# ---------------------------------------------------------------- parts of a batch


@given(n=st.integers(1, 60), parts=st.integers(1, 80))
def test_parts_hold_every_example_once_and_shares_add_up(n, parts):
    found = list(split_batch(n, parts))
    assert np.concatenate([np.arange(n)[part] for part, _ in found]).tolist() == list(range(n))
    assert sum(share for _, share in found) == pytest.approx(1, abs=1e-12)
    sizes = [part.stop - part.start for part, _ in found]
    assert len(found) == min(parts, n)
    assert max(sizes) - min(sizes) <= 1
    assert all(share == size / n for (_, share), size in zip(found, sizes, strict=True))


@pytest.mark.parametrize(("n", "parts"), [(0, 1), (4, 0), (4, -1)])
def test_no_parts_of_nothing(n, parts):
    with pytest.raises(ValueError, match="must lie in"):
        list(split_batch(n, parts))


def loss_and_weights(framework, dtype):
    """A linear classifier's loss; its weights as a leaf."""
    start = np.random.default_rng(1).normal(size=(6, 3))
    if framework.name == "torch":
        import torch
        import torch.nn.functional as F

        weights = torch.tensor(start, dtype=getattr(torch, dtype), requires_grad=True)
        return lambda x, y: F.cross_entropy(x @ weights, y), weights
    import tensorflow as tf

    weights = tf.Variable(start, dtype=dtype)

    def loss_of(x, y):
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, tf.matmul(x, weights))
        return tf.reduce_mean(losses)

    return loss_of, weights


@pytest.mark.parametrize("parts", [1, 2, 7, 60])  # 7 does not divide 60
@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-14), ("float32", 1e-6)])
def test_accumulated_gradients_are_those_of_the_large_batch(framework, parts, dtype, close):
    scaling = framework.module("scaling")
    loss_of, weights = loss_and_weights(framework, dtype)
    x, y = framework.tensor(X, dtype), framework.tensor(Y)
    loss, (gradient,) = scaling.accumulate_gradients(loss_of, [weights], x, y, parts)
    p = np.exp(X @ framework.array(weights).astype(np.float64))
    p /= p.sum(1, keepdims=True)
    expected = X.T @ (p - np.eye(3)[Y]) / len(X)  # by hand, on the whole batch
    np.testing.assert_allclose(framework.array(gradient), expected, atol=close)
    np.testing.assert_allclose(
        framework.array(loss), -np.log(p[np.arange(60), Y]).mean(), rtol=10 * close
    )


def test_averaged_gradients_weigh_workers_by_their_examples(framework):
    scaling = framework.module("scaling")
    loss_of, weights = loss_and_weights(framework, "float64")
    x, y = framework.tensor(X), framework.tensor(Y)
    whole = scaling.accumulate_gradients(loss_of, [weights], x, y, 1)[1][0]
    cuts = [slice(0, 10), slice(10, 25), slice(25, 60)]
    alone = [scaling.accumulate_gradients(loss_of, [weights], x[c], y[c], 1)[1] for c in cuts]
    mean = framework.array(scaling.average_gradients(alone, [10, 15, 35])[0])
    np.testing.assert_allclose(mean, framework.array(whole), atol=1e-14)
    plain = framework.array(scaling.average_gradients(alone, [1, 1, 1])[0])
    assert np.abs(plain - framework.array(whole)).max() > 1e-3  # unequal parts, unequal weights
    with pytest.raises(ValueError, match="sizes has 2 numbers for 3 workers"):
        scaling.average_gradients(alone, [1, 1])


def test_a_training_in_parts_is_that_of_the_large_batch(framework, tiny):
    """Dropout too: its factors are drawn for the whole batch.  The penalty is counted once."""
    one, two = (
        fit_texts(framework, tiny, dtype="float64", l2_sp=0.1, accumulate=parts) for parts in (1, 3)
    )
    np.testing.assert_allclose(two.history_["loss"], one.history_["loss"], rtol=1e-10)
    np.testing.assert_allclose(two.predict_proba(TEXTS), one.predict_proba(TEXTS), atol=1e-10)


# ---------------------------------------------------------------- precision


@pytest.fixture(scope="module")
def in_both_precisions(both, tiny):
    """Framework → classifiers trained in float32 and in bfloat16."""
    return {
        f.name: [fit_texts(f, tiny, precision=precision) for precision in ("float32", "bfloat16")]
        for f in both
    }


def test_bfloat16_trains_close_to_float32_and_predicts_in_float32(framework, in_both_precisions):
    one, two = in_both_precisions[framework.name]
    # bfloat16 keeps 8 bits: a relative error of 2⁻⁹ a product, some per cent after twelve steps.
    np.testing.assert_allclose(two.history_["loss"], one.history_["loss"], rtol=0.1)
    assert np.abs(two.history_["loss"] - one.history_["loss"]).max() > 1e-5
    weights = two._weights()
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}
    lost = weights["bert.encoder.layer.0.output.dense.weight"].view(np.uint32) & 0xFFFF
    assert (lost != 0).mean() > 0.9  # the master weights have the bits that bfloat16 lacks
    # The same weights in the float32 classifier predict the same.
    kept = one._weights()
    one._weights(weights)
    np.testing.assert_array_equal(one.predict_proba(TEXTS), two.predict_proba(TEXTS))
    one._weights(kept)


def test_bfloat16_is_alike_in_both_frameworks(in_both_precisions):
    one, two = (fits[1] for fits in in_both_precisions.values())
    np.testing.assert_allclose(one.history_["loss"], two.history_["loss"], rtol=0.05)


def test_what_a_cpu_supports(framework):
    supported = framework.module("scaling").supported_precisions
    assert supported("cpu") == ("float32", "bfloat16")
    with pytest.raises(ValueError, match="device='cuda:99' cannot be used here"):
        supported("cuda:99")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "float16"}, "precision='float16' is not supported on device='cpu', which "
                                   "has float32, bfloat16"),
        ({"precision": "half"}, "precision"),
        ({"precision": "bfloat16", "dtype": "float64"}, "master weights in float32, got "
                                                         "dtype='float64'"),
        ({"precision": "bfloat16", "tune": "probe"}, "a linear probe is solved"),
        ({"accumulate": 2, "objective": "contrastive"}, "compares all texts of a batch"),
        ({"accumulate": 0}, "accumulate must lie in"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(framework, tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        fit_texts(framework, tiny, **settings)


# ---------------------------------------------------------------- the loss scale


def test_the_loss_scale_is_halved_and_doubled():
    scale = LossScale(8.0, patience=2)
    assert [scale.update(finite) for finite in (False, False, True, True, True)] == [
        False, False, True, True, True,
    ]  # fmt: skip
    assert (scale.value, scale.skipped, scale.good) == (4.0, 2, 1)
    other = LossScale()
    other.restore(json.loads(json.dumps(scale.state())))
    assert other.state() == scale.state()
    with pytest.raises(ValueError, match="value must"):
        LossScale(0.0)


def test_only_float16_is_scaled():
    assert loss_scale("float16").value == 2.0**16
    for precision in ("float32", "bfloat16"):
        fixed = loss_scale(precision)
        assert fixed.update(False)  # a bad loss is the training loop's to report
        assert fixed.value == 1.0
    assert check_precision("float16", "float32") == "float16"


def linear_update(framework, monkeypatch, scale, accumulate):
    """An Updater of SGD on one weight with this loss scale, and that weight."""
    training = framework.module("_training")
    monkeypatch.setattr(training, "loss_scale", lambda precision: scale)
    if framework.name == "torch":
        import torch

        weight = torch.zeros(1, requires_grad=True)
        extra = {}

        def loss_of(x):
            return (weight * x).mean()
    else:
        import keras
        import tensorflow as tf

        weight = tf.Variable([0.0])
        extra = {"network": keras.Sequential(), "signature": [tf.TensorSpec((None,), tf.float32)]}

        def loss_of(x):
            return tf.reduce_mean(weight * x)

    optimizer = framework.module("optim").sgd([weight], lr=0.5)
    update = training.Updater(loss_of, [optimizer], device="cpu", accumulate=accumulate, **extra)
    return update, weight


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_that_overflows_leaves_the_weights_alone(framework, monkeypatch, accumulate):
    scale = LossScale(2.0**10, patience=3)
    update, weight = linear_update(framework, monkeypatch, scale, accumulate)
    update(framework.tensor([1.0, 3.0], "float32"))
    assert framework.array(weight).tolist() == [-1.0]  # lr · mean, as without a scale
    update(framework.tensor([1e38, 1e38], "float32"))  # times 1024 this is infinite
    assert framework.array(weight).tolist() == [-1.0]
    assert (scale.skipped, scale.value) == (1, 512.0)
    for _ in range(3):
        loss = update(framework.tensor([1.0, 3.0], "float32"))
    assert framework.array(weight).tolist() == [-4.0]
    assert scale.value == 1024.0  # doubled after three good ones
    assert float(loss) == -6.0  # the weight before was -3


# ---------------------------------------------------------------- workers


@pytest.fixture(scope="module")
def group(framework, tmp_path_factory):
    """The same training by one process and by two, the latter in parts and with checkpoints."""
    if framework.name == "torch":
        pytest.importorskip("accelerate", reason="accelerate is not installed")
    folder = tmp_path_factory.mktemp("checkpoints")
    one = classifier(framework, workers=1).fit(X, Y, device="cpu")
    two = classifier(framework, workers=2, accumulate=2)
    two.fit(X, Y, device="cpu", checkpoint_dir=folder)
    return one, two, folder


def test_two_processes_are_equal_to_one(group):
    one, two, folder = group
    assert len(two.history_["loss"]) == SETTINGS["steps"]
    assert len(set(two.history_["loss"])) == SETTINGS["steps"]
    np.testing.assert_allclose(two.history_["loss"], one.history_["loss"], rtol=1e-12)
    np.testing.assert_allclose(two.predict_proba(X), one.predict_proba(X), atol=1e-12)
    assert 0 < two.step_seconds_ < 10
    _, meta = load_checkpoint(folder)
    assert meta["step"] == SETTINGS["steps"]


def test_a_trained_group_can_be_saved(framework, group, tmp_path):
    two = group[1]
    loaded = type(two).load(two.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict_proba(X), two.predict_proba(X))


def test_frameworks_agree(both):
    one, two = (classifier(f, workers=1, steps=12).fit(X, Y, device="cpu") for f in both)
    np.testing.assert_allclose(one.history_["loss"], two.history_["loss"], rtol=1e-10)
    np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X), atol=1e-10)


def test_images_and_low_precision(framework):
    images = np.random.default_rng(0).uniform(size=(12, 8, 8)).astype(np.float32)
    settings = {"workers": 1, "network": "conv4", "dtype": "float32", "steps": 2, "batch_size": 6}
    one, two = (
        classifier(framework, precision=precision, **settings).fit(images, Y[:12], device="cpu")
        for precision in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(one.history_["loss"], two.history_["loss"], rtol=0.05)
    assert (one.history_["loss"] != two.history_["loss"]).any()
    assert two.predict_proba(images).dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 2, "batch_size": 13}, "a batch of 13 examples cannot be shared equally by "
                                           "workers=2; choose a batch_size .* multiple of 2"),
        ({"workers": 7, "batch_size": 100}, "a batch of 60 examples cannot be shared"),
        ({"workers": 0}, "workers must lie in"),
        ({"network": "resnet"}, "network"),
        ({"workers": 1, "precision": "bfloat16"}, "master weights in float32"),
        ({"workers": 1, "precision": "float16", "dtype": "float32"}, "not supported on device"),
    ],
)  # fmt: skip
def test_bad_settings_of_a_group(framework, settings, message):
    with pytest.raises(ValueError, match=message):
        classifier(framework, **settings).fit(X, Y, device="cpu")


def test_a_group_of_another_size_is_refused(framework, monkeypatch):
    one = classifier(framework, workers=2)
    monkeypatch.setattr(type(one), "_group", lambda self: (0, 3))
    with pytest.raises(ValueError, match="workers=2, but 3 processes were started"):
        one.fit(X, Y, device="cpu")


def test_a_missing_engine_is_named_with_its_extra(monkeypatch, both):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs accelerate; .*'fewshot-course\[scaling\]'"):
        classifier(both[0], workers=2).fit(X, Y, device="cpu")


@pytest.mark.parametrize("text", ["nonsense", "{}", '{"cluster": {"worker": ["a:1"]}}', "[1]"])
def test_a_broken_tf_config_is_named(both, monkeypatch, text):
    start = both[1].module("_start")
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=r"TF_CONFIG=.* does not name a cluster"):
        start.group()
    group = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(group))
    assert start.group() == (1, 2)


# ---------------------------------------------------------------- processes


def python(code):
    return [sys.executable, "-S", "-c", code], {}


def test_when_one_worker_fails_the_others_are_stopped(tmp_path):
    waiting = python("import time; time.sleep(60)")
    failing = python(
        f"import sys; print('{_scaling.ERROR}ValueError: bad seed', file=sys.stderr); sys.exit(1)"
    )
    start = time.monotonic()
    with pytest.raises(_scaling.WorkerError, match="a worker failed: ValueError: bad seed"):
        _scaling.run_group([waiting, failing], tmp_path / "log")
    assert time.monotonic() - start < 20


def test_a_worker_that_dies_without_a_word(tmp_path):
    killed = python("import os; print('half', flush=True); os.kill(os.getpid(), 9)")
    with pytest.raises(_scaling.WorkerError, match=r"without a word\. Its last output: half"):
        _scaling.run_group([killed], tmp_path / "log")


def test_workers_get_their_environment(tmp_path):
    command, _ = python("import os; print(os.environ['RANK'])")
    _scaling.run_group([(command, {"RANK": str(rank)}) for rank in (0, 1)], tmp_path / "log")
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1"]


def test_a_worker_that_does_not_write_still_resumes(tmp_path, monkeypatch):
    """All workers of a group must go on from the same step; one of them writes."""
    monkeypatch.setattr(_loop, "CHECKPOINT_EVERY", 2)

    def run(steps, writes):
        done = []
        _loop.loop(
            lambda number: done.append(number) or {"loss": 1.0},
            _loop.Run(checkpoint_dir=tmp_path, writes=writes),
            steps=steps, capture=dict, restore=lambda arrays: None, resumables={},
            learning_rate=lambda: 0.1, fingerprint={}, open_log=None,
        )  # fmt: skip
        return done

    assert run(4, writes=False) == [0, 1, 2, 3]
    assert load_checkpoint(tmp_path) is None
    run(4, writes=True)
    assert run(6, writes=False) == [4, 5]
    assert load_checkpoint(tmp_path)[1]["step"] == 4
