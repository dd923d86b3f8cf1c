"""Sweeps: one YAML file names methods, frameworks, seeds, and settings with their values."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from typing import Any

from fewshot_course._arguments import checked
from fewshot_course._checks import check_choice, check_number
from fewshot_course._reading import read_yaml, show
from fewshot_course.experiments import EXPERIMENTS
from fewshot_course.experiments.registry import Cell, Experiment

__all__ = ["SweepError", "cells_of", "load_sweep"]

MAX_CELLS = 100_000
"""Most cells of a sweep file."""

_KEYS = ("experiment", "preset", "methods", "frameworks", "seeds", "config")


class SweepError(ValueError):
    """A sweep file is wrong; the message names the file and what is wrong in it."""


@checked
def load_sweep(
    path: str | os.PathLike[str], experiments: Mapping[str, Experiment] = EXPERIMENTS
) -> list[Cell]:
    """Read a sweep file and return its cells.

    The file is a mapping, or a list of such mappings::

        experiment: kl-adaptation
        preset: quick                     # quick if left out
        methods: [source-only, kl]        # the experiment's default methods if left out
        frameworks: [torch, tensorflow]   # all if left out
        seeds: 10                         # 0 to 9; or a list
        config:                           # a value, or a list of values to try
          weight: [0.01, 0.05, 0.2]

    Raises:
        SweepError: for a missing or broken file, an unknown key, experiment, method, framework,
            preset or setting (the nearest known one is named), or a value out of bounds.
    """
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise SweepError(str(error)) from None
    cells: list[Cell] = []
    try:
        for part in content if isinstance(content, list) else [content]:
            cells += cells_of(part, experiments)
    except (TypeError, ValueError) as error:
        raise SweepError(f"{path}: {error}") from None
    return list({cell.key: cell for cell in cells}.values())


@checked
def cells_of(part: Any, experiments: Mapping[str, Experiment] = EXPERIMENTS) -> list[Cell]:
    """Return the cells of one mapping of a sweep file, seeds innermost.

    Raises:
        TypeError: for a value of a wrong type.
        ValueError: for an unknown name, or a value out of bounds.
    """
    if not isinstance(part, dict):
        raise TypeError(f"a sweep is a mapping with the keys {', '.join(_KEYS)}; got {show(part)}.")
    for key in part:
        check_choice("key", key, _KEYS)
    if "experiment" not in part:
        raise ValueError(f"experiment is missing; known are {', '.join(experiments)}.")
    name = check_choice("experiment", part["experiment"], experiments)
    experiment = experiments[name]
    preset = part.get("preset", "quick")
    methods = _list(part.get("methods", experiment.default_methods or tuple(experiment.methods)))
    frameworks = _list(part.get("frameworks", experiment.frameworks))
    seeds = _seeds(part.get("seeds", 10))
    grid = part.get("config") or {}
    if not isinstance(grid, dict):
        raise TypeError(f"config must be a mapping of settings to values, got {show(grid)}.")
    lists = [_list(values) for values in grid.values()]
    n = math.prod(map(len, [*lists, methods, frameworks, seeds]))
    if n > MAX_CELLS:
        raise ValueError(f"it asks for {n:,} cells; at most {MAX_CELLS:,} fit into one sweep.")
    cells = []
    for values in itertools.product(*lists):
        config = experiment.configure(preset, **dict(zip(grid, values, strict=True)))
        for method, framework, seed in itertools.product(methods, frameworks, seeds):
            cells.append(experiment.cell(method, framework, seed, preset, config))
    return cells


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _seeds(value: Any) -> list[int]:
    if isinstance(value, list):
        return [check_number("seeds", seed, low=0, integer=True) for seed in value]
    return list(range(check_number("seeds", value, low=1, high=MAX_CELLS, integer=True)))
