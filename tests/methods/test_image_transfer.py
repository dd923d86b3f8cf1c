"""Transfer between image classes, in both frameworks, against NumPy."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.validation import check_is_fitted

from fewshot_course.checkpoints import CheckpointError

SMALL = {"channels": 4, "steps": 10, "batch_size": 8, "dtype": "float64", "random_state": 0}


def images(classes, n=24, side=8, seed=0):
    """Noise with a bright column for each class."""
    rng = np.random.default_rng(seed)
    place = np.arange(n) % classes
    X = 0.3 * rng.uniform(size=(n, side, side))
    X[np.arange(n), :, place] += 0.6
    return X, place


def classifier(framework, **options):
    return framework.estimator("ImageClassifier", **{**SMALL, **options})


@pytest.fixture(scope="module")
def base(framework):
    return classifier(framework, steps=60, lr=0.01).fit(*images(4, seed=1))


def weights(framework, model):
    return framework.module("networks").to_numpy(model.network_)


def numpy_features(arrays, X):
    """Conv4's body by its definition, batch norm with the running averages."""
    x = X[..., None]
    names = [name for name in arrays if name.startswith("body.") and arrays[name].ndim == 4]
    norms = [name.removesuffix("running_mean") for name in arrays if name.endswith("running_mean")]
    for conv, norm in zip(names, norms, strict=True):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        x = np.einsum("nhwcij,ocij->nhwo", windows, arrays[conv])
        scale = arrays[norm + "weight"] / np.sqrt(arrays[norm + "running_var"] + 1e-5)
        x = (x - arrays[norm + "running_mean"]) * scale + arrays[norm + "bias"]
        x = np.maximum(x, 0)
        if x.shape[1] >= 2:
            n, h, w, c = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    return x.reshape(len(x), -1)


def logistic_regression(features, y, weight, bias, *, steps, lr, decay):
    """Softmax regression by AdamW, written out; returns the losses and the last weights."""
    target = np.eye(len(bias))[y]
    moments = [[np.zeros_like(p), np.zeros_like(p)] for p in (weight, bias)]
    losses = []
    for t in range(1, steps + 1):
        logits = features @ weight.T + bias
        losses.append(-(target * log_softmax(logits, 1)).sum(1).mean())
        error = (softmax(logits, 1) - target) / len(y)
        moved = []
        for p, g, m in zip(
            (weight, bias), (error.T @ features, error.sum(0)), moments, strict=True
        ):
            m[0] = 0.9 * m[0] + 0.1 * g
            m[1] = 0.999 * m[1] + 0.001 * g**2
            shrunk = p * (1 - lr * decay) if p.ndim > 1 else p
            step = m[0] / (1 - 0.9**t) / (np.sqrt(m[1] / (1 - 0.999**t)) + 1e-8)
            moved.append(shrunk - lr * step)
        weight, bias = moved
    return losses, weight, bias


# --- a frozen body ------------------------------------------------------------------------------


def test_features_are_numpys(framework, base):
    X, _ = images(3)
    features = base.transform(X)
    assert features.shape == (24, 4)
    assert (features.max(0) > 0).any()
    np.testing.assert_allclose(features, numpy_features(weights(framework, base), X), atol=1e-12)


def test_a_head_on_a_frozen_body_is_logistic_regression(framework, base):
    X, y = images(3)
    options = {"tune": "head", "pretrained": base, "lr": 0.05, "batch_size": 24}
    one = weights(framework, classifier(framework, **options, steps=1, weight_decay=0.0).fit(X, y))
    # The head before that step, from the run of a head alone: initial weights do not depend on
    # the way of tuning, and a rate of next to nothing leaves them where they are.
    still = classifier(framework, **{**options, "lr": 1e-300}, steps=1).fit(X, y)
    start = weights(framework, still)
    assert not np.allclose(one["head.weight"], start["head.weight"], atol=0.01)
    model = classifier(framework, **options, steps=6, weight_decay=0.5).fit(X, y)
    losses, weight, bias = logistic_regression(
        numpy_features(weights(framework, base), X), y, start["head.weight"], start["head.bias"],
        steps=6, lr=0.05, decay=0.5,
    )  # fmt: skip
    np.testing.assert_allclose(model.history_["loss"], losses, rtol=1e-9)
    np.testing.assert_allclose(weights(framework, model)["head.weight"], weight, atol=1e-8)
    np.testing.assert_allclose(weights(framework, model)["head.bias"], bias, atol=1e-8)


