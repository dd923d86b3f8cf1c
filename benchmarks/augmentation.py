"""Texts a second of each augmenter, and beside nlpaug where that is installed, in one run.

    python benchmarks/augmentation.py [--rounds 5]

The texts are 256 reviews; CPU time of this process is counted, one thread, interleaved rounds,
medians.  nlpaug does the same kind of change: RandomWordAug swaps and deletes, TfIdfAug inserts
words of the same texts.  For synonyms its SynonymAug needs WordNet, which
cannot be had everywhere, so both sides use the course's table: nlpaug through ReservedAug.  It is
asked for the same share of words, but counts them in another way, so the share that really changed
is printed for both: a quick augmenter that changes little is no gain.
Fitting (of TfIdfAug, of our Markov chains) is counted where each call does it, and not where it is
done once beforehand; nlpaug's is done beforehand.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402  (reads the thread variables set above)

from fewshot_course.data import augment, load_dataset  # noqa: E402  (imports NumPy)
from fewshot_course.data.augment.words import tokens  # noqa: E402  (imports NumPy)

STRENGTH = 0.1
Run = Callable[[list[str]], list[str]]


def ours(y: np.ndarray) -> dict[str, Run]:
    """Name → what makes one new text for each."""
    table = augment.default_synonyms()
    augmenters: dict[str, Any] = {
        "insert": augment.RandomInsertion(STRENGTH),
        "swap": augment.RandomSwap(STRENGTH),
        "delete": augment.RandomDeletion(STRENGTH),
        "synonym": augment.SynonymReplacement(STRENGTH, table),
        "recombine": augment.SegmentRecombination(0.25),
        "markov": augment.MarkovGenerator(),
        "hmm": augment.HMMGenerator(),
    }
    rng = np.random.default_rng(0)

    def bind(augmenter: Any) -> Run:
        return lambda texts: augmenter.augment(texts, y, rng)[0]

    return {name: bind(augmenter) for name, augmenter in augmenters.items()}


def nlpaug(texts: list[str]) -> dict[str, Run]:
    """The nearest that nlpaug has."""
    import nlpaug.augmenter.word as naw
    import nlpaug.model.word_stats as nmw

    words = [text.split() for text in texts]
    folder = tempfile.mkdtemp()
    statistic = nmw.TfIdf()
    statistic.train(words)
    statistic.save(folder)
    groups = {tuple(sorted((w, *others))) for w, others in augment.default_synonyms().items()}
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (nlpaug draws from it)
    augmenters: dict[str, Any] = {
        "insert": naw.TfIdfAug(model_path=folder, action="insert", aug_p=STRENGTH, aug_min=1),
        "swap": naw.RandomWordAug(action="swap", aug_p=STRENGTH, aug_min=1, aug_max=None),
        "delete": naw.RandomWordAug(action="delete", aug_p=STRENGTH, aug_min=1, aug_max=None),
        "synonym": naw.ReservedAug(
            reserved_tokens=[list(group) for group in groups], aug_p=STRENGTH, aug_min=1
        ),
    }

    def bind(augmenter: Any) -> Run:
        # One text a call: given a list, nlpaug starts threads.
        return lambda texts: [(augmenter.augment(text) or [text])[0] for text in texts]

    return {name: bind(augmenter) for name, augmenter in augmenters.items()}


def changed(old: list[str], new: list[str]) -> float:
    """Mean share of the words of a text that are no longer there, or moved."""
    shares = []
    for a, b in zip(old, new, strict=True):
        before, after = tokens(a), tokens(b)  # nlpaug sets spaces anew
        gone = sum((Counter(before) - Counter(after)).values())
        added = sum((Counter(after) - Counter(before)).values())
        moved = sum(u != v for u, v in zip(before, after, strict=False)) if not gone + added else 0
        shares.append((max(gone, added) or moved) / max(len(before), 1))
    return statistics.fmean(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    data = load_dataset("reviews", "train")
    texts = list(data.X)
    runs = {("this package", name): run for name, run in ours(data.y).items()}
    if importlib.util.find_spec("nlpaug"):
        runs |= {("nlpaug", name): run for name, run in nlpaug(texts).items()}
    else:
        print("(nlpaug is not installed: it is left out)")
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    made: dict[tuple[str, str], list[str]] = {}
    for round_ in range(rounds + 1):
        for key, run in runs.items():
            start = time.process_time()
            made[key] = run(texts)
            if round_:
                seconds[key].append(time.process_time() - start)
    rate = {key: len(texts) / statistics.median(times) for key, times in seconds.items()}
    print(f"{'augmenter':10} {'texts/s':>9} {'words changed':>14} {'nlpaug':>9} "
          f"{'words changed':>14} {'ratio':>6}")  # fmt: skip
    for who, name in runs:
        if who != "this package":
            continue
        line = f"{name:10} {rate[who, name]:9.0f} {changed(texts, made[who, name]):14.2f}"
        if ("nlpaug", name) in rate:
            theirs = rate["nlpaug", name]
            line += f" {theirs:9.0f} {changed(texts, made['nlpaug', name]):14.2f}"
            line += f" {rate[who, name] / theirs:6.1f}"
        print(line)
    for key in (("this package", "synonym"), ("nlpaug", "synonym"), ("nlpaug", "insert")):
        if key in made:
            print(f"{key[0]}, {key[1]}: {texts[1]}\n    -> {made[key][1]}")


if __name__ == "__main__":
    main()
