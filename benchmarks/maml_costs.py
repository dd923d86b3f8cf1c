"""What a MAML meta-step costs as tasks, inner steps and ways grow: CPU time and peak memory.

    python benchmarks/maml_costs.py [--out benchmarks/maml_costs.json] [--rounds 5]

Glyphs of 14 x 14 pixels, conv4 with 16 channels, one thread.  One setting moves at a time, the
others stay at 4 tasks, 3 steps and 5 ways.  Each point is measured in a process of its own, so
that its peak memory is its own; what importing the framework takes is subtracted.
"""

from __future__ import annotations

import statistics
import time

from _costs import main, peak_mb, reset_peak

AXES = {"tasks": (1, 2, 4, 8, 16), "steps": (1, 2, 3, 5, 8), "ways": (2, 5, 10, 20)}
DEFAULT = {"tasks": 4, "steps": 3, "ways": 5}


def measure(framework: str, rounds: int, tasks: int, steps: int, ways: int) -> dict[str, float]:
    """Median CPU milliseconds of a meta-step, and the memory above that of the imports."""
    import importlib

    import numpy as np
    from maml import ours

    from fewshot_course.data import EpisodeSampler, load_dataset, resize_images

    package = importlib.import_module(f"fewshot_course.{framework}")
    if framework == "torch":
        import torch

        torch.set_num_threads(1)
    glyphs = load_dataset("glyphs", "test")
    X = resize_images(glyphs.X, (14, 14))
    episodes = EpisodeSampler(X, glyphs.y, ways, 1, 5).sample(0, tasks)
    learner = package.MAML(inner_steps=steps, inner_lr=0.1, channels=16)
    learner.input_shape_, learner.n_outputs_ = (14, 14), ways
    before = reset_peak()
    learner._build(np.random.default_rng(0), "cpu")
    step = ours(learner, episodes)
    step()  # compiles
    times = []
    for _ in range(rounds):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return {"ms": 1000 * statistics.median(times), "mb": peak_mb() - before}


if __name__ == "__main__":
    main(__file__, __doc__.splitlines()[0], measure, AXES, DEFAULT)
