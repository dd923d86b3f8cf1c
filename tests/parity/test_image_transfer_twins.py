"""The same seed gives the same fine-tuning in both frameworks."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import fewshot_course.tf as course_tf
import fewshot_course.torch as course_torch

TWINS = (course_torch.ImageClassifier, course_tf.ImageClassifier)
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
# Large enough that the last convolution sees more than one pixel.  On 14 x 14 it sees one: the
# bias of the batch norm before it is then a constant shift, which the next batch norm takes out.
# Its gradient is pure rounding, Adam amplifies that, and the running mean, which lags behind,
# carries it into the predictions (measured in float32: up to 6e-4, and 4e-6 in the loss).
SIZE = 20
SETTINGS = {"channels": 8, "steps": 10, "batch_size": 16, "random_state": 3}


def images(classes, seed, n=48):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = 0.3 * rng.uniform(size=(n, SIZE, SIZE))
    X[np.arange(n), :, 2 * y] += 0.6
    return X, y


def apart(a, b):
    """Greatest difference, relative to the greatest value."""
    return np.abs(a - b).max() / np.abs(a).max()


@pytest.fixture(scope="module", params=TOLERANCE)
def saved(request, tmp_path_factory):
    """A dtype, and the file of a network pretrained in it."""
    model = course_torch.ImageClassifier(**{**SETTINGS, "steps": 30}, dtype=request.param)
    folder = tmp_path_factory.mktemp("pretrained")
    return request.param, model.fit(*images(5, 0), device="cpu").save(folder / "base.safetensors")


@pytest.mark.parametrize("tune", ["scratch", "full", "head"])
def test_ten_steps_agree_in_loss_and_predictions(saved, tune):
    dtype, path = saved
    X, y = images(3, 1)
    one, two = (
        twin(tune=tune, pretrained=path, dtype=dtype, **SETTINGS).fit(X, y, device="cpu")
        for twin in TWINS
    )
    assert one.history_["loss"][0] != one.history_["loss"][-1]
    assert apart(one.history_["loss"], two.history_["loss"]) < TOLERANCE[dtype]
    assert apart(one.predict_proba(X), two.predict_proba(X)) < TOLERANCE[dtype]


def test_pretraining_and_fine_tuning_agree_as_a_whole():
    X, y = images(3, 1)
    proba = []
    for twin in TWINS:
        base = twin(**SETTINGS, dtype="float64").fit(*images(5, 0), device="cpu")
        tuned = twin(**SETTINGS, dtype="float64", tune="full", pretrained=base)
        proba.append(tuned.fit(X, y, device="cpu").predict_proba(X))
    assert apart(*proba) < 1e-8  # twenty steps, of which ten start where the first ten ended


@pytest.mark.parametrize("order", [1, -1], ids=["torch-to-tf", "tf-to-torch"])
def test_saved_and_read_by_the_twin(tmp_path, order):
    here, there = TWINS[::order]
    X, y = images(3, 1)
    model = here(**SETTINGS).fit(X, y, device="cpu")
    twin = there.load(model.save(tmp_path / "model.safetensors"))
    np.testing.assert_allclose(twin.predict_proba(X), model.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(twin.transform(X), model.transform(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [1, -1], ids=["torch-to-tf", "tf-to-torch"])
def test_tuned_from_the_twin_itself(order):
    here, there = TWINS[::order]
    base = here(**SETTINGS).fit(*images(5, 0), device="cpu")
    X, y = images(3, 1)
    of_one, of_other = (
        kind(**SETTINGS, tune="head", pretrained=base).fit(X, y, device="cpu")
        for kind in (here, there)
    )
    assert apart(of_one.predict_proba(X), of_other.predict_proba(X)) < TOLERANCE["float32"]


@pytest.mark.parametrize("kind", TWINS)
def test_a_class_of_the_users_own_starts_from_a_plain_one(kind):
    class Own(kind):
        """Says more, does the same."""

    base = kind(**SETTINGS).fit(*images(5, 0), device="cpu")
    X, y = images(3, 1)
    settings = {**SETTINGS, "tune": "full", "pretrained": base}
    proba = [one(**settings).fit(X, y, device="cpu").predict_proba(X) for one in (Own, kind)]
    np.testing.assert_array_equal(*proba)
