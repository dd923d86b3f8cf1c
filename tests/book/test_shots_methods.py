"""The interactive figure of the leaderboard: its intervals are those of the package."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from building import ROOT
from figures import stored

from fewshot_course.evaluation import mean_interval, paired_difference
from fewshot_course.experiments import read_results
from fewshot_course.experiments.standings import standings

pytestmark = pytest.mark.browser

TOPIC = "chapters/capstone/index.html"
FIGURE = "shots-methods"
PAIRS = [
    ("digits", "gmm-alone", "nearest-mean"),
    ("glyphs", "head", "maml"),
    ("tickets", "probe", "tfidf"),
    ("tickets", "full", "probe"),
    ("reviews", "contrastive", "contrastive"),
]


def scores(board: str, method: str) -> dict[int, dict[int, float]]:
    """Shots → draw → accuracy, from the stored runs themselves."""
    rows = standings(read_results(ROOT / "results" / "leaderboard.jsonl"))
    return {
        row.shots: row.scores
        for row in rows
        if (row.data, row.method) == (board, method) and row.framework != "tensorflow"
    }


def numbers(cell: str) -> list[float]:
    return [float(text) for text in re.findall(r"[+-]?\d+\.\d", cell)]


def expected(interval: Any) -> list[float]:
    found = [interval.mean, interval.low, interval.high] if interval.n > 1 else [interval.mean]
    return [100 * value for value in found]


def test_the_data_are_those_of_the_stored_runs():
    for board, of_method in stored("shots-methods")["boards"].items():
        for method, of_shots in of_method.items():
            found = {int(k): {int(s): v for s, v in of.items()} for k, of in of_shots.items()}
            truth = scores(board, method)
            assert found.keys() == truth.keys()
            for shots in truth:
                assert found[shots] == pytest.approx(truth[shots], abs=5e-5)


@pytest.mark.parametrize(("board", "one", "other"), PAIRS)
def test_its_intervals_are_the_packages(figure: Any, board: str, one: str, other: str) -> None:
    for name, value in (("board", board), ("one", one), ("other", other)):
        figure.locator(f'select[name="{name}"]').select_option(value)
    mine, theirs = scores(board, one), scores(board, other)
    rows = figure.locator("tbody tr").all()
    ran = {int(shots) for of in stored("shots-methods")["boards"][board].values() for shots in of}
    assert len(rows) == len(ran)
    clear = 0
    for row in rows:
        shots = int(row.locator("th").inner_text())
        a, b, d = row.locator("td").all_inner_texts()
        for text, found in ((a, mine.get(shots)), (b, theirs.get(shots))):
            if found is None:
                assert text == "not run"
            else:
                values = expected(mean_interval(list(found.values())))
                np.testing.assert_allclose(numbers(text), values, atol=0.06)
        seeds = sorted(mine.get(shots, {}).keys() & theirs.get(shots, {}).keys())
        if not seeds:
            assert d == "not run"
            continue
        truth = paired_difference(
            [mine[shots][s] for s in seeds], [theirs[shots][s] for s in seeds]
        )
        np.testing.assert_allclose(numbers(d), expected(truth), atol=0.06)
        clear += truth.n > 1 and truth.excludes_zero
    if one != other:
        assert f"excludes 0 at {clear} of" in figure.locator(".fig-result").inner_text()


def test_it_can_be_used_by_keyboard_and_says_what_it_shows(figure: Any) -> None:
    select = figure.locator('select[name="board"]')
    select.focus()
    figure.page.keyboard.press("ArrowDown")
    label = figure.locator("svg.fig-picture").get_attribute("aria-label")
    assert "on the board glyphs" in label
    assert figure.locator(".fig-result").inner_text() in label
