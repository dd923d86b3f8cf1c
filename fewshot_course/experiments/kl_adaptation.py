"""Experiment ``kl-adaptation``: labelled source digits, unlabelled target digits.

The seed draws the source examples and splits the target data.  The adapter sees the target's
training part, without labels but for ``shots_target`` a class; the test part is scored once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course._checks import UNLABELLED
from fewshot_course.data import (
    DATASETS,
    few_shot_split,
    frame_digits,
    load_dataset,
    mask_labels,
    resize_images,
    rotate_images,
    vary_digits,
)
from fewshot_course.experiments.registry import Cell, Config, Experiment, RunOptions, setting
from fewshot_course.experiments.results import place_answers
from fewshot_course.frameworks import framework_module

DATA = (
    "mnist5k->uci_digits",
    "printed_digits->uci_digits",
    "uci_digits->mnist5k",
    "mnist5k->rotated",
    "mnist->uci_digits",
    "mnist->rotated",
    "mnist->usps",
    "usps->mnist",
)
OWN_PARTS = ("mnist->usps", "usps->mnist")
"""Pairs with parts of their own: learned from the training parts, scored on the target's test part.

Their images are resized as they are, as in the literature, and not brought into one frame.
"""
ALIGNED = ("kl", "kl-mixture", "coral", "mmd", "dann", "augmented-kl")
KL = ("kl", "augmented-kl")
AUGMENTED = ("augmented", "augmented-kl")
METHODS = {
    "source-only": "trained on the source, used on the target as it is",
    "target-only": "trained on the few labelled target images alone",
    "kl": "codes aligned by the closed-form KL of batch moments, both directions",
    "kl-mixture": "codes aligned by the minibatch mixture estimate of the KL, both directions",
    "coral": "covariances of the codes made equal",
    "mmd": "means of kernel features of the codes made equal",
    "dann": "codes that a domain discriminator cannot tell apart",
    "adabn": "statistics of batch norm taken from the target (needs network=conv4)",
    "kliep": "source images weighted by an estimate of the density ratio",
    "unweighted": "the network of kliep, with every source image counted alike",
    "augmented": "trained on varied copies of the source: slanted, thickened, narrowed",
    "augmented-kl": "the same copies, and codes aligned as in kl",
}


@dataclass(frozen=True)
class KLAdaptationConfig(Config):
    """Settings of the experiment."""

    data: str = setting("mnist5k->uci_digits", "source->target", choices=DATA)
    rotation: float = setting(45.0, "angle of a rotated target, in degrees", low=-180, high=180)
    image_size: int = setting(8, "side of the square images, in pixels", low=4, high=28)
    n_source: int = setting(2000, "labelled source images", low=10)
    n_target: int = setting(1000, "unlabelled target images; fewer if there are fewer", low=0)
    shots_target: int = setting(0, "labelled target images a class", low=0)
    n_test: int = setting(600, "held-out target images that are scored", low=10)
    weight: float = setting(0.05, "weight of KL(target‖source)", low=0.0, methods=KL)
    reverse_weight: float = setting(0.05, "weight of KL(source‖target)", low=0.0, methods=KL)
    mixture_weight: float = setting(
        0.01, "weight of each direction of the mixture estimate", low=0.0, methods=("kl-mixture",)
    )
    leave_one_out: bool = setting(
        False,
        "leave a code's own component out of the mixture: no bias, but no lower bound either",
        methods=("kl-mixture",),
    )
    mmd_weight: float = setting(1.0, "weight of MMD's loss", low=0.0, methods=("mmd",))
    coral_weight: float = setting(10.0, "weight of CORAL's loss", low=0.0, methods=("coral",))
    dann_weight: float = setting(
        0.1, "weight of the reversed gradient of the discriminator", low=0.0, methods=("dann",)
    )
    warmup: float = setting(
        0.5, "part of the steps over which the weights rise", low=0.0, high=1.0, methods=ALIGNED
    )
    copies: int = setting(2, "varied copies of each source image", low=1, methods=AUGMENTED)
    slant: float = setting(
        0.2, "columns that a copy leans a row, at most", low=0.0, high=1.0, methods=AUGMENTED
    )
    stroke: float = setting(
        1.0, "pixels that a copy's ink grows on each side, at most", low=0.0, methods=AUGMENTED
    )
    narrowest: float | None = setting(
        0.5,
        "least width of a copy over its height; none: widths stay",
        low=0.1,
        high=1.0,
        methods=AUGMENTED,
    )
    widest: float = setting(
        0.9, "largest width of a copy over its height", low=0.1, high=1.0, methods=AUGMENTED
    )
    target_weight: float = setting(1.0, "weight of the labelled target images", low=0.0)
    scale_low: float = setting(0.5, "smallest σ of a code", low=1e-4)
    scale_high: float = setting(2.0, "largest σ of a code", low=1e-4)
    network: str = setting("mlp", "encoder", choices=("mlp", "conv4"))
    latent_dim: int = setting(32, "size of a code", low=1)
    prediction_samples: int = setting(0, "codes averaged in a prediction; 0: the mean", low=0)
    steps: int = setting(600, "training steps", low=1)
    batch_size: int = setting(128, "images of each domain in a step", low=2)
    lr: float = setting(1e-3, "learning rate of Adam", low=0.0)
    precision: str = setting(
        "float32",
        "what the encoder's matrix products are computed in while training",
        choices=("float32", "bfloat16"),
        added=True,
    )


EXPERIMENT = Experiment(
    name="kl-adaptation",
    title="Adapt digits from one scanner to another by the KL divergence of their features",
    config=KLAdaptationConfig,
    presets={
        "quick": {},
        # Nguyen et al. 2022, section 5: about 11,700 images a domain, batch 256, both KL weights
        # 0.2, latent size 256, 20 codes a prediction.  Their program makes 100 epochs of 36 steps.
        "full": {
            "data": "mnist->rotated",
            "image_size": 28,
            "n_source": 11_700,
            "n_target": 11_700,
            "n_test": 10_000,
            "network": "conv4",
            "latent_dim": 256,
            "prediction_samples": 20,
            "weight": 0.2,
            "reverse_weight": 0.2,
            "mixture_weight": 0.2,
            "batch_size": 256,
            "steps": 3600,
        },
    },
    methods=METHODS,
    default_methods=("source-only", "kl"),
    # The network of KLIEP has no noisy codes; all others differ from source-only in one thing.
    partners={"kliep": "unweighted", "augmented-kl": "augmented"},
    data=("mnist5k", "uci_digits", "printed_digits", "mnist", "usps"),
    run="fewshot_course.experiments.kl_adaptation:run",
)


@dataclass(frozen=True)
class Draw:
    """What one seed draws; images ``(n, h, w)`` in [0, 1], ``y_target`` -1 where unknown.

    No method is shown ``y_hidden``, all labels of the target; a learning curve may look at them.
    ``test`` numbers the test images within the ``n_items`` that any draw may be scored on.
    """

    X_source: np.ndarray
    y_source: np.ndarray
    X_target: np.ndarray
    y_target: np.ndarray
    y_hidden: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    test: np.ndarray
    n_items: int


def draw(config: KLAdaptationConfig, seed: int) -> Draw:
    """Draw the source examples and split the target data; the same for all methods.

    Raises:
        ValueError: if a data set has too few examples for the settings.
    """
    source_name, target_name = config.data.split("->")
    for_source, for_target = np.random.default_rng(seed).spawn(2)
    if target_name == "rotated":
        return _draw_rotated(config, source_name, for_source, for_target)
    if config.data in OWN_PARTS:
        return _draw_parts(config, source_name, target_name, for_source, for_target)
    source, target = load_dataset(source_name), load_dataset(target_name)
    _enough(config.n_source, len(source.y), source_name)
    chosen = for_source.permutation(len(source.y))[: config.n_source]
    adaptation, known, test = _split(target.y, config, for_target, config.n_test)
    return Draw(
        X_source=_frame(source.X[chosen], config.image_size),
        y_source=source.y[chosen],
        X_target=_frame(target.X[adaptation], config.image_size),
        y_target=mask_labels(target.y, known)[adaptation],
        y_hidden=target.y[adaptation],
        X_test=_frame(target.X[test], config.image_size),
        y_test=target.y[test],
        test=test,
        n_items=len(target.y),
    )


def _draw_parts(
    config: KLAdaptationConfig,
    source_name: str,
    target_name: str,
    for_source: np.random.Generator,
    for_target: np.random.Generator,
) -> Draw:
    """Training parts of both to learn from, the target's own test part to be scored."""
    source, target = load_dataset(source_name, "train"), load_dataset(target_name, "train")
    test = load_dataset(target_name, "test")
    _enough(config.n_source, len(source.y), source_name)
    chosen = for_source.permutation(len(source.y))[: config.n_source]
    adaptation, known, _ = _split(target.y, config, for_target, n_test=0)
    size = (config.image_size, config.image_size)
    return Draw(
        X_source=resize_images(source.X[chosen], size),
        y_source=source.y[chosen],
        X_target=resize_images(target.X[adaptation], size),
        y_target=mask_labels(target.y, known)[adaptation],
        y_hidden=target.y[adaptation],
        X_test=resize_images(test.X[: config.n_test], size),
        y_test=test.y[: config.n_test],
        test=np.arange(len(test.y))[: config.n_test],
        n_items=len(test.y),
    )


