"""Write the numbers that interactive figures need: the notebooks' own, or made-up points.

    python book/_tools/figure_data.py [--out FOLDER] [NAME ...]

Runs the labelled cells that make the numbers, in a fresh Python, and writes each figure's
``NAME-data.js`` (a script, because a page opened from a file may not fetch anything).  Names are
those in ``FIGURES``; all of them unless told.  Run it after a change of those cells; the tests
compare the files with what the notebooks print.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import notebooks
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "book" / "_static"
TASKS = 6
"""Sinusoids that the reader can choose from: the first ones of the notebook's test tasks."""

HEAD = """\
/* Written by book/_tools/figure_data.py: do not edit. */
globalThis.figureData ??= {};
"""


def run_cells(path: Path, labels: Sequence[str]) -> dict[str, Any]:
    """Run the cells of a text twin that carry these labels, and return their variables."""
    sources = {cell.metadata.get("label"): cell.source for cell in notebooks.read_twin(path).cells}
    variables: dict[str, Any] = {}
    for label in labels:
        exec(compile(sources[label], f"{path.name}:{label}", "exec"), variables)
    return variables


def packed(array: np.ndarray, kind: str) -> str:
    """Return an array as base64 of little-endian numbers, ``kind`` "f4" or "f8"."""
    return base64.b64encode(np.ascontiguousarray(array, dtype=f"<{kind}").tobytes()).decode()


def unpacked(text: str, kind: str) -> np.ndarray:
    """Undo :func:`packed`; the array is flat."""
    return np.frombuffer(base64.b64decode(text), dtype=f"<{kind}").copy()


def maml_steps(root: Path) -> dict[str, Any]:
    """Weights of both sinusoid networks, layer by layer, and the first test tasks."""
    cells = run_cells(root / "chapters/maml/torch.md", ["setup", "sinusoid-train"])
    weights = {}
    for name, learner in cells["learners"].items():
        arrays = cells["networks"].to_numpy(learner.network_)
        weights[name] = packed(np.concatenate([array.ravel() for array in arrays.values()]), "f4")
    return {
        "inner_lr": cells["learners"]["MAML"].inner_lr,
        "weights": weights,
        "tasks": [sinusoid(*cells["test_tasks"].task(i)) for i in range(TASKS)],
    }


def sinusoid(
    X_support: np.ndarray, y_support: np.ndarray, X_query: np.ndarray, y_query: np.ndarray
) -> dict[str, Any]:
    """Return a task's support points, and amplitude and phase, which its points determine.

    a·sin(x - b) = (a·cos b)·sin x - (a·sin b)·cos x is linear in the two brackets.
    """
    x, y = np.concatenate([X_support, X_query])[:, 0], np.concatenate([y_support, y_query])[:, 0]
    (cosine, sine), *_ = np.linalg.lstsq(np.stack([np.sin(x), -np.cos(x)], axis=1), y, rcond=None)
    return {
        "amplitude": float(np.hypot(cosine, sine)),
        "phase": float(np.arctan2(sine, cosine)),
        "x": X_support[:, 0].tolist(),
        "y": y_support[:, 0].tolist(),
    }


def em_steps(root: Path) -> dict[str, Any]:
    """Sixty made-up points in three slanting clusters, three labels in each, and a poor start."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), 20)
    along, across = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    lengths = rng.normal(size=(60, 2)) * [1.3, 0.4]
    points = lengths @ [along, across] + np.outer(2.2 * (1 - classes), across)
    labels = np.where(np.arange(60) % 20 < 3, classes, -1)
    return {
        "points": points.round(2).tolist(),
        "labels": labels.tolist(),
        "start": {
            "weights": [1 / 3] * 3,
            "means": [[0.0, -1.0], [0.0, 0.0], [0.0, 1.0]],
            "covariances": [[1.0, 0.0, 1.0]] * 3,  # xx, xy, yy
        },
    }


def confidence_threshold(root: Path) -> dict[str, Any]:
    """Confidence of each pseudo-label and whether it is right, for two models of the notebook."""
    labels = ["setup", "digits", "component-numbers", "clamped", "confidence", "reliability"]
    cells = run_cells(root / "chapters/pseudo_labels/gmm/torch.md", labels)
    unlabelled, truth = cells["X"][cells["hidden"]], cells["truth"]
    probabilities = cells["logistic"].predict_proba(unlabelled.reshape(len(unlabelled), -1))
    sure, right = cells["confidence_and_correct"](truth, probabilities)
    return {
        "mixture": {
            "confidence": packed(cells["confidence"], "f8"),
            "right": bits(cells["pseudo"] == truth),
        },
        "logistic regression": {"confidence": packed(sure, "f8"), "right": bits(right)},
    }


def shots_methods(root: Path) -> dict[str, Any]:
    """Scores of the stored leaderboard in PyTorch: board → method → shots → draw → accuracy."""
    from scipy.stats import t

    from fewshot_course.experiments import read_results
    from fewshot_course.experiments.leaderboard import BOARDS
    from fewshot_course.experiments.standings import standings

    rows = standings(read_results(root / "results" / "leaderboard.jsonl"))
    boards: dict[str, Any] = {}
    for name, board in BOARDS.items():
        of_method: dict[str, Any] = {method: {} for method in board.methods}
        for row in rows:
            if row.data == name and row.framework != "tensorflow":
                of_method[row.method][row.shots] = {k: round(v, 4) for k, v in row.scores.items()}
        boards[name] = of_method
    counts = range(2, 1 + max(len(row.scores) for row in rows))
    return {"boards": boards, "quantiles": {n: float(t.ppf(0.975, n - 1)) for n in counts}}


def bits(values: np.ndarray) -> str:
    """Return booleans as a string of 0 and 1."""
    return "".join("1" if value else "0" for value in values)


FIGURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "confidence-threshold": confidence_threshold,
    "em-steps": em_steps,
    "maml-steps": maml_steps,
    "shots-methods": shots_methods,
}


def read(path: Path) -> dict[str, Any]:
    """Return what a ``NAME-data.js`` holds."""
    return json.loads(path.read_text(encoding="utf-8").partition("] = ")[2].rstrip().rstrip(";"))


def write(name: str, out: Path, root: Path = ROOT) -> Path:
    """Run a figure's cells and write its data; return the file."""
    text = json.dumps(FIGURES[name](root))
    path = out / f"{name}-data.js"
    notebooks.write_if_changed(path, f'{HEAD}globalThis.figureData["{name}"] = {text};\n')
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the interactive figures' numbers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("--out", type=Path, default=STATIC, help="folder to write into")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = options.names or list(FIGURES)
    if unknown := set(names) - set(FIGURES):
        parser.error(f"no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    if not options.here:
        # Threads and the preset are read when the frameworks start, so a fresh Python is needed.
        environment = {**os.environ, **notebooks.KERNEL_ENVIRONMENT, "MPLBACKEND": "Agg"}
        command = [sys.executable, __file__, "--here", "--out", str(options.out.resolve()), *names]
        return subprocess.run(command, env=environment, check=False).returncode
    for name in names:
        path = write(name, options.out)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
