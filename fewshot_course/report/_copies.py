"""Copies: examples that are the same, or nearly so, and must stay on one side of a split."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fewshot_course._checks import UNLABELLED
from fewshot_course.data.images import resize_images
from fewshot_course.report._read import Examples

TEXT_OVERLAP = 0.8
"""Share of character triples in common from which two texts are near copies (Jaccard)."""
TOLERANCE = 0.1
"""Part of the median distance below which two arrays are near copies, as in
:func:`fewshot_course.evaluation.leaks.check_no_near_duplicates`."""
LEAST_FEATURES = 8
"""With fewer features many points are near by chance, and only exact copies count."""
MOST = 6000
"""Examples up to which all pairs are compared."""
SMALL = 28
"""Side to which images are resized before they are compared."""
COARSE = 10
"""Different values of a column, up to which equal rows may be a coincidence."""
_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Copies:
    """Which examples belong together.

    Attributes:
        group: number of each example's group, ``(n,)`` int64; copies share one.
        exact: groups of examples that are the same, each an array of indices.
        near: groups that hold near copies too.
        conflicts: groups of same examples with different labels.
        searched: whether near copies were looked for.
        joined: whether near copies share a group; not where that would leave a class with one.
    """

    group: np.ndarray
    exact: list[np.ndarray]
    near: list[np.ndarray]
    conflicts: list[np.ndarray]
    searched: bool
    joined: bool


def find_copies(examples: Examples) -> Copies:
    """Group examples that are copies of each other, labelled or not."""
    exact = _exact_groups(examples)
    searched = len(examples.y) <= MOST and (
        examples.kind != "vectors"
        or (
            (len(examples.table) or np.shape(examples.X)[1]) >= LEAST_FEATURES
            and not coarse(examples)
        )
    )
    near = _join(exact, _near_pairs(examples)) if searched else exact
    joined = bool(_fewest_groups(examples, near) >= min(2, _fewest_groups(examples, exact)))
    conflicts = [g for g in _larger(exact) if len(_labels(examples, g)) > 1]
    return Copies(
        group=near if joined else exact,
        exact=_larger(exact),
        near=[g for g in _larger(near) if len(np.unique(exact[g])) > 1],
        conflicts=conflicts,
        searched=searched,
        joined=joined,
    )


def group_class(examples: Examples, group: np.ndarray) -> np.ndarray:
    """Return the commonest label of each group, -1 where it has none, ``(n_groups,)``."""
    classes = len(examples.class_names)
    votes = np.zeros((group.max() + 1, classes), dtype=np.int64)
    known = examples.known
    np.add.at(votes, (group[known], examples.y[known]), 1)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), UNLABELLED)


def coarse(examples: Examples) -> bool:
    """Say whether rows have so few different values that equal ones are no copies.

    Two people who give the same three answers are two people all the same.
    """
    if isinstance(examples.X, list) or examples.kind != "vectors":
        return False
    values = [len(np.unique(column)) for column in examples.X.T]
    return max(values) <= max(COARSE, len(examples.y) // 10)


def normalise(text: str) -> str:
    """Return a text without differences of case, of blanks, and of how a letter is encoded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _exact_groups(examples: Examples) -> np.ndarray:
    if coarse(examples):
        return np.arange(len(examples.y))
    if isinstance(examples.X, list):
        keys: list[object] = [normalise(text) for text in examples.X]
    else:
        # Adding 0.0 turns -0.0 into 0.0, which has other bytes.
        keys = [(row + 0.0).tobytes() for row in examples.X]
    number: dict[object, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def _near_pairs(examples: Examples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of indices of near copies, block by block."""
    if isinstance(examples.X, list):
        yield from _near_texts(examples.X)
    else:
        yield from _near_rows(_rows(examples))


def _near_texts(texts: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.feature_extraction.text import CountVectorizer

    # Blanks around it give the shortest text its triples too.
    words = CountVectorizer(analyzer="char", ngram_range=(3, 3), binary=True, lowercase=False)
    triples = words.fit_transform([f"  {normalise(text)}  " for text in texts]).tocsr()
    sizes = np.asarray(triples.sum(axis=1)).ravel()
    for start in range(0, len(texts), _BLOCK):
        shared = (triples[start : start + _BLOCK] @ triples.T).tocoo()
        rows, columns = shared.row + start, shared.col
        union = sizes[rows] + sizes[columns] - shared.data
        near = (shared.data >= TEXT_OVERLAP * union) & (rows < columns)
        yield rows[near], columns[near]


def _rows(examples: Examples) -> np.ndarray:
    """Return what is compared: columns of equal spread without holes, or small images."""
    X = np.asarray(examples.X)
    if examples.kind == "vectors":
        from sklearn.preprocessing import StandardScaler

        return np.nan_to_num(StandardScaler().fit_transform(X.astype(np.float64)))
    if max(X.shape[1:3]) > SMALL:
        X = resize_images(X, (min(SMALL, X.shape[1]), min(SMALL, X.shape[2])))
    return X.reshape(len(X), -1).astype(np.float64)


def _near_rows(X: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    X = X - X.mean(axis=0)
    squares = np.square(X).sum(axis=1)
    sample = np.random.default_rng(0).permutation(len(X))[:1000]  # enough for a median
    pairs = np.triu_indices(len(sample), 1)
    typical = np.median(_squared(X[sample], X[sample], squares[sample], squares[sample])[pairs])
    for start in range(0, len(X), _BLOCK):
        rows = slice(start, start + _BLOCK)
        distances = _squared(X[rows], X, squares[rows], squares)
        i, j = np.nonzero(distances <= TOLERANCE**2 * typical)
        later = i + start < j
        yield i[later] + start, j[later]


def _squared(A: np.ndarray, B: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.clip(a[:, None] + b[None, :] - 2 * A @ B.T, 0.0, None)


def _join(group: np.ndarray, pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the groups after those of each pair have been joined."""
    found = list(pairs)
    left = group[np.concatenate([i for i, _ in found])]
    right = group[np.concatenate([j for _, j in found])]
    n = int(group.max()) + 1
    links = coo_matrix((np.ones(len(left)), (left, right)), shape=(n, n))
    _, component = connected_components(links, directed=False)
    return component[group].astype(np.int64)


def _larger(group: np.ndarray) -> list[np.ndarray]:
    """Return the groups of two or more, as indices."""
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    return [np.sort(part) for part in np.split(order, cuts) if len(part) > 1]


def _labels(examples: Examples, index: np.ndarray) -> set[int]:
    return set(examples.y[index].tolist()) - {UNLABELLED}


def _fewest_groups(examples: Examples, group: np.ndarray) -> int:
    classes = group_class(examples, group)
    counts = np.bincount(classes[classes != UNLABELLED], minlength=len(examples.class_names))
    return int(counts.min())
