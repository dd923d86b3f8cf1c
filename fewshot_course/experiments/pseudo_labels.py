"""Experiment ``pseudo-labels``: few labels, many unlabelled examples of the same kind.

The seed draws the labelled examples and splits off a test part, which is scored once.  True
labels of the unlabelled examples measure the pseudo-labels and are used for nothing else.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_course._checks import UNLABELLED, check_features, check_labels
from fewshot_course.data import few_shot_split, load_dataset, mask_labels
from fewshot_course.evaluation import accuracy
from fewshot_course.evaluation.calibration import (
    confidence_and_correct,
    expected_calibration_error,
)
from fewshot_course.experiments.registry import Cell, Config, Experiment, RunOptions, setting
from fewshot_course.experiments.results import place_answers
from fewshot_course.frameworks import TextFeatures, framework_module

TEXTS = ("tickets", "reviews_kitchen", "reviews_films")
DATA = ("mnist5k", "uci_digits", "mnist", *TEXTS)
METHODS = {
    "supervised": "the network, trained on the labels alone",
    "self": "the network, trained on its own classes too, with a rising weight (Lee 2013)",
    "self-rounds": "the three-step loop: the network labels what it is confident about",
    "gmm": "the three-step loop: a Gaussian mixture labels, then the network learns jointly",
    "gmm-alone": "the classes of the Gaussian mixture itself, without a network",
    "gan": "a discriminator with K+1 classes beside a generator (Salimans et al. 2016)",
    "vae-m1": "a classifier on the codes of a variational autoencoder of all examples",
    "vae-m2": "a variational autoencoder with the label as a latent variable (Kingma et al. 2014)",
    "vae-m1m2": "M2 on the codes of M1",
    "sklearn-logistic": "scikit-learn's logistic regression, on the labels alone",
    "sklearn-self": "scikit-learn's SelfTrainingClassifier around logistic regression",
    "sklearn-spreading": "scikit-learn's LabelSpreading over nearest neighbours",
}
NETWORK = ("supervised", "self", "self-rounds", "gmm")
MIXTURE = ("gmm", "gmm-alone")
LOOP = ("self-rounds", "gmm")
VAE = ("vae-m1", "vae-m2", "vae-m1m2")
GENERATIVE = ("gan", *VAE)


@dataclass(frozen=True)
class PseudoLabelConfig(Config):
    """Settings of the experiment."""

    data: str = setting(
        "mnist5k", "data set, or an .npz file with X and y", choices=DATA, file=True
    )
    labels: int = setting(100, "labelled examples in all, equally many a class", low=2)
    n_unlabelled: int = setting(3000, "unlabelled examples; fewer if there are fewer", low=1)
    n_test: int = setting(600, "held-out examples that are scored", low=1)
    network: str = setting("mlp", "classifier", choices=("mlp", "conv4"), methods=NETWORK)
    steps: int = setting(300, "training steps", low=1, methods=NETWORK)
    batch_size: int = setting(
        32, "labelled examples in a step", low=1, methods=NETWORK + GENERATIVE
    )
    lr: float = setting(1e-3, "learning rate of Adam", low=0.0, methods=NETWORK + GENERATIVE)
    weight: float = setting(
        1.0, "weight of a pseudo-label", low=0.0, methods=("self", "self-rounds", "gmm")
    )
    unlabelled_batch_size: int = setting(
        256, "unlabelled examples in a step", low=1, methods=("self",)
    )
    rounds: int = setting(3, "rounds of the loop", low=1, methods=("self-rounds",))
    threshold: float = setting(
        0.95, "confidence from which a pseudo-label is used", low=0.0, high=1.0, methods=LOOP
    )
    covariance: str = setting(
        "full", "covariances", choices=("full", "tied", "diag", "spherical"), methods=MIXTURE
    )
    components: int = setting(1, "Gaussians a class", low=1, methods=MIXTURE)
    n_pca: int = setting(30, "principal components, at most", low=1, methods=MIXTURE)
    latent_dim: int = setting(10, "size of a code or of the noise", low=1, methods=GENERATIVE)
    width: int = setting(200, "units of the first hidden layer", low=2, methods=GENERATIVE)
    imitated: int = setting(
        50, "unlabelled examples in a step of a GAN or VAE", low=2, methods=GENERATIVE
    )
    gan_steps: int = setting(600, "steps of both networks of a GAN", low=1, methods=("gan",))
    class_weight: float = setting(
        0.0, "above 0 the generator is class-conditional", low=0.0, methods=("gan",)
    )
    feature_steps: int = setting(
        500, "steps of M1's autoencoder", low=1, methods=("vae-m1", "vae-m1m2")
    )
    vae_steps: int = setting(300, "steps with labels", low=1, methods=VAE)
    classifier_weight: float = setting(
        50.0, "weight of the labels' cross-entropy", low=0.0, methods=("vae-m2", "vae-m1m2")
    )


EXPERIMENT = Experiment(
    name="pseudo-labels",
    title="Learn digits or short texts from few labels and many unlabelled examples",
    config=PseudoLabelConfig,
    presets={
        "quick": {},
        "full": {
            "network": "conv4",
            "steps": 3000,
            "n_test": 1000,
            "width": 500,
            "latent_dim": 50,
            "imitated": 100,
            "gan_steps": 10_000,
            "feature_steps": 10_000,
            "vae_steps": 10_000,
        },
    },
    methods=METHODS,
    default_methods=("supervised", "self", "gmm"),
    data=DATA,
    run="fewshot_course.experiments.pseudo_labels:run",
)


@dataclass(frozen=True)
class Draw:
    """What one seed draws.

    Attributes:
        X: labelled and unlabelled examples.
        y: their labels, -1 where hidden.
        y_true: their labels.
        X_test: held-out examples.
        y_test: their labels.
        test: numbers of the held-out examples within the ``n_items`` that any draw may hold out.
        n_items: of these.
    """

    X: np.ndarray
    y: np.ndarray
    y_true: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    test: np.ndarray
    n_items: int


def draw(
    config: PseudoLabelConfig, seed: int, framework: str = "torch", device: str = "auto"
) -> Draw:
    """Draw labels, unlabelled examples and test part; the same for all methods.

    Framework and device matter for texts only: its encoder makes the features there.

    Raises:
        ValueError: if the labels cannot be shared equally, or a class has too few examples.
    """
    X, y = load(config.data, framework, device)
    fixed_test = _fixed_test_part(config.data)
    n_classes = len(np.unique(y))
    shots, rest = divmod(config.labels, n_classes)
    if rest or not shots:
        raise ValueError(
            f"labels={config.labels} cannot be shared equally by the {n_classes} classes of "
            f"{config.data}; use a multiple of {n_classes}."
        )
    for_split, for_choice = np.random.default_rng(seed).spawn(2)
    n_test = 0 if fixed_test else config.n_test
    split = few_shot_split(y, shots, for_split, n_test=n_test)
    unlabelled = for_choice.permutation(split.unlabelled)[: config.n_unlabelled]
    training = np.sort(np.concatenate([split.labelled, unlabelled]))
    masked = mask_labels(y, split.labelled)
    test, held_out = split.test, (X, y)
    if fixed_test:  # the first images of the test part; 10,000 is all of it
        test, held_out = np.arange(len(fixed_test[1]))[: config.n_test], fixed_test
    return Draw(
        X=X[training],
        y=masked[training],
        y_true=y[training],
        X_test=held_out[0][test],
        y_test=held_out[1][test],
        test=test,
        n_items=len(held_out[1]),
    )


def _fixed_test_part(data: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the test part of a data set that has its own."""
    if data != "mnist":
        return None
    found = load_dataset(data, "test")
    return np.asarray(found.X), found.y


