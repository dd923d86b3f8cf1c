"""Which method should a report recommend?  A study of regret on data whose rest is known.

A task is what a user might bring: a few labelled examples of a public data set.  The report
compares its methods on them and chooses; then all methods are scored on the rest of the data set,
which no user has.  *Regret* is what the chosen method is behind the best in hindsight.  In some
tasks the labels are shuffled, so that nothing can be learned and a headline that praises a method
is false.

The stored rows are made again by::

    python -m fewshot_course.report.study results/report/choice.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fewshot_course
from fewshot_course.data import load_dataset
from fewshot_course.evaluation import mean_interval, paired_difference
from fewshot_course.report._compare import Cell, Comparison, Draw, Stage, choose, draw_split
from fewshot_course.report._compare import _mean_over_classes as mean_over_classes
from fewshot_course.report._copies import find_copies
from fewshot_course.report._methods import MAJORITY, Method, methods_for, uneven
from fewshot_course.report._read import Examples
from fewshot_course.report._rule import corrected, leads_of

DRAWS = 10
MOST_REST = 600
SEEDS = 3
SIZES = {
    "wine": (20, 40, 80), "breast_cancer": (20, 40, 80), "iris": (20, 40, 60),
    "uci_digits": (40, 80, 160), "rare_eights": (40, 80, 160), "mnist5k": (40, 80, 160),
    "usps": (40, 80, 160), "glyphs": (40, 80), "tickets": (40, 80),
    "reviews": (20, 40, 80),
    "sst2": (20, 40, 80), "custrev": (20, 40, 80), "trec": (40, 80, 160), "banking10": (40, 80),
}  # fmt: skip
"""Labelled examples that a user brings of each data set."""
FAMILIES = {
    "wine": "tables", "breast_cancer": "tables", "iris": "tables",
    "uci_digits": "digits", "rare_eights": "digits", "mnist5k": "digits", "usps": "digits",
    "glyphs": "characters", "tickets": "intents", "banking10": "intents",
    "reviews": "sentiment", "sst2": "sentiment", "custrev": "sentiment", "trec": "questions",
}  # fmt: skip
"""Data sets that are alike: none is judged by what was learned on its kin."""


def pool(name: str) -> tuple[str, Any, np.ndarray]:
    """Return kind, examples and labels of a data set."""
    if name in ("wine", "breast_cancer", "iris"):
        from sklearn import datasets

        found = getattr(datasets, f"load_{name}")()
        return "vectors", found.data, found.target
    if name in ("uci_digits", "rare_eights"):
        data = load_dataset("uci_digits")
        X = np.asarray(data.X, dtype=np.float64).reshape(len(data.y), -1)
        return "vectors", X, data.y if name == "uci_digits" else (data.y == 8).astype(np.int64)
    if name in ("custrev", "trec"):
        return ("texts", *_text_file(name))
    data = load_dataset({"banking10": "banking77"}.get(name, name))
    chosen: Any = data.X  # a list of texts, or images
    y = np.asarray(data.y)
    if name in ("banking10", "glyphs", "tickets"):  # the first ten classes
        keep = np.flatnonzero(y < 10)
        chosen = [chosen[i] for i in keep] if isinstance(chosen, list) else chosen[keep]
        y = y[keep]
    return "texts" if isinstance(chosen, list) else "images", chosen, y


def _text_file(name: str) -> tuple[list[str], np.ndarray]:
    """Return the customer reviews (Hu & Liu 2004) or the questions (Li & Roth 2002)."""
    place = _folder() / {"custrev": "text/custrev.all", "trec": "text/TREC.train.all"}[name]
    rows = [line.split(" ", 1) for line in place.read_bytes().decode("latin-1").splitlines()]
    rows = [row for row in rows if row[1].strip()]
    return [text for _, text in rows], np.array([int(label) for label, _ in rows])


def _folder() -> Path:
    import os

    return Path(os.environ["FEWSHOT_COURSE_DATA"])


@dataclass(frozen=True, eq=False)
class Task:
    """What a user brings, and the rest.

    Attributes:
        examples: labelled ones only.
        rest: the others, and their labels.
        row: data, n, seed, shuffled.
    """

    examples: Examples
    rest: tuple[Any, np.ndarray]
    row: dict[str, Any]


def task(name: str, n: int, seed: int, shuffled: bool = False) -> Task:
    """Draw n examples as they come, at least three of each class; the rest is up to 600 others."""
    kind, X, y = pool(name)
    rng = np.random.default_rng([sum(name.encode()), n, seed])
    while True:
        order = rng.permutation(len(y))
        index, rest = order[:n], order[n : n + MOST_REST]
        counts = np.bincount(y[index], minlength=y.max() + 1)
        if counts.min() >= 3:
            break
    labels = rng.permutation(y[index]) if shuffled else y[index]
    take: Callable[[Any], Any] = (
        (lambda i: [X[j].strip() for j in i]) if isinstance(X, list) else lambda i: X[i]
    )
    names = tuple(str(c) for c in range(len(counts)))
    places = tuple(f"row {i}" for i in range(n))
    columns = tuple(f"feature {j}" for j in range(X.shape[1])) if kind == "vectors" else ()
    examples = Examples(Path(name), kind, take(index), labels, names, places, columns)
    row = {"data": name, "n": n, "seed": seed, "shuffled": shuffled}
    return Task(examples, (take(rest), y[rest]), row)


def run(one: Task) -> dict[str, Any]:
    """Compare the methods on a task as the report does, and score them on the rest."""
    examples, (X_rest, y_rest) = one.examples, one.rest
    copies = find_copies(examples)
    methods, _ = methods_for(examples, "torch", "auto")
    draws = [
        draw_split(examples, copies, np.random.default_rng([one.row["seed"], i]))
        for i in range(DRAWS)
    ]
    balanced = uneven(examples.counts)
    cells, found = {}, {}
    for method in methods:
        turns = draws[:5] if method.slow else draws
        cell, rest = _cell(examples, method, turns, one.row["seed"], X_rest, y_rest, balanced)
        cells[method.name, 0] = cell
        model = method.model(examples, one.row["seed"]).fit(examples.X, examples.y)
        scores = cell.balanced if balanced else cell.scores
        found[method.name] = {
            "scores": [round(float(s), 5) for s in scores],
            "rest_of_draws": round(float(np.mean(rest)), 5),
            "rest": round(_score(model.predict_index(X_rest), y_rest, balanced), 5),
        }
    n_train = len(draws[0].labelled(None))
    comparison = Comparison(
        methods, [Stage(None, n_train, 0)], cells, draws, examples.y,
        np.arange(len(examples.y)), balanced,
    )  # fmt: skip
    choice = choose(comparison)
    for name, values in found.items():
        interval = comparison.score(name)
        over = comparison.difference(name, MAJORITY)
        values["interval"] = [round(interval.low, 5), round(interval.high, 5)]
        values["over_majority"] = [round(v, 5) for v in (over.mean, over.low, over.high, over.p)]
    return {
        "schema": 1, **one.row, "balanced": balanced, "n_test": comparison.n_test,
        "n_rest": comparison.n_rest, "chosen": choice.name, "clear": list(choice.clear),
        "methods": found, "version": fewshot_course.__version__,
    }  # fmt: skip


def _cell(
    examples: Examples, method: Method, draws: Sequence[Draw], seed: int, X_rest: Any,
    y_rest: np.ndarray, balanced: bool,
) -> tuple[Cell, list[float]]:  # fmt: skip
    scores, means, predictions, rest = [], [], [], []
    for number, split in enumerate(draws):
        index = split.labelled(None)
        model = method.model(examples, seed + number).fit(examples.take(index), examples.y[index])
        predicted = model.predict_index(examples.take(split.test))
        y = examples.y[split.test]
        scores.append(float((predicted == y).mean()))
        means.append(mean_over_classes(predicted == y, y))
        predictions.append(predicted)
        rest.append(_score(model.predict_index(X_rest), y_rest, balanced))
    return Cell(np.array(scores), np.array(means), 0.0, predictions), rest


def _score(predicted: np.ndarray, y: np.ndarray, balanced: bool) -> float:
    right = predicted == y
    return mean_over_classes(right, y) if balanced else float(right.mean())


# ---------------------------------------------------------------------------- rules

Rule = Callable[[Mapping[str, Any]], str]


def _means(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(np.mean(values["scores"]))
        for name, values in row["methods"].items()
        if name != MAJORITY
    }


def _wide(row: Mapping[str, Any], n: int) -> float:
    return float(np.sqrt(1 + n * row["n_test"] / row["n_rest"]))


def simplest_unbeaten(row: Mapping[str, Any]) -> str:
    """Return the simplest method that no other beats clearly: the rule of version 0.1."""
    names = list(_means(row))
    for name in names:
        for other in names:
            a, b = (np.array(row["methods"][m]["scores"]) for m in (other, name))
            n = min(len(a), len(b))
            d = paired_difference(a[:n], b[:n])
            if d.mean - d.half_width * _wide(row, n) > 0:
                break
        else:
            return name
    return highest_mean(row)


def highest_mean(row: Mapping[str, Any]) -> str:
    """Return the method with the highest mean."""
    means = _means(row)
    return max(means, key=means.__getitem__)


def within_one_error(row: Mapping[str, Any]) -> str:
    """Return the simplest method within one standard error of the highest mean."""
    best = highest_mean(row)
    top = np.array(row["methods"][best]["scores"])
    for name in _means(row):
        a = np.array(row["methods"][name]["scores"])
        n = min(len(a), len(top))
        d = top[:n] - a[:n]
        if d.mean() <= d.std(ddof=1) / np.sqrt(n) * _wide(row, n):
            return name
    return best


def the_reports(row: Mapping[str, Any]) -> str:
    """Return what the report recommends."""
    return str(row["chosen"])


def leads(rows: Sequence[Mapping[str, Any]], but: Collection[str] = ()) -> dict[str, float]:
    """Return how far each method is ahead of the mean of all on the rest, in points.

    Every data set that has the method counts the same.

    Args:
        rows: of the study.
        but: data sets that are left out.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if not row["shuffled"] and row["data"] not in but:
            rest = {n: m["rest"] for n, m in row["methods"].items() if n != MAJORITY}
            mean = float(np.mean(list(rest.values())))
            for name, value in rest.items():
                found.setdefault(name, {}).setdefault(row["data"], []).append(value - mean)
    return {
        name: float(100 * np.mean([np.mean(values) for values in of.values()]))
        for name, of in found.items()
    }


