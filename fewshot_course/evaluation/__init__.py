"""How learning is judged: accuracy, intervals over draws, paired comparisons, calibration, plots.

NumPy, SciPy and matplotlib only; ``fewshot_course.evaluation.plots`` is imported on first use,
so that scoring does not load matplotlib.
"""

from __future__ import annotations

from fewshot_course.evaluation.intervals import (
    Difference,
    Interval,
    accuracy_difference,
    accuracy_interval,
    holm,
    mean_interval,
    paired_difference,
)
from fewshot_course.evaluation.scores import accuracy

__all__ = [
    "Difference",
    "Interval",
    "accuracy",
    "accuracy_difference",
    "accuracy_interval",
    "holm",
    "mean_interval",
    "paired_difference",
]
