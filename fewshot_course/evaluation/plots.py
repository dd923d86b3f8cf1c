"""Figures in the course's style.

Every figure is an opaque white card, so that it reads on a light and on a dark page.  Colours are
Okabe and Ito's, which colour-blind readers can tell apart (M. Okabe, K. Ito, "Color Universal
Design", 2008, https://jfly.uni-koeln.de/color/), and colour never stands alone: each series has
its own marker and line style too.  No text is smaller than 9 pt.

Each function draws into ``ax`` (a new figure if none is given) and returns the Axes.  In a
notebook close with ``plt.show()``; for a file use :func:`save`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, ScalarFormatter
from numpy.typing import ArrayLike
from PIL import Image

from fewshot_course._checks import check_features, check_labels, check_number
from fewshot_course.evaluation.calibration import ReliabilityBins
from fewshot_course.evaluation.intervals import Interval, mean_interval

# Okabe and Ito's palette, the best contrast with white first.  Yellow is left out: on white it
# can hardly be seen.  Orange and sky blue come last, for the same reason.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#404040",
    "axes.labelcolor": "#1a1a1a",
    "text.color": "#1a1a1a",
    "xtick.color": "#1a1a1a",
    "ytick.color": "#1a1a1a",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.framealpha": 0.9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "lines.linewidth": 1.8,
    "lines.markersize": 6.0,
    "svg.hashsalt": "fewshot-course",
}
"""matplotlib settings of the course; ``with plt.rc_context(STYLE)`` for figures of your own."""


def learning_curve(
    shots: ArrayLike,
    scores: Mapping[str, Sequence[ArrayLike]],
    *,
    ax: Axes | None = None,
    confidence: float = 0.95,
    percent: bool = True,
    chance: float | None = None,
) -> Axes:
    """Draw the mean score against the number of labelled examples, with bands.

    Args:
        shots: labelled examples a class ``(k,)``, increasing and positive.
        scores: for each method k rows, row i holding its scores over the draws at ``shots[i]``.
            A row of one draw gets a point without band.
        ax: where to draw.
        confidence: level of the bands, in (0, 1).
        percent: whether scores are shares in [0, 1] to be shown in per cent.
        chance: the score of guessing, drawn as a dotted grey line.

    Raises:
        TypeError: for scores that are no numbers.
        ValueError: for no method, rows that do not fit ``shots``, or bad scores.
    """
    x = np.asarray(shots, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0 or not (np.isfinite(x).all() and (x > 0).all()):
        raise ValueError(f"shots must be positive numbers of shape (k,), got {shots!r}.")
    if (np.diff(x) <= 0).any():
        raise ValueError(f"shots must increase, got {shots!r}.")
    _check_names("scores", scores)
    curves = {}
    for name, rows in scores.items():
        if len(rows) != len(x):
            raise ValueError(f"scores[{name!r}] has {len(rows)} rows for {len(x)} shots.")
        curves[name] = [mean_interval(row, confidence) for row in rows]
    with plt.rc_context(STYLE):
        ax = _axes(ax)
        for i, (name, curve) in enumerate(curves.items()):
            ax.plot(x, [c.mean for c in curve], label=name, **_series(i))
            low, high = [c.low for c in curve], [c.high for c in curve]
            ax.fill_between(x, low, high, color=_colour(i), alpha=0.18, linewidth=0)
        if chance is not None:
            check_number("chance", chance)
            ax.axhline(chance, color="#595959", linestyle=":", linewidth=1.2, label="chance")
        if x[-1] / x[0] >= 8:
            ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(list(x)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.set_xlabel("labelled examples a class")
        ax.set_ylabel("accuracy" if percent else "score")
        if percent:
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.grid(axis="y")
        ax.legend()
    return ax


def comparison(
    scores: Mapping[str, ArrayLike],
    *,
    ax: Axes | None = None,
    confidence: float = 0.95,
    percent: bool = True,
    reference: float | None = None,
    label: str | None = None,
) -> Axes:
    """Draw each method's mean as a point with its interval; the draws are the small dots below.

    Args:
        scores: for each method its scores over the draws ``(n,)``; the first one is drawn on top.
        ax: where to draw.
        confidence: level of the intervals, in (0, 1).
        percent: whether scores are shares in [0, 1] to be shown in per cent.
        reference: a value to compare with (a published score; 0 for differences), drawn as a
            dashed grey line.
        label: what the axis shows; "accuracy" or "score" if not given.

    Raises:
        TypeError: for scores that are no numbers.
        ValueError: for no method or bad scores.
    """
    _check_names("scores", scores)
    intervals = {name: mean_interval(draws, confidence) for name, draws in scores.items()}
    with plt.rc_context(STYLE):
        ax = _axes(ax, height=0.8 + 0.55 * len(scores))
        if reference is not None:
            check_number("reference", reference)
            ax.axvline(reference, color="#595959", linestyle="--", linewidth=1.2)
        for i, (name, interval) in enumerate(intervals.items()):
            draws = np.asarray(scores[name], dtype=np.float64)
            ax.plot(draws, np.full(len(draws), i + 0.28), ".", color="#767676", markersize=4)
            _point(ax, interval, i)
        ax.set_yticks(range(len(scores)), list(scores))
        ax.set_ylim(len(scores) - 0.4, -0.5)
        ax.set_xlabel(label or ("accuracy" if percent else "score"))
        if percent:
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.grid(axis="x")
    return ax


def image_grid(
    X: ArrayLike,
    titles: Sequence[object] | None = None,
    *,
    columns: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Draw pictures in rows, each with an optional title above it.

    Args:
        X: images ``(n, h, w)`` or ``(n, h, w, c)`` with c = 1 or 3, floats in [0, 1].
        titles: one short title a picture ``(n,)``, e.g. its class.
        columns: pictures a row, >= 1.
        ax: where to draw.

    Raises:
        TypeError: for images that are no numbers.
        ValueError: for a wrong shape, values outside [0, 1], or titles that do not fit.
    """
    images = check_features("X", X)
    check_number("columns", columns, low=1, integer=True)
    if images.ndim == 2:
        raise ValueError(f"X must hold images (n, h, w) or (n, h, w, c), got {images.shape}.")
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        raise ValueError(f"X must have 1 or 3 channels, got shape {images.shape}.")
    n, h, w = images.shape[:3]
    if titles is not None and len(titles) != n:
        raise ValueError(f"titles has {len(titles)} entries for {n} images.")
    pictures = np.repeat(images[..., None], 3, -1) if images.ndim == 3 else images
    pictures = np.broadcast_to(pictures, (n, h, w, 3))
    columns = min(columns, n)
    rows = -(-n // columns)
    # One mosaic in one Axes: a white frame of 8 % of a picture, with more room for titles.
    gap = max(1.0, 0.08 * max(h, w))
    width_inches = min(6.0, 0.9 * columns)
    pixels_per_inch = columns * (w + gap) / width_inches
    room = pixels_per_inch * 0.24 if titles is not None else gap
    with plt.rc_context(STYLE):
        height_inches = rows * (h + room) / pixels_per_inch
        ax = _axes(ax, width=width_inches, height=max(0.4, height_inches))
        for i, picture in enumerate(pictures):
            left, top = (i % columns) * (w + gap), (i // columns) * (h + room) + room
            extent = (left, left + w, top + h, top)
            ax.imshow(picture, extent=extent, vmin=0, vmax=1, interpolation="nearest")
            ax.plot(
                [left, left + w, left + w, left, left],
                [top, top, top + h, top + h, top],
                color="#8c8c8c",
                linewidth=0.6,
            )
            if titles is not None:
                position = (left + w / 2, top - 0.15 * room)
                ax.text(*position, str(titles[i]), ha="center", va="bottom", fontsize=9)
        ax.set_xlim(-gap / 2, columns * (w + gap) - gap / 2)
        ax.set_ylim(rows * (h + room) + gap / 2, 0)
        ax.set_aspect("equal")
        ax.set_axis_off()
    return ax


def latent_scatter(
    Z: ArrayLike,
    y: ArrayLike,
    domain: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    domain_names: tuple[str, str] = ("source", "target"),
    ax: Axes | None = None,
) -> Axes:
    """Draw points of a plane; colour and marker tell the class, filling tells the domain.

    Args:
        Z: points ``(n, 2)``.
        y: classes ``(n,)``; ``-1`` ("unknown") is drawn as a small grey dot.
        domain: 0 for the first domain (hollow marks) and 1 for the second (filled) ``(n,)``.
        class_names: names for the legend; the class numbers if not given.
        domain_names: names of the two domains.
        ax: where to draw.

    Raises:
        TypeError: for points or labels that are no numbers.
        ValueError: for a wrong shape, differing lengths, NaN, or more than ten classes.
    """
    points = check_features("Z", Z)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"Z must have shape (n, 2), got {points.shape}; project it first.")
    labels = check_labels("y", y, n=len(points), allow_unlabelled=True)
    side = (
        np.ones(len(points), dtype=np.int64)
        if domain is None
        else check_labels("domain", domain, n=len(points))
    )
    if side.max() > 1:
        raise ValueError(f"domain must hold 0 and 1, got {side.max()}.")
    if labels.max() >= len(MARKERS):
        raise ValueError(f"y has classes up to {labels.max()}; at most {len(MARKERS)} can be told.")
    if class_names is not None and len(class_names) <= labels.max():
        raise ValueError(f"class_names has {len(class_names)} names, y goes up to {labels.max()}.")
    with plt.rc_context(STYLE):
        ax = _axes(ax, width=4.8, height=3.6)
        unknown = labels < 0
        if unknown.any():
            ax.plot(*points[unknown].T, ".", color="#767676", markersize=3, label="unknown")
        for k in np.unique(labels[~unknown]):
            name = str(k) if class_names is None else str(class_names[k])
            for d, filled in ((1, True), (0, False)):
                chosen = (labels == k) & (side == d)
                if not chosen.any():
                    continue
                ax.plot(
                    *points[chosen].T,
                    linestyle="none",
                    marker=MARKERS[k],
                    markersize=5.5,
                    markeredgewidth=0.5 if filled else 1.2,
                    markeredgecolor="#1a1a1a" if filled else _colour(k),
                    markerfacecolor=_colour(k) if filled else "none",
                    label=name,
                )
        _one_entry_a_class(ax, None if domain is None else domain_names)
        ax.set_xlabel("first coordinate")
        ax.set_ylabel("second coordinate")
    return ax


def reliability_diagram(
    bins: ReliabilityBins | Mapping[str, ReliabilityBins], *, ax: Axes | None = None
) -> Axes:
    """Draw accuracy against confidence; the dashed diagonal is perfect calibration.

    Args:
        bins: what :func:`~fewshot_course.evaluation.calibration.reliability_bins` returns, or
            several by name.  Empty bins are left out.
        ax: where to draw.

    Raises:
        TypeError: for anything else.
        ValueError: for no bins.
    """
    several = {"classifier": bins} if isinstance(bins, ReliabilityBins) else bins
    _check_names("bins", several)
    with plt.rc_context(STYLE):
        ax = _axes(ax, width=4.2, height=4.0)
        ax.plot([0, 1], [0, 1], "--", color="#595959", linewidth=1.2, label="perfect")
        for i, (name, one) in enumerate(several.items()):
            if not isinstance(one, ReliabilityBins):
                raise TypeError(
                    f"bins[{name!r}] must be ReliabilityBins, got {type(one).__name__}."
                )
            filled = one.count > 0
            text = f"{name}, ECE {one.expected_calibration_error:.3f}, n = {one.count.sum()}"
            ax.plot(one.confidence[filled], one.accuracy[filled], label=text, **_series(i))
        ax.set_xlim(0, 1.02)
        ax.set_ylim(0, 1.02)
        ax.set_aspect("equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_xlabel("confidence")
        ax.set_ylabel("accuracy")
        ax.grid()
        ax.legend(loc="upper left")
    return ax


def save(ax: Axes, path: str | Path) -> Path:
    """Write the figure of ``ax`` as ``.png`` (150 dpi) or ``.svg``; the same figure, same bytes.

    Raises:
        ValueError: for another ending.
        OSError: if the file cannot be written.
    """
    target = Path(path)
    if target.suffix not in (".png", ".svg"):
        raise ValueError(f"path must end in .png or .svg, got {str(path)!r}.")
    # No date and no version in the file, so that a second run changes nothing in git.
    nothing = {"Software": None} if target.suffix == ".png" else {"Date": None, "Creator": None}
    buffer = io.BytesIO()
    with plt.rc_context(STYLE):
        ax.figure.savefig(  # type: ignore[union-attr]
            buffer, format=target.suffix[1:], dpi=150, bbox_inches="tight", metadata=nothing
        )
    data = buffer.getvalue()
    target.write_bytes(compress_png(data) if target.suffix == ".png" else data)
    return target


def compress_png(data: bytes) -> bytes:
    """Return a PNG with at most 256 colours, about a third of the size, for figures on pages.

    Transparent parts become white.  Works on any PNG, such as an output of a notebook.

    Raises:
        OSError: if ``data`` is no image.
    """
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        card = Image.new("RGBA", image.size, "white")
        card.alpha_composite(image.convert("RGBA"))
        resolution = image.info.get("dpi", (150, 150))
    few = card.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "png", optimize=True, dpi=resolution)
    return buffer.getvalue()


def _axes(ax: Axes | None, width: float = 4.8, height: float = 3.2) -> Axes:
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    elif not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes, got {type(ax).__name__}.")
    return ax


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _series(i: int) -> dict[str, Any]:
    return {
        "color": _colour(i),
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": LINES[i % len(LINES)],
    }


def _point(ax: Axes, interval: Interval, i: int) -> None:
    error = None if interval.n == 1 else [[interval.half_width], [interval.half_width]]
    marker = MARKERS[i % len(MARKERS)]
    ax.errorbar(interval.mean, i, xerr=error, fmt=marker, color=_colour(i), capsize=4)


def _check_names(name: str, value: Mapping[str, Any]) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict by method name, got {type(value).__name__}.")
    if not value:
        raise ValueError(f"{name} is empty; expected at least one method.")


def _one_entry_a_class(ax: Axes, domains: tuple[str, str] | None) -> None:
    """Put a legend beside the plot: one entry a class and, if given, one a domain."""
    handles, labels = ax.get_legend_handles_labels()
    entries = dict(zip(reversed(labels), reversed(handles), strict=True))
    chosen = {name: entries[name] for name in dict.fromkeys(labels)}
    if domains is not None:
        shape: dict[str, Any] = {"linestyle": "none", "marker": "o", "markeredgecolor": "#1a1a1a"}
        for name, face in zip(domains, ("none", "#1a1a1a"), strict=True):
            chosen[name] = Line2D([], [], markerfacecolor=face, **shape)
    ax.legend(chosen.values(), chosen.keys(), loc="center left", bbox_to_anchor=(1.0, 0.5))
