"""The fine-tuning experiment through the runner, in both frameworks, on a tiny encoder."""

import importlib.util

import numpy as np
import pytest
import tiny_bert
from frameworks import FRAMEWORKS
from stored_answers import assert_answers
from typer.testing import CliRunner

from fewshot_course.cli import app
from fewshot_course.experiments import EXPERIMENTS, read_results
from fewshot_course.experiments._setfit import sampling
from fewshot_course.experiments.fine_tuning import TUNED, draw
from fewshot_course.experiments.runner import run_cell

EXPERIMENT = EXPERIMENTS["fine-tuning"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(tiny_bert.make(tmp_path_factory.mktemp("model") / "tiny"))


def cell(tiny, method, framework="torch", seed=0, **changes):
    small = {"data": "reviews_films", "shots": 3, "n_test": 20, "model": tiny, "epochs": 1,
             "max_length": 12}  # fmt: skip
    config = EXPERIMENT.configure(**{**small, **changes})
    return EXPERIMENT.cell(method, framework, seed, config=config)


@pytest.mark.filterwarnings("ignore:.*texts? (is|are) longer")
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("method", [m for m in EXPERIMENT.methods if m != "setfit"])
def test_every_method_runs(tiny, method, framework):
    result = run_cell(cell(tiny, method, framework))
    assert result.error is None
    assert_answers(result)
    assert result.n_test == 20
    assert all(0 <= value <= 1 for value in result.metrics.values())
    assert ("epochs" in result.config) is (method in TUNED)


@pytest.mark.skipif(
    importlib.util.find_spec("setfit") is None, reason="the package setfit is not installed"
)
def test_setfit_runs_on_the_same_draw(tiny):
    result = run_cell(cell(tiny, "setfit"))
    assert result.error is None
    assert result.n_test == 20


def test_setfit_that_is_not_installed_says_how_to_get_it(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run_cell(cell(tiny, "setfit"))
    assert "pip install 'fewshot-course[peers]'" in result.error


def test_setfit_draws_fewer_pairs_where_there_would_be_too_many():
    assert sampling(np.repeat([0, 1], 16)) == "oversampling"
    assert sampling(np.repeat(np.arange(77), 5)) == "undersampling"


def test_the_ways_of_tuning_may_be_called_so(tiny, tmp_path):
    out = tmp_path / "out.jsonl"
    arguments = ["run", "fine-tuning", "--data", "reviews_films", "--shots", "3", "--model", tiny,
                 "--max-length", "12", "--n-test", "20", "--tune", "probe,tfidf",
                 "--framework", "torch", "--seeds", "1", "--out", str(out)]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert [r.method for r in read_results(out)] == ["probe", "tfidf"]


def test_the_draw_takes_as_many_of_each_class_and_never_a_test_text():
    config = EXPERIMENT.configure(data="tickets", shots=4, n_test=60)
    one, two, again = draw(config, 0), draw(config, 1), draw(config, 0)
    assert np.bincount(one.y).tolist() == [4] * 15
    assert one.X == again.X
    assert one.X != two.X
    assert one.X_test == two.X_test  # every seed is asked the same
    assert len(one.X_test) == 60
    assert not set(one.X) & set(one.X_test)


def test_more_shots_than_texts_are_refused():
    with pytest.raises(ValueError, match="shots"):
        draw(EXPERIMENT.configure(data="tickets", shots=60), 0)


def test_a_csv_of_ones_own(tmp_path):
    mine = tmp_path / "mine.csv"
    rows = [f"{word} number {i},{word}" for word in ("good", "bad") for i in range(8)]
    mine.write_text("\n".join(["text,label", *rows]))
    out = tmp_path / "out.jsonl"
    arguments = ["run", "fine-tuning", "--data", str(mine), "--shots", "3", "--method", "tfidf",
                 "--framework", "torch", "--seeds", "2", "--out", str(out)]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert len(out.read_text().splitlines()) == 2
    mine.write_text("text,label\nfine,good\n,bad\n")
    failed = CliRunner().invoke(app, arguments)
    assert failed.exit_code != 0
    assert "line 3 has no text" in " ".join(failed.output.split())
