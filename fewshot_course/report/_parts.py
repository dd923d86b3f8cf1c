"""What all sections of the page need: the content, and small pieces of HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fewshot_course._reading import printable
from fewshot_course.evaluation import Difference, Interval
from fewshot_course.report._compare import Choice, Comparison
from fewshot_course.report._findings import Finding
from fewshot_course.report._model import Model
from fewshot_course.report._read import Examples

MOST_CLASSES = 12


def escape(text: str) -> str:
    """Return a text as HTML that shows it: markup, controls and turned lines are written out."""
    return html.escape(printable(text))


@dataclass(frozen=True, eq=False)
class Content:
    """All that the page shows."""

    examples: Examples
    comparison: Comparison
    choice: Choice
    findings: list[Finding]
    left_out: list[str]
    model: Model
    model_path: Path
    seed: int
    n_draws: int
    label_next: np.ndarray


def percent(interval: Interval) -> str:
    return interval.format()


def points(difference: Difference, n: bool = True) -> str:
    text = difference.format()
    return text if n else text.partition(", n =")[0]


def lines(interval: Interval) -> str:
    """Write an interval in two short lines."""
    return interval.format().replace(" [", "<br>[", 1)


def seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 0.005 else "below 0.01"


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def cut(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def some(words: Iterable[str], most: int) -> str:
    listed = list(words)
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")


def scroll(table: str, name: str) -> str:
    """Let a wide table scroll by itself, with the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{table}</div>'


def strip(images: np.ndarray, alt: str) -> str:
    """Return some images side by side, as one PNG inside the page."""
    padded = [np.pad(_rgb(x), ((1, 1), (1, 1), (0, 0)), constant_values=0.5) for x in images]
    row = np.concatenate(padded, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * row).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="strip" alt="{alt}" src="data:image/png;base64,{data}">'


def _rgb(x: np.ndarray) -> np.ndarray:
    """Return ``(h, w, 3)``: colour where there are three channels, else their mean in grey."""
    if x.ndim == 3 and x.shape[2] == 3:
        return x
    grey = x if x.ndim == 2 else x.mean(axis=2)
    return np.repeat(grey[..., None], 3, axis=2)
