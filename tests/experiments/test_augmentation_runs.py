"""The augmentation experiment through the runner, on a tiny encoder."""

import importlib
import importlib.util
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from frameworks import FRAMEWORKS
from stored_answers import assert_answers
from typer.testing import CliRunner

from fewshot_course.cli import app
from fewshot_course.data import augment
from fewshot_course.experiments import EXPERIMENTS, read_results
from fewshot_course.experiments.augmentation import (
    METHODS,
    draw_labelled,
    make_augmenter,
    pools,
)
from fewshot_course.experiments.runner import run_cell
from fewshot_course.experiments.sweep import load_sweep

EXPERIMENT = EXPERIMENTS["augmentation"]
pytestmark = pytest.mark.filterwarnings("ignore:.*texts? (is|are) longer")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(tiny_bert.make(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """No test writes features into the cache of the person who runs it."""
    from fewshot_course.data._files import CACHE_VARIABLE

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))


def cell(tiny, method, framework="torch", seed=0, **changes):
    small = {"data": "reviews_films", "shots": 3, "model": tiny, "max_length": 12}
    config = EXPERIMENT.configure(**{**small, **changes})
    return EXPERIMENT.cell(method, framework, seed, config=config)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs(tiny, method):
    result = run_cell(cell(tiny, method))
    assert result.error is None
    assert_answers(result)
    assert result.n_test > 100
    assert 0 <= result.metrics["accuracy"] <= 1
    if method == "none":
        assert set(result.metrics) == {"accuracy"}
        assert "copies" not in result.config
    else:
        assert len(result.metrics) == 8
        assert np.isfinite(list(result.metrics.values())).all()
        assert 0 <= result.metrics["label_agreement_copies"] <= 1
        assert result.metrics["novelty"] >= 0
    assert ("n_states" in result.config) is (method == "hmm")


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "tensorflow")),
    reason="both frameworks are needed",
)
@pytest.mark.parametrize("method", ["none", "synonym", "hmm"])
def test_the_frameworks_agree(tiny, method):
    one, other = (run_cell(cell(tiny, method, name)) for name in ("torch", "tensorflow"))
    assert one.error is None
    assert other.error is None
    for name, value in one.metrics.items():
        # Features agree to float32's rounding; a tie of the tiny encoder may fall either way.
        assert other.metrics[name] == pytest.approx(value, rel=1e-3, abs=0.01), name


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_probe_is_the_text_classifier_with_the_copies_sharing_a_weight(tiny, framework):
    one = cell(tiny, "swap", framework, copies=3)
    result = run_cell(one)
    parts = pools("reviews_films")
    for_draw, for_copies = np.random.default_rng([0, 7]).spawn(2)
    index = draw_labelled(parts.train[1], 3, for_draw)
    X, y, _ = augment.extend(
        [parts.train[0][i] for i in index], parts.train[1][index],
        make_augmenter("swap", one.config), 3, for_copies,
    )  # fmt: skip
    package = importlib.import_module(
        f"fewshot_course.{'tf' if framework == 'tensorflow' else framework}"
    )
    # Weights of 1/4 are a C of a quarter.
    model = package.TextClassifier(model=tiny, C=10 / 4, max_length=12).fit(X, y)
    assert model.score(*parts.test) == pytest.approx(result.metrics["accuracy"], abs=1e-9)


def test_exact_copies_change_nothing_when_they_share_a_weight(tiny, monkeypatch):
    """The planted fault: with full weights the same copies weaken the penalty."""
    from fewshot_course.experiments import augmentation

    monkeypatch.setattr(augmentation, "make_augmenter", lambda *_: augment.Identity())
    heads = []
    fit = augmentation.fit_probe

    def spy(features, labels, weights, C):
        heads.append(fit(features, labels, weights, C)["head.weight"])
        if len(weights) == 30:
            heads.append(fit(features, labels, np.ones(30), C)["head.weight"])
        return fit(features, labels, weights, C)

    monkeypatch.setattr(augmentation, "fit_probe", spy)
    assert run_cell(cell(tiny, "none")).error is None
    found = run_cell(cell(tiny, "swap"))
    assert found.metrics["novelty"] == pytest.approx(0, abs=1e-6)
    plain, shared, unshared = heads[:3]
    np.testing.assert_allclose(shared, plain, atol=1e-4 * np.abs(plain).max())
    assert np.abs(unshared).max() > 1.5 * np.abs(plain).max()


