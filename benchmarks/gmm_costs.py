"""What a step of EM costs as examples, features and components grow: CPU time and peak memory.

    python benchmarks/gmm_costs.py [--out benchmarks/gmm_costs.json] [--rounds 5]

Full covariances, float64, one thread.  One number moves at a time, the others stay at 20,000
examples, 32 features and 10 components.  Each point is measured in a process of its own; the
memory is what EM needs above the data and the imported framework.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  (reads the thread variables set above)
from _costs import main, peak_mb, reset_peak  # noqa: E402  (as above)

AXES = {
    "examples": (5_000, 10_000, 20_000, 50_000, 100_000),
    "features": (8, 16, 32, 64),
    "components": (2, 5, 10, 20, 40),
}
DEFAULT = {"examples": 20_000, "features": 32, "components": 10}


def measure(
    framework: str, rounds: int, examples: int, features: int, components: int
) -> dict[str, float]:
    """Median CPU milliseconds of a step, and the memory above that of data and imports."""
    gmm = importlib.import_module(f"fewshot_course.{framework}.gmm")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(examples, features))
    R = rng.dirichlet(np.ones(components), size=examples)
    if framework == "torch":
        import torch

        torch.set_num_threads(1)
        x, r = torch.as_tensor(X), torch.as_tensor(R)
    else:
        import tensorflow as tf

        x, r = tf.constant(X), tf.constant(R)
    start = gmm.m_step(gmm.statistics(x[:1000], r[:1000], "full"), "full", 1e-6)

    def run() -> None:
        gmm.em(x, start, "full", floor=1e-6, max_iter=3, tol=-1.0)

    before = reset_peak()
    run()
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        run()
        times.append((time.process_time() - begin) / 3)
    return {"ms": 1000 * statistics.median(times), "mb": peak_mb() - before}


if __name__ == "__main__":
    main(__file__, __doc__.splitlines()[0], measure, AXES, DEFAULT)
