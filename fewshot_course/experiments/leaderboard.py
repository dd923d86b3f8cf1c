"""Experiment ``leaderboard``: every method of the course on the same draws of the same data.

A board is a data set with the methods that make sense there.  One function draws the examples of
a seed, and every method learns from them and is scored on the same test part, once.  What a
method may use beside the labelled examples (unlabelled ones, other classes, another domain, a
pretrained encoder) is part of its name in ``METHODS``; settings are those of the topics' own
experiments, chosen there on other draws.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course._checks import UNLABELLED, check_choice
from fewshot_course.data import Episodes, few_shot_split, frame_digits, load_dataset
from fewshot_course.evaluation import accuracy
from fewshot_course.experiments import (
    augmentation,
    fine_tuning,
    image_transfer,
    kl_adaptation,
    maml,
    pseudo_labels,
)
from fewshot_course.experiments.registry import Cell, Config, Experiment, RunOptions, setting
from fewshot_course.experiments.results import place_answers
from fewshot_course.frameworks import FRAMEWORKS, MODULES, TextFeatures

__all__ = [
    "BOARDS",
    "EXPERIMENT",
    "FIRST",
    "Board",
    "Draw",
    "LeaderboardConfig",
    "cells",
    "draw",
    "run",
]

METHODS = {
    "nearest-mean": "nearest class mean of the inputs (of frozen features for texts)",
    "knn": "the nearest labelled example",
    "logistic": "logistic regression on the inputs",
    "tfidf": "logistic regression on TF-IDF weights of words",
    "probe": "logistic regression on the frozen features of the pretrained encoder",
    "synonym": "the same, with four copies of each text in which synonyms stand",
    "supervised": "a small network, trained on the labels alone",
    "self": "the network, trained on its own pseudo-labels too",
    "self-rounds": "the three-step loop of self-training",
    "gmm": "a Gaussian mixture labels, then the network learns jointly",
    "gmm-alone": "the classes of the Gaussian mixture itself",
    "vae-m1": "a classifier on the codes of a variational autoencoder",
    "vae-m2": "a variational autoencoder with the label as a latent variable",
    "vae-m1m2": "M2 on the codes of M1",
    "gan": "a discriminator with K+1 classes",
    "source-only": "trained on the other domain and the few labels, nothing aligned",
    "kl": "the same, codes aligned by the KL of batch moments",
    "kl-mixture": "the same, codes aligned by the mixture estimate of the KL",
    "coral": "the same, covariances of the codes made equal",
    "dann": "the same, codes that a domain discriminator cannot tell apart",
    "kliep": "images of the other domain weighted by their density ratio",
    "scratch": "a small convolutional network, trained on the labels alone",
    "nearest-features": "nearest class mean of a network pretrained on other classes",
    "head": "a new head on that network, which is frozen",
    "full": "all layers of the pretrained network or encoder tuned",
    "top": "the two uppermost layers of the encoder tuned",
    "lora": "low-rank updates of the encoder tuned",
    "lstm": "an LSTM over the frozen token vectors",
    "contrastive": "pairs of texts drawn together or apart, then a probe (as SetFit)",
    "protonet": "nearest class mean in an embedding meta-learned on other classes",
    "maml": "a start meta-learned on other classes, exact second-order gradients",
    "fomaml": "the same, the inner gradients taken as constants",
    "anil": "the same, only the head adapted",
    "reptile": "a start moved towards the weights after training on other classes",
}

_VAE = ("vae-m1", "vae-m2", "vae-m1m2")
_ADAPTED = ("source-only", "kl", "kl-mixture", "coral", "dann", "kliep")
_TRANSFERRED = ("nearest-features", "head", "full")
_META = ("protonet", "maml", "fomaml", "anil", "reptile")
_TUNED = ("top", "lora", "full", "contrastive")
_TRAINED = ("lstm", *_TUNED)
_TEXT = {
    "nothing else": ("tfidf",),
    "frozen features": ("nearest-mean", "knn", "probe", "synonym", "supervised", "lstm"),
    "unlabelled examples": ("self", "gmm", "gmm-alone"),
    "a tuned encoder": _TUNED,
}
FIRST = "nearest-mean"
"""The simplest method, on every board; the others are compared with it."""


@dataclass(frozen=True)
class Board:
    """A data set with its methods.

    Attributes:
        title: what is learned.
        data: name of the data set.
        shots: labelled examples a class, to be compared.
        families: name → methods that may use the same besides the labels; names in ``METHODS``.
        plain: those of them that use no framework ("numpy" in the results).
        slow: those of them that get fewer draws.
        slow_shots: shots at which the slow ones run.
        slow_draws: their draws in PyTorch; in TensorFlow it is one.
    """

    title: str
    data: str
    shots: tuple[int, ...]
    families: dict[str, tuple[str, ...]]
    plain: tuple[str, ...]
    slow: tuple[str, ...] = ()
    slow_shots: tuple[int, ...] = ()
    slow_draws: int = 3

    @property
    def methods(self) -> tuple[str, ...]:
        """All methods of the board, family by family."""
        return tuple(itertools.chain.from_iterable(self.families.values()))

    def frameworks(self, method: str) -> tuple[str, ...]:
        """Return where a method runs."""
        return ("numpy",) if method in self.plain else FRAMEWORKS

    def draws(self, method: str, framework: str, shots: int) -> int:
        """Return the number of draws: fewer for what takes long, and in the second framework."""
        if method not in self.slow:
            return 3 if framework == "tensorflow" else 10
        if shots not in self.slow_shots:
            return 0
        return 1 if framework == "tensorflow" else self.slow_draws


_BASELINES = ("nearest-mean", "knn", "logistic")
BOARDS: dict[str, Board] = {
    "digits": Board(
        "Handwritten digits of 8 × 8 pixels; unlabelled ones, and digits of another scanner",
        "uci_digits",
        shots=(1, 5, 10),
        families={
            "nothing else": (*_BASELINES, "supervised"),
            "unlabelled examples": ("self", "self-rounds", "gmm", "gmm-alone", "gan", *_VAE),
            "another domain": _ADAPTED,
        },
        plain=_BASELINES,
        slow=("gan", *_VAE, *_ADAPTED),
        slow_shots=(1, 5, 10),
        slow_draws=5,
    ),
    "glyphs": Board(
        "Five characters of scripts never seen; other scripts to learn from before",
        "glyphs",
        shots=(1, 5),
        families={
            "nothing else": (*_BASELINES, "scratch"),
            "a pretrained network": _TRANSFERRED,
            "meta-learning": _META,
        },
        plain=_BASELINES,
        slow=("scratch", *_TRANSFERRED, *_META),
        slow_shots=(1, 5),
    ),
    "tickets": Board(
        "Fifteen intents of short messages; a pretrained encoder",
        "tickets",
        shots=(1, 4, 16),
        families=_TEXT,
        plain=("tfidf",),
        slow=("synonym", *_TRAINED),
        slow_shots=(1, 4),
    ),
    "reviews": Board(
        "Positive and negative reviews of films; a pretrained encoder",
        "reviews_films",
        shots=(1, 4, 16),
        families=_TEXT,
        plain=("tfidf",),
        slow=("synonym", *_TRAINED),
        slow_shots=(4, 16),
    ),
}
"""Name → board."""


@dataclass(frozen=True)
class LeaderboardConfig(Config):
    """Settings of the experiment."""

    data: str = setting("digits", "board", choices=tuple(BOARDS))
    shots: int = setting(5, "labelled examples a class", low=1)
    n_tasks: int = setting(10, "tasks of five characters, averaged in one draw (glyphs)", low=1)
    iterations: int = setting(300, "updates of a meta-learner", low=1, methods=_META)
    epochs: int = setting(10, "passes over the few texts", low=1, methods=_TRAINED)


EXPERIMENT = Experiment(
    name="leaderboard",
    title="Every method of the course on the same draws of the same data",
    config=LeaderboardConfig,
    presets={"quick": {}, "full": {"iterations": 10_000, "epochs": 20}},
    methods=METHODS,
    data=tuple(board.data for board in BOARDS.values()),
    run="fewshot_course.experiments.leaderboard:run",
    frameworks=("numpy", *FRAMEWORKS),
)


@checked
def cells(
    data: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    frameworks: Sequence[str] | None = None,
    preset: str = "quick",
) -> list[Cell]:
    """Return the cells of the leaderboard, all or some of them.

    Raises:
        ValueError: for an unknown board, method or framework.
    """
    for name, chosen, known in (
        ("data", data, BOARDS),
        ("method", methods, METHODS),
        ("framework", frameworks, EXPERIMENT.frameworks),
    ):
        for value in chosen or ():
            check_choice(name, value, known)
    found = []
    for board_name in data or BOARDS:
        board = BOARDS[board_name]
        for method in board.methods:
            if methods and method not in methods:
                continue
            for framework in board.frameworks(method):
                if frameworks and framework not in frameworks:
                    continue
                for shots in board.shots:
                    config = EXPERIMENT.configure(preset, data=board_name, shots=shots)
                    found += [
                        EXPERIMENT.cell(method, framework, seed, preset, config)
                        for seed in range(board.draws(method, framework, shots))
                    ]
    return found


# ---------------------------------------------------------------------------- draws


@dataclass(frozen=True)
class Draw:
    """What one seed draws of digits or texts.

    Attributes:
        X: labelled examples, then unlabelled ones; images ``(n, 8, 8)`` or a list of texts.
        y: labels, -1 where hidden.
        y_true: labels; they judge pseudo-labels and serve for nothing else.
        X_test: held-out examples.
        y_test: their labels.
    """

    X: Any
    y: np.ndarray
    y_true: np.ndarray
    X_test: Any
    y_test: np.ndarray
    test: np.ndarray
    n_items: int

    @property
    def labelled(self) -> tuple[Any, np.ndarray]:
        """The labelled examples and their labels."""
        n = int((self.y != UNLABELLED).sum())
        return self.X[:n], self.y[:n]

    def encoded(self, encode: Callable[[Any], np.ndarray]) -> Draw:
        """Return the draw with features in place of its texts."""
        return replace(self, X=encode(self.X), X_test=encode(self.X_test))


def draw(config: LeaderboardConfig, seed: int) -> Draw | Episodes:
    """Draw the examples of a seed: the same for all methods and frameworks.

    The test part does not depend on ``shots``; fewer labelled examples are among more.
    """
    board = BOARDS[config.data]
    if config.data == "glyphs":
        task = _meta_cell("nearest-mean", "torch", seed, shots=config.shots).config
        tasks = maml.samplers(task, config.shots)["test"]
        return tasks.sample(np.random.default_rng([seed, 2]), config.n_tasks)
    if config.data == "digits":
        digits = load_dataset(board.data)
        split = few_shot_split(digits.y, config.shots, np.random.default_rng(seed), n_test=600)
        X: Any = digits.X
        y, X_test, y_test = digits.y, digits.X[split.test], digits.y[split.test]
        test, n_items = split.test, len(digits.y)
    else:
        parts = [load_dataset(board.data, part) for part in ("train", "validation")]
        X, y = [text for part in parts for text in part.X], np.concatenate([p.y for p in parts])
        split = few_shot_split(y, config.shots, np.random.default_rng(seed), n_test=0)
        held_out = load_dataset(board.data, "test")
        X_test, y_test = held_out.X, held_out.y
        test, n_items = np.arange(len(y_test)), len(y_test)
    order = np.concatenate([split.labelled, split.unlabelled])
    masked = np.where(np.arange(len(order)) < len(split.labelled), y[order], UNLABELLED)
    chosen = X[order] if isinstance(X, np.ndarray) else [X[i] for i in order]
    return Draw(chosen, masked, y[order], X_test, y_test, test, n_items)


# ---------------------------------------------------------------------------- runs


def run(cell: Cell, options: RunOptions) -> dict[str, Any]:
    """Learn from one draw and score its test part.

    ``seconds_before`` is what was learned before the few labelled examples came (a pretrained
    network, a meta-learner); it is computed once a process and counts for every cell that uses
    it.  ``seconds_here`` is the rest, scoring included.
    """
    board = BOARDS[cell.config.data]
    check_choice(f"method on the board {cell.config.data}", cell.method, board.methods)
    check_choice(f"framework of {cell.method}", cell.framework, board.frameworks(cell.method))
    data = draw(cell.config, cell.seed)
    _plain("knn")  # imports are not to be timed
    with warnings.catch_warnings():
        # What a method warns of is for a user at the keyboard; here its score tells.
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("ignore", category)
        return _score(cell, data, options)


def _score(cell: Cell, data: Draw | Episodes, options: RunOptions) -> dict[str, Any]:
    before, start = 0.0, time.perf_counter()
    answers = {}
    if isinstance(data, Episodes):
        learn, before = _glyph_learner(cell, options)
        start = time.perf_counter()
        tasks = [data.task(index) for index in range(len(data))]
        score = float(np.mean([accuracy(b, learn(X, y).predict(Q)) for X, y, Q, b in tasks]))
        n_test = data.y_query.size
    else:
        fit = _text_model if cell.config.data in ("tickets", "reviews") else _digit_model
        model, X_test = fit(cell, data, options)
        right = model.predict(X_test) == data.y_test
        score, n_test = float(right.mean()), len(right)
        answers["answers"] = place_answers(right, data.test, data.n_items)
    seconds = time.perf_counter() - start
    return {
        "accuracy": score,
        "seconds_here": seconds,
        "seconds_before": before,
        "n_test": n_test,
        **answers,
    }


def _plain(method: str) -> Any:
    """Return a baseline of scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

    if method == "nearest-mean":
        return NearestCentroid()
    if method == "knn":
        return KNeighborsClassifier(n_neighbors=1)
    return LogisticRegression(C=10.0, max_iter=1000)


