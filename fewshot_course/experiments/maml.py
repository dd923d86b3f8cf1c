"""Experiment ``maml``: meta-learners on sinusoids, rendered glyphs, Omniglot, and intents.

The seed draws weights and training tasks; the test tasks of a seed are the same for all methods
and frameworks.  Classes of the test come from scripts (glyphs), alphabets (Omniglot) or intents
(texts, as frozen features) that training never sees; ``seen`` scores come from new tasks with
classes of the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course.data import (
    Episodes,
    EpisodeSampler,
    SinusoidSampler,
    load_dataset,
    resize_images,
)
from fewshot_course.evaluation import mean_interval
from fewshot_course.experiments.registry import Cell, Config, Experiment, RunOptions, setting
from fewshot_course.frameworks import TextFeatures, framework_module

HELD_OUT_ALPHABETS = ("Korean", "Latin")
"""Omniglot's alphabets of the test; the three others are trained on."""

HELD_OUT_INTENTS = (
    "change_address",
    "delete_account",
    "late_delivery",
    "overcharged",
    "return_request",
)
"""Intents of ``tickets`` of the test; the ten others are trained on."""

METHODS = {
    "nearest-mean": "nearest class mean of the raw inputs, nothing learned before (classification)",
    "pretrained": "one network trained on all tasks at once, then fine-tuned on the support set",
    "maml": "exact second-order gradients through the inner steps",
    "fomaml": "the inner gradients taken as constants",
    "anil": "only the head adapted in the inner steps",
    "reptile": "weights moved towards those that training on a task ends with",
    "protonet": "nearest class mean in a learned embedding (classification)",
}
LEARNED = tuple(name for name in METHODS if name != "nearest-mean")
BY_GRADIENT = ("pretrained", "maml", "fomaml", "anil", "reptile")
SCORED_STEPS = (1, 5, 10)


@dataclass(frozen=True)
class MAMLConfig(Config):
    """Settings of the experiment."""

    task: str = setting(
        "glyphs", "what is learned", choices=("sinusoid", "glyphs", "omniglot", "intents")
    )
    ways: int = setting(5, "classes a task (characters)", low=2)
    shots: int = setting(1, "support examples a class, or points of a sinusoid, in the test", low=1)
    train_shots: int = setting(0, "the same in training; 0: as in the test", low=0, methods=LEARNED)
    queries: int = setting(5, "query examples a class, or points of a sinusoid", low=1)
    inner_lr: float = setting(0.1, "inner rate, on the mean loss", low=0, methods=BY_GRADIENT)
    inner_steps: int = setting(
        3, "inner steps in training", low=1, methods=("maml", "fomaml", "anil", "reptile")
    )
    adapt_steps: int = setting(5, "inner steps on a new task", low=0, methods=BY_GRADIENT)
    iterations: int = setting(400, "outer updates", low=1, methods=LEARNED)
    n_tasks: int = setting(4, "tasks in an outer update", low=1, methods=LEARNED)
    lr: float = setting(
        1e-3, "outer rate (Adam)", low=0, methods=tuple(m for m in LEARNED if m != "reptile")
    )
    reptile_lr: float = setting(0.5, "outer rate of Reptile", low=0, methods=("reptile",))
    lr_schedule: str = setting(
        "linear", "outer rate over time", choices=("constant", "linear"), methods=LEARNED
    )
    clip: float = setting(
        10.0, "largest norm of the meta-gradient; 0: none", low=0, methods=LEARNED
    )
    statistics: str = setting(
        "inductive",
        "what batch norm sees of a query set",
        choices=("inductive", "transductive"),
        methods=LEARNED,
    )
    image_size: int = setting(14, "side of the images, in pixels", low=7, high=28)
    channels: int = setting(16, "width of the convolutions", low=1, methods=LEARNED)
    hidden: int = setting(
        40, "width of the two hidden layers (sinusoid, intents)", low=1, methods=LEARNED
    )
    n_test: int = setting(200, "test tasks", low=2)


EXPERIMENT = Experiment(
    name="maml",
    title="Learn a starting point from which a few gradient steps suffice",
    config=MAMLConfig,
    presets={
        "quick": {},
        # Finn et al. 2017, section 5.2: 64 channels, 28 x 28, 32 tasks, one inner step of 0.4 on
        # a loss summed over the ways (2.0 on the mean), three steps in the test, 60,000 updates.
        "full": {
            "image_size": 28,
            "channels": 64,
            "n_tasks": 32,
            "inner_lr": 2.0,
            "inner_steps": 1,
            "adapt_steps": 3,
            "iterations": 60_000,
            "queries": 15,
            "lr_schedule": "constant",
            "statistics": "transductive",
            "n_test": 600,
        },
    },
    methods=METHODS,
    data=("glyphs", "omniglot", "tickets"),
    run="fewshot_course.experiments.maml:run",
    default_methods=("maml", "fomaml", "anil", "reptile"),
    data_setting="task",
)


