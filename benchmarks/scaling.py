"""Two workers against one on the cores of this machine: seconds a step, and equality.

    python benchmarks/scaling.py [--out benchmarks/scaling.json] [--rounds 3]

Each worker has one thread, so two workers have twice the cores of one.  Both train on the same
batches of real handwriting (mnist5k).  Steps are timed inside the workers, so that starting them
is left out; it is printed by itself.  Wall time is what counts here, so this wants a quiet
machine: the load average at the beginning is stored beside the numbers.  "mlp" gives the same
losses with two workers as with one; "conv4" does not, since batch norm sees each part alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import time
from typing import Any

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  (reads the thread variables set above)

from fewshot_course.data import load_dataset  # noqa: E402  (imports NumPy)

CASES = {
    "mlp": {"network": "mlp", "batch_size": 1024, "steps": 60},
    "conv4": {"network": "conv4", "batch_size": 64, "steps": 12},
}


def measure(framework: str, case: str, rounds: int) -> dict[str, Any]:
    """Median seconds a step of one worker and of two, the start, and how far losses differ."""
    if framework == "torch":
        import torch

        torch.set_num_threads(1)
    scaling = importlib.import_module(f"fewshot_course.{framework}.scaling")
    data = load_dataset("mnist5k")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    start, losses = [], {}
    for _ in range(rounds):
        for workers in (1, 2):
            model = scaling.DataParallelClassifier(workers=workers, random_state=0, **CASES[case])
            begin = time.perf_counter()
            model.fit(data.X, data.y, device="cpu")
            seconds[workers].append(model.step_seconds_)
            losses[workers] = model.history_["loss"]
            if workers == 2:
                trained = CASES[case]["steps"] * model.step_seconds_
                start.append(time.perf_counter() - begin - trained)
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    apart = np.abs(losses[1] - losses[2]) / losses[1]
    return {
        "framework": framework, "network": case, "batch_size": CASES[case]["batch_size"],
        "ms_one": 1000 * one, "ms_two": 1000 * two, "speed_up": one / two,
        "speed_ups": [a / b for a, b in zip(seconds[1], seconds[2], strict=True)],
        "start_s": statistics.median(start), "loss_apart": float(apart.max()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="JSON file for the numbers")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load average {load:.1f} before the start")
    print(f"{'framework':10} {'network':8} {'ms, 1':>8} {'ms, 2':>8} {'speed-up':>9} "
          f"{'start, s':>9} {'losses apart':>13}")  # fmt: skip
    points = []
    for framework in ("torch", "tf"):
        for case in CASES:
            point = measure(framework, case, options.rounds)
            points.append(point)
            print(f"{framework:10} {case:8} {point['ms_one']:8.1f} {point['ms_two']:8.1f} "
                  f"{point['speed_up']:9.2f} {point['start_s']:9.1f} "
                  f"{point['loss_apart']:13.1e}", flush=True)  # fmt: skip
    if options.out:
        facts = {
            "cores": os.cpu_count(), "load": load, "rounds": options.rounds,
            "python": platform.python_version(), "machine": platform.machine(),
        }  # fmt: skip
        temporary = f"{options.out}.part"
        with open(temporary, "w", encoding="utf-8") as out:
            json.dump({**facts, "points": points}, out, indent=1)
            out.write("\n")
        os.replace(temporary, options.out)


if __name__ == "__main__":
    main()