def _flat(X: np.ndarray) -> np.ndarray:
    return np.asarray(X).reshape(len(X), -1)


def _as(experiment: Experiment, cell: Cell, **changes: Any) -> Cell:
    """Return the cell of a topic's own experiment for the same method, framework and seed."""
    config = experiment.configure("quick", **changes)
    framework = cell.framework if cell.framework in MODULES else "torch"  # it will use none
    return experiment.cell(cell.method, framework, cell.seed, "quick", config).on(
        cell.kind, cell.threads
    )


def _digit_model(cell: Cell, data: Draw, options: RunOptions) -> tuple[Any, np.ndarray]:
    if cell.method in _BASELINES:
        X, y = data.labelled
        return _plain(cell.method).fit(_flat(X), y), _flat(data.X_test)
    if cell.method in _ADAPTED:
        adapter = kl_adaptation.make_adapter(_as(kl_adaptation.EXPERIMENT, cell))
        adapter.fit(*_other_digits(), data.X, data.y, device=options.device)
        return adapter, data.X_test
    return _pseudo_labelled(cell, data, options)


@cache
def _other_digits() -> tuple[np.ndarray, np.ndarray]:
    """2,000 digits of other writers and another scanner, framed like those of the board."""
    source = load_dataset("mnist5k")
    chosen = np.random.default_rng(0).permutation(len(source.y))[:2000]
    return frame_digits(source.X[chosen], (8, 8)), source.y[chosen]


