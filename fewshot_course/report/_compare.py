"""Compare methods on repeated draws, with examples held out that nothing was chosen on."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fewshot_course._checks import UNLABELLED
from fewshot_course.both.training import TrainingDiverged
from fewshot_course.evaluation import Difference, Interval, holm
from fewshot_course.report._copies import Copies, group_class
from fewshot_course.report._intervals import answers, paired_interval, share_interval
from fewshot_course.report._methods import MAJORITY, Method, uneven
from fewshot_course.report._read import Examples
from fewshot_course.report._rule import corrected

HELD_OUT = 1 / 3
MOST_SHOTS = 64
MOST_UNLABELLED = 2000
SLOW_DRAWS = 5
MOST_TRIES = 50
RULE = (
    "of the methods that clearly beat the majority class take the one with the highest mean, "
    "corrected by how far each was ahead on other data; the fewer examples, the more that counts."
)
"""What is recommended, for the page; :func:`choose` does it."""


@dataclass(frozen=True, eq=False)
class Draw:
    """One split; of each group of copies at most one example takes part.

    Attributes:
        train: indices to learn from, for each class, in the order in which they are taken.
        test: indices that are scored, ``(n_test,)``.
        unlabelled: indices that may be used without a label.
    """

    train: list[np.ndarray]
    test: np.ndarray
    unlabelled: np.ndarray

    def labelled(self, shots: int | None) -> np.ndarray:
        """Return the first ``shots`` of each class, or all."""
        return np.concatenate([index[:shots] for index in self.train])


def draw_split(examples: Examples, copies: Copies, rng: np.random.Generator) -> Draw:
    """Hold out a third of each class, at least one; copies never lie on both sides.

    Where the user has named what belongs together, whole persons, devices or days are held out,
    by scikit-learn's ``StratifiedGroupKFold``.

    Args:
        examples: labelled and unlabelled examples.
        copies: their groups.  The commonest label of a group is its class; unlabelled members of
            a group with a label are left out, so that none is a copy of a scored example.
        rng: draws.

    Raises:
        ValueError: if a class has a single group.
    """
    group = copies.group
    classes = group_class(examples, group)
    members = [np.flatnonzero(group == g) for g in range(len(classes))] if len(classes) < len(
        group
    ) else list(np.argsort(group)[:, None])  # fmt: skip
    free = [rng.choice(members[g]) for g in np.flatnonzero(classes == UNLABELLED)]
    unlabelled = rng.permutation(np.array(free, dtype=np.int64))[:MOST_UNLABELLED]
    known = np.flatnonzero(classes != UNLABELLED)
    labels = classes[known]
    chosen = np.array(
        [
            rng.choice(of[examples.y[of] == label])
            for of, label in zip((members[g] for g in known), labels, strict=True)
        ]
    )
    for label, name in enumerate(examples.class_names):
        if (labels == label).sum() < 2:
            raise ValueError(
                f"the examples of the class {name!r} are copies of one: at least two different "
                f"ones are needed, one to learn from and one to test on."
            )
    if examples.belongs is None:
        held_out = _third_of_each(labels, rng)
    else:
        held_out = _third_of_groups(examples, labels, examples.belongs[chosen], rng)
        outside = ~np.isin(examples.belongs[unlabelled], examples.belongs[chosen[held_out]])
        unlabelled = unlabelled[outside]
    train = [
        rng.permutation(chosen[~held_out & (labels == label)])
        for label in range(len(examples.class_names))
    ]
    return Draw(train, chosen[held_out], unlabelled)


def _third_of_each(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        index = rng.permutation(np.flatnonzero(labels == label))
        held_out[index[: max(1, round(HELD_OUT * len(index)))]] = True
    return held_out


def _third_of_groups(
    examples: Examples, labels: np.ndarray, belongs: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(belongs)) < 3:
        raise ValueError(
            f"group has {len(np.unique(belongs))} different values with labels; at least 3 are "
            f"needed, to hold out a third of them."
        )
    for _ in range(MOST_TRIES):
        folds = StratifiedGroupKFold(3, shuffle=True, random_state=int(rng.integers(2**31)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class in few groups: looked at below
            parts = [test for _, test in folds.split(labels, labels, belongs)]
        held_out = np.isin(np.arange(len(labels)), parts[int(rng.integers(3))])
        if all(len(np.unique(labels[side])) == len(examples.class_names)
               for side in (held_out, ~held_out)):  # fmt: skip
            return held_out
    raise ValueError(
        f"group: no split in {MOST_TRIES} has every class on both sides; a class seems to lie in "
        f"one group only. Collect it from more of them, or leave it out."
    )


@dataclass(frozen=True)
class Stage:
    """How many examples of each class are learned from; ``shots`` ``None``: all that are left."""

    shots: int | None
    n_train: int
    per_class: float

    @property
    def title(self) -> str:
        """Words for a table."""
        return str(self.shots) if self.shots else f"all ({self.n_train} in all)"


@dataclass(frozen=True, eq=False)
class Cell:
    """One method at one stage.

    Attributes:
        scores: accuracy of each draw ``(draws,)``.
        balanced: mean over the classes of the share that is right ``(draws,)``.
        seconds: median of the seconds to learn and predict.
        predictions: class indices predicted for the held-out examples, draw by draw.
        error: why the method failed; then the rest is empty.
    """

    scores: np.ndarray
    balanced: np.ndarray
    seconds: float
    predictions: list[np.ndarray]
    error: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """All methods on the same draws: at all stages, or at the last one if ``last_only``.

    Attributes:
        methods: the simplest first.
        stages: how many examples are learned from.
        cells: of (name, stage).
        draws: the splits.
        y: class index of each example ``(n,)``.
        belongs: what each example belongs to ``(n,)``; examples of one are one answer.
        balanced: whether the mean over the classes decides, and not the accuracy.
    """

    methods: list[Method]
    stages: list[Stage]
    cells: dict[tuple[str, int], Cell]
    draws: list[Draw]
    y: np.ndarray
    belongs: np.ndarray
    balanced: bool = False

    @property
    def criterion(self) -> str:
        """Words for what decides."""
        return "mean over the classes" if self.balanced else "accuracy"

    @property
    def n_test(self) -> int:
        """Held-out examples of a draw; their mean number where groups are held out."""
        return round(float(np.mean([len(draw.test) for draw in self.draws])))

    @property
    def n_rest(self) -> int:
        """Examples of a draw that are not held out."""
        return self.stages[-1].n_train

    def last(self, name: str) -> Cell:
        """Return a method's cell with all examples that are not held out."""
        return self.cells[name, len(self.stages) - 1]

    def works(self, name: str) -> bool:
        """Say whether a method got through all its draws."""
        return not any(cell.error for (other, _), cell in self.cells.items() if other == name)

    def score(self, name: str, stage: int = -1, balanced: bool | None = None) -> Interval:
        """Return a method's mean score and its interval.

        Args:
            name: of the method.
            stage: which of the stages.
            balanced: whether the mean over the classes; ``None``: what decides here.
        """
        balanced = self.balanced if balanced is None else balanced
        cell = self.cells[name, range(len(self.stages))[stage]]
        scores = cell.balanced if balanced else cell.scores
        _, weights = self._scored(len(scores), balanced)
        return share_interval(scores, self.n_test, self.n_rest, self._answers(weights))

    def difference(self, a: str, b: str, stage: int = -1) -> Difference:
        """Return the mean of a - b over the draws that both had, in what decides here."""
        index = range(len(self.stages))[stage]
        return self._difference(self.cells[a, index], self.cells[b, index])

    def _difference(self, a: Cell, b: Cell) -> Difference:
        first, second = ((c.balanced if self.balanced else c.scores) for c in (a, b))
        n = min(len(first), len(second))
        where, weights = self._scored(n, self.balanced)
        won = lost = 0.0
        seen = np.sum(where, axis=0)
        for draw, one, other in zip(self.draws[:n], a.predictions, b.predictions, strict=False):
            y, share = self.y[draw.test], weights[draw.test] / seen[draw.test]
            won += float(share[(one == y) & (other != y)].sum())
            lost += float(share[(one != y) & (other == y)].sum())
        return paired_interval(
            first[:n], second[:n], self.n_test, self.n_rest, self._answers(weights), won, lost
        )

    def _scored(self, draws: int, balanced: bool) -> tuple[list[np.ndarray], np.ndarray]:
        """Return in which draws each example was scored, and its weight; the weights' sum is 1."""
        where = [np.isin(np.arange(len(self.y)), d.test).astype(float) for d in self.draws[:draws]]
        there = np.any(where, axis=0)
        weights = there / there.sum()
        if balanced:
            counts = np.bincount(self.y[there])
            weights[there] = 1 / (counts[self.y[there]] * (counts > 0).sum())
        return where, weights

    def _answers(self, weights: np.ndarray) -> float:
        return answers(np.bincount(self.belongs, weights))