def load(data: str, framework: str, device: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Return examples and labels of a data set or of an ``.npz`` file with ``X`` and ``y``.

    A text becomes its frozen features, the mean over the tokens, of length 1.
    """
    if data in TEXTS:
        found = load_dataset(data)
        return TextFeatures(framework, device=device)(found.X), found.y
    if data in DATA:
        found = load_dataset(data, "train" if data == "mnist" else "all")
        return np.asarray(found.X), found.y
    path = Path(data)
    if path.suffix != ".npz":
        raise ValueError(f"data={data!r} must be an .npz file with arrays X and y.")
    with np.load(path, allow_pickle=False) as file:
        missing = {"X", "y"} - set(file.files)
        if missing:
            raise ValueError(f"{data} has no array {' and '.join(sorted(missing))}.")
        X = check_features("X", file["X"])
        return X, check_labels("y", file["y"], n=len(X))


def run(cell: Cell, options: RunOptions) -> dict[str, Any]:
    """Train on one draw and score the held-out examples."""
    config: PseudoLabelConfig = cell.config
    data = draw(config, cell.seed, cell.framework, options.device)
    hidden = data.y == UNLABELLED
    with warnings.catch_warnings():
        # The mixture's warnings are for a user at the keyboard; here its score tells.
        warnings.simplefilter("ignore", UserWarning)
        model, pseudo = fit(cell, data, options)
    proba = model.predict_proba(data.X_test)
    index = np.searchsorted(model.classes_, data.y_test)
    confidence, correct = confidence_and_correct(index, proba)
    metrics: dict[str, Any] = {
        "accuracy": float(correct.mean()),
        "calibration_error": expected_calibration_error(confidence, correct),
        "n_test": len(data.y_test),
        "answers": place_answers(correct, data.test, data.n_items),
    }
    used = hidden & (pseudo != UNLABELLED)
    if cell.method not in ("supervised", "sklearn-logistic"):
        metrics["coverage"] = float(used.sum() / hidden.sum())
        if used.any():
            metrics["pseudo_accuracy"] = accuracy(data.y_true[used], pseudo[used])
    return metrics


def fit(cell: Cell, data: Draw, options: RunOptions) -> tuple[Any, np.ndarray]:
    """Return the fitted classifier and the pseudo-labels it was trained on, -1 where none."""
    X, y, known = data.X, data.y, data.y != UNLABELLED
    if cell.method.startswith("sklearn"):
        flat = _Flat(_outside_method(cell.method))
        if cell.method == "sklearn-logistic":
            return flat.fit(X[known], y[known]), y
        flat.fit(X, y)
        return flat, np.where(known, y, flat.model.transduction_)
    if cell.method in LOOP:
        from fewshot_course.pseudo_label_loop import pseudo_label_loop

        result = pseudo_label_loop(
            make_network(cell, weight=0.0),
            X,
            y,
            labeller=make_mixture(cell, X) if cell.method == "gmm" else None,
            rounds=1 if cell.method == "gmm" else cell.config.rounds,
            threshold=cell.config.threshold,
            weight=cell.config.weight,
            fit_params={"device": options.device},
        )
        return result.classifier, result.pseudo_labels
    if cell.method == "gmm-alone":
        model = make_mixture(cell, X).fit(X, y, device=options.device)
        return model, model.pseudo_labels_
    if cell.method in GENERATIVE:
        model = make_generative(cell)
        model.fit(X, y, device=options.device, checkpoint_dir=options.checkpoint_dir(cell))
        return model, model.pseudo_labels_
    alone = cell.method == "supervised"
    model = make_network(cell, weight=0.0 if alone else cell.config.weight)
    model.fit(X, y, device=options.device, checkpoint_dir=options.checkpoint_dir(cell))
    return model, model.pseudo_labels_


def make_network(cell: Cell, weight: float) -> Any:
    """Return the unfitted network estimator of a cell."""
    config: PseudoLabelConfig = cell.config
    methods = framework_module(cell.framework)
    return methods.SelfTraining(
        network=config.network,
        weight=weight,
        steps=config.steps,
        batch_size=config.batch_size,
        unlabelled_batch_size=config.unlabelled_batch_size,
        lr=config.lr,
        random_state=cell.seed,
    )


def make_mixture(cell: Cell, X: np.ndarray) -> Any:
    """Return the unfitted mixture of a cell."""
    config: PseudoLabelConfig = cell.config
    methods = framework_module(cell.framework)
    return methods.GMMPseudoLabeler(
        components_per_class=config.components,
        covariance_type=config.covariance,
        n_pca=min(config.n_pca, len(X), int(np.prod(X.shape[1:]))),
        random_state=cell.seed,
    )


def make_generative(cell: Cell) -> Any:
    """Return the unfitted GAN or variational autoencoder of a cell."""
    config: PseudoLabelConfig = cell.config
    methods = framework_module(cell.framework)
    shared = {
        "latent_dim": config.latent_dim,
        "batch_size": config.batch_size,
        "unlabelled_batch_size": config.imitated,
        "lr": config.lr,
        "random_state": cell.seed,
    }
    width = config.width
    if cell.method == "gan":
        return methods.GANPseudoLabeler(
            hidden=(width, width // 2, width // 2),
            generator_hidden=(width, width),
            class_weight=config.class_weight,
            steps=config.gan_steps,
            **shared,
        )
    return methods.VAEPseudoLabeler(
        model=cell.method.removeprefix("vae-"),
        hidden=(width,),
        classifier_weight=config.classifier_weight,
        feature_steps=config.feature_steps,
        steps=config.vae_steps,
        **shared,
    )


def _outside_method(method: str) -> Any:
    """Return scikit-learn's own methods, with settings that its user guide would suggest."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

    if method == "sklearn-spreading":
        return LabelSpreading(kernel="knn", n_neighbors=7)
    logistic = LogisticRegression(max_iter=1000)
    return logistic if method == "sklearn-logistic" else SelfTrainingClassifier(logistic)


class _Flat:
    """A scikit-learn classifier that takes images, as flat vectors."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, X: np.ndarray, y: np.ndarray) -> _Flat:
        self.model.fit(X.reshape(len(X), -1), y)
        self.classes_ = self.model.classes_
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        proba = np.nan_to_num(self.model.predict_proba(X.reshape(len(X), -1)))
        empty = proba.sum(axis=1) == 0  # LabelSpreading has no opinion without a neighbour
        proba[empty] = 1 / proba.shape[1]
        return proba / proba.sum(axis=1, keepdims=True)
