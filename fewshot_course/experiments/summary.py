"""Tables of results: mean and interval over the seeds, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course.evaluation import (
    Difference,
    Interval,
    accuracy_difference,
    accuracy_interval,
    holm,
    mean_interval,
    paired_difference,
)
from fewshot_course.experiments import EXPERIMENTS
from fewshot_course.experiments.results import Result, unpack_answers

__all__ = ["Row", "is_percent", "summarise"]


@dataclass(frozen=True)
class Row:
    """One method in one framework with one configuration, over all its seeds.

    Attributes:
        experiment: name of the experiment.
        method: name of the method.
        framework: name of the framework.
        data: name of the data.
        settings: those settings that differ between the rows.
        metric: name of the metric.
        score: mean and interval over the seeds, and over the test items where the runs tell which
            of them were answered right; ``None`` if every seed failed.
        difference: method minus baseline over the seeds that both have; ``None`` for the
            baseline itself, or where there is none.
        baseline: the method that it is compared with; ``None`` where there is no difference.
        holm_p: the difference's p-value after Holm's correction for all differences of one
            framework that were summarised together: they answer one question.
        seconds: mean wall time of a run.
        peak_mb: largest memory of a run.
        failed: number of seeds that failed.
    """

    experiment: str
    method: str
    framework: str
    data: str
    settings: dict[str, Any]
    metric: str
    score: Interval | None
    difference: Difference | None
    baseline: str | None
    holm_p: float | None
    seconds: float
    peak_mb: float
    failed: int


@checked
def is_percent(metric: str) -> bool:
    """Whether a metric is a share in [0, 1] that reads better in per cent."""
    return metric.rsplit("_", 1)[-1] == "accuracy"


@checked
def summarise(
    results: Iterable[Result],
    metric: str | None = None,
    baseline: str | None = None,
    confidence: float = 0.95,
) -> list[Row]:
    """Group results by experiment, configuration, framework and method.

    Args:
        results: result lines; failed ones are counted.
        metric: which metric; ``None`` takes the headline, which is the first of a line.
        baseline: the method that the others are compared with, in the same framework, on the
            same data, with the same settings and seeds.  ``None`` takes for each method its
            partner, which differs from it in one thing alone, or else the first method.
        confidence: level of the intervals.

    Raises:
        ValueError: if a result does not have ``metric``.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.config_hash, []).append(result)
    varied = _varied([group[0] for group in groups.values()])
    rows = []
    for group in groups.values():
        first = group[0]
        name = metric or _headline(group)
        scores = _scores(group, name)
        reference = _find_baseline(group, list(groups.values()), baseline)
        difference = _difference(group, scores, reference, name, confidence)
        rows.append(
            Row(
                experiment=first.experiment,
                method=first.method,
                framework=first.framework,
                data=first.data,
                settings={k: first.config[k] for k in varied if k in first.config},
                metric=name,
                score=_score(group, scores, name, confidence),
                difference=difference,
                baseline=reference[0].method if reference and difference else None,
                holm_p=None,
                seconds=sum(r.seconds for r in group) / len(group),
                peak_mb=max(r.peak_mb for r in group),
                failed=sum(r.error is not None for r in group),
            )
        )
    return _correct(rows)


def _correct(rows: Sequence[Row]) -> list[Row]:
    """Fill in the corrected p-values, those of each framework together."""
    corrected = list(rows)
    for framework in dict.fromkeys(row.framework for row in rows):
        asked = {
            i: row.difference.p for i, row in enumerate(rows)
            if row.framework == framework and row.difference and row.difference.n > 1
        }  # fmt: skip
        if asked:
            for i, p in zip(asked, holm(list(asked.values())), strict=True):
                corrected[i] = replace(rows[i], holm_p=float(p))
    return corrected


def _headline(group: Sequence[Result]) -> str:
    return next((next(iter(r.metrics)) for r in group if r.metrics), "")


def _scores(group: Sequence[Result], metric: str) -> dict[int, float]:
    """Return seed → score of the runs that worked."""
    scores = {}
    for result in group:
        if result.error is not None:
            continue
        if metric not in result.metrics:
            raise ValueError(
                f"metric={metric!r} is not known; the results of {result.method!r} have "
                f"{', '.join(result.metrics)}."
            )
        scores[result.seed] = result.metrics[metric]
    return scores


def _varied(firsts: Sequence[Result]) -> list[str]:
    """Return the settings of which there is more than one value among the groups."""
    values: dict[str, list[Any]] = {}
    for result in firsts:
        for name, value in result.config.items():
            if name != "data" and value not in (known := values.setdefault(name, [])):
                known.append(value)
    return [name for name, known in values.items() if len(known) > 1]


def _find_baseline(
    group: Sequence[Result], groups: Sequence[Sequence[Result]], baseline: str | None
) -> Sequence[Result] | None:
    """Return the group that ``group`` is compared with: it shares framework and settings."""
    first = group[0]
    same = [g for g in groups if g[0].experiment == first.experiment]
    there = {g[0].method for g in same}
    experiment = EXPERIMENTS.get(first.experiment)
    partner = experiment.partners.get(first.method) if experiment else None
    name = baseline or (partner if partner in there else same[0][0].method)
    if first.method == name:
        return None
    for other in same:
        candidate = other[0]
        shared = candidate.config.keys() & first.config.keys()
        if (
            candidate.method == name
            and candidate.framework == first.framework
            and all(candidate.config[key] == first.config[key] for key in shared)
        ):
            return other
    return None


def _answers(group: Sequence[Result], seeds: Sequence[int], metric: str) -> np.ndarray | None:
    """Return what was answered right, ``(seeds, items)``, if every run of the metric tells it."""
    of_seed = {r.seed: r.answers for r in group if r.error is None and r.answers}
    if metric != "accuracy" or not all(seed in of_seed for seed in seeds):
        return None
    rows = [unpack_answers(of_seed[seed]) for seed in seeds]
    return np.stack(rows) if len({len(row) for row in rows}) == 1 else None


def _score(
    group: Sequence[Result], scores: dict[int, float], metric: str, confidence: float
) -> Interval | None:
    if not scores:
        return None
    answers = _answers(group, list(scores), metric)
    if answers is None:
        found = mean_interval(list(scores.values()), confidence)
        if not is_percent(metric) or found.n == 1:
            return found
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))
    return accuracy_interval(answers, confidence)


def _difference(
    group: Sequence[Result],
    scores: dict[int, float],
    reference: Sequence[Result] | None,
    metric: str,
    confidence: float,
) -> Difference | None:
    if reference is None or not scores:
        return None
    others = _scores(reference, metric)
    seeds = sorted(scores.keys() & others.keys())
    if not seeds:
        return None
    ours, theirs = _answers(group, seeds, metric), _answers(reference, seeds, metric)
    if ours is not None and theirs is not None and ours.shape == theirs.shape:
        return accuracy_difference(ours, theirs, confidence)
    return paired_difference([scores[s] for s in seeds], [others[s] for s in seeds], confidence)
