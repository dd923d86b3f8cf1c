"""A device that is named is the device that is used, or the cell fails; "auto" means one thing."""

import dataclasses

import pytest

from fewshot_course.experiments import EXPERIMENTS
from fewshot_course.experiments.registry import RunOptions
from fewshot_course.experiments.runner import run_cell, run_cells
from fewshot_course.frameworks import MODULES, device_kind, framework_module, resolve_device

CELLS = [
    (experiment.name, method, framework)
    for experiment in EXPERIMENTS.values()
    for method in experiment.methods
    for framework in experiment.frameworks
    if framework in MODULES
]


def cell_of(name, method, framework):
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    return EXPERIMENTS[name].cell(method, framework, 0)


def test_there_are_cells_of_all_kinds():
    assert len(CELLS) > 100
    assert {framework for _, _, framework in CELLS} == set(MODULES)


@pytest.mark.parametrize(("name", "method", "framework"), CELLS)
def test_an_impossible_device_fails_in_every_cell(name, method, framework):
    result = run_cell(cell_of(name, method, framework), RunOptions(device="no-such-device"))
    assert result.error is not None
    assert "no-such-device" in result.error
    assert result.metrics == {}


@pytest.mark.parametrize("framework", MODULES)
def test_auto_is_what_the_library_takes(framework):
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    library = framework_module(framework, "_training").resolve_device("auto")
    assert resolve_device(framework, "auto") == library


@pytest.mark.parametrize("framework", MODULES)
def test_auto_on_another_device_is_stored_as_that(framework, monkeypatch):
    """The runner asks the framework, whatever else this machine may have."""
    cell = cell_of("kl-adaptation", "source-only", framework)
    training = framework_module(framework, "_training")
    monkeypatch.setattr(training, "resolve_device", lambda device: "gpu:0")
    seen = {}

    def function(cell, options):
        seen.update(device=options.device, kind=cell.kind)
        return {"accuracy": 1.0, "n_test": 1}

    monkeypatch.setattr(type(cell.experiment), "function", lambda self: function)
    result = run_cell(cell, RunOptions(device="auto"))
    assert (seen, result.device) == ({"device": "gpu:0", "kind": "cuda"}, "cuda")
    assert result.config_hash == cell.on("cuda:1").config_hash != cell.config_hash


def test_a_run_on_a_gpu_does_not_take_a_stored_one_of_the_cpu(tmp_path, monkeypatch):
    cell = cell_of("kl-adaptation", "source-only", "torch")
    calls = []

    def function(cell, options):
        calls.append(cell.kind)
        return {"accuracy": 1.0, "n_test": 1}

    monkeypatch.setattr(type(cell.experiment), "function", lambda self: function)
    out = tmp_path / "results.jsonl"
    for _ in range(2):
        run_cells([cell], out, options=RunOptions(device="cpu"))
    assert calls == ["cpu"]
    training = framework_module("torch", "_training")
    monkeypatch.setattr(training, "resolve_device", lambda device: device)
    for device in ("cuda:0", "cuda:1"):
        (result,) = run_cells([cell], out, options=RunOptions(device=device))
        assert result.device == "cuda"
    assert calls == ["cpu", "cuda"]


def test_the_hash_of_a_run_on_the_cpu_is_what_it_was():
    cell = EXPERIMENTS["kl-adaptation"].cell("source-only", "torch", 0)
    assert cell.on("cpu").config_hash == dataclasses.replace(cell).config_hash
    assert cell.on("cpu").config_hash != cell.on("mps").config_hash


@pytest.mark.parametrize(
    ("device", "kind"), [("cpu", "cpu"), ("cuda:1", "cuda"), ("GPU:0", "cuda"), ("mps", "mps")]
)
def test_kinds(device, kind):
    assert device_kind(device) == kind


def test_the_loop_hands_its_keywords_to_every_fit():
    import numpy as np
    from sklearn.base import BaseEstimator, ClassifierMixin

    from fewshot_course.pseudo_label_loop import pseudo_label_loop

    asked = []

    class Spy(ClassifierMixin, BaseEstimator):
        def fit(self, X, y, *, device="auto"):
            asked.append(device)
            self.classes_ = np.unique(y[y >= 0])
            return self

        def predict_proba(self, X):
            return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

        def predict(self, X):
            return self.classes_[np.zeros(len(X), int)]

    X, y = np.arange(8.0)[:, None], np.array([0, 1, -1, -1, -1, -1, 0, 1])
    options = {"threshold": 0.0, "rounds": 2, "fit_params": {"device": "cuda:3"}}
    pseudo_label_loop(Spy(), X, y, labeller=Spy(), **options)
    assert asked == ["cuda:3"] * 4  # the first model, the labeller, and one a round
