"""What a run will cost: extrapolated from few steps, or taken from stored runs."""

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
import pytest
from typer.testing import CliRunner

from fewshot_course import cli
from fewshot_course.experiments import EXPERIMENTS, estimate, runner
from fewshot_course.experiments.estimate import estimate_costs, extrapolate, price, total
from fewshot_course.experiments.registry import Config, Experiment, RunOptions, setting
from fewshot_course.experiments.results import ResultWriter

FIXED, A_STEP = 2.0, 0.25


@dataclass(frozen=True)
class SlowConfig(Config):
    data: str = setting("none", "nothing")
    steps: int = setting(1000, "steps", low=1, methods=("slow", "noisy"))
    epochs: int = setting(40, "passes", low=1, methods=("passes",))
    bad: bool = setting(False, "whether it fails")


SLOW = Experiment(
    name="slow",
    title="Costs FIXED + A_STEP for each step",
    config=SlowConfig,
    presets={"quick": {}, "full": {"steps": 100_000}},
    methods={m: m for m in ("slow", "noisy", "passes", "at-once")},
    data=("none",),
    run=f"{__name__}:run",
    frameworks=("numpy",),
)


class Clock:
    """A clock that cells move by what they would have taken."""

    def __init__(self):
        self.now, self.runs, self.rng = 0.0, [], np.random.default_rng(0)

    def __call__(self):
        return self.now


CLOCK = Clock()


def run(cell, options):
    if cell.config.bad:
        raise ArithmeticError("no way")
    steps = cell.settings.get("steps", cell.settings.get("epochs", 0))
    CLOCK.runs.append((cell.method, steps, options.threads))
    first = len([m for m, *_ in CLOCK.runs if m == cell.method]) == 1
    CLOCK.now += FIXED + A_STEP * steps + 50 * first  # the first run compiles
    if cell.method == "noisy":
        CLOCK.now += CLOCK.rng.normal(scale=0.5)
    return {"accuracy": 1.0, "n_test": 1}


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "slow", SLOW)
    monkeypatch.setenv("COLUMNS", "200")
    CLOCK.__init__()
    monkeypatch.setattr(time, "perf_counter", CLOCK)
    return CLOCK


def cells(method="slow", seeds=3, preset="quick", **changes):
    config = SLOW.configure(preset, **changes)
    return [SLOW.cell(method, "numpy", seed, preset, config) for seed in range(seeds)]


def test_a_straight_line_is_found_from_two_points():
    a_step, whole = extrapolate([3.0, 3.0], [5.0, 5.0], (4, 8), 1004)
    assert (a_step.mean, a_step.half_width) == (0.5, 0.0)
    assert whole.mean == 3.0 + 0.5 * 1000
    wide = extrapolate([3.0, 3.1], [5.0, 5.3], (4, 8), 1004)[1]
    assert wide.low < wide.mean < wide.high  # the spread of the slope, carried on
    for few, more, counts in (([1], [1, 2], (1, 2)), ([1, 1], [2, 2], (2, 2))):
        with pytest.raises(ValueError, match="equally many timings with counts that rise"):
            extrapolate(few, more, counts, 10)


