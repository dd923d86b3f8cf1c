"""Stored runs are what the code gives: of each file one cheap cell is run again."""

from pathlib import Path

import pytest

from fewshot_course.data import where
from fewshot_course.experiments import EXPERIMENTS, read_results
from fewshot_course.experiments.runner import run_cell

RESULTS = Path(__file__).parents[2] / "results"
FILES = sorted(RESULTS.glob("*.jsonl"))


def cheapest(path):
    """The quickest run of a file whose data is at hand."""
    runs = [r for r in read_results(path) if r.error is None and r.preset == "quick"]
    runs = [r for r in runs if all(map(_at_hand, r.data.split("->")))]
    return min(runs, key=lambda r: r.seconds, default=None)


def _at_hand(name):
    try:
        return where(name) is not None
    except ValueError:  # not a registered data set: made by the experiment itself
        return True


def test_there_are_stored_results():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_stored_line_belongs_to_a_registered_method(path):
    for result in read_results(path):
        assert result.method in EXPERIMENTS[result.experiment].methods


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_one_cell_gives_the_stored_numbers_again(path):
    stored = cheapest(path)
    assert stored is not None, f"{path.name} has no run that can be repeated here"
    experiment = EXPERIMENTS[stored.experiment]
    config = experiment.configure(stored.preset, **stored.config)
    cell = experiment.cell(stored.method, stored.framework, stored.seed, stored.preset, config)
    again = run_cell(cell)
    assert again.error is None
    assert again.config_hash == stored.config_hash, "the settings or the version changed: rerun"
    for name, value in stored.metrics.items():
        if name.startswith("seconds"):
            continue  # measured, and another machine has others
        assert again.metrics[name] == pytest.approx(value, rel=0.02, abs=0.01), name
