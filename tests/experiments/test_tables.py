"""Tables of stored runs: what stands in which cell."""

import numpy as np
import pytest

from fewshot_course.evaluation import mean_interval, paired_difference
from fewshot_course.experiments.results import Result
from fewshot_course.experiments.tables import comparison_table, matches, wide_table

RNG = np.random.default_rng(0)
SCORES = {
    (method, shots): 0.5 + 0.1 * RNG.uniform(size=5)
    for method in ("plain", "clever")
    for shots in (1, 10, 2)
}


def line(method, shots, seed, accuracy, framework="torch"):
    return Result(
        experiment="toy", method=method, framework=framework, data="toys", preset="quick",
        config={"shots": shots}, config_hash=f"{method}{shots}{framework}", seed=seed,
        metrics={"accuracy": accuracy}, n_test=100, seconds=1.0, peak_mb=50.0, versions={},
        device="cpu",
    )  # fmt: skip


RUNS = [
    line(method, shots, seed, float(score))
    for (method, shots), scores in SCORES.items()
    for seed, score in enumerate(scores)
]


def test_a_wide_table_has_scores_of_the_baseline_and_paired_differences():
    table = wide_table(RUNS, "Toys", "shots")
    assert table.header == ("method", "framework", "shots = 1", "shots = 2", "shots = 10")
    assert table.caption == "Toys (% and points, n = 5)"
    plain, clever = table.rows
    assert plain[:2] == ("plain", "torch")
    for column, shots in enumerate((1, 2, 10), start=2):
        one, other = SCORES["clever", shots], SCORES["plain", shots]
        score, difference = mean_interval(other), paired_difference(one, other)
        assert plain[column] == two_lines(score, "{:.1f}")
        assert clever[column] == two_lines(difference, "{:+.1f}")


def two_lines(interval, form):
    mean, low, high = (form.format(100 * v) for v in (interval.mean, interval.low, interval.high))
    return f"{mean}\n[{low}, {high}]"


def test_a_wide_table_leaves_cells_without_runs_empty():
    table = wide_table(
        [r for r in RUNS if (r.method, r.config["shots"]) != ("clever", 2)], "", "shots"
    )
    assert table.rows[1][3] == ""
    assert table.rows[1][2] != ""


def test_a_wide_table_refuses_two_settings_in_one_cell():
    other = [line("plain", 1, 0, 0.5)]
    other[0].config["depth"] = 3
    other = [Result(**{**vars(other[0]), "config_hash": "other"})]
    with pytest.raises(ValueError, match=r"^plain has several runs where shots is 1"):
        wide_table([*RUNS, *other], "", "shots")


def test_no_runs_are_an_error():
    for make in (lambda: comparison_table([], "Toys"), lambda: wide_table([], "Toys", "shots")):
        with pytest.raises(ValueError, match=r"^no stored runs for the table 'Toys'"):
            make()


def test_the_text_form_lines_up_and_html_is_escaped():
    table = comparison_table(RUNS, "Toys & <more>", settings=["shots"])
    assert len({line.find("torch") for line in repr(table).splitlines()[2:]}) == 1
    assert "Toys &amp; &lt;more&gt;" in table._repr_html_()
    wide = wide_table(RUNS, "", "shots")
    assert "\n[" not in repr(wide)
    assert '</span><br><span class="text-nowrap">[' in wide._repr_html_()


def test_runs_are_chosen_by_fields_and_settings():
    assert sum(matches(r, method="plain", shots=[1, 2]) for r in RUNS) == 10
    assert all(matches(r, absent=3) for r in RUNS)  # a setting that a method does not have


def test_a_row_without_a_common_draw_is_an_error():
    # Draws 0 to 4 of the baseline, draw 7 of the other: an empty row would look like no result.
    stray = line("stray", 1, 7, 0.5)
    with pytest.raises(ValueError, match=r"^stray in torch shares no draw and settings with plain"):
        wide_table([*RUNS, stray], "Toys", "shots")
