"""The runner: nothing lost, nothing done twice, the same results on every backend."""

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import TOY

from fewshot_course.evaluation import accuracy_interval, mean_interval
from fewshot_course.experiments import runner
from fewshot_course.experiments.registry import Experiment, RunOptions
from fewshot_course.experiments.results import (
    ResultsError,
    ResultWriter,
    read_results,
    unpack_answers,
)
from fewshot_course.experiments.runner import RunError, limit_threads, run_cell, run_cells
from fewshot_course.experiments.summary import summarise
from fewshot_course.experiments.sweep import SweepError, load_sweep

ROOT = Path(__file__).parents[2]
# Where another process finds the toy experiment, and the package.
PATHS = f"{ROOT / 'tests/helpers'}:{ROOT}"


def cells(n=6, methods=("plain", "trick"), **settings):
    config = TOY.configure(**settings)
    return [TOY.cell(m, "numpy", seed, config=config) for m in methods for seed in range(n)]


def outcome(results):
    """What must not depend on backend, machine or interruption."""
    return sorted((r.key, r.method, json.dumps(r.metrics), r.n_test, r.error) for r in results)


def test_a_cell_is_measured():
    result = run_cell(TOY.cell("plain", "numpy", 3, config=TOY.configure(seconds=0.05)))
    assert result.metrics["accuracy"] == np.random.default_rng(3).random(5).mean()
    assert next(iter(result.metrics)) == "accuracy"
    assert result.n_test == 5
    assert 0.05 <= result.seconds < 1
    assert 5 < result.peak_mb < 10_000
    assert result.versions["numpy"] == np.__version__
    assert result.device == "cpu"
    assert result.config["shots"] == 5
    assert result.data == "coin"


def test_peak_memory_is_of_the_cell_alone():
    # From the system itself: an array may fill a hole that earlier tests left in this process.
    with mmap.mmap(-1, 160_000_000) as ballast:
        ballast.write(b"1" * len(ballast))
        before = run_cell(cells()[0]).peak_mb
    assert run_cell(cells()[0]).peak_mb < before - 100


def test_a_bad_cell_is_recorded_and_the_rest_goes_on(tmp_path):
    results = run_cells(cells(bad_seed=2), tmp_path / "r.jsonl")
    failed = [r for r in results if r.error]
    assert [(r.method, r.seed) for r in failed] == [("plain", 2), ("trick", 2)]
    assert failed[0].error.startswith("ArithmeticError: the coin fell through the grate (toy.py")
    assert len(results) == 12
    assert outcome(read_results(tmp_path / "r.jsonl")) == outcome(results)


def test_nan_is_an_error_not_a_score(monkeypatch):
    import toy

    monkeypatch.setattr(toy, "run", lambda cell, options: {"accuracy": float("nan"), "n_test": 1})
    assert "must be a finite number, got nan" in run_cell(cells()[0]).error


