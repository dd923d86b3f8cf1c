"""The meta-learning experiment through the runner, in both frameworks."""

import numpy as np
import pytest

from fewshot_course.data import EpisodeSampler
from fewshot_course.experiments import EXPERIMENTS
from fewshot_course.experiments.maml import nearest_mean_accuracy, samplers
from fewshot_course.experiments.runner import run_cell

MAML = EXPERIMENTS["maml"]
SMALL = {"iterations": 2, "n_tasks": 2, "n_test": 3, "inner_steps": 1, "adapt_steps": 1}


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
@pytest.mark.parametrize("method", ["pretrained", "maml", "fomaml", "anil", "reptile"])
def test_sinusoids(framework, method):
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    config = MAML.configure(**SMALL, task="sinusoid", shots=5, hidden=4)
    result = run_cell(MAML.cell(method, framework, 0, config=config))
    assert result.error is None
    assert result.data == "sinusoid"
    assert result.n_test == 3
    assert all(result.metrics[f"mse_after_{k}_diverged"] == 0 for k in (1, 5, 10))


@pytest.mark.parametrize("method", ["nearest-mean", "maml", "protonet"])
def test_glyphs(method):
    pytest.importorskip("torch", reason="torch is not installed")
    config = MAML.configure(**SMALL, image_size=8, channels=2)
    cell = MAML.cell(method, "torch", 0, config=config)
    first, again = run_cell(cell), run_cell(cell)
    assert first.error is None
    assert first.data == "glyphs"
    assert 0 <= first.metrics["accuracy"] <= 1
    assert first.metrics == again.metrics


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_intents_of_the_test_are_not_those_of_the_training(framework):
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    config = MAML.configure(**SMALL, task="intents", hidden=4)
    both = samplers(config, 1, framework)
    drawn = {name: sampler.sample(0, 20).X_support for name, sampler in both.items()}
    seen = {row.tobytes() for row in drawn["train"].reshape(-1, 384)}
    assert not seen & {row.tobytes() for row in drawn["test"].reshape(-1, 384)}
    result = run_cell(MAML.cell("maml", framework, 0, config=config))
    assert result.error is None
    assert result.data == "intents"


@pytest.mark.parametrize("method", ["nearest-mean", "protonet"])
def test_classifiers_refuse_sinusoids(method):
    pytest.importorskip("torch", reason="torch is not installed")
    result = run_cell(MAML.cell(method, "torch", 0, config=MAML.configure(task="sinusoid")))
    assert "task='sinusoid' is a regression" in result.error


def test_nearest_mean_is_scikit_learns():
    from sklearn.neighbors import NearestCentroid

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.repeat(np.arange(6), 10)
    episodes = EpisodeSampler(X, y, 4, 3, 5).sample(0, 4)
    theirs = [
        NearestCentroid().fit(X_s, y_s).score(X_q, y_q)
        for X_s, y_s, X_q, y_q in map(episodes.task, range(4))
    ]
    np.testing.assert_allclose(nearest_mean_accuracy(episodes), theirs)
