"""Tables of stored runs for pages and notebooks: HTML in a browser, plain text elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fewshot_course._arguments import checked
from fewshot_course._checks import check_choice
from fewshot_course.evaluation import Difference, Interval
from fewshot_course.experiments.results import Result
from fewshot_course.experiments.summary import Row, is_percent, summarise

__all__ = ["Table", "comparison_table", "load", "matches", "wide_table"]


DOUBTFUL = "°"
"""Marks a difference that does not survive the correction for several comparisons."""


@dataclass(frozen=True)
class Table:
    """A caption, a header and rows of text.

    Attributes:
        caption: what the table shows.
        header: one text a column.
        rows: one tuple of texts a row.
        sortable: whether a page lets the reader sort the rows by a column.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sortable: bool = False

    def __repr__(self) -> str:
        lines = [tuple(c.replace("\n", " ") for c in r) for r in (self.header, *self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        text = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in lines]
        return "\n".join([self.caption, *(line.rstrip() for line in text)])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.header)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        kind = "table sortable" if self.sortable else "table"
        return (
            f'<table class="{kind}"><caption>{escape(self.caption)}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
        )


def _html(cell: str) -> str:
    """Escape a cell; each of its lines stays whole."""
    lines = escape(cell).split("\n")
    if len(lines) == 1:
        return lines[0]
    return "<br>".join(f'<span class="text-nowrap">{line}</span>' for line in lines)


@checked
def comparison_table(
    results: Iterable[Result],
    caption: str,
    *,
    baseline: str | None = None,
    settings: Sequence[str] = (),
    names: Mapping[str, str] | Callable[[Row], str] | None = None,
) -> Table:
    """Compare methods over draws: mean and interval, paired difference, seconds, memory.

    A method is compared with its partner, which differs from it in one thing alone, where the
    experiment names one and its runs are shown; the cell says so.  p-values are corrected for the
    number of differences of a framework in the table (Holm 1979).

    Args:
        results: the stored runs to show, in the order of the rows.
        caption: what the table shows.
        baseline: the method that the others are compared with; ``None``: the partner of each, or
            else the first.
        settings: settings that get a column each.
        names: how methods are called in the table.

    Raises:
        ValueError: if there are no results.
    """
    results = list(results)
    if not results:
        raise ValueError(f"no stored runs for the table {caption!r}.")
    rows = []
    for row in summarise(results, baseline=baseline):
        percent = is_percent(row.metric)
        cells = [_name(row, names), row.framework]
        cells += [str(row.settings.get(name, "")) for name in settings]
        cells.append(row.score.format(percent=percent) if row.score else "all runs failed")
        cells.append(_against(row, percent, results[0].method))
        cells.append("" if row.holm_p is None else _p_value(row.holm_p))
        cells += [f"{row.seconds:.1f}", f"{row.peak_mb:.0f}"]
        rows.append(tuple(cells))
    unit = "difference to " + _first_name(results, baseline, names)
    header = ("method", "framework", *settings, row.metric, unit, "p (Holm)", "s", "MB")
    return Table(caption, header, tuple(rows))


@checked
def wide_table(
    results: Iterable[Result],
    caption: str,
    across: str,
    *,
    baseline: str | None = None,
    names: Mapping[str, str] | Callable[[Row], str] | None = None,
) -> Table:
    """Compare methods over the values of one setting, which get a column each.

    The baseline's cells hold its score, the others' the paired difference to it, each with its
    95 % interval; the caption tells the unit and the number of draws.  A difference whose interval
    excludes 0 but whose p-value does not survive Holm's correction, for the differences of its
    column and framework, has a °.

    Args:
        results: the stored runs to show, in the order of the rows.
        caption: what the table shows.
        across: the setting whose values are the columns.
        baseline: the method that the others are compared with; ``None``: the first.
        names: how methods are called in the table.

    Raises:
        ValueError: if there are no results, or two runs would share a cell.
    """
    results = list(results)
    if not results:
        raise ValueError(f"no stored runs for the table {caption!r}.")
    first = baseline or results[0].method
    if lacking := [r for r in results if across not in r.config]:
        check_choice("across", across, lacking[0].config)
    values = sorted({r.config[across] for r in results})
    lines: dict[tuple[str, str], dict[Any, str]] = {}
    draws: set[int] = set()
    for value in values:
        chosen = [r for r in results if r.config[across] == value]
        for row in summarise(chosen, baseline=first):
            cells = lines.setdefault((_name(row, names), row.framework), {})
            if value in cells:
                raise ValueError(f"{row.method} has several runs where {across} is {value}.")
            shown = row.score if row.method == first else row.difference
            cells[value] = ""
            if shown is not None:
                cells[value] = _short(shown, is_percent(row.metric), signed=row.method != first)
                cells[value] += DOUBTFUL if _is_doubtful(row) and row.method != first else ""
                draws.add(shown.n)
    for (method, framework), cells in lines.items():
        if not any(cells.values()):
            raise ValueError(
                f"{method} in {framework} shares no draw and settings with {first}: its row would "
                "be empty; leave its runs out, or compare them by paired_difference."
            )
    header = ("method", "framework", *(f"{across} = {value}" for value in values))
    rows = tuple(
        (*key, *(cells.get(value, "") for value in values)) for key, cells in lines.items()
    )
    counts = " or ".join(str(n) for n in sorted(draws))
    unit = "% and points" if is_percent(summarise(results)[0].metric) else "95 % intervals"
    note = ""
    if any(cell.endswith(DOUBTFUL) for row in rows for cell in row):
        note = f"; {DOUBTFUL} not clear among so many comparisons"
    return Table(f"{caption} ({unit}, n = {counts}{note})", header, rows)


def _is_doubtful(row: Row) -> bool:
    """Whether a difference looks clear alone, but not among the others of its question."""
    alone = row.difference is not None and row.difference.excludes_zero
    return alone and row.holm_p is not None and row.holm_p >= 0.05


def _against(row: Row, percent: bool, first: str) -> str:
    """The paired difference, and what it is to, where that is not the method in the header."""
    if row.difference is None:
        return ""
    text = row.difference.format(percent=percent)
    return text if row.baseline == first else f"{text}, to {row.baseline}"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _short(shown: Interval | Difference, percent: bool, signed: bool) -> str:
    """Mean and interval in two lines, without unit and n."""
    factor, digits = (100, 1) if percent else (1, 3)
    sign = "+" if signed else ""
    mean, low, high = (
        f"{factor * value + 0.0:{sign}.{digits}f}" for value in (shown.mean, shown.low, shown.high)
    )
    return f"{mean}\n[{low}, {high}]" if shown.n > 1 else f"{mean}\n(n = 1)"


@checked
def load(path: str | Path, **chosen: object) -> list[Result]:
    """Read the runs of a file whose settings equal ``chosen`` (where they have the setting)."""
    from fewshot_course.experiments.results import read_results

    return [r for r in read_results(path) if matches(r, **chosen)]


@checked
def matches(result: Result, **chosen: object) -> bool:
    """Whether a run's settings equal ``chosen``; a list names several allowed values."""
    for name, wanted in chosen.items():
        value = getattr(result, name) if hasattr(result, name) else result.config.get(name, wanted)
        if value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def _name(row: Row, names: Mapping[str, str] | Callable[[Row], str] | None) -> str:
    if callable(names):
        return names(row)
    return (names or {}).get(row.method, row.method)


def _first_name(
    results: list[Result],
    baseline: str | None,
    names: Mapping[str, str] | Callable[[Row], str] | None,
) -> str:
    method = baseline or results[0].method
    return method if callable(names) or names is None else names.get(method, method)
