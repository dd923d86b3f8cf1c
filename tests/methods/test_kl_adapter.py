"""KLAdapter as a user meets it: conventions, files, labels of the target, bad input."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

CLASSES = np.array([2, 5, 7])
TINY = {"network": "mlp", "latent_dim": 3, "steps": 25, "batch_size": 16, "lr": 0.01,
        "random_state": 0}  # fmt: skip
RNG = np.random.default_rng(0)
CENTRES = 3 * RNG.normal(size=(3, 4))
Y_SOURCE = CLASSES[np.arange(48) % 3]
X_SOURCE = CENTRES[np.arange(48) % 3] + RNG.normal(size=(48, 4))
X_TARGET = CENTRES[np.arange(30) % 3] + 0.5 + RNG.normal(size=(30, 4))
Y_TARGET = CLASSES[np.arange(30) % 3]
IMAGES = RNG.uniform(size=(48, 4, 4))


def adapter(framework, **settings):
    return framework.module("kl_adaptation").KLAdapter(**{**TINY, **settings})


def fit(framework, X_source=X_SOURCE, X_target=X_TARGET, y_target=None, **settings):
    return adapter(framework, **settings).fit(X_source, Y_SOURCE, X_target, y_target, device="cpu")


def weights_of(framework, fitted):
    return framework.module("networks").to_numpy(fitted.network_)


def assert_equal_weights(one, two):
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.fixture(scope="module")
def fitted(framework):
    return fit(framework, prediction_samples=2)


@pytest.fixture(scope="module")
def images():
    """Images of three classes, brighter in the target: X_source, X_target."""
    rng = np.random.default_rng(1)
    patterns = rng.uniform(0, 0.6, size=(3, 8, 8))
    noise = rng.uniform(0, 0.2, size=(78, 8, 8))
    return patterns[np.arange(48) % 3] + noise[:48], patterns[np.arange(30) % 3] + 2 * noise[48:]


# ---------------------------------------------------------------- conventions


def test_parameters_clone_and_repr(framework):
    one = adapter(framework, weight=0.2, scale_bounds=(0.2, 0.9))
    assert one.get_params()["weight"] == 0.2
    assert clone(one).get_params() == one.get_params()
    assert one.set_params(weight=0.3).weight == 0.3
    assert "weight=0.3" in repr(one)


def test_a_clone_of_a_fitted_one_is_unfitted(fitted):
    copy = clone(fitted)
    assert not [name for name in vars(copy) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        copy.predict(X_TARGET)


def test_fit_returns_itself_and_learns(framework, fitted):
    one = adapter(framework)
    assert one.fit(X_SOURCE, Y_SOURCE, X_TARGET, device="cpu") is one
    np.testing.assert_array_equal(fitted.classes_, CLASSES)
    assert fitted.input_shape_ == (4,)
    for name in ("loss", "alignment"):
        assert fitted.history_[name].shape == (25,)
    assert fitted.history_["loss"][-5:].mean() < 0.7 * fitted.history_["loss"][0]


@pytest.mark.parametrize("method", ["predict", "predict_proba", "encode"])
def test_nothing_works_before_fit(framework, method, tmp_path):
    one = adapter(framework)
    with pytest.raises(NotFittedError):
        getattr(one, method)(X_TARGET)
    with pytest.raises(NotFittedError):
        one.score(X_TARGET, Y_TARGET)
    with pytest.raises(NotFittedError):
        one.save(tmp_path / "w")
    with pytest.raises(ValueError, match="y_target"):
        one.fit(X_SOURCE, Y_SOURCE, X_TARGET, np.full(30, 9))
    with pytest.raises(NotFittedError):  # nor after a fit that failed
        getattr(one, method)(X_TARGET)


def test_predictions(fitted):
    proba = fitted.predict_proba(X_TARGET)
    assert proba.shape == (30, 3)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(fitted.predict(X_TARGET), CLASSES[proba.argmax(1)])
    assert fitted.encode(X_TARGET).shape == (30, 3)
    np.testing.assert_array_equal(proba, fitted.predict_proba(X_TARGET))  # nothing random


def test_a_prediction_does_not_depend_on_its_neighbours(fitted):
    together = fitted.predict_proba(X_TARGET)
    alone = np.concatenate([fitted.predict_proba(x[None]) for x in X_TARGET])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    many = fitted.predict_proba(np.tile(X_TARGET, (40, 1)))  # more than one block
    np.testing.assert_allclose(many.reshape(40, 30, 3), np.tile(together, (40, 1, 1)), atol=1e-6)


def test_prediction_samples_average_over_codes(framework, fitted):
    mean_code = clone(fitted).set_params(prediction_samples=0)
    mean_code = mean_code.fit(X_SOURCE, Y_SOURCE, X_TARGET, device="cpu")
    assert_equal_weights(weights_of(framework, mean_code), weights_of(framework, fitted))
    gap = mean_code.predict_proba(X_TARGET) - fitted.predict_proba(X_TARGET)
    assert 1e-4 < np.abs(gap).max() < 0.5


def test_score_leaves_the_unlabelled_out(fitted):
    y = np.where(np.arange(30) < 10, Y_TARGET, -1)
    right = fitted.predict(X_TARGET[:10]) == Y_TARGET[:10]
    assert fitted.score(X_TARGET, y) == right.mean()
    weight = np.arange(30.0) + 1
    assert fitted.score(X_TARGET, y, weight) == pytest.approx(
        np.average(right, weights=weight[:10])
    )
    with pytest.raises(ValueError, match="y has no labelled example"):
        fitted.score(X_TARGET, np.full(30, -1))


def test_a_seed_repeats_the_run_and_another_does_not(framework, fitted):
    again = fit(framework, prediction_samples=2)
    assert_equal_weights(weights_of(framework, fitted), weights_of(framework, again))
    other = fit(framework, random_state=1)
    assert not np.array_equal(other.history_["loss"], fitted.history_["loss"])


def test_numbers_of_a_numpy_grid_are_taken(framework, tmp_path):
    plain = fit(framework, weight=0.1, latent_dim=3, lr=0.01, y_target=Y_TARGET)
    grid = fit(
        framework, weight=np.float64(0.1), latent_dim=np.int64(3), lr=np.float64(0.01),
        target_weight=np.float64(1), y_target=Y_TARGET,
    )  # fmt: skip
    assert_equal_weights(weights_of(framework, plain), weights_of(framework, grid))
    loaded = type(grid).load(grid.save(tmp_path / "w"))
    assert loaded.get_params() == {**plain.get_params()}


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("network", ["mlp", "conv4"])
def test_saved_models_are_read_in_both_frameworks(framework, network, tmp_path):
    X, target = (X_SOURCE, X_TARGET) if network == "mlp" else (IMAGES, IMAGES[:30] ** 2)
    one = fit(framework, X, target, network=network, steps=5, prediction_samples=2)
    path = one.save(tmp_path / "model.safetensors")
    for name in ("torch", "tensorflow"):
        twin = type(framework)(name).module("kl_adaptation").KLAdapter.load(path)
        assert twin.get_params() == one.get_params()
        np.testing.assert_array_equal(twin.classes_, one.classes_)
        np.testing.assert_allclose(twin.predict_proba(X), one.predict_proba(X), atol=1e-6)
        np.testing.assert_array_equal(twin.predict(X), one.predict(X))


def test_foreign_files_are_refused(framework, fitted, tmp_path):
    from fewshot_course.weights import load_arrays, save_arrays

    path = fitted.save(tmp_path / "w")
    arrays, header = load_arrays(path)
    load = type(fitted).load
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path / "absent")
    save_arrays(path, arrays, {**header, "class": "ProtoNet"})
    with pytest.raises(ValueError, match="holds a ProtoNet, not a KLAdapter"):
        load(path)
    save_arrays(path, arrays, {"something": "else"})
    with pytest.raises(ValueError, match=r"expected 'fewshot_course.estimator/1'"):
        load(path)
    save_arrays(path, {**arrays, "extra": np.zeros(1)}, header)
    with pytest.raises(ValueError, match=r"unexpected \['extra'\]"):
        load(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is damaged"):
        load(path)


# ---------------------------------------------------------------- networks and domains


def small_network(framework):
    """A factory draws its own weights; here from a fixed seed, so that the test has one outcome."""
    if framework.name == "torch":
        import torch
        from torch import nn

        def make():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6))

        return make
    import keras

    def make_keras():
        initial = {"kernel_initializer": keras.initializers.GlorotUniform(seed=0)}
        dense = keras.layers.Dense
        return keras.Sequential(
            [keras.Input((4,)), dense(5, activation="relu", **initial), dense(6, **initial)]
        )

    return make_keras


def test_a_factorys_network_trains(framework, tmp_path):
    one = fit(framework, network=small_network(framework), steps=100, lr=1e-2)
    assert one.history_["loss"][-10:].mean() < 0.5 * one.history_["loss"][0]
    assert len(weights_of(framework, one)) == 6
    with pytest.raises(TypeError, match=r"network=.* is code, which a weights file cannot hold"):
        one.save(tmp_path / "w")


def test_labels_of_the_target_are_used(framework):
    """The target's classes lie elsewhere, in another order: only labels can tell."""
    moved = 20 + CENTRES[(np.arange(30) + 1) % 3] + 0.1 * RNG.normal(size=(30, 4))
    settings = {"weight": 0.0, "reverse_weight": 0.0, "steps": 150}
    y_target = np.where(np.arange(30) < 15, Y_TARGET, -1)
    with_labels = fit(framework, X_target=moved, y_target=y_target, **settings)
    assert with_labels.score(moved[15:], Y_TARGET[15:]) == 1
    without = fit(framework, X_target=moved, **settings)
    assert without.score(moved, Y_TARGET) < 1


