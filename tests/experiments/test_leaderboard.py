"""The leaderboard: same draws for all, honest standings, one command that goes on where it was."""

import warnings
from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from typer.testing import CliRunner

from fewshot_course.cli import app
from fewshot_course.data import Episodes
from fewshot_course.evaluation import mean_interval, paired_difference
from fewshot_course.experiments import EXPERIMENTS, read_results
from fewshot_course.experiments.leaderboard import BOARDS, EXPERIMENT, FIRST, METHODS, cells, draw
from fewshot_course.experiments.runner import run_cell
from fewshot_course.experiments.standing_plots import (
    against_seconds,
    against_shots,
    best_of_families,
)
from fewshot_course.experiments.standings import framework_gaps, standings, standings_table

mpl.use("Agg")


def config(data, shots, **changes):
    return EXPERIMENT.configure("quick", data=data, shots=shots, **changes)


def quick(method, framework, data, shots=1, seed=0, **changes):
    return run_cell(
        EXPERIMENT.cell(method, framework, seed, "quick", config(data, shots, **changes))
    )


# ---------------------------------------------------------------------------- what is on it


def test_every_board_has_the_first_method_and_only_known_ones():
    for board in BOARDS.values():
        assert FIRST in board.methods
        assert set(board.methods) <= METHODS.keys()
        assert set(board.plain) | set(board.slow) <= set(board.methods)
        assert len(set(board.methods)) == len(board.methods)
    assert set().union(*(board.methods for board in BOARDS.values())) == METHODS.keys()


def test_every_method_stands_in_both_frameworks_or_needs_none():
    found = {(c.config.data, c.method, c.framework) for c in cells()}
    for name, board in BOARDS.items():
        for method in board.methods:
            expected = {"numpy"} if method in board.plain else {"torch", "tensorflow"}
            assert {f for n, m, f in found if (n, m) == (name, method)} == expected


def test_no_cell_comes_twice_and_some_can_be_chosen():
    keys = [cell.key for cell in cells()]
    assert len(keys) == len(set(keys))
    some = cells(["reviews"], ["probe", "tfidf"], ["torch", "numpy"])
    assert {(c.method, c.framework) for c in some} == {("probe", "torch"), ("tfidf", "numpy")}
    for wrong in ({"data": ["digit"]}, {"methods": ["prob"]}, {"frameworks": ["jax"]}):
        with pytest.raises(ValueError, match="is not known"):
            cells(**wrong)


# ---------------------------------------------------------------------------- draws


@pytest.mark.parametrize("data", ["digits", "tickets", "reviews"])
def test_a_draw_hides_labels_keeps_its_test_apart_and_nests_its_shots(data):
    few, more = draw(config(data, 1), seed=3), draw(config(data, 4), seed=3)
    n_classes = len(np.unique(few.y_test))
    for found, shots in ((few, 1), (more, 4)):
        X, y = found.labelled
        assert np.array_equal(np.unique(y, return_counts=True)[1], np.full(n_classes, shots))
        assert (found.y[len(y) :] == -1).all()
        assert np.array_equal(found.y_true[: len(y)], y)
        assert len(X) == len(y)
    assert as_set(few.labelled[0]) <= as_set(more.labelled[0])
    assert as_list(few.X_test) == as_list(more.X_test)
    if data != "digits":  # digits may repeat: 8 x 8 pixels of 17 levels
        assert not as_set(more.X) & as_set(more.X_test)


def as_list(X):
    return [x.tobytes() if isinstance(x, np.ndarray) else x for x in X]


def as_set(X):
    return set(as_list(X))


def test_tasks_of_characters_are_the_same_for_every_method():
    one, again = draw(config("glyphs", 1), seed=3), draw(config("glyphs", 1), seed=3)
    assert isinstance(one, Episodes)
    assert np.array_equal(one.X_query, again.X_query)
    assert one.X_support.shape[:2] == (10, 5)
    other = draw(config("glyphs", 1), seed=4)
    assert not np.array_equal(one.X_query, other.X_query)


# ---------------------------------------------------------------------------- runs


def test_the_first_method_gives_its_closed_form():
    found = quick(FIRST, "numpy", "digits", shots=5, seed=1)
    data = draw(config("digits", 5), seed=1)
    X, y = data.labelled
    means = np.stack([X[y == c].mean(0) for c in range(10)])
    distance = np.square(data.X_test[:, None] - means).sum((2, 3))
    assert found.error is None
    assert found.metrics["accuracy"] == np.mean(distance.argmin(1) == data.y_test)
    assert found.n_test == 600


@pytest.mark.parametrize("method", ["gmm-alone", "self"])
def test_digits_agree_between_the_frameworks(method):
    torch, tensorflow = (quick(method, f, "digits") for f in ("torch", "tensorflow"))
    assert torch.error is None
    assert tensorflow.error is None
    assert torch.metrics["accuracy"] == pytest.approx(tensorflow.metrics["accuracy"], abs=0.02)


def test_what_was_learned_before_has_its_own_seconds():
    one, two = (
        quick("protonet", "torch", "glyphs", shots, iterations=3, n_tasks=2) for shots in (1, 5)
    )
    assert one.error is None
    assert one.metrics["seconds_before"] == two.metrics["seconds_before"] > 0