def test_no_run_takes_less_than_no_time():
    """A busy machine made the longer run the faster one: half of the rows had negative seconds."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        few, more = rng.uniform(1, 3, size=(2, 3))
        a_step, whole = extrapolate(few, more, (5, 25), 1000)
        assert 0 <= a_step.low <= a_step.mean <= a_step.high
        assert 0 <= whole.low <= whole.mean <= whole.high
        assert whole.mean >= few.mean()  # more steps do not make a run shorter
    with pytest.raises(ValueError, match="steps must be at least"):
        extrapolate([1, 1], [2, 2], (5, 25), 10)
    with pytest.raises(ValueError, match="seconds ≥ 0"):
        extrapolate([-1, 1], [2, 2], (5, 25), 30)
    assert total([]) == (0.0, 0.0, 0.0)


def test_few_steps_tell_the_whole(clock):
    (cost,) = estimate_costs(cells(), options=RunOptions(threads=1))
    assert cost.a_step.mean == pytest.approx(A_STEP)
    assert cost.a_cell.mean == pytest.approx(FIXED + 1000 * A_STEP)  # without the compilation
    assert cost.seconds[0] == pytest.approx(3 * cost.a_cell.mean)
    assert cost.count == "steps"
    assert sum(steps for _, steps, _ in clock.runs) < 150  # far from 1000
    assert total([cost, cost], jobs=4)[0] == pytest.approx(cost.seconds[0] / 2)


def test_noise_shows_as_spread(clock):
    (cost,) = estimate_costs(cells("noisy"), repeats=5)
    assert cost.a_cell.low < FIXED + 1000 * A_STEP < cost.a_cell.high
    assert cost.seconds[1] < cost.seconds[0] < cost.seconds[2]


def test_passes_are_timed_one_by_one_and_short_runs_whole(clock):
    (passes,) = estimate_costs(cells("passes"))
    assert {steps for _, steps, _ in clock.runs} == {1, 2}
    assert passes.a_cell.mean == pytest.approx(FIXED + 40 * A_STEP)
    for short in (cells("at-once"), cells(steps=20)):
        (cost,) = estimate_costs(short)
        assert cost.count is None
        assert cost.a_cell.mean == pytest.approx(FIXED + A_STEP * short[0].settings.get("steps", 0))


def test_each_configuration_is_timed_for_itself():
    both = cells(seeds=2) + cells(seeds=5, preset="full") + cells(seeds=2)
    one, two = estimate_costs(both)
    assert (one.cells, two.cells) == (2, 5)
    assert two.a_cell.mean == pytest.approx(FIXED + 100_000 * A_STEP)


def test_stored_runs_are_taken_and_failed_ones_not(clock):
    results = runner.run_cells(cells())
    results = [dataclasses.replace(r, seconds=s) for r, s in zip(results, (9.0, 11.0, 99.0),
                                                                strict=True)]  # fmt: skip
    results[2] = dataclasses.replace(results[2], error="killed")
    clock.runs.clear()
    (cost,) = estimate_costs(cells(seeds=10), stored=results)
    assert clock.runs == []
    assert (cost.a_cell.mean, cost.measured, cost.cells) == (10.0, False, 10)
    (again,) = estimate_costs(cells(), stored=results[1:])  # one is not enough for a spread
    assert again.measured


def test_what_cannot_be_timed_says_why():
    with pytest.raises(
        runner.RunError, match=r"slow, slow, numpy, seed 0 cannot be timed: .*no way"
    ):
        estimate_costs(cells(bad=True))
    for settings in ({"timed_steps": 0}, {"repeats": 1}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            estimate_costs(cells(), **settings)
    with pytest.raises(ValueError, match="jobs"):
        total([], jobs=0)


def test_the_settings_that_count_steps_exist():
    """A renamed setting must not turn an estimate into a whole run."""
    fields = {f.name for e in EXPERIMENTS.values() for f in dataclasses.fields(e.config)}
    assert set(estimate.COUNTS) <= fields


# ---------------------------------------------------------------- the command


def fewshot(*arguments):
    return CliRunner().invoke(cli.app, ["estimate", *map(str, arguments)])


def test_the_command_prints_seconds_and_money(tmp_path):
    done = fewshot("slow", "--method", "slow", "--seeds", 4, "--jobs", 2, "--price-per-hour", 3.6)
    assert done.exit_code == 0, done.output
    assert "0.25 a step" in done.stdout
    assert "all 4 runs, 2 at a time: 8.4 min [8.4 min, 8.4 min]" in done.stdout  # 4 · 252 s / 2
    assert "at 3.6 an hour: 0.50 [0.50, 0.50]" in done.stdout
    assert "an hour" not in fewshot("slow", "--method", "slow").stdout


def test_the_command_takes_sweeps_and_stored_runs(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("experiment: slow\nmethods: [slow]\nseeds: 6\nconfig: {steps: [500, 900]}\n")
    done = fewshot(file)
    assert "all 12 runs: 35.4 min" in done.stdout  # 6 · (127 + 227) s
    assert "steps = 900" in done.stdout
    with ResultWriter(tmp_path / "r.jsonl") as writer:
        for result in runner.run_cells(cells()):
            writer.append(dataclasses.replace(result, seconds=10.0))
    done = fewshot("slow", "--method", "slow", "--stored", tmp_path / "r.jsonl")
    assert "stored runs" in done.stdout
    assert "all 10 runs: 100 s" in done.stdout


def test_money_at_an_hour():
    assert price(1800, 3.0) == 1.5
    with pytest.raises(ValueError, match="an_hour"):
        price(1, -1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slw",), "slow"),
        (("slow", "--method", "fast"), "fast"),
        (("slow", "--seeds", 0), "--seeds must be at least 1"),
        (("slow", "--price-per-hour", -1), "--price-per-hour must be at least 0"),
        (("slow", "--repeats", 1), "repeats"),
        (("missing.yaml",), "missing.yaml"),
        (("slow", "--stored", "missing.jsonl"), "missing.jsonl"),
    ],
)
def test_bad_usage_is_one_line(arguments, message):
    done = fewshot(*arguments)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
