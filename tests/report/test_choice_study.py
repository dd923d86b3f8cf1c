"""The stored studies bear what the report and its page say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import own_data
import pytest

from fewshot_course.report import _rule, label_study, read_examples, study
from fewshot_course.report._label_next import STRATEGIES, label_next
from fewshot_course.report._methods import methods_for
from fewshot_course.report._write import LABEL_BY

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def rows():
    return study.read_rows(RESULTS / "report/choice.jsonl")


@pytest.fixture(scope="module")
def real(rows):
    return [row for row in rows if not row["shuffled"]]


def test_all_planned_tasks_are_stored_once(rows):
    stored = [(r["data"], r["n"], r["seed"], r["shuffled"]) for r in rows]
    assert sorted(stored) == sorted(study.tasks())
    assert len({data for data, *_ in stored}) >= 5
    assert sum(not shuffled for *_, shuffled in stored) >= 60


def test_the_leads_are_those_of_the_rows(rows):
    leads = {name: round(lead, 1) for name, lead in study.leads(rows).items()}
    assert leads == _rule.LEADS


def test_what_was_chosen_follows_the_rule(rows):
    for row in rows:
        names = [name for name in row["methods"] if name != study.MAJORITY]
        means = {name: np.mean(row["methods"][name]["scores"]) for name in names}
        value = _rule.corrected(means, _rule.leads_of(names), row["n_rest"] + row["n_test"])
        among = row["clear"] or names
        assert value[row["chosen"]] == pytest.approx(max(value[name] for name in among), abs=1e-4)


def test_regret_on_data_that_the_rule_has_not_seen_is_a_point_at_most(rows, real):
    rule = study.without_own_data(rows)
    regrets = [100 * study.regret(row, rule) for row in real]
    before = [100 * study.regret(row, study.simplest_unbeaten) for row in real]
    assert np.mean(regrets) <= 1.0
    assert np.mean(before) > 2.0  # the rule that it replaced is in the study


def test_no_headline_is_false(rows):
    assert study.false_headlines(rows) == []


def test_a_false_headline_would_be_seen(rows):
    shuffled = next(row for row in rows if row["shuffled"])
    assert study.false_headlines([{**shuffled, "clear": [shuffled["chosen"]]}])
    clear = next(row for row in rows if row["clear"])
    assert study.false_headlines([{**clear, "clear": []}])


def test_intervals_hold_the_truth_as_often_as_they_say(rows, real):
    for rule in (study.the_reports, study.without_own_data(rows)):
        hits, n = study.coverage(real, rule)
        assert hits >= 0.93 * n


def test_a_stored_row_comes_out_again(rows):
    stored = next(r for r in rows if (r["data"], r["n"], r["seed"]) == ("iris", 20, 0))
    again = study.run(study.task("iris", 20, 0, stored["shuffled"]))
    assert again["chosen"] == stored["chosen"]
    for name, values in stored["methods"].items():
        np.testing.assert_allclose(again["methods"][name]["scores"], values["scores"], atol=1e-4)
        assert again["methods"][name]["rest"] == pytest.approx(values["rest"], abs=1e-4)
        np.testing.assert_allclose(
            again["methods"][name]["interval"], values["interval"], atol=1e-4
        )


def test_experience_is_used_only_where_it_was_made(tmp_path):
    """The study's images are writing and its texts English; other data start from nothing."""
    bars = read_examples(own_data.image_folder(tmp_path, 3))
    photos = replace(bars, X=np.random.default_rng(0).random((6, 24, 24, 3)))
    assert not any(m.lead for m in methods_for(photos, "torch", "off")[0])
    ink = replace(bars, X=(np.random.default_rng(0).random((6, 24, 24)) > 0.8).astype(float))
    leads = {m.name: m.lead for m in methods_for(ink, "torch", "off")[0]}
    assert leads["prototypical network (characters)"] > leads["nearest neighbours (pixels)"]
    names = ["logistic regression (characters)", "logistic regression (encoder)", "a new one"]
    home, abroad = _rule.leads_of(names), _rule.leads_of(names, foreign=True)
    assert home[names[1]] > home[names[0]]
    assert abroad[names[1]] == abroad[names[0]] == abroad[names[2]]


# ---------------------------------------------------------------------------- labelling


def test_the_labelling_study_is_whole_and_paired():
    rows = label_study.read_rows(RESULTS / "report" / "labelling.jsonl")
    stored = {(r["data"], r["strategy"], r["seed"]) for r in rows}
    assert len(stored) == len(rows)
    assert stored == {
        (data, strategy, seed)
        for data in label_study.DATA
        for strategy in STRATEGIES
        for seed in range(label_study.DRAWS)
    }
    assert len(label_study.DATA) >= 4
    found = label_study.differences(rows)
    assert len(found) == len(label_study.DATA) * (len(STRATEGIES) - 1)
    assert all(d.n == label_study.DRAWS for d in found.values())


def test_the_report_asks_in_a_way_that_has_helped_on_most_data():
    found = label_study.differences(label_study.read_rows(RESULTS / "report" / "labelling.jsonl"))
    own = [d for (_, strategy), d in found.items() if strategy == LABEL_BY]
    assert sum(d.low > 0 for d in own) > len(own) / 2
    assert not any(d.high < 0 for d in own)


def test_a_stored_run_of_labelling_comes_out_again():
    rows = label_study.read_rows(RESULTS / "report" / "labelling.jsonl")
    X, y, C = label_study.features_of("breast_cancer")
    for strategy in STRATEGIES:
        (stored,) = (
            r["scores"]
            for r in rows
            if (r["data"], r["strategy"], r["seed"]) == ("breast_cancer", strategy, 0)
        )
        np.testing.assert_allclose(
            label_study.run(X, y, C, strategy, 0), stored, atol=0.01, err_msg=strategy
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_asked_for_is_as_told(strategy):
    rng = np.random.default_rng(0)
    X = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], 10, axis=0)
    X = X + 0.1 * rng.normal(size=(30, 2))
    top = rng.uniform(0.4, 1.0, 30)
    proba = np.stack([top, 0.7 * (1 - top), 0.3 * (1 - top)], axis=1)
    chosen = label_next(strategy, proba, X, 3, np.random.default_rng(1))
    assert len(set(chosen.tolist())) == 3
    ordered = np.sort(proba, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    if strategy == "uncertainty":
        assert set(chosen) == set(np.argsort(ordered[:, -1])[:3])
    elif strategy == "margin":
        assert set(chosen) == set(np.argsort(margin)[:3])
    elif strategy == "unsure cores":
        assert {*chosen} == {10 * k + int(margin[10 * k : 10 * k + 10].argmin()) for k in range(3)}
    elif strategy == "representative":
        assert {i // 10 for i in chosen} == {0, 1, 2}
        for i in chosen:
            own = X[10 * (i // 10) : 10 * (i // 10) + 10]
            near = np.linalg.norm(own - own.mean(axis=0), axis=1)
            assert i % 10 == near.argmin()
    again = label_next(strategy, proba, X, 50, np.random.default_rng(1))
    assert sorted(again) == list(range(30))  # all that there are, each once


def test_an_unknown_way_to_choose_is_refused():
    with pytest.raises(ValueError, match="strategy='best' is not known"):
        label_next("best", np.ones((3, 2)) / 2, np.eye(3), 1, np.random.default_rng(0))
