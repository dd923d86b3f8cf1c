"""How the settings of the adaptation were chosen: on items that no table is scored on."""

from pathlib import Path

import numpy as np
import pytest
from frameworks import FRAMEWORKS

from fewshot_course.data import load_dataset
from fewshot_course.experiments import EXPERIMENTS, kl_adaptation, read_results
from fewshot_course.experiments.adaptation_choices import ChoicesConfig, reserve, run
from fewshot_course.experiments.registry import RunOptions
from fewshot_course.experiments.results import unpack_answers
from fewshot_course.experiments.runner import run_cell
from fewshot_course.experiments.sweep import load_sweep

CHOICES = EXPERIMENTS["adaptation-choices"]
KL = EXPERIMENTS["kl-adaptation"]
SMALL = {"n_source": 200, "steps": 10, "batch_size": 32}
RESULTS = Path(__file__).parents[2] / "results"


def cell(method="kl", framework="torch", seed=1000, **changes):
    settings = SMALL | {"part": "validation"} | changes
    return CHOICES.cell(method, framework, seed, config=CHOICES.configure(**settings))


@pytest.mark.parametrize("shots", [0, 1, 5, 10])
@pytest.mark.parametrize("data", ["mnist5k->uci_digits", "printed_digits->uci_digits"])
def test_no_scored_draw_is_tested_on_the_reserve(data, shots):
    kept = reserve(data, 600)
    assert len(kept) > 20
    for seed in range(10):
        config = KL.configure(data=data, shots_target=shots, n_source=10)
        test = kl_adaptation.draw(config, seed).test
        assert not set(kept) & set(test)


def test_what_is_scored_is_the_reserve_and_nothing_of_it_is_adapted_to(monkeypatch):
    seen = {}
    made = kl_adaptation.make_adapter

    def watched(cell):
        adapter = made(cell)
        fit = adapter.fit
        adapter.fit = lambda *data, **options: seen.update(data=data) or fit(*data, **options)
        return adapter

    monkeypatch.setattr(kl_adaptation, "make_adapter", watched)
    result = run(cell(), RunOptions(device="cpu"))
    kept = reserve("mnist5k->uci_digits", 600)
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(result["answers"])), kept)
    target = load_dataset("uci_digits").X
    others = {x.tobytes() for x in np.delete(target, kept, axis=0)}
    assert {x.tobytes() for x in seen["data"][2]} <= others
    assert len(seen["data"][2]) == 1000


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_criteria_need_no_target_labels(framework, monkeypatch):
    first = run_cell(cell(framework=framework, seed=0, part="test"))
    assert first.error is None
    names = ("source_validation", "reverse_validation", "entropy", "mutual_information",
             "neighbourhood_density")  # fmt: skip
    assert set(names) < set(first.metrics)
    drawn = kl_adaptation.draw

    def with_other_labels(config, seed):
        data = drawn(config, seed)
        data.y_test[:] = (data.y_test + 1) % 10
        return data

    monkeypatch.setattr(kl_adaptation, "draw", with_other_labels)
    again = run_cell(cell(framework=framework, seed=0, part="test"))
    assert [again.metrics[n] for n in names] == [first.metrics[n] for n in names]
    assert again.metrics["accuracy"] != first.metrics["accuracy"]
    plain = KL.cell("kl", framework, 0, config=KL.configure(**SMALL))
    monkeypatch.undo()
    assert run_cell(plain).metrics["accuracy"] == first.metrics["accuracy"]


@pytest.mark.parametrize("method", ["augmented", "augmented-kl"])
def test_varied_copies_stand_in_for_the_source(method):
    config = CHOICES.configure(**SMALL, copies=3)
    X, y = kl_adaptation.augmented(config, 1000)
    data = kl_adaptation.draw(config, 1000)
    assert X.shape == (600, 8, 8)
    np.testing.assert_array_equal(y, np.tile(data.y_source, 3))
    assert not np.array_equal(X[:200], X[200:400])
    assert X[:, :, 0].mean() < 0.5 * data.X_source[:, :, 0].mean()  # narrower
    assert X.mean() > data.X_source.mean() * 0.9
    assert run_cell(cell(method)).error is None


BAD = {
    "seed of a table": (cell(seed=3), "part='validation' takes a seed of 10 or more, got 3"),
    "seed of a choice": (cell(part="test"), "part='test' takes a seed below 10, got 1000"),
    "copies held out": (cell("augmented", seed=0, part="test"), "method='augmented'"),
    "labels": (cell(shots_target=1), "shots_target=1"),
    "another target": (cell(data="uci_digits->mnist5k"), "uci_digits->mnist5k"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_choice_on_the_wrong_items_is_refused(name):
    bad, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        run(bad, RunOptions(device="cpu"))


def test_copies_need_a_larger_image():
    for data in ("uci_digits->mnist5k", "mnist5k->rotated"):
        with pytest.raises(ValueError, match="take a source of mnist5k"):
            kl_adaptation.augmented(KL.configure(data=data), 0)


@pytest.mark.parametrize("name", ["unlabelled"])
def test_what_is_stored_is_what_the_plan_says(name):
    folder = RESULTS / "choices"
    planned = {c.key for c in load_sweep(folder / f"{name}.yaml")}
    stored = read_results(folder / f"{name}.jsonl")
    assert {r.key for r in stored} == planned
    part = "validation" if name == "kl_adaptation" else "test"
    free = np.zeros(1797, bool)
    free[reserve("mnist5k->uci_digits", 600)] = True
    for r in stored:
        assert r.error is None
        assert r.config["part"] == part
        asked = ~np.isnan(unpack_answers(r.answers))
        assert (r.seed >= 1000) is (part == "validation") is bool(free[asked].all())
    if part == "validation":  # equal effort: five values for every way to align
        tried = {}
        for r in stored:
            tried.setdefault(r.method, set()).add(r.config_hash)
        assert {len(v) for k, v in tried.items() if k != "source-only"} == {5}


def test_the_settings_are_those_of_the_topic():
    ours = CHOICES.configure()
    assert isinstance(ours, ChoicesConfig)
    theirs = KL.configure()
    assert all(getattr(ours, name) == value for name, value in vars(theirs).items())
