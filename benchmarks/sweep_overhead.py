"""What a sweep costs beyond its cells: 200 tiny cells on two workers, loky and Dask.

    python benchmarks/sweep_overhead.py [--cells 200] [--workers 2]

Prints seconds, overhead a cell, and whether all backends stored the same results.  The cells do
next to nothing, so all time is overhead: sending a cell, measuring it, storing its result.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from fewshot_course.experiments.registry import Config, Experiment, setting
from fewshot_course.experiments.results import read_results
from fewshot_course.experiments.runner import run_cells


@dataclass(frozen=True)
class TinyConfig(Config):
    size: int = setting(10, "numbers in the mean", low=1)


TINY = Experiment(
    name="tiny",
    title="The mean of a few random numbers",
    config=TinyConfig,
    presets={"quick": {}, "full": {}},
    methods={"mean": "their mean"},
    data=("none",),
    run="sweep_overhead:run",
    frameworks=("numpy",),
)


def run(cell, options):
    numbers = np.random.default_rng(cell.seed).random(cell.config.size)
    return {"mean": float(numbers.mean()), "n_test": cell.config.size}


def stored(path: Path) -> list[tuple[object, ...]]:
    return sorted((r.key, json.dumps(r.metrics), r.error) for r in read_results(path))


def measure(backend: str, n: int, workers: int, folder: Path) -> tuple[float, float, list]:
    """Return seconds of a sweep of n cells and of a second one of n more, and all results.

    The first includes what starts once: loky's workers, the imports in Dask's.
    """
    path = folder / f"{backend}.jsonl"
    seconds = []
    with contextlib.ExitStack() as stack:
        scheduler = None
        if backend == "dask":  # a cluster that stays up, as one started by hand does
            from distributed import LocalCluster

            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
            scheduler = stack.enter_context(cluster).scheduler_address
        for seeds in (range(n), range(n, 2 * n)):
            cells = [TINY.cell("mean", "numpy", seed) for seed in seeds]
            start = time.perf_counter()
            run_cells(cells, path, backend=backend, jobs=workers, scheduler=scheduler)
            seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1], stored(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{arguments.cells} cells, {arguments.workers} workers, {os.cpu_count()} cores")
    print(f"{'backend':12}{'first sweep':>13}{'second':>13}{'a cell (second)':>18}  same results")
    expected = None
    with tempfile.TemporaryDirectory() as folder:
        for backend in ("sequential", "loky", "dask"):
            first, second, results = measure(
                backend, arguments.cells, arguments.workers, Path(folder)
            )
            expected = expected or results
            each = 1000 * second / arguments.cells
            same = "yes" if results == expected else "NO"
            print(f"{backend:12}{first:11.2f} s{second:11.2f} s{each:15.1f} ms  {same}")
            if results != expected:
                sys.exit(1)


if __name__ == "__main__":
    # As a module, so that workers find the cells by name.
    import sweep_overhead

    sweep_overhead.main()
