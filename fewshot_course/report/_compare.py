"""Compare methods on repeated draws, with examples held out that nothing was chosen on."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fewshot_course._checks import UNLABELLED
from fewshot_course.both.training import TrainingDiverged
from fewshot_course.evaluation import Difference, Interval, mean_interval, paired_difference
from fewshot_course.report._copies import Copies, group_class
from fewshot_course.report._methods import MAJORITY, Method
from fewshot_course.report._read import Examples

HELD_OUT = 1 / 3
MOST_SHOTS = 64
MOST_UNLABELLED = 2000
SLOW_DRAWS = 5

I = TypeVar("I", bound=Interval)  # noqa: E741  (an interval of either kind)


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
    members = [np.flatnonzero(group == g) for g in range(len(classes))]
    train, test = [], []
    for label in range(len(examples.class_names)):
        groups = rng.permutation(np.flatnonzero(classes == label))
        if len(groups) < 2:
            raise ValueError(
                f"the examples of the class {examples.class_names[label]!r} are copies of one: "
                f"at least two different ones are needed, one to learn from and one to test on."
            )
        chosen = np.array([rng.choice(members[g][examples.y[members[g]] == label]) for g in groups])
        held_out = max(1, round(HELD_OUT * len(groups)))
        test.append(chosen[:held_out])
        train.append(chosen[held_out:])
    free = [rng.choice(members[g]) for g in np.flatnonzero(classes == UNLABELLED)]
    unlabelled = rng.permutation(np.array(free, dtype=np.int64))[:MOST_UNLABELLED]
    return Draw(train, np.concatenate(test), unlabelled)


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
    """All methods on the same draws: at all stages, or at the last one if ``last_only``."""

    methods: list[Method]
    stages: list[Stage]
    cells: dict[tuple[str, int], Cell]
    draws: list[Draw]

    @property
    def n_test(self) -> int:
        """Held-out examples of a draw."""
        return len(self.draws[0].test)

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

    def score(self, name: str, stage: int = -1) -> Interval:
        """Return the mean accuracy and its interval, within [0, 1]."""
        return self.interval(self.cells[name, range(len(self.stages))[stage]].scores)

    def interval(self, scores: np.ndarray) -> Interval:
        """Return the mean of shares, and its interval for draws that share examples."""
        wide = widen(mean_interval(scores), self.n_test, self.n_rest)
        return dataclasses.replace(wide, low=max(0.0, wide.low), high=min(1.0, wide.high))

    def difference(self, a: str, b: str, stage: int = -1) -> Difference:
        """Return the mean of a - b over the draws that both had."""
        index = range(len(self.stages))[stage]
        first, second = (self.cells[name, index].scores for name in (a, b))
        n = min(len(first), len(second))
        return widen(paired_difference(first[:n], second[:n]), self.n_test, self.n_rest)


def widen(interval: I, n_test: int, n_rest: int) -> I:
    """Widen an interval over draws that share examples.

    Repeated splits of the same examples are not independent, so Student's interval is too
    narrow.  Its half width is multiplied by √(1 + n · n_test / n_rest) (Nadeau & Bengio,
    "Inference for the generalization error", Machine Learning 52, 2003).

    Args:
        interval: of n draws.
        n_test: held-out examples of a draw.
        n_rest: the other examples of a draw.  Where a method learns from a few of them only, the
            draws still share as much, so this number stays.
    """
    half = interval.half_width * np.sqrt(1 + interval.n * n_test / n_rest)
    return dataclasses.replace(interval, low=interval.mean - half, high=interval.mean + half)


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
    stages = stages_of(splits[0])
    cells = {}
    for method in methods:
        progress(method.name)
        turns = splits[:SLOW_DRAWS] if method.slow else splits
        first = len(stages) - 1 if method.last_only else 0
        for index in range(first, len(stages)):
            cells[method.name, index] = _run(examples, method, turns, stages[index], seed)
    return Comparison(list(methods), stages, cells, splits)


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
        beaten: simpler methods than it, with the first method that beats each clearly.
        rivals: methods with a higher mean that do not beat it clearly, with the difference.
        gain: what the last doubling of the examples brought it, ``None`` with one stage.
    """

    name: str
    over_majority: Difference
    beaten: dict[str, tuple[str, Difference]]
    rivals: dict[str, Difference]
    gain: Difference | None

    @property
    def learns(self) -> bool:
        """Whether it is clearly better than the majority class."""
        return self.over_majority.low > 0


def choose(comparison: Comparison) -> Choice:
    """Return the simplest method that no other beats clearly.

    "Clearly" means: the interval of the paired difference lies above 0.  The majority class is
    no candidate; whether the chosen method beats it stands in the answer.

    Raises:
        ValueError: if no method worked.
    """
    names = [m.name for m in comparison.methods if comparison.works(m.name)]
    candidates = [name for name in names if name != MAJORITY]
    if not candidates:
        reason = comparison.last(comparison.methods[-1].name).error
        raise ValueError(f"no method could learn from these examples ({reason}).")
    beaten: dict[str, tuple[str, Difference]] = {}
    for name in candidates:
        winner = _first_winner(comparison, name, candidates)
        if winner is None:
            break
        beaten[name] = winner
    else:  # possible only where methods had different draws
        name = max(candidates, key=lambda c: comparison.score(c).mean)
        beaten.pop(name)
    rivals = {
        other: difference
        for other in candidates
        if other != name and (difference := comparison.difference(other, name)).mean > 0
    }
    return Choice(
        name, comparison.difference(name, MAJORITY), beaten, rivals, _last_gain(comparison, name)
    )


def _first_winner(
    comparison: Comparison, name: str, candidates: Sequence[str]
) -> tuple[str, Difference] | None:
    for other in candidates:
        if other != name:
            difference = comparison.difference(other, name)
            if difference.low > 0:
                return other, difference
    return None


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
    last, earlier = comparison.last(name), comparison.cells[name, before[-1]]
    gain = paired_difference(last.scores, earlier.scores)
    return widen(gain, comparison.n_test, comparison.n_rest)