def _pseudo_labelled(cell: Cell, data: Draw, options: RunOptions) -> tuple[Any, np.ndarray]:
    changes: dict[str, Any] = {"lr": 0.003} if cell.method in pseudo_labels.VAE else {}
    if cell.config.data in ("tickets", "reviews"):
        # As many entries as features, and few texts: one covariance for all classes.
        changes["covariance"] = "tied"
    alike = _as(pseudo_labels.EXPERIMENT, cell, **changes)
    drawn = pseudo_labels.Draw(**vars(data))
    return pseudo_labels.fit(alike, drawn, options)[0], data.X_test


def _text_model(cell: Cell, data: Draw, options: RunOptions) -> tuple[Any, Any]:
    X, y = data.labelled
    if cell.method in ("tfidf", "knn", "probe", *_TRAINED):
        changes = {"epochs": cell.config.epochs} if cell.method in _TRAINED else {}
        alike = _as(fine_tuning.EXPERIMENT, cell, data=BOARDS[cell.config.data].data, **changes)
        model = fine_tuning.make_classifier(alike, options.device)
        device = {"device": options.device} if cell.method in ("probe", *_TRAINED) else {}
        return model.fit(X, y, **device), data.X_test
    encode = TextFeatures(cell.framework, device=options.device)
    if cell.method == "synonym":
        return _with_synonyms(cell, X, y, encode), encode(data.X_test)
    features = data.encoded(encode)
    if cell.method == "nearest-mean":
        X, y = features.labelled
        return _plain("nearest-mean").fit(X, y), features.X_test
    return _pseudo_labelled(cell, features, options)