@pytest.mark.parametrize(
    ("method", "framework", "data", "message"),
    [
        ("kl", "torch", "tickets", "method on the board tickets='kl' is not known"),
        ("logistic", "torch", "digits", "framework of logistic='torch' is not known"),
        ("probe", "numpy", "reviews", "framework of probe='numpy' is not known"),
    ],
)
def test_a_method_without_a_place_says_so(method, framework, data, message):
    assert message in quick(method, framework, data).error


# ---------------------------------------------------------------------------- standings


def line(method, framework, seed, accuracy, shots=1, data="digits"):
    board = EXPERIMENT.cell(method, framework, seed, "quick", config(data, shots))
    model = quick_result()
    return replace(
        model, method=method, framework=framework, data=data, seed=seed, config=board.settings,
        config_hash=board.config_hash,
        metrics={"accuracy": accuracy, "seconds_here": 1.0 + seed, "seconds_before": 2.0},
    )  # fmt: skip


def quick_result():
    return quick(FIRST, "numpy", "digits")


FIRSTS, OTHERS, TWINS = [0.5, 0.6, 0.55], [0.7, 0.6, 0.75], [0.69, 0.62]
LINES = [
    *(line(FIRST, "numpy", seed, score) for seed, score in enumerate(FIRSTS)),
    *(line("self", "torch", seed, score) for seed, score in enumerate(OTHERS)),
    *(line("self", "tensorflow", seed, score) for seed, score in enumerate(TWINS)),
]


def test_standings_are_means_and_gains_over_the_same_draws():
    rows = standings(LINES)
    assert [(r.method, r.framework) for r in rows] == [
        ("self", "torch"),
        ("self", "tensorflow"),
        (FIRST, "numpy"),
    ]
    torch, tensorflow, first = rows
    assert torch.score == mean_interval(OTHERS)
    assert torch.gain == paired_difference(OTHERS, FIRSTS)
    assert tensorflow.gain == paired_difference(TWINS, FIRSTS[:2])
    assert first.gain is None
    assert torch.seconds_here == 2.0


def test_the_gaps_of_the_frameworks_are_taken_draw_by_draw():
    (gaps,) = framework_gaps(standings(LINES)).values()
    assert gaps == pytest.approx([0.01, -0.02])


def test_two_settings_of_one_method_are_no_standing():
    with pytest.raises(ValueError, match=r"^self in torch on digits has two runs of draw 0"):
        standings([*LINES, line("self", "torch", 0, 0.1)])
    with pytest.raises(ValueError, match=r"^expected runs of the leaderboard"):
        standings([replace(LINES[0], experiment="maml")])


def test_a_failed_run_is_left_out():
    failed = replace(line("self", "torch", 3, 0.1), metrics={}, error="ValueError: no")
    assert standings([*LINES, failed]) == standings(LINES)


def test_the_table_can_be_sorted_and_is_refused_when_empty():
    table = standings_table(standings(LINES), "Digits")
    assert 'class="table sortable"' in table._repr_html_()
    assert table.rows[2][6] == ""
    with pytest.raises(ValueError, match="fewshot leaderboard"):
        standings_table([], "Digits")


def test_pictures_show_the_simplest_method_and_the_best_of_each_family():
    lines = [
        *LINES,
        *(line("gmm", "torch", seed, 0.2) for seed in range(3)),
        *(line("kl", "torch", seed, 0.1, shots=5) for seed in range(3)),
        *(line("dann", "torch", seed, 0.9, shots=1) for seed in range(3)),
    ]
    rows = standings(lines)
    # Of the other domain "kl" has the most examples, and there it is the best.
    assert list(best_of_families(rows, "digits")) == [FIRST, "self", "kl"]
    _, axes = plt.subplots(1, 2)
    curves = against_shots(rows, "digits", axes[0]).get_legend().get_texts()
    assert [text.get_text() for text in curves] == [FIRST, "self", "kl"]
    dots = against_seconds(rows, "digits", 1, axes[1])
    every = list(zip(*dots.lines[0].get_data(), strict=True))
    assert len(every) == 4
    assert (4.0, 20.0) in [pytest.approx(place) for place in every]  # 1 to 3 s here, 2 s before
    # All took as long, so only the best one is named.
    assert [text.get_text() for text in dots.texts] == ["dann"]
    plt.close("all")


# ---------------------------------------------------------------------------- command


def test_the_command_prints_standings_and_goes_on_from_its_file(tmp_path):
    out = tmp_path / "board.jsonl"
    options = ["--data", "reviews", "--method", "tfidf", "--out", str(out)]
    first = CliRunner().invoke(app, ["leaderboard", *options])
    assert first.exit_code == 0, first.output
    stored = read_results(out)
    assert len(stored) == len(cells(["reviews"], ["tfidf"]))
    assert "tfidf" in first.output
    again = CliRunner().invoke(app, ["leaderboard", *options])
    assert again.exit_code == 0
    assert read_results(out) == stored


def test_the_command_refuses_an_unknown_board(tmp_path):
    found = CliRunner().invoke(
        app, ["leaderboard", "--data", "digit", "--out", str(tmp_path / "x.jsonl")]
    )
    assert found.exit_code == 2
    assert "digits" in found.output


def test_the_experiment_is_registered_and_warns_of_nothing():
    assert EXPERIMENTS["leaderboard"] is EXPERIMENT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert quick(FIRST, "numpy", "glyphs").error is None