@pytest.mark.parametrize("network", ["mlp", "conv4"])
def test_weight_zero_never_sees_the_target(framework, network):
    """Not even through the running averages of batch norm."""
    X, target = (X_SOURCE, X_TARGET) if network == "mlp" else (IMAGES, IMAGES[:30] ** 2)
    settings = {"network": network, "steps": 4}
    off = {"weight": 0.0, "reverse_weight": 0.0}
    one, other = (fit(framework, X, t, **off, **settings) for t in (target, target[::-1] / 2))
    assert_equal_weights(weights_of(framework, one), weights_of(framework, other))
    assert (one.history_["alignment"] == 0).all()
    aligned = fit(framework, X, target, **settings)
    if network == "mlp":  # batch norm takes both domains together
        # The same batches and noise: the first step's source loss is the same.
        assert aligned.history_["loss"][0] == pytest.approx(one.history_["loss"][0], rel=1e-6)
    assert aligned.history_["loss"][-1] != one.history_["loss"][-1]


def test_batch_norm_sees_both_domains_as_one_population(framework):
    """In training as in its averages; one after the other, the target would count ten times."""

    def average(X, target):
        still = {"network": "conv4", "steps": 1, "lr": 1e-9, "batch_size": 48}
        weights = weights_of(framework, fit(framework, X, target, **still))
        (name,) = [name for name in weights if name.endswith("body.1.running_mean")]
        return weights[name]

    bright, dark = IMAGES, IMAGES[:24] ** 2
    assert len(bright) == 48
    alone = average(bright, bright), average(np.concatenate([dark, dark]), dark)
    np.testing.assert_allclose(
        average(bright, dark), (2 * alone[0] + alone[1]) / 3, rtol=1e-4, atol=1e-6
    )


