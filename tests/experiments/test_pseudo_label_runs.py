"""The pseudo-label experiment through the runner, in both frameworks."""

import numpy as np
import pytest
from frameworks import FRAMEWORKS
from stored_answers import assert_answers

from fewshot_course.experiments import EXPERIMENTS
from fewshot_course.experiments.pseudo_labels import draw
from fewshot_course.experiments.runner import run_cell

EXPERIMENT = EXPERIMENTS["pseudo-labels"]
SMALL = {"data": "uci_digits", "labels": 20, "n_unlabelled": 150, "n_test": 60, "steps": 5,
         "n_pca": 8, "rounds": 1, "threshold": 0.2, "covariance": "tied",
         "gan_steps": 5, "feature_steps": 5, "vae_steps": 5, "width": 20,
         "latent_dim": 4}  # fmt: skip


def cell(method, framework="torch", seed=0, **changes):
    config = EXPERIMENT.configure(**{**SMALL, **changes})
    return EXPERIMENT.cell(method, framework, seed, config=config)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("method", EXPERIMENT.methods)
def test_every_method_runs(method, framework):
    result = run_cell(cell(method, framework))
    assert result.error is None
    assert_answers(result)
    assert result.n_test == 60
    assert all(0 <= value <= 1 for value in result.metrics.values())
    supervised = method in ("supervised", "sklearn-logistic")
    assert ("coverage" in result.metrics) is not supervised


def test_the_frameworks_agree():
    for name in ("torch", "tensorflow"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    for method in ("self", "gmm", "gan", "vae-m1", "vae-m2", "vae-m1m2"):
        a, b = (run_cell(cell(method, f)).metrics for f in ("torch", "tensorflow"))
        assert abs(a["accuracy"] - b["accuracy"]) <= 1 / 60 + 1e-9  # rounding of a float32 run


def test_texts_become_frozen_features_in_both_frameworks():
    for name in ("torch", "tensorflow"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    text = {"data": "reviews_films", "n_unlabelled": 100}
    one, two = (
        draw(EXPERIMENT.configure(**{**SMALL, **text}), 3, f) for f in ("torch", "tensorflow")
    )
    assert one.X.shape == (120, 384)
    np.testing.assert_allclose(np.linalg.norm(one.X, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(one.X, two.X, atol=1e-5)
    assert run_cell(cell("gmm-alone", **text)).error is None


def test_methods_and_label_counts_share_their_draws():
    few, many = (draw(EXPERIMENT.configure(**{**SMALL, "labels": n}), 3) for n in (10, 50))
    np.testing.assert_array_equal(few.X_test, many.X_test)
    assert (few.y != -1).sum() == 10
    assert (many.y != -1).sum() == 50
    assert len(few.y) == 160
    rows = {row.tobytes() for row in few.X_test}
    assert not rows & {row.tobytes() for row in few.X}
    np.testing.assert_array_equal(few.y[few.y != -1], few.y_true[few.y != -1])


def test_own_file(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    path = tmp_path / "mine.npz"
    np.savez(path, X=rng.normal(size=(120, 3)) + 4 * y[:, None], y=y)
    changes = {"data": str(path), "labels": 4, "n_test": 40, "n_unlabelled": 60}
    result = run_cell(cell("gmm-alone", **changes))
    assert result.error is None
    assert result.metrics["accuracy"] > 0.9
    np.savez(path, X=np.zeros((4, 2)))
    assert "no array y" in run_cell(cell("gmm-alone", **changes)).error
    wrong = tmp_path / "mine.csv"
    wrong.write_text("1,2")
    changes["data"] = str(wrong)
    assert "must be an .npz file" in run_cell(cell("gmm-alone", **changes)).error


@pytest.mark.real_data
def test_full_mnist_is_scored_on_its_own_test_part():
    few = draw(EXPERIMENT.configure(data="mnist", labels=10, n_unlabelled=50, n_test=10_000), 0)
    assert len(few.y) == 60
    assert len(few.y_test) == 10_000
    rows = {row.tobytes() for row in few.X_test}
    assert not rows & {row.tobytes() for row in few.X}


def test_labels_that_cannot_be_shared_are_refused():
    assert "use a multiple of 10" in run_cell(cell("supervised", labels=15)).error