def _with_synonyms(
    cell: Cell, X: list[str], y: np.ndarray, encode: Callable[[Sequence[str]], np.ndarray]
) -> Any:
    """Return a probe of the texts and their copies."""
    from sklearn.linear_model import LogisticRegression

    from fewshot_course.data.augment import extend

    alike = _as(augmentation.EXPERIMENT, cell, data=BOARDS[cell.config.data].data)
    augmenter = augmentation.make_augmenter("synonym", alike.config)
    rng = np.random.default_rng([cell.seed, 7])
    texts, labels, weights = extend(X, y, augmenter, alike.config.copies, rng)
    probe = LogisticRegression(C=alike.config.C, max_iter=1000)
    return probe.fit(encode(texts), labels, sample_weight=weights)


# ---------------------------------------------------------------------------- characters

Learner = Callable[[np.ndarray, np.ndarray], Any]
"""Labelled images of a task, and their labels → something with ``predict``."""


def _glyph_learner(cell: Cell, options: RunOptions) -> tuple[Learner, float]:
    """Return what learns one task, and the seconds that learning from other classes took."""
    if cell.method in _META:
        iterations = cell.config.iterations
        learner, seconds = _meta_learned(
            cell.method, cell.framework, cell.seed, iterations, options.device
        )
        return learner.adapt, seconds
    if cell.method in _BASELINES:
        return lambda X, y: _on(_flat, _plain(cell.method)).fit(X, y), 0.0
    alike = _as(image_transfer.EXPERIMENT, cell)
    if cell.method == "scratch":
        base: Any = None
        seconds = 0.0
    else:
        base, seconds = _pretrained(cell.framework, cell.seed, options.device)
    if cell.method == "nearest-features":
        return lambda X, y: _on(base.transform, _plain("nearest-mean")).fit(X, y), seconds
    return (
        lambda X, y: image_transfer.make_classifier(alike, base).fit(X, y, device=options.device),
        seconds,
    )