def samplers(
    config: MAMLConfig, shots: int, framework: str = "torch", device: str = "auto"
) -> dict[str, Any]:
    """Return what draws training tasks ("train") and test tasks ("test").

    Framework and device matter for texts only: its encoder makes the features there.

    Raises:
        ValueError: if the data has too few classes or examples for the settings.
    """
    if config.task == "sinusoid":
        both = SinusoidSampler(shots, config.queries)
        return {"train": both, "test": both}
    size = (config.image_size, config.image_size)
    task = (config.ways, shots, config.queries)
    if config.task == "glyphs":
        parts = {part: load_dataset("glyphs", part) for part in ("train", "test")}
        return {
            part: EpisodeSampler(resize_images(data.X, size), data.y, *task)
            for part, data in parts.items()
        }
    if config.task == "intents":
        tickets = load_dataset("tickets")
        X = TextFeatures(framework, device=device)(tickets.X)
        # A network starts as if its inputs had mean square 1; entries of unit vectors are tiny,
        # and then the inner steps hardly move.
        X *= np.float32(X.shape[1] ** 0.5)
        held_out = np.isin(tickets.class_names, HELD_OUT_INTENTS)
        return _by_class(X, tickets.y, task, held_out)
    data = load_dataset("omniglot_small")
    alphabet = np.array([name.split("/")[0] for name in data.class_names])
    held_out = np.isin(alphabet, HELD_OUT_ALPHABETS)
    return _by_class(resize_images(data.X, size), data.y, task, held_out)


def _by_class(
    X: np.ndarray, y: np.ndarray, task: tuple[int, int, int], held_out: np.ndarray
) -> dict[str, Any]:
    """Tasks of the classes that are trained on, and of those held out (a bool for each class)."""
    return {
        "train": EpisodeSampler(X, y, *task, classes=np.flatnonzero(~held_out)),
        "test": EpisodeSampler(X, y, *task, classes=np.flatnonzero(held_out)),
    }


def make_learner(cell: Cell) -> Any:
    """Return the unfitted estimator of a cell.

    Raises:
        ValueError: for a method of classification on sinusoids.
    """
    config: MAMLConfig = cell.config
    methods = framework_module(cell.framework)
    regression = config.task == "sinusoid"
    common: dict[str, Any] = {
        "iterations": config.iterations,
        "n_tasks": config.n_tasks,
        "lr": config.reptile_lr if cell.method == "reptile" else config.lr,
        "lr_schedule": config.lr_schedule,
        "clip": config.clip or None,
        "statistics": config.statistics,
        "hidden": (config.hidden, config.hidden),
        "channels": config.channels,
        "random_state": cell.seed,
    }
    if cell.method == "protonet":
        return methods.ProtoNet(**common)
    inner = {
        "task": "regression" if regression else "classification",
        "inner_lr": config.inner_lr,
        "inner_steps": 0 if cell.method == "pretrained" else config.inner_steps,
        "adapt_steps": config.adapt_steps,
    }
    kinds = {"pretrained": "MAML", "reptile": "Reptile"}
    kind = getattr(methods, kinds.get(cell.method, cell.method.upper()))
    return kind(**inner, **common)


def nearest_mean_accuracy(episodes: Episodes) -> np.ndarray:
    """Return the accuracy ``(T,)`` of the nearest class mean of the inputs themselves."""
    n_tasks, n = episodes.y_support.shape
    X = episodes.X_support.reshape(n_tasks, n, -1)
    member = episodes.y_support[:, None] == np.arange(episodes.y_support.max() + 1)[:, None]
    means = member @ X / member.sum(2, keepdims=True)
    Q = episodes.X_query.reshape(*episodes.y_query.shape, -1)
    scores = 2 * Q @ means.transpose(0, 2, 1) - np.square(means).sum(2)[:, None]
    return (scores.argmax(2) == episodes.y_query).mean(1)


def run(cell: Cell, options: RunOptions) -> dict[str, float]:
    """Meta-train on one draw and score test tasks; half widths are of 95 % intervals."""
    config: MAMLConfig = cell.config
    if config.task == "sinusoid" and cell.method in ("nearest-mean", "protonet"):
        raise ValueError(f"method={cell.method!r} classifies; task='sinusoid' is a regression.")
    place = cell.framework, options.device
    test = {name: s.sample(_test_rng(cell), config.n_test) for name, s in
            samplers(config, config.shots, *place).items()}  # fmt: skip
    if cell.method == "nearest-mean":
        return _accuracies({name: nearest_mean_accuracy(e) for name, e in test.items()})
    learner = make_learner(cell)
    learner.fit(
        samplers(config, config.train_shots or config.shots, *place)["train"],
        device=options.device,
        checkpoint_dir=options.checkpoint_dir(cell),
    )
    if config.task != "sinusoid":
        return _accuracies({name: learner.evaluate(episodes) for name, episodes in test.items()})
    metrics: dict[str, float] = {}
    for steps in SCORED_STEPS:
        metrics |= _errors(f"mse_after_{steps}", learner.evaluate(test["test"], steps=steps))
    return {**metrics, "n_test": config.n_test}


def _errors(name: str, errors: np.ndarray) -> dict[str, float]:
    """Mean over the tasks that did not diverge, its half width, the median, and how many did."""
    finite = errors[np.isfinite(errors)]
    if len(finite) < 2:
        raise ValueError(f"{name}: the adaptation diverged on all tasks; lower inner_lr.")
    interval = mean_interval(finite)
    return {
        name: interval.mean,
        f"{name}_half_width": interval.high - interval.mean,
        f"{name}_median": float(np.median(finite)),
        f"{name}_diverged": float(len(errors) - len(finite)),
    }


def _test_rng(cell: Cell) -> np.random.Generator:
    """The stream of the test tasks: apart from that of the training, equal for all methods."""
    return np.random.default_rng([cell.seed, 1])


def _accuracies(scores: dict[str, np.ndarray]) -> dict[str, float]:
    unseen, seen = mean_interval(scores["test"]), mean_interval(scores["train"])
    return {
        "accuracy": unseen.mean,
        "accuracy_half_width": unseen.high - unseen.mean,
        "seen_accuracy": seen.mean,
        "seen_accuracy_half_width": seen.high - seen.mean,
        "n_test": len(scores["test"]),
    }
