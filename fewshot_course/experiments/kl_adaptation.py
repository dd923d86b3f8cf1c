"""Experiment ``kl-adaptation``: labelled source digits, unlabelled target digits.

The seed draws the source examples and splits the target data.  The adapter sees the target's
training part, without labels but for ``shots_target`` a class; the test part is scored once.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course.experiments.registry import (
    MODULES,
    Cell,
    Config,
    Experiment,
    RunOptions,
    setting,
)

DATA = (
    "mnist5k->uci_digits",
    "printed_digits->uci_digits",
    "mnist->uci_digits",
    "uci_digits->mnist5k",
)


@dataclass(frozen=True)
class KLAdaptationConfig(Config):
    """Settings of the experiment."""

    data: str = setting("mnist5k->uci_digits", "source->target", choices=DATA)
    image_size: int = setting(8, "side of the square images, in pixels", low=4, high=28)
    n_source: int = setting(2000, "labelled source images", low=10)
    shots_target: int = setting(0, "labelled target images a class", low=0)
    n_test: int = setting(600, "held-out target images that are scored", low=10)
    kl_weight: float = setting(0.05, "weight of KL(target‖source)", low=0.0, methods=("kl",))
    reverse_kl_weight: float = setting(
        0.05, "weight of KL(source‖target)", low=0.0, methods=("kl",)
    )
    estimator: str = setting(
        "moments", "how the KL is estimated", choices=("moments", "mixture"), methods=("kl",)
    )
    warmup: float = setting(
        0.5, "part of the steps over which the weights rise", low=0.0, high=1.0, methods=("kl",)
    )
    network: str = setting("mlp", "encoder", choices=("mlp", "conv4"))
    latent_dim: int = setting(32, "size of a code", low=1)
    steps: int = setting(1000, "training steps", low=1)
    batch_size: int = setting(128, "images of each domain in a step", low=2)
    lr: float = setting(1e-3, "learning rate of Adam", low=0.0)


EXPERIMENT = Experiment(
    name="kl-adaptation",
    title="Adapt digits from one scanner to another by the KL divergence of their features",
    config=KLAdaptationConfig,
    presets={"quick": {}, "full": {"data": "mnist->uci_digits", "n_source": 60_000, "steps": 5000}},
    methods={
        "source-only": "trained on the source, used on the target as it is",
        "kl": "features of source and target aligned by the closed-form KL of batch moments",
    },
    data=("mnist5k", "uci_digits", "printed_digits", "mnist"),
    run="fewshot_course.experiments.kl_adaptation:run",
)


@dataclass(frozen=True)
class Draw:
    """What one seed draws; images ``(n, h, w)`` in [0, 1], ``y_target`` -1 where unknown."""

    X_source: np.ndarray
    y_source: np.ndarray
    X_target: np.ndarray
    y_target: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def draw(config: KLAdaptationConfig, seed: int) -> Draw:
    """Draw the source examples and split the target data; the same for all methods.

    Raises:
        ValueError: if a data set has too few examples for the settings.
    """
    from fewshot_course.data import few_shot_split, load_dataset, mask_labels, resize_images

    source_name, target_name = config.data.split("->")
    source, target = load_dataset(source_name), load_dataset(target_name)
    if config.n_source > len(source.y):
        raise ValueError(
            f"n_source={config.n_source}, but {source_name} has {len(source.y)} images."
        )
    for_source, for_target = np.random.default_rng(seed).spawn(2)
    chosen = for_source.permutation(len(source.y))[: config.n_source]
    split = few_shot_split(target.y, max(1, config.shots_target), for_target, n_test=config.n_test)
    adaptation = np.sort(np.concatenate([split.labelled, split.unlabelled]))
    known = split.labelled[: None if config.shots_target else 0]
    size = (config.image_size, config.image_size)
    return Draw(
        X_source=resize_images(source.X[chosen], size),
        y_source=source.y[chosen],
        X_target=resize_images(target.X[adaptation], size),
        y_target=mask_labels(target.y, known)[adaptation],
        X_test=resize_images(target.X[split.test], size),
        y_test=target.y[split.test],
    )


def run(cell: Cell, options: RunOptions) -> dict[str, float]:
    """Train on one draw and score the held-out target images."""
    config: KLAdaptationConfig = cell.config
    data = draw(config, cell.seed)
    adapter = _adapter(cell)
    adapter.fit(
        data.X_source,
        data.y_source,
        data.X_target,
        data.y_target,
        device=options.device,
        checkpoint_dir=options.checkpoint_dir(cell),
    )
    return {
        "accuracy": float(adapter.score(data.X_test, data.y_test)),
        "n_test": len(data.y_test),
    }


def _adapter(cell: Cell) -> Any:
    """Return the unfitted estimator of a cell."""
    config: KLAdaptationConfig = cell.config
    methods = importlib.import_module(f"fewshot_course.{MODULES[cell.framework]}.kl_adaptation")
    common = {
        "network": config.network,
        "latent_dim": config.latent_dim,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "random_state": cell.seed,
    }
    if cell.method == "source-only":
        return methods.KLAdapter(weight=0.0, reverse_weight=0.0, **common)
    return methods.KLAdapter(
        weight=config.kl_weight,
        reverse_weight=config.reverse_kl_weight,
        estimator=config.estimator,
        warmup=config.warmup,
        **common,
    )
