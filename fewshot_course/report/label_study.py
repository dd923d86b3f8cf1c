"""Which examples to label next?  Choosing them against drawing them, on the same draws.

A run begins with two labels a class, asks for ten more seven times, and learns anew each time.
Its score is the mean accuracy on the rest over all sizes after the first.  All strategies begin
with the same labels.  The stored rows are made again by::

    python -m fewshot_course.report.label_study results/report/labelling.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fewshot_course
from fewshot_course.evaluation import Difference, paired_difference
from fewshot_course.report._label_next import STRATEGIES, label_next
from fewshot_course.report._model import ColoursGradients, Encoded, Logistic, Standard
from fewshot_course.report.study import pool

DATA = ("breast_cancer", "uci_digits", "rare_eights", "wine", "banking10", "sst2")
POOL, REST, FIRST, MORE, ROUNDS, DRAWS = 600, 600, 2, 10, 7, 20


def features_of(name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the features of up to 2,400 examples, their labels, and the C of the head."""
    kind, X, y = pool(name)
    index = np.random.default_rng(sum(name.encode())).permutation(len(y))[: 2 * (POOL + REST)]
    y = y[index]
    if kind == "texts":
        return Encoded("torch", "minilm")([X[i].strip() for i in index]), y, 10.0
    if kind == "images":
        return ColoursGradients()(X[index]), y, 10.0
    return Standard().fit(X[index])(X[index]), y, 1.0


def run(X: np.ndarray, y: np.ndarray, C: float, strategy: str, seed: int) -> list[float]:
    """Return the accuracy on the rest after each round of asking."""
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(y))
    size = min(POOL, len(y) // 2)
    free, rest = order[:size], order[size : size + REST]
    labelled = np.concatenate([free[y[free] == c][:FIRST] for c in np.unique(y)])
    choices = np.random.default_rng([seed, 1])
    scores = []
    for _ in range(ROUNDS):
        head = Logistic(C).fit(X[labelled], y[labelled])
        left = free[~np.isin(free, labelled)]
        chosen = label_next(strategy, head.predict_proba(X[left]), X[left], MORE, choices)
        labelled = np.concatenate([labelled, left[chosen]])
        head = Logistic(C).fit(X[labelled], y[labelled])
        scores.append(round(float((head.predict(X[rest]) == y[rest]).mean()), 5))
    return scores


def differences(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Difference]:
    """Return strategy minus random for each (data, strategy), over the same draws."""
    scores = {(r["data"], r["strategy"], r["seed"]): float(np.mean(r["scores"])) for r in rows}
    found = {}
    for data in dict.fromkeys(r["data"] for r in rows):
        seeds = sorted({r["seed"] for r in rows if r["data"] == data})
        for strategy in STRATEGIES[1:]:
            a, b = ([scores[data, s, seed] for seed in seeds] for s in (strategy, "random"))
            found[data, strategy] = paired_difference(a, b)
    return found


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return the stored rows."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def main(path: str) -> None:
    """Run what is not stored yet, and print the differences."""
    place = Path(path)
    rows = read_rows(path) if place.exists() else []
    done = {(r["data"], r["strategy"], r["seed"]) for r in rows}
    with place.open("a", encoding="utf-8") as file:
        for data in DATA:
            wanted = [(s, i) for i in range(DRAWS) for s in STRATEGIES if (data, s, i) not in done]
            if not wanted:
                continue
            X, y, C = features_of(data)
            for strategy, seed in wanted:
                row = {
                    "schema": 1, "data": data, "strategy": strategy, "seed": seed,
                    "scores": run(X, y, C, strategy, seed), "version": fewshot_course.__version__,
                }  # fmt: skip
                file.write(json.dumps(row) + "\n")
                file.flush()
    for (data, strategy), difference in differences(read_rows(place)).items():
        print(f"{data:14} {strategy:14} {difference.format()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
