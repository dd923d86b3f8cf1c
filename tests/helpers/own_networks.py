"""Fits every estimator that takes a user's own network: run as a process of its own.

python own_networks.py FRAMEWORK FOLDER STOP: each fit has a checkpoint folder in FOLDER and is
interrupted at step STOP (0: never); prints the losses of those that came to their end.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from fewshot_course.both import training
from fewshot_course.data import EpisodeSampler

STEPS, EVERY = 8, 2
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)).astype(np.float32), np.arange(40) % 4
FEW = np.where(np.arange(40) < 12, Y, -1)
META = {"iterations": STEPS, "n_tasks": 2}


def networks_of(framework):
    """Functions of no argument, whose address differs from one process to the next."""
    networks = importlib.import_module(
        f"fewshot_course.{'torch' if framework == 'torch' else 'tf'}.networks"
    )

    def encoder():
        return networks.MLP((4,), 6, (5,))

    def classifier():
        return networks.MLP((4,), 4, (5,))

    def of_tasks():
        return networks.MLP((4,), 2, (5,))

    return encoder, classifier, of_tasks


def fits(framework):
    """Name → function that fits with further keywords and returns the history."""
    package = importlib.import_module(f"fewshot_course.{'torch' if framework == 'torch' else 'tf'}")
    encoder, classifier, of_tasks = networks_of(framework)
    plain = {"steps": STEPS, "random_state": 0, "batch_size": 8}

    def of(name, network, *data, **settings):
        def fit(**options):
            model = getattr(package, name)(network=network, **{"random_state": 0, **settings})
            return model.fit(*data, device="cpu", **options).history_["loss"]

        return fit

    sampler = EpisodeSampler(X, Y, 2, 2, 3)
    return {
        "KLAdapter": of("KLAdapter", encoder, X, Y, X + 1, FEW, latent_dim=3, **plain),
        "KLIEP": of("KLIEP", classifier, X, Y, X + 1, FEW, width=1.0, **plain),
        "SelfTraining": of("SelfTraining", classifier, X, FEW, **plain),
        "ImageClassifier": of("ImageClassifier", classifier, X, Y, **plain),
        **{
            name: of(name, of_tasks, sampler, **META)
            for name in ("MAML", "FOMAML", "ANIL", "Reptile", "ProtoNet", "MatchingNet")
        },
    }


def seed(framework):
    """Seed what a user's own network draws its first weights from."""
    if framework == "torch":
        importlib.import_module("torch").manual_seed(0)
    else:
        importlib.import_module("keras").utils.set_random_seed(0)


def main(framework, folder, stop):
    """Fit all; print name → losses."""
    training.CHECKPOINT_EVERY, training.CHECK_EVERY = EVERY, 1
    losses, collect, seen = {}, training._collect, []

    def interrupt(*args):
        seen.append(None)
        if stop and len(seen) > stop:
            raise KeyboardInterrupt
        return collect(*args)

    training._collect = interrupt
    for name, fit in fits(framework).items():
        seen.clear()
        seed(framework)
        try:
            losses[name] = fit(checkpoint_dir=Path(folder) / name).tolist()
        except KeyboardInterrupt:
            continue
        except Exception as error:
            losses[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(losses))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
