"""Experiment ``augmentation``: a few labelled texts a class, and copies drawn by an augmenter.

The seed draws the labelled texts from the training part of a data set, and the copies.  A linear
probe on frozen features learns from both.  The test part is the same for every seed and method.
The texts of 4 shots are among those of 8, and operators that look at one text at a time make the
same copies of them, so few texts must be encoded.

The validation part judges the copies: it gives the class means, the covariance and the classifier
that :mod:`fewshot_course.evaluation.embedding_quality` needs; a file of one's own with fewer than
two such texts a class goes without.  With ``score_on="validation"`` it is
scored in the place of the test part; strengths were chosen so, on draws of their own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from fewshot_course.data import DATASETS, few_shot_split, load_csv, load_dataset
from fewshot_course.data import augment as ops
from fewshot_course.evaluation.embedding_quality import (
    ClassGaussians,
    fit_class_gaussians,
    label_agreement,
    nearest_novelty,
)
from fewshot_course.experiments.registry import (
    Cell,
    Config,
    Experiment,
    RunOptions,
    setting,
)
from fewshot_course.experiments.results import place_answers
from fewshot_course.frameworks import TextFeatures

DATA = ("reviews", "sst2", "tickets", "reviews_kitchen", "reviews_films", "banking77")
METHODS = {
    "none": "the labelled texts alone",
    "insert": "words of the class inserted at random places",
    "swap": "words exchanged",
    "delete": "words left out",
    "synonym": "words replaced by synonyms of a small table",
    "recombine": "segments of texts of one class put together",
    "markov": "texts drawn from a Markov chain of each class",
    "hmm": "texts drawn from a hidden Markov model of each class",
    "compose": "synonyms, then a swap, then deletion",
}
EDITS = ("insert", "swap", "delete", "synonym", "compose")
COPYING = tuple(method for method in METHODS if method != "none")


@dataclass(frozen=True)
class AugmentationConfig(Config):
    """Settings of the experiment."""

    data: str = setting(
        "reviews", "data set, or a .csv file with text and label", choices=DATA, file=True
    )
    shots: int = setting(4, "labelled texts a class", low=1)
    copies: int = setting(4, "drawn texts for each labelled one", low=1, methods=COPYING)
    strength: float = setting(0.1, "share of words that change", low=0.0, high=1.0, methods=EDITS)
    replaced: float = setting(
        0.25, "probability that a segment is replaced", low=0.0, high=1.0, methods=("recombine",)
    )
    n_states: int = setting(5, "hidden states", low=1, methods=("hmm",))
    model: str = setting("minilm", "encoder")
    C: float = setting(10.0, "inverse penalty of the probe", low=1e-6)
    max_length: int = setting(128, "tokens a text may have", low=4, high=512)
    score_on: str = setting("test", "part that is scored", choices=("test", "validation"))


EXPERIMENT = Experiment(
    name="augmentation",
    title="Does augmentation of texts help at 1 to 32 labelled ones a class?",
    config=AugmentationConfig,
    presets={"quick": {}, "full": {}},
    methods=METHODS,
    data=DATA,
    run="fewshot_course.experiments.augmentation:run",
)


@dataclass(frozen=True)
class Pools:
    """The three parts of a data set, each texts and labels ``(n,)``."""

    train: tuple[list[str], np.ndarray]
    validation: tuple[list[str], np.ndarray]
    test: tuple[list[str], np.ndarray]


def pools(data: str, seed: int = 0) -> Pools:
    """Return the parts; of a file of one's own the seed draws a quarter each to judge and test."""
    if data not in DATASETS:
        own = load_csv(data)
        quarter = len(own.y) // 4
        split = few_shot_split(
            own.y, 1, np.random.default_rng(seed), n_validation=quarter, n_test=quarter
        )
        train = np.sort(np.concatenate([split.labelled, split.unlabelled]))
        return Pools(*(_take(own.X, own.y, i) for i in (train, split.validation, split.test)))
    if "validation" in DATASETS[data].splits:
        parts = [load_dataset(data, part) for part in ("train", "validation", "test")]
        return Pools(*((list(part.X), part.y) for part in parts))
    known, test = load_dataset(data, "train"), load_dataset(data, "test")
    split = few_shot_split(known.y, 1, np.random.default_rng(0), n_test=len(known.y) // 4)
    train = np.sort(np.concatenate([split.labelled, split.unlabelled]))
    return Pools(
        _take(known.X, known.y, train), _take(known.X, known.y, split.test), (test.X, test.y)
    )


def _take(X: list[str], y: np.ndarray, index: np.ndarray) -> tuple[list[str], np.ndarray]:
    return [X[i] for i in index], y[index]


def draw_labelled(y: np.ndarray, shots: int, rng: np.random.Generator) -> np.ndarray:
    """Return indices of ``shots`` examples of each class, in rounds of one example a class.

    With the same generator, fewer shots give the beginning of what more shots give.

    Raises:
        ValueError: if a class has fewer examples.
    """
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < shots:
        raise ValueError(
            f"class {classes[counts.argmin()]} has {counts.min()} examples, but shots={shots} are "
            "asked for; lower shots."
        )
    orders = [rng.permutation(np.flatnonzero(y == c))[:shots] for c in classes]
    return np.stack(orders, axis=1).ravel()


def make_augmenter(method: str, config: AugmentationConfig) -> ops.Augmenter:
    """Return the augmenter of a method."""
    s = config.strength
    makers: dict[str, ops.Augmenter] = {
        "insert": ops.RandomInsertion(s),
        "swap": ops.RandomSwap(s),
        "delete": ops.RandomDeletion(s),
        "synonym": ops.SynonymReplacement(s),
        "recombine": ops.SegmentRecombination(config.replaced),
        "markov": ops.MarkovGenerator(),
        "hmm": ops.HMMGenerator(config.n_states),
        "compose": ops.Compose(ops.SynonymReplacement(s), ops.RandomSwap(s), ops.RandomDeletion(s)),
    }
    return makers[method]


def run(cell: Cell, options: RunOptions) -> dict[str, Any]:
    """Learn from one draw and its copies, score the held-out texts, and judge the copies."""
    config: AugmentationConfig = cell.config
    for_draw, for_copies = np.random.default_rng([cell.seed, 7]).spawn(2)
    parts = pools(config.data, cell.seed)
    chosen = draw_labelled(parts.train[1], config.shots, for_draw)
    X, y = _take(*parts.train, chosen)
    n, weights = len(X), np.ones(len(X))
    if cell.method != "none":
        augmenter = make_augmenter(cell.method, config)
        X, y, weights = ops.extend(X, y, augmenter, config.copies, for_copies)
    encode = TextFeatures(cell.framework, config.model, config.max_length, options.device)
    features = encode(X)
    classes, index = np.unique(y, return_inverse=True)
    head = fit_probe(features, index, weights, config.C)
    held_out, y_held_out = parts.test if config.score_on == "test" else parts.validation
    p = _probabilities(head, _kept(encode, tuple(held_out)))
    right = classes[p.argmax(1)] == y_held_out
    metrics: dict[str, Any] = {"accuracy": float(right.mean())}
    if len(X) > n and _can_judge(parts.validation[1], classes):
        texts, labels = parts.validation
        judge = _judge(encode, tuple(texts), tuple(labels.tolist()), config.C)
        metrics |= judge.about(features[n:], y[n:], features[:n], y[:n])
    if config.data in DATASETS:  # of a file of one's own each draw has other held-out texts
        metrics["answers"] = place_answers(right, np.arange(len(right)), len(right))
    return metrics | {"n_test": len(y_held_out)}


def fit_probe(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, C: float
) -> dict[str, np.ndarray]:
    """Fit the probe of :class:`TextClassifier`; scikit-learn is imported no earlier."""
    from fewshot_course.both.probe import fit_probe

    return fit_probe(features, labels, weights, C)


def _can_judge(y: np.ndarray, classes: np.ndarray) -> bool:
    """Whether there are two texts of each class or more, as a spread within classes needs."""
    return all(np.count_nonzero(y == c) >= 2 for c in classes)


@dataclass(frozen=True)
class Judge:
    """What the validation part says about new texts."""

    head: dict[str, np.ndarray]
    gaussians: ClassGaussians

    def about(
        self, new: np.ndarray, y_new: np.ndarray, old: np.ndarray, y_old: np.ndarray
    ) -> dict[str, float]:
        """Return the mean quality of the copies, and of the originals for comparison."""
        found = {"novelty": float(nearest_novelty(new, old).mean())}
        for name, X, y in (("copies", new, y_new), ("originals", old, y_old)):
            found |= {
                f"label_agreement_{name}": label_agreement(_probabilities(self.head, X), y),
                f"euclidean_{name}": float(self.gaussians.euclidean(X, y).mean()),
                f"mahalanobis_{name}": float(self.gaussians.mahalanobis(X, y).mean()),
            }
        return found


# Every cell of a sweep needs the same held-out parts; the last ones are kept.
@functools.lru_cache(maxsize=4)
def _kept(encode: TextFeatures, texts: tuple[str, ...]) -> np.ndarray:
    return encode(texts)


@functools.lru_cache(maxsize=4)
def _judge(
    encode: TextFeatures, texts: tuple[str, ...], labels: tuple[int, ...], C: float
) -> Judge:
    features, y = _kept(encode, texts), np.array(labels)
    return Judge(fit_probe(features, y, np.ones(len(y)), C), fit_class_gaussians(features, y))


def _probabilities(head: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    return softmax(features @ head["head.weight"].T + head["head.bias"], axis=1)
