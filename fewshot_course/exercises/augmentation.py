"""Exercises of the topic "Data augmentation for text"."""

from __future__ import annotations

import itertools

import numpy as np

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(70)


# --- markov_transitions ----------------------------------------------------------------------


def _pairs(words: Array, V: float, *, end: bool = True, seam: bool = False) -> list[list[int]]:
    """Pairs of neighbours; the keywords make well-known mistakes."""
    texts = [[int(w) for w in row if w >= 0] for row in words]
    if seam:  # all texts as one
        texts = [[w for text in texts for w in text]]
    ended = [[*text, int(V)] if end else text for text in texts]
    return [list(pair) for text in ended for pair in itertools.pairwise(text)]


def _table(pairs: list[list[int]], V: float) -> Array:
    counts = np.zeros((int(V), int(V) + 1))
    for a, b in pairs:
        counts[a, b] += 1
    return counts


def _share_of_followers(words: Array, V: float) -> Array:
    """One probability at a time, straight from the definition."""
    pairs = _pairs(words, V)
    n = int(V)
    share = np.empty((n, n + 1))
    for a in range(n):
        followers = [b for first, b in pairs if first == a]
        share[a] = [followers.count(b) / len(followers) for b in range(n + 1)]
    return share


def _by_sum(counts: Array, axis: int | None) -> Array:
    return counts / counts.sum(axis=axis, keepdims=True)


MARKOV_TRANSITIONS = Exercise(
    name="augmentation.markov_transitions",
    oracle=_share_of_followers,
    cases=(
        Case(
            "one text of two words",
            {"words": np.array([[0.0, 1.0]]), "V": 2.0},
            hint="Word 1 always follows word 0, and the end always follows word 1.",
        ),
        Case(
            "a word that repeats",
            {"words": np.array([[0.0, 0.0, 1.0, 0.0]]), "V": 2.0},
            hint="After word 0 come word 0, word 1 and the end: one third each.",
        ),
        Case(
            "two texts, one of them padded",
            {"words": np.array([[2.0, 0.0, 1.0, 2.0], [1.0, 0.0, -1.0, -1.0]]), "V": 3.0},
            hint="The end follows the last word of each text; -1 is no word.",
        ),
        Case(
            "three texts",
            {
                "words": np.array(
                    [[0, 1, 2, 3, 1], [3, 1, 2, -1, -1], [2, 2, 0, 1, -1]], dtype=float
                ),
                "V": 4.0,
            },
        ),
    ),
    hint="counts / counts.sum(axis=1, keepdims=True), where counts[a, b] counts b after a.",
    mistakes=(
        Mistake(
            "These are the counts. Divide each row by its sum.",
            lambda words, V: _table(_pairs(words, V), V),
        ),
        Mistake(
            "The columns sum to 1: this says what came before a word. Each row must sum to 1.",
            lambda words, V: _by_sum(_table(_pairs(words, V), V), 0),
        ),
        Mistake(
            "You divided by the number of all pairs: these are p(a, b). Divide each row by its "
            "own sum.",
            lambda words, V: _by_sum(_table(_pairs(words, V), V), None),
        ),
        Mistake(
            "The end is missing: after the last word of a text comes number V. A chain without "
            "an end never stops.",
            lambda words, V: _by_sum(_table(_pairs(words, V, end=False), V), 1),
        ),
        Mistake(
            "You joined the texts: the first word of one does not follow the last word of another.",
            lambda words, V: _by_sum(_table(_pairs(words, V, seam=True), V), 1),
        ),
    ),
)


# --- hmm_log_likelihood ----------------------------------------------------------------------


def _over_paths(start: Array, A: Array, B: Array, words: Array) -> Array:
    """Sum over every path of hidden states; long texts are cut in two, which is exact."""
    numbers = [int(w) for w in words]
    if len(numbers) > 8:
        # p(w) = Σ_r p(w₁ … w₈, s₈ = r) p(w₉ … | s₈ = r): the rest starts from what came before.
        ends = _joint(start, A, B, numbers[:8])
        rest = _over_paths(ends / ends.sum() @ A, A, B, np.array(numbers[8:]))
        return np.asarray(np.log(ends.sum()) + rest)
    return np.asarray(np.log(_joint(start, A, B, numbers).sum()))


