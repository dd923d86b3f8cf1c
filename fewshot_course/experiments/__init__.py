"""One registry of experiments, one runner; the command line and sweeps are thin over them.

To add an experiment write a module with a constant ``EXPERIMENT`` and add it to the tuple below.
No experiment imports a framework before one of its cells runs.
"""

from __future__ import annotations

from fewshot_course.experiments import (
    adaptation_choices,
    augmentation,
    compression,
    fine_tuning,
    image_transfer,
    kl_adaptation,
    leaderboard,
    maml,
    pseudo_labels,
)
from fewshot_course.experiments.registry import Cell, Config, Experiment, RunOptions, setting
from fewshot_course.experiments.results import (
    Result,
    ResultsError,
    append_result,
    read_results,
)

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        adaptation_choices,
        augmentation,
        compression,
        fine_tuning,
        image_transfer,
        kl_adaptation,
        leaderboard,
        maml,
        pseudo_labels,
    )
}
"""Name → experiment."""

__all__ = [
    "EXPERIMENTS",
    "Cell",
    "Config",
    "Experiment",
    "Result",
    "ResultsError",
    "RunOptions",
    "append_result",
    "read_results",
    "setting",
]
