"""Train estimators in child processes that are killed again and again; see test_kills.py.

    python killed_estimators.py torch|tensorflow FOLDER KILLS SEED NAME...

Of each estimator the first child trains undisturbed, without checkpoints.  The next ones resume
from each other's checkpoints; each but the last is killed at a random moment.  Prints a line a
name: how many were killed, and whether the last one ended as the first one did, bit by bit.

Each child is a fork of this process, which has imported the framework but run nothing.
"""

import importlib
import os
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import every_estimator
import killed_training
import numpy as np
import tiny_bert

from fewshot_course.both import training
from fewshot_course.weights import load_arrays

LENGTHS = {"steps": 30, "feature_steps": 30, "iterations": 15, "epochs": 6}


def train(framework, name, folder, bert, checkpoint_dir=None):
    warnings.simplefilter("ignore")
    training.CHECKPOINT_EVERY = 2
    fit, _ = every_estimator.fits(framework, bert)[name]
    estimator, data = fit.make(), fit.data
    settings = estimator.get_params(deep=False)
    for setting, value in LENGTHS.items():
        if setting in settings:
            setattr(estimator, setting, value)
    estimator.fit(*data, device="cpu", checkpoint_dir=checkpoint_dir)
    estimator.save(folder)


def killed_and_resumed(framework, name, folder, bert, kills, rng):
    """Return how many children were killed, and whether the last ended as the first did."""
    whole, resumed, checkpoints = (folder / f"{name}.{part}" for part in ("a", "b", "c"))
    start = time.monotonic()
    _, status = os.waitpid(killed_training.fork(train, framework, name, whole, bert), 0)
    lasts = time.monotonic() - start
    assert status == 0, f"{name} fails undisturbed"
    killed = 0
    while True:
        pid = killed_training.fork(train, framework, name, resumed, bert, checkpoints)
        if killed < kills:
            # Most of the time goes into building; what remains is training and writing.
            time.sleep(rng.uniform(0.3, 1.0) * lasts)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
    assert status == 0, f"{name} does not resume"
    first, last = load_arrays(whole)[0], load_arrays(resumed)[0]
    shutil.rmtree(checkpoints, ignore_errors=True)
    same = first.keys() == last.keys() and all(np.array_equal(first[k], last[k]) for k in first)
    return killed, same


def main(framework, folder, kills, seed, *names):
    for module in killed_training.PRELOADED[framework]:
        importlib.import_module(module)
    (folder / "bert").mkdir()
    bert = tiny_bert.make(folder / "bert")
    rng = np.random.default_rng(seed)
    for name in names:
        print(name, *killed_and_resumed(framework, name, folder, bert, kills, rng), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
