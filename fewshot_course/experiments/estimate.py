"""What a run will cost, from the seconds that a few steps take here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fewshot_course._arguments import COUNT, NOT_NEGATIVE, checked
from fewshot_course._checks import check_number
from fewshot_course.evaluation import Interval, mean_interval
from fewshot_course.experiments.registry import Cell, RunOptions
from fewshot_course.experiments.results import Result
from fewshot_course.experiments.runner import DEFAULTS, RunError, place_cells, run_cell

__all__ = ["COUNTS", "Cost", "estimate_costs", "extrapolate", "price", "total"]

COUNTS = ("gan_steps", "vae_steps", "steps", "iterations", "epochs")
"""Settings that count updates or passes; the first that a method uses is the one shortened."""


@dataclass(frozen=True)
class Cost:
    """What the cells of one method, framework and configuration cost.

    Attributes:
        cell: one of them.
        cells: how many there are.
        count: the setting that counts the steps; ``None`` if whole cells were timed.
        a_step: seconds a step, mean and interval over the timings; ``None`` likewise.
        a_cell: seconds a cell, mean and interval.
        measured: whether it was timed now, or stored runs of these cells were taken.
    """

    cell: Cell
    cells: int
    count: str | None
    a_step: Interval | None
    a_cell: Interval
    measured: bool

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Seconds of all cells, one after the other: mean, low and high."""
        mean, low, high = self.a_cell.mean, self.a_cell.low, self.a_cell.high
        return self.cells * mean, self.cells * low, self.cells * high


@checked(steps=COUNT)
def extrapolate(
    few: Sequence[float], more: Sequence[float], counts: tuple[int, int], steps: int
) -> tuple[Interval, Interval]:
    """Return seconds a step and seconds of a whole run, from runs with few and with more steps.

    A run of k steps takes a + b·k: what it costs at any rate (data, evaluation), and the steps.
    Each pair of timings gives one b, and one a + b·steps.  Nothing takes less than no time: a
    pair whose longer run was the faster one, by chance, gives b = 0, and intervals end at 0.

    Args:
        few: seconds of runs with ``counts[0]`` steps, at least two.
        more: seconds of runs with ``counts[1]`` steps, as many.
        counts: the two numbers of steps, the smaller one first.
        steps: those of the whole run.

    Returns:
        Mean and interval of b and of a + b·steps.

    Raises:
        ValueError: if there are not as many timings of both, the counts do not rise, ``steps``
            are fewer than the larger one, or a time is negative.
    """
    if len(few) != len(more) or counts[0] >= counts[1]:
        raise ValueError(
            f"few and more must be equally many timings with counts that rise, got {len(few)} and "
            f"{len(more)} timings with counts={counts}."
        )
    if steps < counts[1]:
        raise ValueError(f"steps must be at least counts[1]={counts[1]}, got {steps}.")
    first, second = np.asarray(few, float), np.asarray(more, float)
    if not (first >= 0).all() or not (second >= 0).all():
        raise ValueError("few and more must hold seconds ≥ 0, without NaN.")
    slopes = np.maximum(second - first, 0) / (counts[1] - counts[0])
    return _of_seconds(slopes), _of_seconds(first + slopes * (steps - counts[0]))


def _of_seconds(values: Sequence[float] | np.ndarray) -> Interval:
    """Return mean and interval of durations; the interval is cut at 0."""
    found = mean_interval(values)
    return dataclasses.replace(found, low=max(found.low, 0.0)) if found.n > 1 else found


def estimate_costs(
    cells: Iterable[Cell],
    *,
    stored: Iterable[Result] = (),
    timed_steps: int = 20,
    repeats: int = 3,
    options: RunOptions = DEFAULTS,
) -> list[Cost]:
    """Estimate what cells cost, without running them whole.

    Of each method, framework and configuration one cell is run a few times with few steps and
    with ``timed_steps`` more, after a run that is not counted (imports, compilation).  Where the
    whole cell has not more steps than that, or none are counted, whole cells are timed.  Training
    that stops early costs less than is estimated.

    Args:
        cells: what is to be run.
        stored: results; two or more of a configuration are taken instead of timing it.
        timed_steps: steps between the two timings; of passes (``epochs``) it is one.
        repeats: timings of each kind, ≥ 2.
        options: device and threads, as in the run itself.

    Returns:
        One cost a method, framework and configuration.

    Raises:
        ValueError: for numbers out of range.
        RunError: if a cell fails.
    """
    check_number("timed_steps", timed_steps, low=1, integer=True)
    check_number("repeats", repeats, low=2, integer=True)
    groups: dict[str, list[Cell]] = {}
    for cell in {cell.key: cell for cell in place_cells(cells, options)}.values():
        groups.setdefault(cell.config_hash, []).append(cell)
    seconds: dict[str, list[float]] = {}
    for result in stored:
        if result.error is None:
            seconds.setdefault(result.config_hash, []).append(result.seconds)
    costs = []
    for name, group in groups.items():
        if len(seconds.get(name, ())) >= 2:
            a_cell = _of_seconds(seconds[name])
            costs.append(Cost(group[0], len(group), None, None, a_cell, measured=False))
        else:
            costs.append(_measure(group, timed_steps, repeats, options))
    return costs


def _measure(group: Sequence[Cell], timed_steps: int, repeats: int, options: RunOptions) -> Cost:
    cell = group[0]
    count = next((name for name in COUNTS if name in cell.settings), None)
    between = 1 if count == "epochs" else timed_steps
    steps = cell.settings[count] if count else 0
    # A few steps first: the first ones may be slower.
    counts = (1, 2) if count == "epochs" else (max(1, between // 4), max(1, between // 4) + between)
    if count is None or steps <= counts[1]:
        _seconds(cell, options)
        a_cell = _of_seconds([_seconds(cell, options) for _ in range(repeats)])
        return Cost(cell, len(group), None, None, a_cell, measured=True)
    short, longer = (_with(cell, {count: number}) for number in counts)
    _seconds(short, options)
    few, more = np.transpose(
        [(_seconds(short, options), _seconds(longer, options)) for _ in range(repeats)]
    )
    a_step, a_cell = extrapolate(few, more, counts, steps)
    return Cost(cell, len(group), count, a_step, a_cell, measured=True)


def _with(cell: Cell, changes: Mapping[str, int]) -> Cell:
    return dataclasses.replace(cell, config=dataclasses.replace(cell.config, **changes))


def _seconds(cell: Cell, options: RunOptions) -> float:
    result = run_cell(cell, options)
    if result.error is not None:
        raise RunError(f"{cell} cannot be timed: {result.error}")
    return result.seconds


@checked
def total(costs: Iterable[Cost], jobs: int = 1) -> tuple[float, float, float]:
    """Return the seconds of all cells, ``jobs`` at a time: mean, low and high.

    The bounds are the sums of the bounds, and jobs are taken not to slow each other down.
    """
    check_number("jobs", jobs, low=1, integer=True)
    sums = np.sum([cost.seconds for cost in costs] or [(0.0, 0.0, 0.0)], axis=0) / jobs
    return float(sums[0]), float(sums[1]), float(sums[2])


@checked(seconds=NOT_NEGATIVE, an_hour=NOT_NEGATIVE)
def price(seconds: float, an_hour: float) -> float:
    """Return the price of so many seconds at a price an hour (≥ 0)."""
    return seconds / 3600 * check_number("an_hour", an_hour, low=0)