def test_warmup_keeps_the_alignment_out_at_first(framework):
    """With whole batches and a network that hardly moves, the KL is one number in every step."""
    still = {"steps": 4, "lr": 1e-9, "batch_size": 48}
    slow = fit(framework, warmup=1.0, **still).history_["alignment"]
    quick = fit(framework, warmup=0.0, **still).history_["alignment"]
    assert quick[0] > 0
    np.testing.assert_allclose(slow, quick * [0, 0.25, 0.5, 0.75], rtol=1e-4)


# ---------------------------------------------------------------- bad input


GOOD = {"X_source": X_SOURCE, "y_source": Y_SOURCE, "X_target": X_TARGET, "y_target": Y_TARGET}


def with_nan(X):
    X = X.copy()
    X[3, 1] = np.nan
    return X


BAD_DATA = {
    "one axis": ({"X_source": X_SOURCE[0]}, ValueError, r"X_source must have shape \(n, d\)"),
    "no examples": ({"X_source": X_SOURCE[:0]}, ValueError, "X_source has no examples"),
    "text": ({"X_source": [["a"], ["b"]]}, TypeError, "X_source must be a numeric array"),
    "NaN": ({"X_source": with_nan(X_SOURCE)}, ValueError, "X_source has NaN .* 1 of 48"),
    "NaN in target": ({"X_target": with_nan(X_TARGET)}, ValueError, "X_target has NaN"),
    "ragged": ({"X_source": [[1.0], [1.0, 2.0]]}, ValueError, "X_source is ragged"),
    "feature sizes": (
        {"X_target": X_TARGET[:, :3]}, ValueError, r"X_target has examples of shape \(3,\)"
    ),
    "integer images": (
        {"X_source": np.zeros((48, 4, 4), np.uint8)}, ValueError, "X_source holds images of dtype"
    ),
    "images out of range": (
        {"X_source": 255 * IMAGES}, ValueError, r"X_source holds images with values in"
    ),
    "number of labels": (
        {"y_source": Y_SOURCE[:-1]}, ValueError, "y_source has 47 labels for 48 examples"
    ),
    "labels with axes": ({"y_source": Y_SOURCE[:, None]}, ValueError, r"y_source must have shape"),
    "label of the source unknown": (
        {"y_source": np.where(np.arange(48) < 3, -1, Y_SOURCE)}, ValueError,
        "y_source holds the label -1",
    ),
    "fractional labels": ({"y_source": Y_SOURCE + 0.5}, TypeError, "y_source must hold whole"),
    "names as labels": ({"y_source": Y_SOURCE.astype(str)}, TypeError, "y_source must hold whole"),
    "one class": ({"y_source": np.full(48, 5)}, ValueError, "y_source has the single class 5"),
    "class the source lacks": (
        {"y_target": np.full(30, 9)}, ValueError, r"y_target has the labels \[9\]"
    ),
    "label below -1": ({"y_target": np.full(30, -2)}, ValueError, "y_target holds the label -2"),
    "target labels": ({"y_target": Y_TARGET[:3]}, ValueError, "y_target has 3 labels for 30"),
}  # fmt: skip