def test_a_frozen_body_stays_bit_for_bit(framework, base):
    X, y = images(3)
    before = weights(framework, base)
    after = weights(framework, classifier(framework, tune="head", pretrained=base).fit(X, y))
    assert "body.1.running_mean" in before
    for name in before:
        if not name.startswith("head."):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    now = weights(framework, base)
    for name in before:  # the pretrained one itself
        np.testing.assert_array_equal(now[name], before[name], err_msg=name)


# --- all of it, and none ------------------------------------------------------------------------


def test_full_tuning_starts_at_the_pretrained_body(framework, base):
    X, y = images(3)
    before = weights(framework, base)
    still = classifier(framework, tune="full", pretrained=base, lr=1e-300).fit(X, y)
    after = weights(framework, still)
    learned = [n for n in before if not n.startswith("head.") and "running" not in n]
    for name in learned:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    # Batch norm sees the new images all the same.
    assert not np.allclose(after["body.1.running_mean"], before["body.1.running_mean"])
    moved = weights(framework, classifier(framework, tune="full", pretrained=base).fit(X, y))
    assert all(not np.allclose(moved[name], before[name], atol=1e-4) for name in learned)
    for name, value in weights(framework, base).items():  # the pretrained one is not trained on
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_head_and_body_have_rates_of_their_own(framework, base):
    X, y = images(3)
    options = {"tune": "full", "pretrained": base}
    before = weights(framework, classifier(framework, **options, lr=1e-300).fit(X, y))
    only_head = weights(
        framework, classifier(framework, **options, lr=1e-300, head_lr=0.01).fit(X, y)
    )
    only_body = weights(
        framework, classifier(framework, **options, lr=0.01, head_lr=1e-300).fit(X, y)
    )
    for name in before:
        if "running" not in name:
            is_head = name.startswith("head.")
            assert np.array_equal(only_head[name], before[name]) is not is_head, name
            assert np.array_equal(only_body[name], before[name]) is is_head, name
    one, both = (
        classifier(framework, **options, lr=0.01, head_lr=r).fit(X, y) for r in (None, 0.01)
    )
    np.testing.assert_array_equal(one.predict_proba(X), both.predict_proba(X))


