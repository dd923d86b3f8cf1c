"""Pictures of the leaderboard: accuracy against examples, and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes

from fewshot_course._arguments import checked
from fewshot_course.evaluation.plots import COLOURS, MARKERS
from fewshot_course.experiments.leaderboard import BOARDS, FIRST
from fewshot_course.experiments.standings import Standing

__all__ = ["against_seconds", "against_shots", "best_of_families"]


@checked
def best_of_families(rows: Sequence[Standing], data: str) -> dict[str, list[Standing]]:
    """Return the simplest method, and of each family the best at the most shots it has.

    TensorFlow's rows are left out: they repeat PyTorch's.

    Args:
        rows: standings.
        data: the board.

    Returns:
        Method → its standings, fewest shots first; the simplest method is the first.
    """
    mine = [r for r in rows if r.data == data and r.framework != "tensorflow"]
    chosen = [FIRST]
    for family in BOARDS[data].families.values():
        members = [r for r in mine if r.method in family and r.method != FIRST]
        most = max((r.shots for r in members), default=0)
        last = [r for r in members if r.shots == most]
        if last:
            chosen.append(max(last, key=lambda r: r.score.mean).method)
    return {
        name: sorted((r for r in mine if r.method == name), key=lambda r: r.shots)
        for name in chosen
    }


@checked
def against_shots(rows: Sequence[Standing], data: str, ax: Axes) -> Axes:
    """Draw accuracy with 95 % intervals against the labelled examples a class.

    Args:
        rows: standings.
        data: the board.
        ax: where to draw.
    """
    for i, (method, mine) in enumerate(best_of_families(rows, data).items()):
        half = [0.0 if r.score.n == 1 else 100 * r.score.half_width for r in mine]
        ax.errorbar(
            [r.shots * 1.03 ** (i - 2) for r in mine],  # side by side, so that bars do not hide
            [100 * r.score.mean for r in mine],
            half,
            marker=MARKERS[i],
            color=COLOURS[i],
            capsize=3,
            label=method,
        )
    ax.set(xscale="log", title=data, xlabel="labelled examples a class", ylabel="accuracy, %")
    ax.set_xticks(BOARDS[data].shots, [str(k) for k in BOARDS[data].shots])
    ax.minorticks_off()
    ax.legend()
    return ax


@checked
def against_seconds(rows: Sequence[Standing], data: str, shots: int, ax: Axes) -> Axes:
    """Draw accuracy against all seconds, those of learning on other data before included.

    A line joins the methods that are better than all faster ones, and names them. Means are over
    the draws that all methods have, so that none gains by its luck with draws.

    Args:
        rows: standings; TensorFlow's are left out.
        data: the board.
        shots: labelled examples a class.
        ax: where to draw.
    """
    mine = [r for r in rows if (r.data, r.shots) == (data, shots) and r.framework != "tensorflow"]
    common = set.intersection(*(set(r.scores) for r in mine))
    dots = sorted(
        (
            (
                max(r.seconds_here + r.seconds_before, 0.01),
                100 * fmean(r.scores[draw] for draw in common),
                r.method,
            )
            for r in mine
        ),
        key=lambda dot: (dot[0], -dot[1]),
    )
    best: list[tuple[float, float, str]] = []
    for dot in dots:
        if not best or dot[1] > best[-1][1]:
            best.append(dot)
    ax.plot([d[0] for d in dots], [d[1] for d in dots], "o", ms=4, color="0.6")
    ax.plot([d[0] for d in best], [d[1] for d in best], "o-", ms=5, color=COLOURS[0])
    for seconds, score, method in best:
        ax.annotate(method, (seconds, score), (-4, 4), ha="right", textcoords="offset points")
    ax.set(xscale="log", title=f"{data}, {shots} a class")
    ax.set(xlabel="seconds (log scale)", ylabel="accuracy, %")
    ax.margins(x=0.3, y=0.15)
    return ax
