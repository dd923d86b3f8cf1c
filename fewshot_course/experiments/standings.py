"""The leaderboard as a table: scores over draws, gains over the simplest method, seconds, memory.

See :mod:`fewshot_course.experiments.leaderboard` for what is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fewshot_course._arguments import checked
from fewshot_course.evaluation import Difference, Interval, mean_interval, paired_difference
from fewshot_course.experiments.leaderboard import BOARDS, FIRST
from fewshot_course.experiments.results import Result
from fewshot_course.experiments.tables import Table

__all__ = ["Standing", "framework_gaps", "standings", "standings_table"]


@dataclass(frozen=True)
class Standing:
    """One method in one framework on one board at one number of shots.

    Attributes:
        data: the board.
        shots: labelled examples a class.
        method: name of the method.
        framework: "torch", "tensorflow", or "numpy" where neither is used.
        scores: seed → accuracy in [0, 1].
        score: their mean and 95 % interval.
        gain: paired difference to the simplest method over the same draws; ``None`` for that
            method itself.
        seconds_here: mean seconds from the labelled examples to the scores.
        seconds_before: mean seconds of what was learned on other data before.
        peak_mb: largest memory of a run, of the whole process.
    """

    data: str
    shots: int
    method: str
    framework: str
    scores: dict[int, float]
    score: Interval
    gain: Difference | None
    seconds_here: float
    seconds_before: float
    peak_mb: float


@checked
def standings(results: Iterable[Result]) -> list[Standing]:
    """Return the standings, best mean first within each board and number of shots.

    Failed runs are left out.

    Raises:
        ValueError: for runs of another experiment, or two runs of one cell.
    """
    groups: dict[tuple[str, int, str, str], dict[int, Result]] = {}
    for r in results:
        if r.experiment != "leaderboard":
            raise ValueError(f"expected runs of the leaderboard, got one of {r.experiment!r}.")
        if r.error is not None:
            continue
        group = groups.setdefault((r.data, r.config["shots"], r.method, r.framework), {})
        if r.seed in group:
            raise ValueError(
                f"{r.method} in {r.framework} on {r.data} has two runs of draw {r.seed}; "
                "standings take one setting a method."
            )
        group[r.seed] = r
    found = [_standing(key, group) for key, group in groups.items()]
    with_gain = [replace(one, gain=_gain(one, found)) for one in found]
    boards = list(BOARDS)
    return sorted(with_gain, key=lambda s: (boards.index(s.data), s.shots, -s.score.mean, s.method))


def _standing(key: tuple[str, int, str, str], group: dict[int, Result]) -> Standing:
    runs = list(group.values())
    scores = {seed: run.metrics["accuracy"] for seed, run in sorted(group.items())}
    return Standing(
        *key,
        scores=scores,
        score=mean_interval(list(scores.values())),
        gain=None,
        seconds_here=sum(r.metrics["seconds_here"] for r in runs) / len(runs),
        seconds_before=sum(r.metrics["seconds_before"] for r in runs) / len(runs),
        peak_mb=max(r.peak_mb for r in runs),
    )


def _gain(one: Standing, others: Sequence[Standing]) -> Difference | None:
    """Compare with the simplest method, in the same framework or in none."""
    if one.method == FIRST:
        return None
    for other in others:
        same = (other.data, other.shots, other.method) == (one.data, one.shots, FIRST)
        alike = other.framework in (one.framework, "numpy")
        if same and (alike or one.framework == "numpy"):
            seeds = sorted(one.scores.keys() & other.scores.keys())
            if seeds:
                return paired_difference(
                    [one.scores[s] for s in seeds], [other.scores[s] for s in seeds]
                )
    return None


@checked
def standings_table(rows: Sequence[Standing], caption: str) -> Table:
    """Return the table of some standings; pages let the reader sort it by a click.

    Raises:
        ValueError: if there are none.
    """
    if not rows:
        raise ValueError(f"no standings for the table {caption!r}; run: fewshot leaderboard.")
    header = (
        "method", "framework", "shots", "accuracy, %", "95 % interval", "draws",
        f"points above {FIRST}", "s", "s before", "MB",
    )  # fmt: skip
    return Table(caption, header, tuple(map(_cells, rows)), sortable=True)


def _cells(row: Standing) -> tuple[str, ...]:
    score, gain = row.score, row.gain
    spread = "" if score.n == 1 else f"[{100 * score.low:.1f}, {100 * score.high:.1f}]"
    above = ""
    if gain is not None:
        above = f"{100 * gain.mean + 0.0:+.1f}"
        if gain.n > 1:
            above += f"\n[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    return (
        row.method,
        row.framework,
        str(row.shots),
        f"{100 * score.mean:.1f}",
        spread,
        str(score.n),
        above,
        f"{row.seconds_here:.2f}",
        f"{row.seconds_before:.1f}" if row.seconds_before else "",
        f"{row.peak_mb:.0f}",
    )


@checked
def framework_gaps(rows: Iterable[Standing]) -> dict[tuple[str, str], list[float]]:
    """Return, for each board and method, accuracy in PyTorch minus TensorFlow, draw by draw.

    Returns:
        (board, method) → differences in [-1, 1] over all shots and draws that both have.
    """
    scores: dict[tuple[str, str], dict[tuple[int, int], dict[str, float]]] = {}
    for row in rows:
        for seed, score in row.scores.items():
            pair = scores.setdefault((row.data, row.method), {}).setdefault((row.shots, seed), {})
            pair[row.framework] = score
    gaps = {
        key: [p["torch"] - p["tensorflow"] for p in pairs.values() if len(p) == 2]
        for key, pairs in scores.items()
    }
    return {key: values for key, values in gaps.items() if values}
