"""Experiment ``fine-tuning``: a few labelled texts a class, and ways to learn from them.

The seed draws the labelled texts from the training (and validation) part of a data set and, where
training is by gradient, weights, batches and dropout.  The test part is the data set's own; it is
the same for every seed and method, and scored once.  A file of one's own has no parts: there the
seed draws the test texts too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course.data import DATASETS, few_shot_split, load_csv, load_dataset
from fewshot_course.evaluation.calibration import (
    confidence_and_correct,
    expected_calibration_error,
)
from fewshot_course.experiments.registry import Cell, Config, Experiment, RunOptions, setting
from fewshot_course.experiments.results import place_answers
from fewshot_course.frameworks import TextFeatures, framework_module

DATA = ("tickets", "reviews_kitchen", "reviews_films", "reviews", "sst2", "banking77", "imdb")
METHODS = {
    "tfidf": "logistic regression on TF-IDF weights of words; no pretrained model",
    "knn": "the nearest labelled text by the cosine of frozen features",
    "probe": "logistic regression on frozen features",
    "lstm": "an LSTM over the frozen token vectors",
    "top": "the two uppermost layers trained too",
    "lora": "low-rank updates of queries and values trained",
    "full": "all layers trained",
    "full-one-draw": "all layers trained on the texts of draw 0, so that the seed changes the "
    "new head, batches and dropout only",
    "full-regularised": "all layers trained, pulled to the pretrained weights (L2-SP), the top "
    "layer started anew",
    "contrastive": "pairs of texts drawn together or apart, then a probe (as SetFit)",
    "setfit": "the package setfit, to compare with; not installed with the course",
}
TUNED = ("lstm", "top", "lora", "full", "full-one-draw", "full-regularised", "contrastive")
PROBED = ("probe", "contrastive")


@dataclass(frozen=True)
class FineTuningConfig(Config):
    """Settings of the experiment."""

    data: str = setting(
        "tickets", "data set, or a .csv file with text and label", choices=DATA, file=True
    )
    shots: int = setting(8, "labelled texts a class", low=1)
    n_test: int = setting(0, "held-out texts that are scored; 0: all there are", low=0)
    model: str = setting("minilm", "encoder")
    epochs: int = setting(20, "passes over the labelled texts", low=1, methods=TUNED)
    batch_size: int = setting(16, "texts in a step", low=4, methods=(*TUNED, "setfit"))
    dropout: float = setting(0.1, "share of dropped units", low=0.0, high=0.9, methods=TUNED)
    l2_sp: float = setting(
        0.01, "pull to the pretrained weights", low=0.0, methods=("full-regularised",)
    )
    reinit_layers: int = setting(
        1, "uppermost layers that start anew", low=0, methods=("full-regularised",)
    )
    C: float = setting(10.0, "inverse penalty of a probe", low=1e-6, methods=PROBED)
    max_length: int = setting(128, "tokens a text may have", low=4, high=512)


EXPERIMENT = Experiment(
    name="fine-tuning",
    title="Learn to classify texts from 1 to 64 labelled ones a class",
    config=FineTuningConfig,
    presets={"quick": {}, "full": {"epochs": 40}},
    methods=METHODS,
    default_methods=("tfidf", "knn", "probe"),
    data=DATA,
    run="fewshot_course.experiments.fine_tuning:run",
    method_flags=("--method", "--tune"),
)


@dataclass(frozen=True)
class Draw:
    """What one seed draws: texts with labels to learn from, and to score."""

    X: list[str]
    y: np.ndarray
    X_test: list[str]
    y_test: np.ndarray
    test: np.ndarray
    n_items: int


def draw(config: FineTuningConfig, seed: int) -> Draw:
    """Draw the labelled texts; the same for all methods and frameworks.

    Raises:
        ValueError: if a class has fewer texts than ``shots``.
    """
    for_split, for_test = np.random.default_rng(seed).spawn(2)
    if config.data not in DATASETS:
        own = load_csv(config.data)
        n_test = config.n_test or len(own.y) // 2
        split = few_shot_split(own.y, config.shots, for_split, n_test=n_test)
        return _take(own.X, own.y, split.labelled, own.X, own.y, split.test)
    parts = [p for p in ("train", "validation") if p in DATASETS[config.data].splits]
    pools = [load_dataset(config.data, part) for part in parts]
    texts = [text for pool in pools for text in pool.X]
    labels = np.concatenate([pool.y for pool in pools])
    test = load_dataset(config.data, "test")
    labelled = few_shot_split(labels, config.shots, for_split, n_test=0).labelled
    scored = np.arange(len(test.y))
    if 0 < config.n_test < len(scored):
        # The same texts for every seed, or the draws would differ in what is asked too.
        scored = few_shot_split(test.y, 1, np.random.default_rng(0), n_test=config.n_test).test
    return _take(texts, labels, for_test.permutation(labelled), test.X, test.y, scored)


def _take(
    X: list[str], y: np.ndarray, chosen: np.ndarray, T: list[str], t: np.ndarray, scored: np.ndarray
) -> Draw:
    held_out = [T[i] for i in scored]
    return Draw([X[i] for i in chosen], y[chosen], held_out, t[scored], scored, len(t))


def run(cell: Cell, options: RunOptions) -> dict[str, Any]:
    """Learn from one draw and score the held-out texts."""
    data = draw(cell.config, 0 if cell.method == "full-one-draw" else cell.seed)
    model = make_classifier(cell, options.device)
    if cell.method in TUNED:
        folder = options.checkpoint_dir(cell)
        model.fit(data.X, data.y, device=options.device, checkpoint_dir=folder)
    elif cell.method == "probe":
        model.fit(data.X, data.y, device=options.device)
    else:
        model.fit(data.X, data.y)
    proba = model.predict_proba(data.X_test)
    index = np.searchsorted(model.classes_, data.y_test)
    confidence, correct = confidence_and_correct(index, proba)
    right = model.classes_[proba.argmax(1)] == data.y_test
    return {
        "accuracy": float(right.mean()),
        "calibration_error": expected_calibration_error(confidence, correct),
        "n_test": len(data.y_test),
        "answers": place_answers(right, data.test, data.n_items),
    }


def make_classifier(cell: Cell, device: str = "auto") -> Any:
    """Return the unfitted classifier of a cell; frozen features are computed on ``device``."""
    config: FineTuningConfig = cell.config
    if cell.method == "tfidf":
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        return make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
    package = framework_module(cell.framework)
    if cell.method == "knn":
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer

        encode = TextFeatures(cell.framework, config.model, config.max_length, device)
        features = FunctionTransformer(encode)
        return make_pipeline(features, KNeighborsClassifier(n_neighbors=1))
    if cell.method == "setfit":
        from fewshot_course.experiments._setfit import SetFitPeer

        return SetFitPeer(config.model, config.batch_size, config.max_length, cell.seed, device)
    common: dict[str, Any] = {
        "model": config.model,
        "max_length": config.max_length,
        "random_state": cell.seed,
    }
    if cell.method == "probe":
        return package.TextClassifier(C=config.C, **common)
    common |= {
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "dropout": config.dropout,
    }
    special: dict[str, dict[str, Any]] = {
        "lstm": {"head": "lstm", "tune": "probe"},
        "top": {"tune": "top"},
        "lora": {"tune": "lora"},
        "full": {"tune": "full"},
        "full-one-draw": {"tune": "full"},
        "full-regularised": {
            "tune": "full", "l2_sp": config.l2_sp, "reinit_layers": config.reinit_layers,
        },
        "contrastive": {"tune": "full", "objective": "contrastive", "C": config.C},
    }  # fmt: skip
    return package.TextClassifier(**special[cell.method], **common)
