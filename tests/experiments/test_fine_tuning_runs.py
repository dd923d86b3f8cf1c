"""The fine-tuning experiment through the runner, in both frameworks, on a tiny encoder."""

import importlib.util

import numpy as np
import pytest
import tiny_bert
from typer.testing import CliRunner

from fewshot_course.cli import app
from fewshot_course.experiments import EXPERIMENTS
from fewshot_course.experiments.fine_tuning import TUNED, draw
from fewshot_course.experiments.runner import run_cell

EXPERIMENT = EXPERIMENTS["fine-tuning"]
FRAMEWORKS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
        ),
    )
    for name in ("torch", "tensorflow")
]


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
@pytest.mark.parametrize("method", EXPERIMENT.methods)
def test_every_method_runs(tiny, method, framework):
    result = run_cell(cell(tiny, method, framework))
    assert result.error is None
    assert result.n_test == 20
    assert all(0 <= value <= 1 for value in result.metrics.values())
    assert ("epochs" in result.config) is (method in TUNED)


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