def test_few_shots_are_the_beginning_of_more():
    y = np.repeat([0, 1, 4], 20)
    few, more = (draw_labelled(y, k, np.random.default_rng(3)) for k in (2, 7))
    assert more[:6].tolist() == few.tolist()
    assert y[more[:3]].tolist() == [0, 1, 4]
    assert np.bincount(y[more]).tolist() == [7, 7, 0, 0, 7]
    assert len(set(more.tolist())) == 21
    with pytest.raises(ValueError, match="class 0 has 20 examples, but shots=21"):
        draw_labelled(y, 21, np.random.default_rng(0))


def test_the_three_parts_share_no_text():
    for data in ("reviews", "tickets"):
        parts = pools(data)
        texts = [set(part[0]) for part in (parts.train, parts.validation, parts.test)]
        assert not texts[0] & texts[1]
        assert not texts[0] & texts[2]
        assert not texts[1] & texts[2]


def test_the_validation_part_can_be_scored_in_place_of_the_test_part(tiny):
    result = run_cell(cell(tiny, "swap", score_on="validation"))
    assert result.n_test == len(pools("reviews_films").validation[1])


def test_the_command_line_and_a_csv_of_ones_own(tmp_path, tiny):
    mine = tmp_path / "mine.csv"
    things = ["card", "account", "money", "payment", "fee", "refund", "rate", "cash"]
    rows = [f"the {thing} is {how} {word},{word}" for word in ("good", "bad") for thing in things
            for how in ("very", "not")]  # fmt: skip
    mine.write_text("\n".join(["text,label", *rows]))
    out = tmp_path / "out.jsonl"
    arguments = ["run", "augmentation", "--data", str(mine), "--shots", "2", "--method", "compose",
                 "--model", tiny, "--max-length", "12", "--framework", "torch", "--seeds", "2",
                 "--out", str(out)]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert len(out.read_text().splitlines()) == 2
    parts = pools(str(mine), 1)
    assert [len(part[1]) for part in (parts.train, parts.validation, parts.test)] == [16, 8, 8]
    # Of a small file the accuracy can be told, but there is nothing to judge the copies by.
    mine.write_text("\n".join(["text,label", *rows[:3], *rows[-3:]]))
    config = EXPERIMENT.configure(data=str(mine), shots=1, model=tiny, max_length=12)
    small = run_cell(EXPERIMENT.cell("swap", "torch", 0, config=config))
    assert small.error is None
    assert set(small.metrics) == {"accuracy"}


def test_the_sweep_has_the_strengths_that_were_chosen_on_other_draws_and_parts():
    results = Path(__file__).parents[2] / "results"
    tried = read_results(results / "choices" / "augmentation.jsonl")
    swept = load_sweep(results / "augmentation.yaml")
    assert {run.config["score_on"] for run in tried} == {"validation"}
    assert {cell.config.score_on for cell in swept} == {"test"}
    assert not {run.seed for run in tried} & {cell.seed for cell in swept}
    accuracy = defaultdict(list)
    for run in tried:  # each setting meets the same draws, so means can be compared
        for name in ("strength", "replaced"):
            if name in run.config:
                accuracy[name, run.config[name]].append(run.metrics["accuracy"])
    for name in ("strength", "replaced"):
        values = {value for other, value in accuracy if other == name}
        assert len({len(accuracy[name, value]) for value in values}) == 1
        best = max(values, key=lambda value: np.mean(accuracy[name, value]))
        assert {getattr(cell.config, name) for cell in swept} == {best}
