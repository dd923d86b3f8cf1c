"""Train a KLAdapter in a child process that is killed again and again; see test_training.py.

    python killed_training.py torch|tensorflow FOLDER KILLS SEED

The first child trains undisturbed, without checkpoints, and writes FOLDER/whole.npz.  The next
ones resume from each other's checkpoints; each but the last is killed after a random number of
new checkpoints and a random moment.  The last one writes FOLDER/resumed.npz.  Prints how many
were killed.

Each child is a fork of this process, which has imported the framework but run nothing: a real
SIGKILL of a real training, without an import each time.
"""

import importlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from fewshot_course.both import training as _loop

PACKAGES = {"torch": "fewshot_course.torch", "tensorflow": "fewshot_course.tf"}
# What is imported before the fork: whatever starts no thread and runs no operation.
PRELOADED = {
    "torch": ["fewshot_course.torch", "torch._dynamo"],
    "tensorflow": ["tensorflow", "keras", "fewshot_course.both.estimator", "fewshot_course.data"],
}
EVERY, STEPS = 5, 150


def small_network(framework, networks):
    """Batch norm between two layers: its running averages must survive too."""
    if framework == "torch":
        from torch import nn

        module = nn.Sequential(nn.Linear(6, 8), networks.BatchNorm(8), nn.Linear(8, 4))
    else:
        import keras

        layers = [keras.layers.Dense(8), networks.BatchNorm(8), keras.layers.Dense(4)]
        module = keras.Sequential([keras.Input((6,)), *layers])
    return networks.initialise(module, np.random.default_rng(0))


def train(framework, result, checkpoint_dir=None):
    package = importlib.import_module(PACKAGES[framework])
    networks = importlib.import_module(f"{PACKAGES[framework]}.networks")
    _loop.CHECKPOINT_EVERY = EVERY

    def network():
        return small_network(framework, networks)

    X = np.random.default_rng(0).uniform(size=(40, 6))
    y = np.arange(40) % 3
    adapter = package.KLAdapter(
        network=network, latent_dim=2, steps=STEPS, batch_size=8, random_state=0
    )
    y_target = np.where(np.arange(40) < 9, y, -1)
    adapter.fit(X, y, X**2, y_target, device="cpu", checkpoint_dir=checkpoint_dir)
    np.savez(result, **networks.to_numpy(adapter.network_), **adapter.history_)


def stamp(folder):
    try:
        return (folder / "checkpoints" / "checkpoint.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def wait_for_checkpoints(folder, pid, number):
    """Return when ``number`` new checkpoints are there, or when the process is done."""
    seen, last = 0, stamp(folder)
    while seen < number and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        now = stamp(folder)
        seen, last = seen + (now != last), now
        time.sleep(0.0005)


def fork(train, *args):
    """Train in a child; return its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            train(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def main(framework, folder, kills, seed):
    for name in PRELOADED[framework]:
        importlib.import_module(name)
    rng = np.random.default_rng(seed)
    _, status = os.waitpid(fork(train, framework, folder / "whole.npz"), 0)
    if status:
        return 1
    killed = 0
    while True:
        pid = fork(train, framework, folder / "resumed.npz", folder / "checkpoints")
        if killed < kills:
            wait_for_checkpoints(folder, pid, rng.integers(1, 3))
            time.sleep(rng.uniform(0, 0.005))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
    print(killed)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