def without_own_data(rows: Sequence[Mapping[str, Any]]) -> Rule:
    """Return the report's rule with leads of other families only: what a new user meets."""
    kin: dict[str, set[str]] = {}
    for data, family in FAMILIES.items():
        kin.setdefault(family, set()).add(data)
    known = {data: leads(rows, kin[FAMILIES[data]]) for data in {row["data"] for row in rows}}

    def rule(row: Mapping[str, Any]) -> str:
        means = {name: round(mean, 9) for name, mean in _means(row).items()}
        own = leads_of(list(means), table=known[row["data"]])
        value = corrected(means, own, row["n_rest"] + row["n_test"])
        return max(row["clear"] or means, key=lambda name: round(value[name], 9))

    return rule


RULES: dict[str, Rule] = {
    "simplest that none beats clearly (before)": simplest_unbeaten,
    "simplest within one standard error": within_one_error,
    "highest mean": highest_mean,
    "the report's": the_reports,
}
UNSEEN = "the report's, with leads of other kinds of data"


def regret(row: Mapping[str, Any], rule: Rule) -> float:
    """Return how far a rule's method is behind the best in hindsight, in the scores of the rest."""
    rest = {name: m["rest"] for name, m in row["methods"].items() if name != MAJORITY}
    return float(max(rest.values()) - rest[rule(row)])