def _on(transform: Callable[[np.ndarray], np.ndarray], model: Any) -> Any:
    """Return a classifier that sees transformed images."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    return make_pipeline(FunctionTransformer(transform), model)


def _meta_cell(method: str, framework: str, seed: int, **changes: Any) -> Cell:
    config = maml.EXPERIMENT.configure("quick", task="glyphs", ways=5, queries=10, **changes)
    return maml.EXPERIMENT.cell(method, framework, seed, "quick", config)


@lru_cache(maxsize=16)
def _meta_learned(
    method: str, framework: str, seed: int, iterations: int, device: str
) -> tuple[Any, float]:
    """Return a learner trained on tasks of one example a class; it serves at every number."""
    alike = _meta_cell(method, framework, seed, shots=1, iterations=iterations)
    sampler = maml.samplers(alike.config, 1)["train"]
    start = time.perf_counter()
    learner = maml.make_learner(alike).fit(sampler, device=device)
    return learner, time.perf_counter() - start


@lru_cache(maxsize=16)
def _pretrained(framework: str, seed: int, device: str) -> tuple[Any, float]:
    """Return the network of the seed, trained on all images of the other scripts."""
    config = image_transfer.EXPERIMENT.configure("quick", data="glyphs")
    cell = image_transfer.EXPERIMENT.cell("full", framework, seed, "quick", config)
    start = time.perf_counter()
    base = image_transfer.pretrained(cell, device)
    return base, time.perf_counter() - start