BAD_SETTINGS = {
    "weight": (-0.1, ValueError),
    "reverse_weight": (-1, ValueError),
    "warmup": (1.5, ValueError),
    "target_weight": (float("nan"), ValueError),
    "estimator": ("kde", ValueError),
    "network": ("resnet", ValueError),
    "dtype": ("float16", ValueError),
    "latent_dim": (0, ValueError),
    "steps": (2.5, TypeError),
    "batch_size": (1, ValueError),
    "lr": (0.0, ValueError),
    "prediction_samples": (-1, ValueError),
    "scale_bounds": (0.5, TypeError),
    "random_state": (-1, ValueError),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named(framework, case):
    changes, error, message = BAD_DATA[case]
    with pytest.raises(error, match=message):
        adapter(framework).fit(**{**GOOD, **changes})


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_named(framework, name):
    value, error = BAD_SETTINGS[name]
    with pytest.raises(error, match=f"^{name}"):
        adapter(framework, **{name: value}).fit(**GOOD)


def test_bad_bounds_network_and_device_are_named(framework):
    with pytest.raises(ValueError, match=r"^scale_bounds\[1\] must lie in \[0.5"):
        adapter(framework, scale_bounds=(0.5, 0.1)).fit(**GOOD)
    with pytest.raises(ValueError, match=r"^network='conv4' needs images"):
        adapter(framework, network="conv4").fit(**GOOD)
    with pytest.raises(ValueError, match=r"^the network factory's .* expected"):
        adapter(framework, network=small_network(framework), latent_dim=2).fit(**GOOD)
    with pytest.raises(ValueError, match=r"^device='abacus' cannot be used here"):
        adapter(framework).fit(**GOOD, device="abacus")
    with pytest.raises(TypeError, match=r"^random_state must be a whole number"):
        adapter(framework, random_state="zero").fit(**GOOD)


def test_bad_input_of_a_fitted_one_is_named(fitted):
    with pytest.raises(ValueError, match=r"X has examples of shape \(3,\), expected \(4,\)"):
        fitted.predict(X_TARGET[:, :3])
    with pytest.raises(ValueError, match="X has NaN"):
        fitted.predict_proba(with_nan(X_TARGET))
    with pytest.raises(ValueError, match="y has 3 labels for 30 examples"):
        fitted.score(X_TARGET, Y_TARGET[:3])


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize(
    "name", ["KLAdapter", "CORALAdapter", "MMDAdapter", "DANNAdapter", "AdaBNAdapter"]
)
def test_bfloat16_trains_close_to_float32_in_both_frameworks(both, images, name):
    X_source, X_target = images
    settings = {**TINY, "network": "conv4", "steps": 12}
    if name != "AdaBNAdapter":
        settings["weight"] = 0.1
    losses, answers = {}, {}
    for f in both:
        for precision in ("float32", "bfloat16"):
            one = f.estimator(name, **settings, precision=precision)
            one.fit(X_source, Y_SOURCE, X_target, device="cpu")
            losses[f.name, precision] = one.history_["loss"]
            answers[f.name, precision] = one
    for f in both:
        full, half = losses[f.name, "float32"], losses[f.name, "bfloat16"]
        # 8 bits a number, and four layers that divide by a standard deviation.
        np.testing.assert_allclose(half, full, rtol=0.15, atol=0.05)
        assert np.abs(half - full).max() > 1e-5
        # It predicts in float32, and so does what is stored.
        one = answers[f.name, "bfloat16"]
        assert one.network_.precision == "float32"
        assert {array.dtype.name for array in weights_of(f, one).values()} == {"float32"}
    torch_, tf_ = (losses[f.name, "bfloat16"] for f in both)
    np.testing.assert_allclose(torch_, tf_, rtol=0.15, atol=0.05)


def test_what_was_trained_in_bfloat16_predicts_the_same_when_read_again(
    framework, images, tmp_path
):
    X_source, X_target = images
    settings = {"network": "conv4", "steps": 3, "precision": "bfloat16"}
    one = adapter(framework, **settings).fit(X_source, Y_SOURCE, X_target, device="cpu")
    one.save(tmp_path / "w.safetensors")
    read = type(one).load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(read.predict_proba(X_target), one.predict_proba(X_target))


def test_bad_precisions_are_named(framework):
    with pytest.raises(ValueError, match=r"precision=.*float16"):
        fit(framework, precision="float16")
    with pytest.raises(ValueError, match="master weights in float32, got dtype='float64'"):
        fit(framework, precision="bfloat16", dtype="float64")