def stages_of(draw: Draw) -> list[Stage]:
    """Return 1, 2, 4, ... examples a class as far as each class has them, then all."""
    counts = np.array([len(index) for index in draw.train])
    n, classes = int(counts.sum()), len(counts)
    powers = [2**i for i in range(20) if 2**i <= min(counts.min(), MOST_SHOTS)]
    stages = [Stage(shots, shots * classes, shots) for shots in powers if shots * classes < n]
    return [*stages, Stage(None, n, n / classes)]


def compare(
    examples: Examples,
    copies: Copies,
    methods: Sequence[Method],
    draws: int,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Learn and score on every draw.

    Args:
        examples: what the user brought.
        copies: which of them belong together.
        methods: to compare; those that are slow get :data:`SLOW_DRAWS` draws at most.
        draws: number of draws, >= 2.
        seed: of the draws and of what the methods draw.
        progress: called with the name of each method when its turn comes.
    """
    splits = [draw_split(examples, copies, np.random.default_rng([seed, i])) for i in range(draws)]
    belongs = np.arange(len(examples.y)) if examples.belongs is None else examples.belongs
    stages = stages_of(splits[0])
    cells = {}
    for method in methods:
        progress(method.name)
        turns = splits[:SLOW_DRAWS] if method.slow else splits
        first = len(stages) - 1 if method.last_only else 0
        for index in range(first, len(stages)):
            cells[method.name, index] = _run(examples, method, turns, stages[index], seed)
    return Comparison(
        list(methods), stages, cells, splits, examples.y, belongs, uneven(examples.counts)
    )


def _run(
    examples: Examples, method: Method, draws: Sequence[Draw], stage: Stage, seed: int
) -> Cell:
    scores, balanced, seconds, predictions = [], [], [], []
    for number, split in enumerate(draws):
        index = split.labelled(stage.shots)
        y = examples.y[index]
        if method.unlabelled:
            index = np.concatenate([index, split.unlabelled])
            y = np.concatenate([y, np.full(len(split.unlabelled), UNLABELLED)])
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its score tells
                model = method.model(examples, seed + number).fit(examples.take(index), y)
                predicted = model.predict_index(examples.take(split.test))
        except (ValueError, ArithmeticError, TrainingDiverged) as error:
            return Cell(np.empty(0), np.empty(0), 0.0, [], str(error) or type(error).__name__)
        seconds.append(time.perf_counter() - start)
        right = predicted == examples.y[split.test]
        scores.append(float(right.mean()))
        balanced.append(_mean_over_classes(right, examples.y[split.test]))
        predictions.append(predicted)
    return Cell(np.array(scores), np.array(balanced), float(np.median(seconds)), predictions)


def _mean_over_classes(right: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([right[y == label].mean() for label in np.unique(y)]))


# ---------------------------------------------------------------------------- choice


@dataclass(frozen=True)
class Choice:
    """What is recommended.

    Attributes:
        name: the method.
        over_majority: its paired difference to the majority class.
        clear: the methods that are clearly better than the majority class, for all of them taken
            together (Holm 1979), with their differences.
        best: the method with the highest mean.
        behind: how far the chosen one is behind that, ``None`` where it is that.
        gain: what the last doubling of the examples brought it, ``None`` with one stage.
    """

    name: str
    over_majority: Difference
    clear: dict[str, Difference]
    best: str
    behind: Difference | None
    gain: Difference | None

    @property
    def learns(self) -> bool:
        """Whether any method is clearly better than the majority class."""
        return bool(self.clear)


def choose(comparison: Comparison) -> Choice:
    """Return the method with the highest corrected mean of those that clearly learn, or of all.

    "Clearly" means that the difference to the majority class has a p-value below 0.05 after
    Holm's correction for the number of methods.  The correction of the means is that of
    :mod:`fewshot_course.report._rule`.  Of methods that are equal the simplest is taken.

    Raises:
        ValueError: if no method worked.
    """
    names = [m.name for m in comparison.methods if comparison.works(m.name)]
    candidates = [name for name in names if name != MAJORITY]
    if not candidates:
        reason = comparison.last(comparison.methods[-1].name).error
        raise ValueError(f"no method could learn from these examples ({reason}).")
    over = {name: comparison.difference(name, MAJORITY) for name in candidates}
    adjusted = holm([difference.p for difference in over.values()])
    clear = {
        name: over[name]
        for name, p in zip(candidates, adjusted, strict=True)
        if p < 0.05 and over[name].low > 0
    }
    means = {name: round(comparison.score(name).mean, 9) for name in candidates}
    best = max(candidates, key=means.__getitem__)
    leads = {m.name: m.lead for m in comparison.methods}
    value = corrected(means, leads, comparison.n_rest + comparison.n_test)
    name = max(clear or candidates, key=lambda c: round(value[c], 9))
    behind = comparison.difference(name, best) if name != best else None
    return Choice(name, over[name], clear, best, behind, _last_gain(comparison, name))


def _last_gain(comparison: Comparison, name: str) -> Difference | None:
    """Return what the examples since the last stage with at most half as many brought."""
    stages = comparison.stages
    before = [
        i
        for i, stage in enumerate(stages)
        if 2 * stage.n_train <= stages[-1].n_train and (name, i) in comparison.cells
    ]
    if not before:
        return None
    return comparison._difference(comparison.last(name), comparison.cells[name, before[-1]])


def next_gain(comparison: Comparison, name: str) -> float | None:
    """Guess what twice as many labelled examples would bring, from the learning curve.

    The error is taken for a + b/√n with a, b >= 0, by least squares over the last half of the
    stages, at least three; ``None`` with fewer.
    """
    from scipy.optimize import nnls

    n = np.array([stage.n_train for stage in comparison.stages], dtype=np.float64)
    there = [i for i in range(len(n)) if (name, i) in comparison.cells]
    there = there[-max(3, (len(there) + 1) // 2) :]
    if len(there) < 3:
        return None
    error = np.array([1 - comparison.score(name, i).mean for i in there])
    design = np.column_stack([np.ones(len(there)), 1 / np.sqrt(n[there])])
    (_, b), _ = nnls(design, error)
    last = n[there[-1]]
    return float(b / np.sqrt(last) - b / np.sqrt(2 * last))
