"""Which method is recommended: its mean, corrected by what it was worth on other data.

A mean over a few draws of a few examples is known to some points only, so the highest of ten is
mostly luck.  The field's remedy is to shrink towards what is known beforehand (Efron & Morris,
"Data analysis using Stein's estimator", JASA 70, 1975), here the method's mean lead over the
others on public data.  The table is that of ``results/report/choice.jsonl``, and
:mod:`fewshot_course.report.study` has the regret of this rule and of others, each data set judged
by the leads on the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WEIGHT = 160
"""So many labelled examples count as much as the leads on other data."""
LEADS: dict[str, float] = {
    "nearest class mean": -1.1,
    "nearest neighbours": -1.2,
    "logistic regression": 1.5,
    "tuned kernel machine": 0.8,
    "nearest class mean (pixels)": -6.4,
    "nearest neighbours (pixels)": -11.4,
    "logistic regression (pixels)": -2.8,
    "nearest class mean (colours, gradients)": 3.3,
    "logistic regression (colours, gradients)": 3.6,
    "tuned kernel machine (colours, gradients)": 5.1,
    "prototypical network (characters)": 8.6,
    "nearest class mean (words)": -5.1,
    "nearest neighbours (words)": -8.9,
    "logistic regression (words)": -4.6,
    "nearest class mean (characters)": -3.5,
    "logistic regression (characters)": -3.4,
    "nearest class mean (encoder)": 9.1,
    "logistic regression (encoder)": 8.6,
    "tuned kernel machine (encoder)": 7.9,
}
"""Points of accuracy that a method is ahead of the mean of all, on public data."""


def leads_of(
    names: Sequence[str], foreign: bool = False, table: Mapping[str, float] = LEADS
) -> dict[str, float]:
    """Return the lead of each method, in shares.

    Args:
        names: of the methods; one that is not in the table is taken for an average one.
        foreign: whether a pretrained encoder does not know the language of the texts; then it is
            taken for an average method too.
        table: of leads, in points.
    """
    unknown = [n for n in names if n not in table or (foreign and "(encoder)" in n)]
    known = [table[n] for n in names if n not in unknown]
    average = sum(known) / len(known) if known else 0.0
    return {n: (average if n in unknown else table[n]) / 100 for n in names}


def corrected(means: Mapping[str, float], leads: Mapping[str, float], n: int) -> dict[str, float]:
    """Return the corrected means of methods: only their differences mean something.

    Args:
        means: of each method over the draws.
        leads: of each method, in shares.
        n: labelled examples that the means rest on.
    """
    own = n / (n + WEIGHT)
    return {name: own * mean + (1 - own) * leads[name] for name, mean in means.items()}