def _joint(start: Array, A: Array, B: Array, numbers: list[int]) -> Array:
    """Return p(words, last state), ``(S,)``, by enumeration."""
    found = np.zeros(len(start))
    for states in itertools.product(range(len(start)), repeat=len(numbers)):
        p = start[states[0]] * B[states[0], numbers[0]]
        for (r, s), w in zip(itertools.pairwise(states), numbers[1:], strict=True):
            p *= A[r, s] * B[s, w]
        found[states[-1]] += p
    return found


def _recursion(start: Array, A: Array, B: Array, words: Array, best: bool = False) -> Array:
    """The unscaled recursion, by sums or by maxima (Viterbi)."""
    numbers = [int(w) for w in words]
    alpha = start * B[:, numbers[0]]
    for w in numbers[1:]:
        step = alpha[:, None] * A
        alpha = (step.max(0) if best else step.sum(0)) * B[:, w]
    return np.asarray(np.log(alpha.max() if best else alpha.sum()))


def _model(S: int, V: int, words: list[int]) -> dict[str, Array]:
    return {
        "start": np.round(_RNG.dirichlet(np.ones(S)), 3),
        "A": np.round(_RNG.dirichlet(np.ones(S), size=S), 3),
        "B": np.round(_RNG.dirichlet(np.ones(V), size=S), 3),
        "words": np.array(words, dtype=float),
    }


HMM_LOG_LIKELIHOOD = Exercise(
    name="augmentation.hmm_log_likelihood",
    oracle=_over_paths,
    cases=(
        Case(
            "one word",
            {
                "start": np.array([0.25, 0.75]),
                "A": np.full((2, 2), 0.5),
                "B": np.array([[0.8, 0.2], [0.4, 0.6]]),
                "words": np.array([0.0]),
            },
            hint="p = 0.25 · 0.8 + 0.75 · 0.4 = 0.5, and no transition is needed.",
        ),
        Case("two words, two states", _model(2, 3, [2, 0]), hint="Sum over four paths."),
        Case("five words, three states", _model(3, 4, [0, 3, 3, 1, 2])),
        Case(
            "a text of 1200 words",
            _model(2, 3, [0, 1, 2, 2, 1, 0] * 200),
            hint="The probability is smaller than any float. Scale alpha at each step.",
        ),
    ),
    hint="alpha = (alpha @ A) * B[:, word]; add log(alpha.sum()) and divide alpha by its sum.",
    mistakes=(
        Mistake(
            "The transitions are used the wrong way round: A[r, s] goes from r to s, so it is "
            "alpha @ A, not A @ alpha.",
            lambda start, A, B, words: _over_paths(start, A.T, B, words),
        ),
        Mistake(
            "This is the probability of the best path alone. Sum over the states, not their "
            "maximum.",
            lambda **a: _recursion(**a, best=True),
        ),
        Mistake(
            "You went one step before the first word. The first state is drawn from start.",
            lambda start, A, B, words: _over_paths(start @ A, A, B, words),
        ),
        Mistake(
            "This is right for short texts only: alpha underflows to 0, and log 0 is -inf. Divide "
            "alpha by its sum at each step.",
            lambda **a: _recursion(**a),
        ),
    ),
)


# --- mahalanobis -----------------------------------------------------------------------------


def _in_eigenvectors(X: Array, H: Array, shrink: float) -> Array:
    """Along each eigenvector of S the spread is known; distances there add up as squares."""
    mean = X.mean(0)
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    spread = (1 - shrink) * values + shrink * values.mean()
    return np.sqrt(np.square((H - mean) @ vectors / np.sqrt(spread)).sum(1))


def _distance(X: Array, H: Array, shrink: float, *, unit: bool = False, divisor: int = 0) -> Array:
    """The same with a planted change: λI in the place of λμI, or another divisor of S."""
    D = X - X.mean(0)
    S = D.T @ D / (len(X) - divisor)
    Sigma = (1 - shrink) * S + shrink * (1.0 if unit else np.trace(S) / len(S)) * np.eye(len(S))
    away = H - X.mean(0)
    return np.sqrt((away @ np.linalg.inv(Sigma) * away).sum(1))