def _draw_rotated(
    config: KLAdaptationConfig,
    name: str,
    for_source: np.random.Generator,
    for_target: np.random.Generator,
) -> Draw:
    """Upright source images, and other images of the same set turned by ``rotation``."""
    own_test = "test" in DATASETS[name].splits
    train = load_dataset(name, "train") if own_test else load_dataset(name)
    order = for_source.permutation(len(train.y))
    _enough(config.n_source, len(order), name)
    rest = order[config.n_source :]
    if own_test:
        test_set = load_dataset(name, "test")
        test = np.arange(len(test_set.y))[: config.n_test]
        adaptation, known, _ = _split(train.y[rest], config, for_target, n_test=0)
    else:
        test_set = train
        adaptation, known, test = _split(train.y[rest], config, for_target, config.n_test)
        test = rest[test]
    size = (config.image_size, config.image_size)
    source, target = order[: config.n_source], rest[adaptation]
    return Draw(
        X_source=resize_images(train.X[source], size),
        y_source=train.y[source],
        X_target=resize_images(rotate_images(train.X[target], config.rotation), size),
        y_target=mask_labels(train.y[rest], known)[adaptation],
        y_hidden=train.y[target],
        X_test=resize_images(rotate_images(test_set.X[test], config.rotation), size),
        y_test=test_set.y[test],
        test=test,
        n_items=len(test_set.y),
    )


