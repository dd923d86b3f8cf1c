"""An experiment of the tests: cheap, without a framework, with cells that can go wrong."""

import os
import signal
import time
from dataclasses import dataclass

import numpy as np

from fewshot_course.experiments.registry import Config, Experiment, setting


@dataclass(frozen=True)
class ToyConfig(Config):
    data: str = setting("coin", "what is thrown", choices=("coin", "die"))
    shots: int = setting(5, "throws", low=1, high=1000)
    rate: float = setting(0.5, "weight of the trick", low=0.0, methods=("trick",))
    seconds: float = setting(0.0, "time to waste", low=0.0)
    bad_seed: int | None = setting(None, "seed at which the cell fails", low=0)
    killed_seed: int | None = setting(None, "seed at which the worker dies", low=0)
    table: str = setting("none", "a file", choices=("none",), file=True)


TOY = Experiment(
    name="toy",
    title="Throw a coin",
    config=ToyConfig,
    presets={"quick": {}, "full": {"shots": 100}},
    methods={"plain": "the mean", "trick": "a biased mean"},
    data=("coin", "die"),
    run="toy:run",
    frameworks=("numpy", "scipy"),
)


def run(cell, options):
    config = cell.config
    time.sleep(config.seconds)
    if cell.seed == config.bad_seed:
        raise ArithmeticError("the coin fell\nthrough the grate")
    if cell.seed == config.killed_seed:
        os.kill(os.getpid(), signal.SIGKILL)
    rng = np.random.default_rng(cell.seed)
    accuracy = rng.random(config.shots).mean()
    if cell.method == "trick":
        accuracy = (accuracy + config.rate) / (1 + config.rate)
    return {"accuracy": float(accuracy), "spread": 0.25, "n_test": config.shots}
