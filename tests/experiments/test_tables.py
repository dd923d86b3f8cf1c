"""Tables of stored runs: what stands in which cell."""

import zlib

import numpy as np
import pytest
from scipy import stats

from fewshot_course.evaluation import mean_interval, paired_difference
from fewshot_course.experiments.results import Result
from fewshot_course.experiments.summary import summarise
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


# ---------------------------------------------------------------- several comparisons


def noisy(method, gain, experiment="toy", seeds=6):
    rng = np.random.default_rng(zlib.crc32(method.encode()))
    return [
        Result(**{**vars(line(method, 1, seed, 0.5 + gain + noise)), "experiment": experiment})
        for seed, noise in enumerate(rng.normal(scale=0.02, size=seeds))
    ]


def test_p_values_are_corrected_for_the_comparisons_of_a_table():
    runs = [
        r for m, gain in (("plain", 0), ("a", 0.1), ("b", 0.03), ("c", 0)) for r in noisy(m, gain)
    ]
    rows = summarise(runs)
    plain = [r.metrics["accuracy"] for r in runs if r.method == "plain"]
    p = [
        stats.ttest_rel([r.metrics["accuracy"] for r in runs if r.method == m], plain).pvalue
        for m in "abc"
    ]
    expected = multipletests(p)
    assert [row.holm_p for row in rows] == [None, *map(pytest.approx, expected)]
    table = comparison_table(runs, "Toys")
    assert table.header[4] == "p (Holm)"
    assert table.rows[0][4] == ""
    assert float(table.rows[3][4]) == pytest.approx(expected[2], abs=0.006)


def multipletests(p):
    """Holm's step-down written as he did: the smallest against α/m, the next α/(m - 1), ..."""
    order, adjusted, worst = np.argsort(p), {}, 0.0
    for step, index in enumerate(order):
        worst = max(worst, (len(p) - step) * p[index])
        adjusted[index] = min(worst, 1.0)
    return [adjusted[i] for i in range(len(p))]


def test_other_frameworks_are_not_other_questions():
    one = [r for m, gain in (("plain", 0), ("a", 0.02)) for r in noisy(m, gain)]
    twice = one + [
        Result(**{**vars(r), "framework": "tensorflow", "config_hash": r.config_hash + "tf"})
        for r in one
    ]
    assert [row.holm_p for row in summarise(twice)] == [row.holm_p for row in summarise(one)] * 2


def test_a_wide_table_marks_what_is_clear_alone_but_not_among_others():
    gains = {"plain": 0, **{f"m{i}": 0.035 for i in range(12)}}
    runs = [r for m, gain in gains.items() for r in noisy(m, gain)]
    rows = summarise(runs)
    doubtful = {
        row.method for row in rows
        if row.difference and row.difference.excludes_zero and row.holm_p >= 0.05
    }  # fmt: skip
    assert doubtful  # some are clear alone
    table = wide_table(runs, "Toys", "shots")
    assert {row[0] for row in table.rows if row[2].endswith("°")} == doubtful
    assert table.caption.endswith("; ° not clear among so many comparisons)")
    assert "°" not in wide_table(runs[:12], "Toys", "shots").caption


def test_a_method_is_compared_with_its_partner():
    """KLIEP's network has no noisy codes, so its partner is the same one without weights."""
    methods = ("source-only", "kl", "unweighted", "kliep")
    runs = [r for m in methods for r in noisy(m, 0.0, experiment="kl-adaptation")]
    assert [row.baseline for row in summarise(runs)] == [
        None, "source-only", "source-only", "unweighted",
    ]  # fmt: skip
    table = comparison_table(runs, "Digits")
    assert table.rows[3][3].endswith(", to unweighted")
    assert "to" not in table.rows[1][3]
    # A baseline that is named is that of all; without the partner's runs it is the first.
    assert summarise(runs, baseline="source-only")[3].baseline == "source-only"
    without = [r for r in runs if r.method != "unweighted"]
    assert summarise(without)[2].baseline == "source-only"


def test_a_share_has_no_end_above_one():
    runs = [line("plain", 1, seed, score) for seed, score in enumerate((0.99, 1.0, 0.97))]
    (row,) = summarise(runs)
    plain = mean_interval([0.99, 1.0, 0.97])
    assert plain.high > 1
    assert (row.score.low, row.score.high) == (plain.low, 1.0)