def test_what_is_stored_is_not_run_again(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    first = run_cells(cells(), path)
    ran = []

    def spy(cell, *rest):
        ran.append(cell.key)
        return run_cell(cell, *rest)

    monkeypatch.setattr(runner, "run_cell", spy)
    again = run_cells(cells(n=8), path)
    assert sorted(ran) == sorted(c.key for c in cells(n=8) if c.seed >= 6)
    assert outcome(again[:6]) == outcome(first[:6])
    assert len(path.read_text().splitlines()) == 16


def test_nothing_is_started_where_nothing_is_missing(tmp_path):
    path = tmp_path / "r.jsonl"
    first = run_cells(cells(), path)
    again = run_cells(cells(), path, backend="dask", scheduler="tcp://nowhere:1")
    assert outcome(again) == outcome(first)


def test_a_cell_that_failed_is_tried_again(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    import toy

    with monkeypatch.context() as patch:
        patch.setattr(toy, "run", lambda cell, options: 1 / 0)
        assert all(r.error for r in run_cells(cells(), path))
    assert not any(r.error for r in run_cells(cells(), path))
    assert not any(r.error for r in read_results(path))


def test_an_unwritable_file_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "run_cell", lambda *_: pytest.fail("computed"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="Cannot write results"):
        run_cells(cells(), tmp_path / "file" / "r.jsonl")


def test_a_cell_that_occurs_twice_is_run_once(tmp_path):
    assert len(run_cells(cells() + cells(), tmp_path / "r.jsonl")) == 12
    # The plain method does not use the rate: one cell, not two.
    both = cells(n=1, rate=0.1) + cells(n=1, rate=0.2)
    assert len(run_cells(both)) == 3


def test_loky_gives_the_same_results(tmp_path):
    expected = run_cells(cells(bad_seed=1))
    found = run_cells(cells(bad_seed=1), tmp_path / "r.jsonl", backend="loky", jobs=2)
    assert outcome(found) == outcome(expected)
    assert [r.key for r in found] == [r.key for r in expected]
    assert outcome(read_results(tmp_path / "r.jsonl")) == outcome(expected)


def test_loky_outlives_a_killed_worker(tmp_path):
    found = run_cells(cells(n=8, killed_seed=3), tmp_path / "r.jsonl", backend="loky", jobs=2)
    died = [r for r in found if r.error]
    assert [(r.method, r.seed) for r in died] == [("plain", 3), ("trick", 3)]
    assert all("WorkerDied" in r.error for r in died)
    expected = [(r.method, r.seed, r.metrics) for r in run_cells(cells(n=8)) if r.seed != 3]
    assert [(r.method, r.seed, r.metrics) for r in found if not r.error] == expected


def test_dask_gives_the_same_results(tmp_path):
    pytest.importorskip("distributed", reason="dask is missing: pip install '.[cluster]'")
    expected = run_cells(cells(bad_seed=1))
    found = run_cells(cells(bad_seed=1), tmp_path / "r.jsonl", backend="dask", jobs=2)
    assert outcome(found) == outcome(expected)
    assert outcome(read_results(tmp_path / "r.jsonl")) == outcome(expected)


def test_a_scheduler_started_by_hand(tmp_path):
    """As the book's page on running says."""
    pytest.importorskip("distributed", reason="dask is missing: pip install '.[cluster]'")
    environment = {**os.environ, "PYTHONPATH": PATHS}
    dask = [sys.executable, "-m", "dask"]
    file = tmp_path / "scheduler.json"
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    worker = None
    try:
        address = _wait(lambda: json.loads(file.read_text())["address"])
        with pytest.raises(RunError, match="has no workers"):
            run_cells(cells(n=2), backend="dask", scheduler=address)
        worker = subprocess.Popen(
            [*dask, "worker", address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        found = _wait(lambda: run_cells(cells(bad_seed=1), backend="dask", scheduler=address))
        assert outcome(found) == outcome(run_cells(cells(bad_seed=1)))
    finally:
        for process in (worker, scheduler):
            if process is not None:
                process.terminate()
                process.wait(20)


def _wait(attempt, seconds=30):
    """Return what ``attempt`` returns once it raises nothing."""
    for _ in range(10 * seconds):
        try:
            return attempt()
        except (OSError, ValueError, RunError):
            time.sleep(0.1)
    return attempt()


def test_no_scheduler_at_the_address():
    pytest.importorskip("distributed", reason="dask is missing: pip install '.[cluster]'")
    with pytest.raises(RunError, match=r"No Dask scheduler answers at 'nowhere'"):
        run_cells(cells(), backend="dask", scheduler="nowhere")


def test_dask_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RunError, match=r"fewshot-course\[cluster\]"):
        run_cells(cells(), backend="dask")


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"backend='lokey'.*Did you mean 'loky'"):
        run_cells(cells(), backend="lokey")
    with pytest.raises(ValueError, match="jobs"):
        run_cells(cells(), backend="loky", jobs=0)
    with pytest.raises(ValueError, match="needs backend='dask'"):
        run_cells(cells(), backend="loky", scheduler="tcp://localhost:8786")


def test_threads_are_limited_and_given_back():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")}
    with limit_threads(1):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["TF_NUM_INTRAOP_THREADS"] == "1"
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} <= {1}
    assert {key: os.environ.get(key) for key in before} == before


SWEEP = """
import sys
from toy import TOY
from fewshot_course.experiments.runner import run_cells
config = TOY.configure(seconds=0.02)
cells = [TOY.cell(m, "numpy", s, config=config) for m in ("plain", "trick") for s in range(30)]
print("ready", flush=True)
run_cells(cells, sys.argv[1], backend=sys.argv[2], jobs=2)
print("done", flush=True)
"""


@pytest.mark.parametrize("backend", ["sequential", "loky"])
def test_a_sweep_killed_again_and_again_loses_nothing_and_does_nothing_twice(tmp_path, backend):
    path = tmp_path / "r.jsonl"
    rng = np.random.default_rng(7)
    kills, done = 0, False
    while not done:
        process = subprocess.Popen(
            [sys.executable, "-c", SWEEP, str(path), backend],
            env={**os.environ, "PYTHONPATH": PATHS},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout.readline() == "ready\n"
        if kills < 5:
            before = path.read_bytes() if path.exists() else b""
            # Wait for progress, then kill at a random moment.
            _wait(lambda before=before: _grown(path, before))
            time.sleep(rng.uniform(0, 0.1))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            assert path.read_bytes().startswith(before)  # nothing lost
        else:
            done = process.communicate()[0] == "done\n"
            assert done
    lines = path.read_text().splitlines()
    assert len(lines) == 60  # nothing twice
    config = TOY.configure(seconds=0.02)
    expected = run_cells(
        TOY.cell(m, "numpy", s, config=config) for m in ("plain", "trick") for s in range(30)
    )
    assert outcome(read_results(path)) == outcome(expected)


def _grown(path, before):
    if len(path.read_bytes()) <= len(before):
        raise OSError("not yet")


CHILDREN = """
import os, pathlib, sys, time
from toy import TOY
from fewshot_course.experiments.registry import RunOptions
from fewshot_course.experiments.runner import run_cells
config = TOY.configure(seconds=60.0)
cells = [TOY.cell("plain", "numpy", s, config=config) for s in range(4)]
run_cells(cells, sys.argv[1], backend="loky", jobs=2, options=RunOptions(checkpoints=sys.argv[2]))
"""


def _workers_of(process):
    """Return the processes that descend from one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, parent = status.parent.name, status.read_text().rpartition(")")[2].split()[1]
            if int(parent) == process:
                found += [int(number), *_workers_of(int(number))]
    return found


def _state(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the processes of Linux")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    checkpoints = tmp_path / "checkpoints"
    process = subprocess.Popen(
        [sys.executable, "-c", CHILDREN, str(tmp_path / "r.jsonl"), str(checkpoints)],
        env={**os.environ, "PYTHONPATH": PATHS},
    )

    def two_cells_run():
        if len(list(checkpoints.glob("*"))) < 2:
            raise OSError("not yet")

    _wait(two_cells_run)  # each has made its folder
    workers = _workers_of(process.pid)
    assert len(workers) >= 2
    process.send_signal(how)
    process.wait(timeout=30)

    def all_gone():
        if any(_state(worker) not in ("gone", "Z") for worker in workers):
            raise OSError("not yet")

    _wait(all_gone)
    assert len(list(checkpoints.glob("*"))) == 2  # nobody deleted what was not stored


def test_checkpoints_stay_until_the_result_is_stored(tmp_path, monkeypatch):
    cell = TOY.cell("plain", "numpy", 0)
    options = RunOptions(checkpoints=str(tmp_path / "checkpoints"))
    folder = options.checkpoint_dir(cell)
    assert run_cell(cell, options).error is None
    assert folder.is_dir()

    def full(self, result):
        raise ResultsError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ResultWriter, "append", full)
        with pytest.raises(ResultsError):
            run_cells([cell], tmp_path / "r.jsonl", options=options)
    assert folder.is_dir()
    run_cells([cell], tmp_path / "r.jsonl", options=options)
    assert not folder.exists()
    failed = TOY.cell("plain", "numpy", 0, config=TOY.configure(bad_seed=0))
    run_cells([failed], tmp_path / "r.jsonl", options=options)
    assert options.checkpoint_dir(failed).is_dir()  # to be resumed


def test_two_sweeps_with_one_folder_of_checkpoints_store_no_failures(tmp_path):
    script = SWEEP.replace("jobs=2)", "jobs=2, options=RunOptions(checkpoints=sys.argv[3]))")
    script = "from fewshot_course.experiments.registry import RunOptions\n" + script
    files = [tmp_path / f"{n}.jsonl" for n in range(2)]
    sweeps = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(file), "sequential", str(tmp_path / "checkpoints")],
            env={**os.environ, "PYTHONPATH": PATHS},
        )
        for file in files
    ]
    assert [sweep.wait(timeout=120) for sweep in sweeps] == [0, 0]
    one, two = (read_results(file) for file in files)
    assert outcome(one) == outcome(two)
    assert {result.error for result in one + two} == {None}


def test_threads_are_part_of_the_hash():
    cell = TOY.cell("plain", "numpy", 0)
    one, two = (run_cell(cell, RunOptions(threads=n)) for n in (1, 2))
    assert one.config_hash == cell.config_hash != two.config_hash
    (placed,) = runner.place_cells([cell], RunOptions(threads=2))
    assert placed.config_hash == two.config_hash


def test_another_sweep_on_the_same_file_is_refused(tmp_path):
    with ResultWriter(tmp_path / "r.jsonl"), pytest.raises(ResultsError, match="Another process"):
        run_cells(cells(), tmp_path / "r.jsonl")


# ---------------------------------------------------------------------------- sweep files

TOYS = {"toy": TOY}


def write(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def test_a_sweep_is_the_product_of_its_lists(tmp_path):
    path = write(
        tmp_path,
        "experiment: toy\nmethods: [plain, trick]\nframeworks: numpy\nseeds: 3\n"
        "config: {shots: [1, 2], rate: [1e-1, 0.2]}\n",
    )
    found = load_sweep(path, TOYS)
    # plain: 2 shots × 3 seeds (it has no rate); trick: 2 shots × 2 rates × 3 seeds
    assert len(found) == 6 + 12
    assert {c.config.rate for c in found if c.method == "trick"} == {0.1, 0.2}


def test_a_sweep_has_sensible_defaults_and_may_be_a_list(tmp_path):
    path = write(tmp_path, "- {experiment: toy, seeds: [4]}\n- {experiment: toy, preset: full}\n")
    found = load_sweep(path, TOYS)
    assert len(found) == 4 + 40
    assert {(c.config.shots, c.preset) for c in found} == {(5, "quick"), (100, "full")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("experiment: toy\nmethod: plain\n", "key='method' is not known.*Did you mean 'methods'"),
        ("experiment: tyo\n", "experiment='tyo' is not known.*Did you mean 'toy'"),
        ("methods: [plain]\n", "experiment is missing; known are toy"),
        ("experiment: toy\nmethods: [plane]\n", "method='plane'.*Did you mean 'plain'"),
        ("experiment: toy\npreset: quik\n", "preset='quik'.*Did you mean 'quick'"),
        ("experiment: toy\nframeworks: nump\n", "framework='nump'.*Did you mean 'numpy'"),
        ("experiment: toy\nconfig: {shotts: 3}\n", "setting='shotts'.*Did you mean 'shots'"),
        ("experiment: toy\nconfig: {shots: [1, 0]}\n", r"shots must lie in \[1, 1000\], got 0"),
        ("experiment: toy\nconfig: [1]\n", "config must be a mapping"),
        ("experiment: toy\nseeds: many\n", "seeds must be a whole number, got 'many'"),
        ("experiment: toy\nseeds: [1, -1]\n", "seeds must lie in"),
        ("just words\n", "a sweep is a mapping"),
        ("", "a sweep is a mapping"),
        ("experiment: [toy\n", "is no YAML"),
    ],
)
def test_a_bad_sweep_is_named(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(SweepError, match=message) as error:
        load_sweep(path, TOYS)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_sweep_file_is_named(tmp_path):
    with pytest.raises(SweepError, match=r"Cannot read .*none.yaml: No such file"):
        load_sweep(tmp_path / "none.yaml", TOYS)


# ---------------------------------------------------------------------------- summaries


def test_summary_by_hand():
    from fewshot_course.evaluation import mean_interval, paired_difference

    results = run_cells(cells(n=5))
    plain, trick = summarise(results)
    a = [r.metrics["accuracy"] for r in results if r.method == "plain"]
    b = [r.metrics["accuracy"] for r in results if r.method == "trick"]
    assert plain.score == mean_interval(a)
    assert plain.difference is None
    assert trick.difference == paired_difference(b, a)
    assert trick.metric == "accuracy"
    assert summarise(results, metric="spread")[0].score.mean == 0.25
    (against,) = (r for r in summarise(results, baseline="trick") if r.difference)
    assert against.difference == paired_difference(a, b)
    with pytest.raises(ValueError, match="metric='acuracy' is not known"):
        summarise(results, metric="acuracy")


def test_summary_pairs_equal_settings_seeds_and_frameworks():
    results = run_cells(
        cells(n=4, shots=2, rate=0.1) + cells(n=4, shots=2, rate=0.9) + cells(n=3, shots=9)
    )
    rows = summarise(reversed(results), baseline="plain")
    compared = [(r.settings["shots"], r.difference.n) for r in rows if r.difference]
    assert sorted(compared) == [(2, 4), (2, 4), (9, 3)]
    other = [replace(r, framework="torch", config_hash="x" + r.config_hash) for r in results[4:8]]
    assert all(r.difference is None for r in summarise(other, baseline="plain"))


def test_summary_counts_failures():
    row, _ = summarise(run_cells(cells(n=4, bad_seed=1)))
    assert (row.failed, row.score.n) == (1, 3)
    row, _ = summarise(run_cells(cells(n=1, bad_seed=0)))
    assert (row.failed, row.score) == (1, None)


def answers_of(cell, options):
    """The toy's scores, with the items that were answered right."""
    asked = np.arange(40) < 30
    right = np.random.default_rng(cell.seed).random(40) < 0.8
    answers = np.where(asked, right.astype(float), np.nan)
    return {"accuracy": np.nanmean(answers), "n_test": 30, "answers": answers}


def test_answers_are_stored_and_make_the_interval(tmp_path, monkeypatch):
    """Items that all draws share are one reason for the spread, and an interval over draws."""
    monkeypatch.setattr(Experiment, "function", lambda self: answers_of)
    results = run_cells(
        [TOY.cell("plain", "numpy", seed) for seed in range(5)], tmp_path / "r.jsonl"
    )
    assert results == read_results(tmp_path / "r.jsonl")
    table = np.stack([unpack_answers(result.answers) for result in results])
    assert np.isnan(table).sum() == 50
    (row,) = summarise(results)
    assert row.score == accuracy_interval(table)
    assert row.score != mean_interval(np.nanmean(table, axis=1))
    without = [replace(result, answers=None) for result in results]
    assert summarise(without)[0].score == mean_interval([r.metrics["accuracy"] for r in results])