def regret_by_data(rows: Sequence[Mapping[str, Any]], rule: Rule) -> list[float]:
    """Return the mean regret on each data set, in points."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["data"], []).append(100 * regret(row, rule))
    return [float(np.mean(values)) for values in found.values()]


def coverage(rows: Sequence[Mapping[str, Any]], rule: Rule = the_reports) -> tuple[int, int]:
    """Return how many intervals of recommended methods hold the score on the rest, and of how many.

    The interval is for a method that learns from the examples that are not held out, so the score
    is the mean of the draws' models on the rest.
    """
    hits = 0
    for row in rows:
        method = row["methods"][rule(row)]
        hits += method["interval"][0] <= method["rest_of_draws"] <= method["interval"][1]
    return hits, len(rows)


def false_headlines(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the tasks whose headline is false.

    A page that recommends a method says that it beats the majority class, which is false where it
    does not on the rest.  A page that recommends none says that no method is clearly better,
    which is false where a method's own interval leaves out 0 after Holm's correction.
    """
    from fewshot_course.evaluation import holm

    wrong = []
    for row in rows:
        methods = {name: m for name, m in row["methods"].items() if name != MAJORITY}
        if row["clear"]:
            better = methods[row["chosen"]]["rest"] > row["methods"][MAJORITY]["rest"]
            if row["shuffled"] or not better:
                wrong.append(row)
            continue
        over = [m["over_majority"] for m in methods.values()]
        p = holm([v[3] for v in over])
        if any(q < 0.05 and v[1] > 0 for q, v in zip(p, over, strict=True)):
            wrong.append(row)
    return wrong


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the study as a table: mean regret of each rule, headlines and coverage.

    Tasks of one data set are not independent, so the intervals are over the means of data sets.
    """
    real = [row for row in rows if not row["shuffled"]]
    lines = [f"{len(real)} tasks of {len({r['data'] for r in real})} data sets"]
    rules = RULES | {UNSEEN: without_own_data(rows)}
    for name, rule in rules.items():
        values = mean_interval(regret_by_data(real, rule))
        lines.append(f"{name:47} regret {values.format(percent=False, digits=2)}")
    before, after = (regret_by_data(real, rules[name]) for name in ("highest mean", UNSEEN))
    less = paired_difference(before, after)
    lines.append(f"regret that the last saves over the highest mean: {less.format(percent=False)}")
    hits, n = coverage(real, rules[UNSEEN])
    lines.append(f"intervals of the recommended methods hold the truth: {hits} of {n}")
    lines.append(f"false headlines: {len(false_headlines(rows))} of {len(rows)}")
    return "\n".join(lines)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return the stored rows."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def tasks() -> Iterator[tuple[str, int, int, bool]]:
    """Yield data set, size, seed and whether the labels are shuffled."""
    for seed in range(SEEDS):
        for name, sizes in SIZES.items():
            for n in sizes:
                yield name, n, seed, False
                if seed == 0:
                    yield name, n, seed, True


def main(path: str) -> None:
    """Run what is not stored yet, and print the summary."""
    place = Path(path)
    done = {
        (r["data"], r["n"], r["seed"], r["shuffled"])
        for r in (read_rows(path) if place.exists() else [])
    }
    with place.open("a", encoding="utf-8") as file:
        for one in tasks():
            if one not in done:
                file.write(json.dumps(run(task(*one))) + "\n")
                file.flush()
    print(summary(read_rows(place)))


if __name__ == "__main__":
    main(*sys.argv[1:])