def test_scratch_ignores_the_pretrained_network(framework, base):
    X, y = images(3)
    alone = classifier(framework).fit(X, y)
    given = classifier(framework, pretrained=base).fit(X, y)
    np.testing.assert_array_equal(alone.predict_proba(X), given.predict_proba(X))
    for tune in ("head", "full"):
        other = classifier(framework, tune=tune, pretrained=base).fit(X, y)
        assert not np.allclose(alone.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("tune", ["scratch", "full", "head"])
def test_learns_any_labels_and_repeats_itself(framework, base, tune):
    X, y = images(3)
    y = np.array([7, 2, 5])[y]
    options = {"tune": tune, "pretrained": base, "steps": 150, "lr": 0.02, "batch_size": 24}
    model = classifier(framework, **options).fit(X, y)
    assert model.classes_.tolist() == [2, 5, 7]
    assert model.predict_proba(X).shape == (24, 3)
    assert model.score(X, y) > (0.6 if tune == "head" else 0.9)
    again = clone(model).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    other = clone(model).set_params(random_state=1).fit(X, y)
    assert not np.array_equal(other.predict_proba(X), model.predict_proba(X))


# --- conventions --------------------------------------------------------------------------------


def test_clones_share_the_fitted_network(framework, base):
    model = classifier(framework, tune="head", pretrained=base)
    copy = clone(model)
    assert copy is not model
    check_is_fitted(copy.pretrained)
    with pytest.raises(NotFittedError):
        check_is_fitted(copy)
    with pytest.raises(NotFittedError):
        check_is_fitted(clone(base))
    scores = cross_val_score(model.set_params(steps=60, lr=0.05), *images(2), cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_a_file_serves_as_pretrained_network(framework, base, tmp_path):
    X, y = images(3)
    path = base.save(tmp_path / "base.safetensors")
    by_path = classifier(framework, tune="full", pretrained=path).fit(X, y)
    by_object = classifier(framework, tune="full", pretrained=base).fit(X, y)
    np.testing.assert_array_equal(by_path.predict_proba(X), by_object.predict_proba(X))
    for model, kept in ((by_path, str(path)), (by_object, None)):
        loaded = type(model).load(model.save(tmp_path / "tuned.safetensors"))
        np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
        assert loaded.pretrained == kept
    assert by_object.pretrained is base
    with pytest.raises(ValueError, match="tune='full' needs pretrained"):
        loaded.fit(X, y)


def test_resumed_run_is_the_uninterrupted_one(framework, base, tmp_path):
    X, y = images(3)
    options = {"tune": "full", "pretrained": base, "steps": 120}
    whole = classifier(framework, **options).fit(X, y)
    training = framework.module("image_transfer")
    run = training.train

    def interrupted(step, where, **settings):
        def stop(number):
            if number == 110:
                raise KeyboardInterrupt
            return step(number)

        return run(stop, where, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            classifier(framework, **options).fit(X, y, checkpoint_dir=tmp_path)
    again = classifier(framework, **options).fit(X, y, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(again.history_["loss"], whole.history_["loss"])
    np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))
    # Another pretrained body is another run: its checkpoint is not taken for this one's.
    other = classifier(framework, steps=20, random_state=9).fit(*images(4, seed=1))
    with pytest.raises(CheckpointError, match="data is"):
        classifier(framework, **{**options, "pretrained": other}).fit(X, y, checkpoint_dir=tmp_path)


def test_own_factories(framework):
    networks = framework.module("networks")
    X, y = images(2)
    X32 = X.astype(np.float32)
    options = {"dtype": "float32", "network": lambda: networks.MLP((8, 8), 2, (5,))}
    model = classifier(framework, **options).fit(X32, y)
    assert model.transform(X32).shape == (24, 5)
    with pytest.raises(TypeError, match="is code"):
        model.save("nowhere")
    if framework.name == "torch":
        import torch

        bare = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))  # noqa: E731
    else:
        import keras

        bare = lambda: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])  # noqa: E731
    with pytest.raises(ValueError, match="has no features and no head"):
        classifier(framework, **{**options, "network": bare}).fit(X32, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tune": "heads"}, "Did you mean 'head'"),
        ({"tune": "head", "pretrained": None}, "tune='head' needs pretrained"),
        ({"channels": 0}, "channels must lie"),
        ({"channels": 5}, "another body than network='conv4' with channels=5"),
        ({"network": "mlp"}, "another body than network='mlp'"),
        ({"network": "conv5"}, "Did you mean 'conv4'"),
        ({"steps": 0}, "steps must lie"),
        ({"batch_size": 0}, "batch_size must lie"),
        ({"lr": 0.0}, "lr must lie"),
        ({"head_lr": 0.0}, "head_lr must lie"),
        ({"weight_decay": -1}, "weight_decay must lie"),
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"X": np.zeros((6, 9, 9))}, r"examples of shape \(9, 9\), but pretrained"),
        ({"X": np.full((6, 8, 8), np.nan)}, "NaN or infinite"),
        ({"X": np.full((6, 8, 8), 7.0)}, r"expected \[0, 1\]"),
        ({"y": [0, 1]}, "2 labels for 6"),
        ({"y": [1] * 6}, "single class 1"),
        ({"y": [-1, 1, 0] * 2}, "label -1; expected labels >= 0"),
    ],
)
def test_bad_input_is_named(framework, base, change, message):
    change = dict(change)
    X, y = change.pop("X", np.zeros((6, 8, 8))), change.pop("y", [0, 1, 2] * 2)
    with pytest.raises(ValueError, match=message):
        classifier(framework, **{"tune": "full", "pretrained": base, **change}).fit(X, y)


def test_what_is_no_pretrained_classifier_is_named(framework, base, tmp_path):
    X, y = images(3)

    def fit(pretrained):
        return classifier(framework, tune="head", pretrained=pretrained).fit(X, y)

    with pytest.raises(TypeError, match="must be a fitted ImageClassifier"):
        fit(base.network_)
    with pytest.raises(NotFittedError):
        fit(clone(base))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        fit(tmp_path / "none")
    other = framework.estimator("SelfTraining", network="mlp", steps=1, weight=0.0)
    with pytest.raises(ValueError, match="holds a SelfTraining"):
        fit(other.fit(X, y).save(tmp_path / "other"))
    with pytest.raises(ValueError, match="expected"):
        base.transform(np.zeros((2, 9, 9)))