def _vectors(n: int, k: int, d: int, shrink: float) -> dict[str, Array | float]:
    draw = _RNG.normal(0, 1, (n + k, d)) * np.linspace(0.5, 2, d) + 1
    return {"X": np.round(draw[:n], 2), "H": np.round(draw[n:], 2), "shrink": shrink}


MAHALANOBIS = Exercise(
    name="augmentation.mahalanobis",
    oracle=_in_eigenvectors,
    cases=(
        Case(
            "two vectors on a line, in the plane",
            {
                "X": np.array([[0.0, 0.0], [4.0, 0.0]]),
                "H": np.array([[4.0, 0.0], [2.0, 2.0]]),
                "shrink": 0.5,
            },
            hint="S has 4 and 0 on its diagonal, the mean eigenvalue is 2, and Sigma has 3 and 1: "
            "the distances are 2/√3 and 2.",
        ),
        Case("more vectors than dimensions", _vectors(12, 3, 3, 0.1)),
        Case("fewer vectors than dimensions", _vectors(4, 2, 6, 0.3)),
        Case(
            "full shrinkage",
            _vectors(5, 2, 3, 1.0),
            hint="With λ = 1 it is the Euclidean distance over √μ.",
        ),
    ),
    hint="Take the mean of X from H, solve with (1 - λ) S + λ tr(S)/d I, and take the root.",
    mistakes=(
        Mistake(
            "This is the squared distance. Take the root.",
            lambda **a: np.square(_in_eigenvectors(**a)),
        ),
        Mistake(
            "This is the Euclidean distance: the covariance is not used.",
            lambda X, H, shrink: np.linalg.norm(H - X.mean(0), axis=1),
        ),
        Mistake(
            "You measured from the origin. Take the mean of the class from the new vectors first.",
            lambda X, H, shrink: _in_eigenvectors(X, H + X.mean(0), shrink),
        ),
        Mistake(
            "λ and 1 - λ are exchanged: λ belongs to the multiple of the identity.",
            lambda X, H, shrink: _in_eigenvectors(X, H, 1 - shrink),
        ),
        Mistake(
            "You added λ I. The identity is multiplied by the mean eigenvalue tr(S) / d too, or "
            "the result depends on the unit of the vectors.",
            lambda **a: _distance(**a, unit=True),
        ),
        Mistake(
            "Your covariance divides by n - 1. Here S divides by n.",
            lambda **a: _distance(**a, divisor=1),
        ),
    ),
)


# --- shared_weights --------------------------------------------------------------------------


def _row_by_row(origin: Array) -> Array:
    """Walk through the rows and count those of the same original."""
    rows = origin.tolist()
    return np.array([1 / rows.count(number) for number in rows])


SHARED_WEIGHTS = Exercise(
    name="augmentation.shared_weights",
    oracle=_row_by_row,
    cases=(
        Case(
            "two texts, no copy",
            {"origin": np.array([0.0, 1.0])},
            hint="Without copies each weight is 1.",
        ),
        Case(
            "as many copies of each",
            {"origin": np.array([0.0, 1, 0, 1, 0, 1])},
            hint="Three rows share the weight 1.",
        ),
        Case(
            "copies of one text only",
            {"origin": np.array([0.0, 1, 2, 0, 0, 0])},
            hint="Four rows come from text 0, one each from the others.",
        ),
        Case(
            "numbers with gaps, in any order",
            {"origin": np.array([7.0, 3, 3, 7, 9, 3, 7, 7])},
            hint="The numbers are names: 3, 7 and 9.",
        ),
    ),
    hint="_, number, counts = np.unique(origin, return_inverse=True, return_counts=True)",
    mistakes=(
        Mistake(
            "Every row counts 1: a text with many copies then counts more than the others, and the "
            "penalty of the classifier less.",
            lambda origin: np.ones(len(origin)),
        ),
        Mistake(
            "These weights sum to 1. They shall sum to the number of originals.",
            lambda origin: _row_by_row(origin) / len(np.unique(origin)),
        ),
        Mistake(
            "You shared equally among all rows. A text with more copies must give each of them "
            "less.",
            lambda origin: np.full(len(origin), len(np.unique(origin)) / len(origin)),
        ),
    ),
)


EXERCISES = (MARKOV_TRANSITIONS, SHARED_WEIGHTS, HMM_LOG_LIKELIHOOD, MAHALANOBIS)
"""The exercises of the topic, in the order of the page."""
