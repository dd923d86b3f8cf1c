"""Experiment ``image-transfer``: pretrain on base classes, then learn new ones from few images.

The seed draws the new classes, their few images and the held-out test images, the same for every
method; methods that transfer share the network of the seed that was pretrained on the base
classes.  No new class is a base class, unless ``classes="base"`` asks for just that mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from fewshot_course.data import few_shot_split, load_dataset, resize_images
from fewshot_course.experiments.registry import Cell, Config, Experiment, RunOptions, setting
from fewshot_course.experiments.results import place_answers
from fewshot_course.frameworks import framework_module

DATA = ("glyphs", "mnist5k")
BASE_DIGITS = 5
"""Of mnist5k the digits below are base classes, the others are new."""
VALIDATION_CHARACTERS = 100
"""Characters of the base scripts that no network is pretrained on: to choose settings with."""

METHODS = {
    "scratch": "the network, trained on the few images alone",
    "nearest-pixels": "nearest class mean of the images themselves, nothing learned before",
    "nearest-features": "nearest class mean of the pretrained network's features",
    "head": "a new linear head on the pretrained body, which is frozen",
    "full": "a new head and the pretrained body, all of it tuned",
}
TRANSFER = ("nearest-features", "head", "full")
NETWORK = ("scratch", *TRANSFER)
TRAINED = ("scratch", "head", "full")


@dataclass(frozen=True)
class ImageTransferConfig(Config):
    """Settings of the experiment.

    Learning rates and steps were chosen on ``classes="validation"``, with other seeds than 0-9.
    """

    data: str = setting("glyphs", "base and new classes", choices=DATA)
    classes: str = setting(
        "new",
        "what is learned: new classes, base characters kept out of the pretraining, or, by "
        "mistake, base classes",
        choices=("new", "validation", "base"),
    )
    ways: int = setting(20, "classes to learn; all of them if there are fewer", low=2)
    shots: int = setting(5, "images a class to learn from", low=1)
    n_test: int = setting(200, "held-out images that are scored, over all classes", low=2)
    image_size: int = setting(14, "side of the images, in pixels", low=4, high=28)
    channels: int = setting(32, "width of the convolutions", low=1, methods=NETWORK)
    pretrain_steps: int = setting(600, "steps on the base classes", low=1, methods=TRANSFER)
    pretrain_lr: float = setting(3e-3, "learning rate there", low=0.0, methods=TRANSFER)
    pretrain_batch_size: int = setting(64, "images in a step there", low=1, methods=TRANSFER)
    steps: int = setting(100, "steps on the few images", low=1, methods=TRAINED)
    batch_size: int = setting(64, "images in a step, at most", low=1, methods=TRAINED)
    lr: float = setting(1e-4, "learning rate of a pretrained body", low=0.0, methods=("full",))
    head_lr: float = setting(3e-2, "learning rate of a new head", low=0.0, methods=("head", "full"))
    scratch_lr: float = setting(
        1e-2, "learning rate of a network from scratch", low=0.0, methods=("scratch",)
    )


EXPERIMENT = Experiment(
    name="image-transfer",
    title="Pretrain on base classes, fine-tune on a few images of new ones",
    config=ImageTransferConfig,
    presets={
        "quick": {},
        # The network of the few-shot literature: 64 channels on 28 x 28 pixels.
        "full": {"image_size": 28, "channels": 64, "pretrain_steps": 5000, "n_test": 200},
    },
    methods=METHODS,
    data=DATA,
    run="fewshot_course.experiments.image_transfer:run",
)


class Images(NamedTuple):
    """Images ``(n, h, w)`` in [0, 1] and their labels ``(n,)``."""

    X: np.ndarray
    y: np.ndarray

    def of(self, classes: np.ndarray) -> Images:
        """Return the images of some classes."""
        kept = np.isin(self.y, classes)
        return Images(self.X[kept], self.y[kept])


class Draw(NamedTuple):
    """What one seed draws: the few images to learn from, and the test.

    ``items`` numbers the test images within the ``n_items`` of all classes that may be drawn.
    """

    few: Images
    test: Images
    items: np.ndarray
    n_items: int


@cache
def class_pools(data: str, image_size: int) -> dict[str, Images]:
    """Return the images of the base classes, of the new ones, and of those for validation.

    A character or digit is in one pool only.  Labels mean something within a pool only.
    """
    if data == "mnist5k":
        digits = _load(data, "all", image_size)
        base = np.arange(BASE_DIGITS)
        return {"base": digits.of(base), "new": digits.of(np.arange(BASE_DIGITS, 10))}
    train = _load(data, "train", image_size)
    shuffled = np.random.default_rng(0).permutation(np.unique(train.y))
    return {
        "base": train.of(shuffled[VALIDATION_CHARACTERS:]),
        "validation": train.of(shuffled[:VALIDATION_CHARACTERS]),
        "new": _load(data, "test", image_size),
    }


def _load(data: str, split: str, image_size: int) -> Images:
    found = load_dataset(data, split)
    return Images(resize_images(found.X, (image_size, image_size)), found.y)


def draw(config: ImageTransferConfig, seed: int) -> Draw:
    """Draw classes, the few images of each, and the test; the same for all methods.

    Fewer shots are among more, and the test images do not depend on their number.

    Raises:
        ValueError: if the data has no such classes, or a class too few images.
    """
    pools = class_pools(config.data, config.image_size)
    if config.classes not in pools:
        raise ValueError(
            f"classes={config.classes!r} is not known for data={config.data!r}; "
            f"expected one of {', '.join(pools)}."
        )
    pool = pools[config.classes]
    rng = np.random.default_rng([seed, 1])
    chosen = rng.permutation(np.unique(pool.y))[: config.ways]
    rows = np.flatnonzero(np.isin(pool.y, chosen))
    split = few_shot_split(pool.y[rows], config.shots, rng, n_test=config.n_test)
    few, test = rows[split.labelled], rows[split.test]
    return Draw(
        Images(pool.X[few], pool.y[few]), Images(pool.X[test], pool.y[test]), test, len(pool.y)
    )


def run(cell: Cell, options: RunOptions) -> dict[str, Any]:
    """Learn the classes of one draw and score the held-out images.

    The first cell of a process that needs the pretrained network of its seed trains it; those
    after it find it ready, so that their ``seconds`` do not hold the pretraining.
    """
    data = draw(cell.config, cell.seed)
    few, test = data.few, data.test
    metrics: dict[str, Any] = {}
    if cell.method == "nearest-pixels":
        flat, test_flat = (part.X.reshape(len(part.X), -1) for part in (few, test))
        guess = nearest_mean(flat, few.y, test_flat)
    elif cell.method == "nearest-features":
        base = pretrained(cell, options.device)
        guess = nearest_mean(base.transform(few.X), few.y, base.transform(test.X))
    else:
        base = pretrained(cell, options.device) if cell.method in TRANSFER else None
        model = make_classifier(cell, base)
        model.fit(*few, device=options.device, checkpoint_dir=options.checkpoint_dir(cell))
        guess = model.predict(test.X)
        metrics["train_accuracy"] = model.score(*few)
    right = guess == test.y
    answers = place_answers(right, data.items, data.n_items)
    headline = {"accuracy": float(right.mean())}
    return {**headline, **metrics, "n_test": len(right), "answers": answers}


def make_classifier(cell: Cell, base: Any) -> Any:
    """Return the unfitted classifier of a cell, on top of a pretrained one or ``None``."""
    config: ImageTransferConfig = cell.config
    return _methods(cell.framework).ImageClassifier(
        tune=cell.method,
        pretrained=base,
        channels=config.channels,
        steps=config.steps,
        batch_size=config.batch_size,
        lr=config.scratch_lr if cell.method == "scratch" else config.lr,
        head_lr=None if cell.method == "scratch" else config.head_lr,
        random_state=cell.seed,
    )


def nearest_mean(X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> np.ndarray:
    """Return the class of the nearest class mean, by Euclidean distance, of vectors ``(m, d)``."""
    classes = np.unique(y)
    means = np.stack([X[y == c].mean(0) for c in classes])
    # ‖x - m‖² = ‖x‖² - 2 x·m + ‖m‖², of which the first is the same for all classes.
    closeness = 2 * X_test @ means.T - np.square(means).sum(1)
    return classes[closeness.argmax(1)]


def pretrained(cell: Cell, device: str = "auto") -> Any:
    """Return the network of the cell's seed, trained on all images of the base classes."""
    config: ImageTransferConfig = cell.config
    return _pretrain(
        cell.framework,
        device,
        cell.seed,
        config.data,
        config.image_size,
        channels=config.channels,
        steps=config.pretrain_steps,
        batch_size=config.pretrain_batch_size,
        lr=config.pretrain_lr,
    )


@lru_cache(maxsize=64)
def _pretrain(
    framework: str, device: str, seed: int, data: str, image_size: int, **settings: Any
) -> Any:
    model = _methods(framework).ImageClassifier(random_state=seed, **settings)
    return model.fit(*class_pools(data, image_size)["base"], device=device)


def _methods(framework: str) -> Any:
    return framework_module(framework)
