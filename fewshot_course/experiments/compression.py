"""Experiment ``compression``: what a classifier of texts keeps when it is made smaller.

The seed draws the labelled texts of the training and validation part; all others of these parts
are given to the student without their labels.  The teacher is a linear probe on the pretrained
encoder, as one network of its own.  The test part is the data set's own and is scored once.

Times are of this machine, so that only their ratio means something: teacher and small classifier
take turns on the same texts, and the quickest turn of each counts.  On a CPU it is processor time,
which other processes do not lengthen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course.data import few_shot_split, load_dataset, mask_labels
from fewshot_course.evaluation import accuracy
from fewshot_course.experiments.registry import Cell, Config, Experiment, RunOptions, setting
from fewshot_course.experiments.results import place_answers
from fewshot_course.frameworks import framework_module

DATA = ("tickets",)
METHODS = {
    "teacher": "the linear probe with its encoder, as one network",
    "student": "two layers, distilled on all texts; labels where there are any",
    "student-more": "the same, distilled on texts of another data set too, which need no labels",
    "student-alone": "the same two layers, trained on the labelled texts without the teacher",
    "pruned": "the teacher without its smallest weights, in one shot, not trained further",
    "pruned-gradual": "the teacher pruned gradually while it is distilled into itself",
    "int8": "the teacher with eight-bit weights, by the framework's own means",
    "student-int8": "the distilled student with eight-bit weights",
}
STUDENTS = ("student", "student-more", "student-alone", "student-int8")
DISTILLED = ("student", "student-more", "student-int8", "pruned-gradual")
TRAINED = (*STUDENTS, "pruned-gradual")
PRUNED = ("pruned", "pruned-gradual")


@dataclass(frozen=True)
class CompressionConfig(Config):
    """Settings of the experiment."""

    data: str = setting("tickets", "data set", choices=DATA)
    shots: int = setting(8, "labelled texts a class", low=1)
    n_test: int = setting(0, "held-out texts that are scored; 0: all there are", low=0)
    n_timed: int = setting(20, "of them, texts that the time is taken on", low=1)
    score_on: str = setting("test", "what is scored", choices=("validation", "test"))
    model: str = setting("minilm", "encoder")
    layers: int = setting(2, "layers of the student", low=1, methods=STUDENTS)
    sparsity: float = setting(0.5, "share of weights that go", low=0, high=1, methods=PRUNED)
    temperature: float = setting(2.0, "of the soft labels", low=1e-3, methods=DISTILLED)
    alpha: float = setting(0.5, "weight of the soft labels", low=0, high=1, methods=DISTILLED)
    more: str = setting(
        "banking77",
        "data set that the further texts are of",
        choices=("banking77", "reviews_films"),
        methods=("student-more",),
    )
    n_more: int = setting(2400, "how many of them", low=1, methods=("student-more",))
    epochs: int = setting(8, "passes over the texts", low=1, methods=TRAINED)
    lr: float = setting(1e-3, "learning rate", low=1e-9, methods=TRAINED)
    batch_size: int = setting(32, "texts in a step", low=1, methods=TRAINED)
    max_length: int = setting(128, "tokens a text may have", low=4, high=512)


EXPERIMENT = Experiment(
    name="compression",
    title="Distil, prune and quantise a classifier of texts",
    config=CompressionConfig,
    presets={"quick": {}, "full": {"epochs": 30}},
    methods=METHODS,
    default_methods=("teacher", "pruned", "int8"),
    data=DATA,
    run="fewshot_course.experiments.compression:run",
)


@dataclass(frozen=True)
class Draw:
    """What one seed draws.

    Attributes:
        X: all texts to learn from.
        y: their labels, -1 where unknown.
        X_test: texts that are scored.
        y_test: their labels.
        test: their numbers within the ``n_items`` texts of the test part.
        n_items: texts that a draw may be scored on.
    """

    X: list[str]
    y: np.ndarray
    X_test: list[str]
    y_test: np.ndarray
    test: np.ndarray
    n_items: int


def draw(config: CompressionConfig, seed: int) -> Draw:
    """Draw which labels are known; the same for all methods and frameworks.

    Raises:
        ValueError: if a class has fewer texts than ``shots``.
    """
    parts = ["train"] if config.score_on == "validation" else ["train", "validation"]
    pools = [load_dataset(config.data, part) for part in parts]
    texts = [text for pool in pools for text in pool.X]
    labels = np.concatenate([pool.y for pool in pools])
    split = few_shot_split(labels, config.shots, np.random.default_rng(seed), n_test=0)
    test = load_dataset(config.data, config.score_on)
    scored = np.arange(len(test.y))
    if 0 < config.n_test < len(scored):
        scored = few_shot_split(test.y, 1, np.random.default_rng(0), n_test=config.n_test).test
    known = mask_labels(labels, split.labelled)
    chosen = [test.X[i] for i in scored]
    return Draw(texts, known, chosen, test.y[scored], scored, len(test.y))


def further_texts(config: CompressionConfig, seed: int) -> list[str]:
    """Draw texts of another data set; their labels are left aside.

    Raises:
        ValueError: if it has fewer than ``n_more``.
    """
    texts = load_dataset(config.more, "train").X
    if config.n_more > len(texts):
        raise ValueError(f"n_more={config.n_more}, but {config.more} has {len(texts)} texts")
    drawn = np.random.default_rng(seed).choice(len(texts), config.n_more, replace=False)
    return [texts[i] for i in drawn]


def run(cell: Cell, options: RunOptions) -> dict[str, Any]:
    """Make one small classifier; score, weigh and time it beside the teacher."""
    config: CompressionConfig = cell.config
    data = draw(config, cell.seed)
    package = framework_module(cell.framework)
    tools = framework_module(cell.framework, "compression")
    known = np.flatnonzero(data.y >= 0)
    probe = package.TextClassifier(model=config.model, max_length=config.max_length)
    probe.fit([data.X[i] for i in known], data.y[known], device=options.device)
    teacher = tools.prune(probe, 0.0)
    small = make_small(cell, package, tools, probe, teacher, data, options)
    # The probe's features are kept on disk, so this costs nothing; the network gives the same.
    one, two = probe.predict(data.X_test), small.predict(data.X_test)
    both = {"teacher": teacher} if small is teacher else {"teacher": teacher, "small": small}
    clock = "cpu" if options.device == "cpu" else "wall"
    times = tools.milliseconds(both, data.X_test[: config.n_timed], repeats=5, clock=clock)
    size = tools.file_size(small)
    right = accuracy(data.y_test, one)
    return {
        "accuracy": accuracy(data.y_test, two),
        "kept": accuracy(data.y_test, two) / right if right else float("nan"),
        "agreement": float((one == two).mean()),
        "megabytes": size / 1e6,
        "size_ratio": size / tools.file_size(teacher),
        "seconds_a_text": times.get("small", times["teacher"]) / 1000,
        "seconds_a_text_teacher": times["teacher"] / 1000,
        "n_test": len(data.y_test),
        "answers": place_answers(two == data.y_test, data.test, data.n_items),
    }


def make_small(
    cell: Cell, package: Any, tools: Any, probe: Any, teacher: Any, data: Draw, options: RunOptions
) -> Any:
    """Return the fitted small classifier of a cell."""
    config: CompressionConfig = cell.config
    if cell.method == "teacher":
        return teacher
    if cell.method == "pruned":
        return tools.prune(probe, config.sparsity)
    if cell.method == "int8":
        return tools.quantize(probe)
    X, y = data.X, data.y
    settings: dict[str, Any] = {"layers": config.layers}
    if cell.method == "pruned-gradual":
        settings = {"layers": None, "sparsity": config.sparsity}
    if cell.method == "student-alone":
        known = np.flatnonzero(y >= 0)
        X, y = [X[i] for i in known], y[known]
        settings |= {"alpha": 0.0, "features": 0.0}
    else:
        if cell.method == "student-more":
            others = further_texts(config, cell.seed)
            X, y = [*X, *others], np.concatenate([y, np.full(len(others), -1)])
        settings |= {"temperature": config.temperature, "alpha": config.alpha}
    student = package.CompressedTextClassifier(
        teacher=probe, epochs=config.epochs, lr=config.lr, batch_size=config.batch_size,
        max_length=config.max_length, random_state=cell.seed, **settings,
    )  # fmt: skip
    folder = options.checkpoint_dir(cell)
    student.fit(X, y, device=options.device, checkpoint_dir=folder)
    return tools.quantize(student) if cell.method == "student-int8" else student