def _split(
    y: np.ndarray, config: KLAdaptationConfig, rng: np.random.Generator, n_test: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is adapted to, which of it is labelled, and the held-out test part."""
    split = few_shot_split(y, max(1, config.shots_target), rng, n_test=n_test)
    known = split.labelled[: None if config.shots_target else 0]
    pool = split.unlabelled if len(known) else np.union1d(split.unlabelled, split.labelled)
    unlabelled = rng.permutation(pool)[: config.n_target]
    adaptation = np.sort(np.concatenate([known, unlabelled]))
    if len(adaptation) == 0:
        raise ValueError("n_target=0 and shots_target=0 leave no target images to adapt to.")
    return adaptation, known, split.test


def _frame(X: np.ndarray, size: int) -> np.ndarray:
    """UCI digits are framed already; the others are brought into the same frame."""
    return X if X.shape[1:] == (size, size) else frame_digits(X, (size, size))


def augmented(config: KLAdaptationConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return varied copies of a draw's source images, and their labels.

    They are varied at full size, before they are framed: the 8 × 8 image has no stroke left.

    Raises:
        ValueError: for a source that has no larger images.
    """
    name, target = config.data.split("->")
    source = load_dataset(name)
    if target == "rotated" or config.data in OWN_PARTS or name == "uci_digits":
        raise ValueError(
            f"the methods {AUGMENTED} take a source of mnist5k, printed_digits or mnist and the "
            f"target uci_digits, got data={config.data!r}."
        )
    chosen = np.random.default_rng(seed).spawn(2)[0].permutation(len(source.y))[: config.n_source]
    rng = np.random.default_rng([seed, 1])
    aspect = None if config.narrowest is None else (config.narrowest, config.widest)
    size = (config.image_size, config.image_size)
    copies = [
        vary_digits(source.X[chosen], size, rng, config.slant, config.stroke, aspect)
        for _ in range(config.copies)
    ]
    return np.concatenate(copies), np.tile(source.y[chosen], config.copies)


def _enough(wanted: int, there: int, name: str) -> None:
    if wanted > there:
        raise ValueError(f"n_source={wanted}, but {name} has {there} images.")


def run(cell: Cell, options: RunOptions) -> dict[str, Any]:
    """Train on one draw and score the held-out target images."""
    config: KLAdaptationConfig = cell.config
    data = draw(config, cell.seed)
    source = (data.X_source, data.y_source)
    if cell.method in AUGMENTED:
        source = augmented(config, cell.seed)
    if cell.method == "target-only":
        known = data.y_target != UNLABELLED
        if not known.any():
            raise ValueError("method='target-only' needs shots_target of at least 1, got 0.")
        source = (data.X_target[known], data.y_target[known])
    adapter = make_adapter(cell)
    adapter.fit(
        *source,
        data.X_target,
        data.y_target if cell.method != "target-only" else None,
        device=options.device,
        checkpoint_dir=options.checkpoint_dir(cell),
    )
    right = adapter.predict(data.X_test) == data.y_test
    metrics = {
        "accuracy": float(right.mean()),
        "source_accuracy": float(adapter.score(*source)),
    }
    unseen = data.y_target == UNLABELLED
    if unseen.any():  # some articles report this: images of the adaptation, without their labels
        guess = adapter.predict(data.X_target[unseen])
        metrics["target_accuracy"] = float((guess == data.y_hidden[unseen]).mean())
    answers = place_answers(right, data.test, data.n_items)
    return {**metrics, "n_test": len(data.y_test), "answers": answers}


def make_adapter(cell: Cell) -> Any:
    """Return the unfitted estimator of a cell."""
    config: KLAdaptationConfig = cell.config
    methods = framework_module(cell.framework)
    common: dict[str, Any] = {
        "network": config.network,
        "latent_dim": config.latent_dim,
        "target_weight": config.target_weight,
        "scale_bounds": (config.scale_low, config.scale_high),
        "steps": config.steps,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "prediction_samples": config.prediction_samples,
        "precision": config.precision,
        "random_state": cell.seed,
    }
    if cell.method in ("kliep", "unweighted"):
        if config.precision != "float32":
            raise ValueError(
                f"precision={config.precision!r} is for adapters; method {cell.method!r} computes "
                f"in float32."
            )
        own = {name: common[name] for name in common if name in methods.KLIEP().get_params()}
        if cell.method == "unweighted":
            own["width"] = 1e6  # a kernel that wide is 1 everywhere, and so is the ratio
        return methods.KLIEP(**own)
    if cell.method == "adabn":
        return methods.AdaBNAdapter(**common)
    if cell.method == "coral":
        return methods.CORALAdapter(weight=config.coral_weight, warmup=config.warmup, **common)
    if cell.method == "mmd":
        return methods.MMDAdapter(weight=config.mmd_weight, warmup=config.warmup, **common)
    if cell.method == "dann":
        return methods.DANNAdapter(weight=config.dann_weight, warmup=config.warmup, **common)
    if cell.method in KL:
        return methods.KLAdapter(
            weight=config.weight,
            reverse_weight=config.reverse_weight,
            warmup=config.warmup,
            **common,
        )
    if cell.method == "kl-mixture":
        return methods.KLAdapter(
            estimator="mixture",
            leave_one_out=config.leave_one_out,
            weight=config.mixture_weight,
            reverse_weight=config.mixture_weight,
            warmup=config.warmup,
            **common,
        )
    return methods.KLAdapter(weight=0.0, reverse_weight=0.0, **common)
