"""A device that is named is the device that is used, or the cell fails; "auto" means one thing."""

import dataclasses

import numpy as np
import pytest

from fewshot_course import cli
from fewshot_course.experiments import EXPERIMENTS, runner
from fewshot_course.experiments.estimate import estimate_costs
from fewshot_course.experiments.leaderboard import BOARDS
from fewshot_course.experiments.leaderboard import EXPERIMENT as LEADERBOARD
from fewshot_course.experiments.registry import RunOptions
from fewshot_course.experiments.runner import RunError, place_cells, run_cell, run_cells
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


# What is scikit-learn's or NumPy's alone, on data that no encoder has made.
PLAIN = {
    ("fine-tuning", "tfidf"), ("image-transfer", "nearest-pixels"), ("maml", "nearest-mean"),
    ("pseudo-labels", "sklearn-logistic"), ("pseudo-labels", "sklearn-spreading"),
    ("pseudo-labels", "sklearn-self"),
}  # fmt: skip
BOARD_CELLS = [
    (data, method, framework)
    for data, board in BOARDS.items()
    for method in board.methods
    for framework in board.frameworks(method)
    if framework in MODULES
]


def hands_on(cell):
    """Whether the experiment itself, not the runner, fails on an impossible device."""
    with pytest.raises((ValueError, TypeError), match="no-such-device"):
        cell.experiment.function()(cell, RunOptions(device="no-such-device"))


@pytest.mark.parametrize(
    ("name", "method", "framework"),
    [one for one in CELLS if one[0] != "leaderboard" and one[:2] not in PLAIN],
)
def test_every_experiment_hands_the_device_on(name, method, framework):
    """Else a cell would run on another device than the one that its result names."""
    if method == "setfit":
        pytest.importorskip("setfit", reason="setfit is missing: pip install '.[peers]'")
    cell = cell_of(name, method, framework)
    if method == "target-only":  # it needs labels
        changed = dataclasses.replace(cell.config, shots_target=1)
        cell = dataclasses.replace(cell, config=changed)
    if name == "adaptation-choices" and method.startswith("augmented"):  # on its own draws only
        changed = dataclasses.replace(cell.config, part="validation")
        cell = dataclasses.replace(cell, config=changed, seed=1000)
    hands_on(cell)


@pytest.mark.parametrize(("data", "method", "framework"), BOARD_CELLS)
def test_every_board_hands_the_device_on(data, method, framework):
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    config = LEADERBOARD.configure("quick", data=data)
    hands_on(LEADERBOARD.cell(method, framework, 0, config=config))


@pytest.mark.parametrize("framework", MODULES)
@pytest.mark.parametrize(
    ("name", "setting"), [("maml", {"task": "intents"}), ("pseudo-labels", {"data": "tickets"})]
)
def test_texts_are_encoded_on_the_device(name, setting, framework):
    """Their features are made before any method is asked."""
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    experiment = EXPERIMENTS[name]
    method = "nearest-mean" if name == "maml" else "sklearn-logistic"
    config = experiment.configure(**setting)
    hands_on(experiment.cell(method, framework, 0, config=config))


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


def stored_on_the_cpu(cell, out):
    """Store a run of the CPU, as every file in results/ holds them."""
    (result,) = run_cells([cell], out, options=RunOptions(device="cpu"))
    assert (result.device, result.config_hash) == ("cpu", cell.config_hash)
    return result


@pytest.fixture
def quick(monkeypatch):
    """Cells whose function does nothing but note where it runs."""
    cell, calls = cell_of("kl-adaptation", "source-only", "torch"), []

    def function(cell, options):
        calls.append(options.device)
        return {"accuracy": 1.0, "n_test": 1}

    monkeypatch.setattr(type(cell.experiment), "function", lambda self: function)
    return cell, calls


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "no-such-device"])
def test_a_device_that_is_not_here_takes_no_stored_run(quick, tmp_path, device):
    """The name counts, whether or not this machine has the device: it fails, or a worker has it."""
    cell, calls = quick
    out = tmp_path / "results.jsonl"
    stored = stored_on_the_cpu(cell, out)
    (result,) = run_cells([cell], out, options=RunOptions(device=device))
    assert calls == ["cpu"]
    assert device in result.error
    assert result.key != stored.key
    again = run_cells([cell], out, options=RunOptions(device="cpu"))
    assert ([r.to_json() for r in again], calls) == ([stored.to_json()], ["cpu"])


def test_auto_is_one_device_in_all_processes(quick, monkeypatch):
    """What the machine that starts the run found is what its workers are told."""
    cell, calls = quick
    training = framework_module("torch", "_training")
    monkeypatch.setattr(training, "resolve_device", lambda d: "cuda" if d == "auto" else d)
    (placed,) = place_cells([cell], RunOptions(device="auto"))
    assert placed.kind == "cuda"
    monkeypatch.setattr(training, "resolve_device", lambda d: "cpu" if d == "auto" else d)
    result = runner._run_placed(placed, RunOptions(device="auto"))
    assert (calls, result.key) == (["cuda"], placed.key)


def test_counts_and_estimates_are_those_of_the_device(quick, tmp_path):
    cell, _ = quick
    out = tmp_path / "results.jsonl"
    cells = [dataclasses.replace(cell, seed=seed) for seed in range(2)]
    stored = [stored_on_the_cpu(one, out) for one in cells]
    gpu = RunOptions(device="cuda")
    assert cli._stored(out, cells, RunOptions(device="cpu")) == 2
    assert cli._stored(out, cells, gpu) == 0
    (cost,) = estimate_costs(cells, stored=stored, options=RunOptions(device="cpu"))
    assert not cost.measured
    with pytest.raises(RunError, match="cannot be timed"):  # this machine has none
        estimate_costs(cells, stored=stored, options=gpu)


def test_a_cell_without_a_framework_has_the_cpu():
    cell = LEADERBOARD.cell("nearest-mean", "numpy", 0)
    for device in ("cuda", "auto"):
        assert place_cells([cell], RunOptions(device=device)) == [cell]


@pytest.mark.parametrize("device", [None, 0, ""])
def test_a_device_is_a_text(device):
    with pytest.raises(TypeError, match="device must be a text"):
        RunOptions(device=device)


@pytest.mark.parametrize("framework", MODULES)
def test_teacher_and_student_are_timed_on_one_device(framework):
    """What is made of a classifier stands where that one does."""
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    package, tools = framework_module(framework), framework_module(framework, "compression")
    X, y = np.random.default_rng(0).random((12, 16, 16)), np.arange(12) % 2
    teacher = package.ImageClassifier(channels=2, steps=1, random_state=0)
    teacher.fit(X, y, device="cpu")
    student = package.CompressedImageClassifier(teacher, channels=None, epochs=1, random_state=0)
    student.fit(X, y, device="cpu")
    for one in (teacher, student):
        one._device = "cpu:0"  # the CPU by another name, so that one can see who asks for it
        for copied in (tools.prune(one, 0.5), tools.quantize(one, backend="hand")):
            assert copied._device == copied._engine._device == "cpu:0"


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
