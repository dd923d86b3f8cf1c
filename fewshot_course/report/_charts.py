"""Charts of the report as inline SVG: they take their colours from the page, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot_course.report._parts import escape

WIDTH = 360
COLOURS = 7
DASHES = ("", "6 3", "2 3")
_TOP, _RIGHT, _BOTTOM, _LEFT = 10, 10, 38, 42


@dataclass(frozen=True)
class Series:
    """One line: a name, and its mean at each stage; ``None`` where there is none."""

    name: str
    means: Sequence[float | None]
    strong: bool = False


def curves(series: Sequence[Series], x: Sequence[float], ticks: Sequence[str], text: str) -> str:
    """Return a chart of accuracy against labelled examples a class, with its legend.

    Args:
        series: the lines, means in [0, 1].
        x: examples a class at each stage, increasing, > 0.
        ticks: the words under the axis.
        text: what the chart shows, for those who do not see it.
    """
    height = 250
    place = np.log2(np.asarray(x, dtype=np.float64))
    span = place[-1] - place[0] or 1.0
    across = _LEFT + 14 + (place - place[0]) / span * (WIDTH - _LEFT - _RIGHT - 34)
    lowest = min(mean for s in series for mean in s.means if mean is not None)
    floor = max(0.0, np.floor(lowest * 10 - 0.5) / 10)
    parts = []
    step = 0.1 if 1 - floor <= 0.5 else 0.2
    for level in np.arange(1.0, floor - 1e-9, -step):
        y = _up(level, floor, height)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(_text(_LEFT - 5, y + 4, f"{100 * level:.0f} %", "end"))
    parts += _tick_words(across, ticks, height - _BOTTOM + 15)
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(_text(middle, height - 5, "labelled examples a class", "middle"))
    for number, one in enumerate(series):
        points = [
            (a, _up(mean, floor, height))
            for a, mean in zip(across, one.means, strict=True)
            if mean is not None
        ]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" {_stroke(number, one.strong)}/>')
        parts += [_mark(number, a, b) for a, b in points]
    legend = "".join(
        f'<li><svg aria-hidden="true" viewBox="0 0 34 12"><line x1="1" x2="33" y1="6" y2="6" '
        f"{_stroke(number, one.strong)}/>{_mark(number, 17, 6)}</svg>{escape(one.name)}</li>"
        for number, one in enumerate(series)
    )
    return _svg(parts, height, text) + f'<ul class="legend">{legend}</ul>'


def differences(rows: Sequence[tuple[str, float, float, float]], text: str) -> str:
    """Return a chart of paired differences with their intervals.

    Args:
        rows: (name, mean, low, high) in [-1, 1].
        text: what the chart shows, for those who do not see it.
    """
    height = 34 + 34 * len(rows)
    ends = [end for _, _, low, high in rows for end in (low, high)]
    left, right = min(-0.02, *ends), max(0.02, *ends)
    room = 0.06 * (right - left)
    left, right = left - room, right + room

    def across(value: float) -> float:
        return 8 + (value - left) / (right - left) * (WIDTH - 16)

    zero = across(0.0)
    parts = [f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="4" y2="{height - 28}"/>']
    for number, (name, mean, low, high) in enumerate(rows):
        y = 28 + 34 * number
        # The name stands on the side where there is room, above its interval.
        parts.append(_text(8, y - 9, name, "start"))
        stroke = f"stroke:var(--s{0 if low > 0 else 1 if high < 0 else 6})"
        parts.append(
            f'<line x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{y}" y2="{y}" '
            f'style="{stroke};stroke-width:3"/>'
        )
        fill = stroke.replace("stroke", "fill")
        parts.append(f'<circle cx="{across(mean):.1f}" cy="{y}" r="4.5" style="{fill}"/>')
    for value in _round_values(left, right):
        word = f"{100 * value:+.0f}" if value else "0"
        parts.append(_text(across(value), height - 12, word, "middle"))
    return _svg(parts, height, text)


def _round_values(left: float, right: float) -> list[float]:
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
        if (right - left) / step <= 6:
            break
    first, last = int(np.ceil((left + 0.03) / step)), int(np.floor((right - 0.03) / step))
    return sorted({i * step for i in range(first, last + 1)} | {0.0})


def _up(level: float, floor: float, height: int) -> float:
    return round(_TOP + (1 - level) / (1 - floor) * (height - _TOP - _BOTTOM), 1)


def _tick_words(across: np.ndarray, ticks: Sequence[str], y: float) -> list[str]:
    """Write the words under the axis; where two would touch, the last one wins."""
    words: list[str] = []
    taken = np.inf
    for a, word in reversed(list(zip(across, ticks, strict=True))):
        half = 3.5 * len(word)
        if a + half < taken:
            words.append(_text(a, y, word, "middle"))
            taken = a - half - 3
    return words


def _stroke(number: int, strong: bool) -> str:
    dash = DASHES[number // COLOURS % len(DASHES)]
    dashed = f";stroke-dasharray:{dash}" if dash else ""
    width = 3 if strong else 1.6
    colour = f"var(--s{number % COLOURS})"
    return f'style="fill:none;stroke:{colour};stroke-width:{width}{dashed}"'


def _mark(number: int, x: float, y: float) -> str:
    """Draw the sign of a series: colour never stands alone."""
    style = f'style="fill:var(--s{number % COLOURS})"'
    r = 3.4
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {style}/>',
        f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}" {style}/>',
        f'<path d="M{x:.1f} {y - 4.4:.1f}l4.4 7.6h-8.8z" {style}/>',
        f'<path d="M{x:.1f} {y - 4.6:.1f}l4.6 4.6l-4.6 4.6l-4.6 -4.6z" {style}/>',
        f'<path d="M{x:.1f} {y + 4.4:.1f}l4.4 -7.6h-8.8z" {style}/>',
    )
    return shapes[number % len(shapes)]


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(parts: Sequence[str], height: int, text: str) -> str:
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {height}" '
        f'aria-label="{escape(text)}">{"".join(parts)}</svg>'
    )
