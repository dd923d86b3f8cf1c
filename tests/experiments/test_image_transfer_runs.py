"""The experiment on image transfer through the runner, in both frameworks."""

import numpy as np
import pytest
from frameworks import FRAMEWORKS
from sklearn.neighbors import NearestCentroid
from stored_answers import assert_answers

from fewshot_course.data import load_dataset
from fewshot_course.experiments import EXPERIMENTS, image_transfer
from fewshot_course.experiments.image_transfer import class_pools, draw, nearest_mean
from fewshot_course.experiments.runner import run_cell

EXPERIMENT = EXPERIMENTS["image-transfer"]
SMALL = {"data": "mnist5k", "ways": 3, "shots": 2, "n_test": 30, "image_size": 8, "channels": 2,
         "pretrain_steps": 3, "steps": 3}  # fmt: skip


def cell(method, framework="torch", seed=0, **changes):
    config = EXPERIMENT.configure(**{**SMALL, **changes})
    return EXPERIMENT.cell(method, framework, seed, config=config)


def configure(**changes):
    return EXPERIMENT.configure(**{**SMALL, **changes})


def rows(X):
    return {image.tobytes() for image in X}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("method", EXPERIMENT.methods)
def test_every_method_runs(method, framework):
    result = run_cell(cell(method, framework))
    assert result.error is None
    assert_answers(result)
    assert result.n_test == 30
    assert all(0 <= value <= 1 for value in result.metrics.values())
    assert ("train_accuracy" in result.metrics) is (method in ("scratch", "head", "full"))


def test_the_frameworks_agree():
    for name in ("torch", "tensorflow"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    for method in ("nearest-features", "head"):
        a, b = (run_cell(cell(method, f)).metrics for f in ("torch", "tensorflow"))
        assert abs(a["accuracy"] - b["accuracy"]) <= 1 / 30 + 1e-9  # rounding of a float32 run


def test_one_pretraining_serves_all_methods_of_a_seed(monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    import fewshot_course.torch as course

    fitted = []
    fit = course.ImageClassifier.fit

    def counted(self, *args, **options):
        fitted.append(self.tune)
        return fit(self, *args, **options)

    monkeypatch.setattr(course.ImageClassifier, "fit", counted)
    image_transfer._pretrain.cache_clear()
    for shots in (1, 2):
        for method in EXPERIMENT.methods:
            assert run_cell(cell(method, shots=shots)).error is None
    assert sorted(fitted) == sorted(["scratch"] + 2 * ["scratch", "head", "full"])
    run_cell(cell("nearest-features", seed=1))
    run_cell(cell("nearest-features", pretrain_steps=2))
    assert len(fitted) == 9  # another seed, or another pretraining


@pytest.mark.parametrize("data", ["glyphs", "mnist5k"])
def test_no_new_class_is_a_base_class(data):
    """The lesson of the topic: what is fine-tuned on must be new to the pretrained network."""
    pools = class_pools(data, 8)
    names = {}
    for pool, part in {"base": "train", "validation": "train", "new": "test"}.items():
        if pool in pools:
            labels = np.unique(pools[pool].y)
            loaded = load_dataset(data, part if data == "glyphs" else "all")
            names[pool] = {loaded.class_names[label] for label in labels}
    assert not names["base"] & names["new"]
    assert not names.get("validation", set()) & (names["base"] | names["new"])
    images = [rows(pool.X) for pool in pools.values()]
    assert len(set.union(*images)) == sum(map(len, images))


def test_draws_are_shared_and_the_test_is_held_out():
    few, more = (draw(configure(shots=n), 3) for n in (2, 6))
    np.testing.assert_array_equal(few.test.X, more.test.X)
    assert rows(few.few.X) < rows(more.few.X)
    assert not rows(more.few.X) & rows(more.test.X)
    labels, counts = np.unique(few.few.y, return_counts=True)
    assert counts.tolist() == [2, 2, 2]
    assert set(labels) == set(few.test.y) <= set(range(5, 10))
    other = draw(configure(), 4)
    assert not np.array_equal(other.test.X, few.test.X)


def test_the_mistake_can_be_asked_for():
    mistaken = draw(configure(classes="base"), 0)
    assert set(mistaken.test.y) <= set(range(5))
    assert rows(mistaken.test.X) <= rows(class_pools("mnist5k", 8)["base"].X)


def test_nearest_mean_is_scikit_learns():
    rng = np.random.default_rng(0)
    y = np.repeat([2, 5, 9], 10)
    X, X_test = rng.normal(size=(2, 30, 4)) + y[:, None] / 4
    theirs = NearestCentroid().fit(X, y).predict(X_test)
    assert 0 < (theirs == y).mean() < 1
    np.testing.assert_array_equal(nearest_mean(X, y, X_test), theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "validation"}, "not known for data='mnist5k'; expected one of base, new"),
        ({"shots": 500}, "but shots=500"),
        ({"data": "glyphs", "shots": 11, "n_test": 30}, "but shots=11"),
        ({"n_test": 10_000}, "n_test=10000"),
    ],
)
def test_bad_settings_are_named(change, message):
    assert message in run_cell(cell("nearest-pixels", **change)).error
