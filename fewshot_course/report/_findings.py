"""Findings: what in the data may mislead, in plain words, each with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from fewshot_course.report._compare import Choice, Comparison
from fewshot_course.report._copies import LEAST_FEATURES, MOST, Copies
from fewshot_course.report._methods import MOST_PIECES, UNEVEN, UNREAD, uneven
from fewshot_course.report._model import Encoded
from fewshot_course.report._read import Examples

FEW_LABELS = 5
SMALL_TEST = 30
ENCODER_WORDS = 90
MOST_ALONE = 2000
TOO_GOOD, AHEAD = 0.95, 0.1
"""Share of right answers from which a single column is suspected, if it is so far ahead."""


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: "fix" (repair it before you trust a score), "care" or "note".
        title: a few words.
        text: what was found.
        action: what to do.
    """

    level: str
    title: str
    text: str
    action: str


def find(
    examples: Examples, copies: Copies, comparison: Comparison, choice: Choice
) -> list[Finding]:
    """Return all findings, the gravest first."""
    found = [
        *_conflicts(examples, copies),
        *_row_numbers(examples),
        *_alone(examples),
        *_belong_together(examples),
        *_unknown_pieces(examples, comparison),
        *_exact(examples, copies),
        *_near(examples, copies),
        *_imbalance(examples),
        *_few_labels(examples),
        *_small_test(comparison, choice),
        *_constant(examples),
        *_blank_images(examples),
        *_long_texts(examples),
    ]
    order = ["fix", "care", "note"]
    return sorted(found, key=lambda finding: order.index(finding.level))


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a share that was seen in n independent examples.

    Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22, 1927.

    Args:
        share: in [0, 1].
        n: number of examples, >= 1.
        confidence: the level, in (0, 1).
    """
    z = float(special.ndtri((1 + confidence) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 and 1 rounding could step over the edge.
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _named(examples: Examples, index: Iterable[int]) -> str:
    """Name examples by where they stand and their label."""
    words = []
    for i in index:
        label = examples.class_names[examples.y[i]] if examples.y[i] >= 0 else "no label"
        words.append(f"{examples.places[i]} ({label})")
    return " = ".join(words)


def _listed(examples: Examples, groups: Sequence[np.ndarray], most: int = 3) -> str:
    shown = "; ".join(
        _named(examples, group[:4]) + (" = …" if len(group) > 4 else "") for group in groups[:most]
    )
    more = len(groups) - most
    return shown + (f"; and {more} more groups" if more > 0 else "")


def _conflicts(examples: Examples, copies: Copies) -> list[Finding]:
    groups = copies.conflicts
    if not groups:
        return []
    return [
        Finding(
            "fix",
            "The same example with different labels",
            f"{_count(len(groups), 'example occurs', 'examples occur')} with more than one label: "
            f"{_listed(examples, groups)}. No method can be right on both.",
            "Look at each and correct the label, or define the classes more sharply. Until then "
            "the commonest label of an example counts in the comparison.",
        )
    ]


def _row_numbers(examples: Examples) -> list[Finding]:
    """Tell of columns that follow the order of the file, left out or not."""
    if examples.kind != "vectors":
        return []
    found = []
    if examples.ids:
        found.append(
            Finding(
                "care",
                "A column that numbers the rows",
                f"{_quoted(examples.ids)} follows the order of the rows or names each of them. In "
                f"a file that is sorted by class it would give the class away. It was left out.",
                "If it is a measurement after all, sort the file in another order.",
            )
        )
    X = np.asarray(examples.X)
    names = [
        name for name, column in zip(examples.columns, X.T, strict=True) if _follows_rows(column)
    ]
    if names:
        found.append(
            Finding(
                "fix",
                "A column that follows the rows",
                f"{_quoted(names)} never falls, or never rises, from the first row to the last. If "
                f"your file is sorted by class, it gives the class away, and every score here is "
                f"too good.",
                "Remove the column, or sort the file in another order, and make the report again.",
            )
        )
    return found


def _follows_rows(column: np.ndarray) -> bool:
    steps = np.diff(column[~np.isnan(column)])
    many = len(np.unique(column)) > len(column) / 2
    return len(steps) >= 5 and many and bool((steps >= 0).all() or (steps <= 0).all())


def _alone(examples: Examples) -> list[Finding]:
    """Tell of a column that predicts the label nearly always, all by itself."""
    counts = examples.counts
    if examples.kind != "vectors" or counts.min() < 6:
        return []
    from sklearn.model_selection import cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    known = examples.known[np.random.default_rng(0).permutation(len(examples.known))[:MOST_ALONE]]
    X, y = np.asarray(examples.X)[known], examples.y[known]
    tree = DecisionTreeClassifier(max_leaf_nodes=4 * len(counts), random_state=0)
    names, scores = [], []
    start = 0
    for name, width in _columns(examples):
        part = X[:, start : start + width]
        part = np.hstack([part, part.sum(axis=1, keepdims=True)])  # whether there is any value
        start += width
        names.append(name)
        scores.append(cross_val_score(tree, part, y, cv=3, scoring="balanced_accuracy").mean())
    order = np.argsort(scores)[::-1]
    if scores[order[0]] < TOO_GOOD:
        return []
    if len(order) > 1 and scores[order[1]] > scores[order[0]] - AHEAD:
        return []  # several are as good: the classes are easy to tell apart
    name, share = names[order[0]], scores[order[0]]
    return [
        Finding(
            "care",
            "A column that says it all",
            f"{name!r} alone tells {100 * share:.0f} % of the examples' classes, and no other "
            f"column comes near.",
            "Ask whether you will know it before you know the class. If it is filled in "
            "afterwards, or made from the label, remove it and make the report again.",
        )
    ]


def _columns(examples: Examples) -> list[tuple[str, int]]:
    """Return the columns of the file, each with its number of features."""
    if examples.table:
        return [(column.name, len(column.features)) for column in examples.table]
    return [(name, 1) for name in examples.columns]


def _belong_together(examples: Examples) -> list[Finding]:
    if examples.belongs is not None:
        n = len(np.unique(examples.belongs))
        return [
            Finding(
                "note",
                "Rows that belong together",
                f"The rows belong to {n} groups, and whole groups were held out. The intervals "
                f"count a group as one answer.",
                "Nothing needs to be done.",
            )
        ]
    if not examples.suspects:
        return []
    return [
        Finding(
            "care",
            "Rows that may belong together",
            f"{_quoted(examples.suspects)} has the same value in several rows. If these are rows "
            f"of one person, device or day, they lie on both sides of a split, and every score "
            f"here is too good.",
            f"Then make the report again with --group {examples.suspects[0]!r}.",
        )
    ]


def _unknown_pieces(examples: Examples, comparison: Comparison) -> list[Finding]:
    """Tell how much of the texts the encoder cannot read."""
    encoders = [f for m in comparison.methods if isinstance(f := m.features(), Encoded)]
    if not isinstance(examples.X, list) or not encoders:
        return []
    share, same, pieces = encoders[0].unread(examples.X)
    if share <= UNREAD and pieces <= MOST_PIECES and not same:
        return []
    return [
        Finding(
            "care",
            "Texts that the encoder cannot read",
            f"{100 * share:.0f} % of the pieces of your texts are unknown to the pretrained "
            f"encoder, {_count(same, 'text is', 'texts are')} the same to it as another, "
            f"different one, and a word falls into {pieces:.1f} pieces (in English 1.0 to 1.1). "
            f"It was trained on English.",
            "Trust the methods of words and characters more, or name an encoder of your language: "
            "--encoder FOLDER.",
        )
    ]


def _exact(examples: Examples, copies: Copies) -> list[Finding]:
    if not copies.exact:
        return []
    extra = sum(len(group) - 1 for group in copies.exact)
    same = "but for case and blanks the same" if examples.kind == "texts" else "the same"
    return [
        Finding(
            "care",
            "Copies",
            f"{_count(extra, 'example is a copy', 'examples are copies')} of another "
            f"({same}): {_listed(examples, copies.exact)}. A copy on both sides of a split makes "
            f"a score too good. Here one of each group takes part in a draw, so it does not.",
            "Remove copies that are an accident. You have fewer labels than rows.",
        )
    ]


def _near(examples: Examples, copies: Copies) -> list[Finding]:
    if not copies.searched:
        reason = (
            f"With more than {MOST:,} examples"
            if len(examples.y) > MOST
            else f"With fewer than {LEAST_FEATURES} features"
        )
        return [
            Finding(
                "note",
                "Near copies were not looked for",
                f"{reason} only exact copies were looked for.",
                "If rows come from the same person, device or day, make sure yourself that they "
                "do not lie on both sides of a split.",
            )
        ]
    if not copies.near:
        return []
    shown = f"{_count(len(copies.near), 'group', 'groups')} of examples that are nearly the same"
    where = _listed(examples, copies.near)
    if copies.joined:
        return [
            Finding(
                "care",
                "Near copies",
                f"There {'is' if len(copies.near) == 1 else 'are'} {shown}: {where}. "
                f"They were kept on one side of every split.",
                "Look at them. If they are one thing recorded twice, keep one.",
            )
        ]
    return [
        Finding(
            "fix",
            "Nearly the same examples everywhere",
            f"There are {shown}: {where}. They make up whole classes, so they could not be kept "
            f"on one side of a split. If they are recordings of one thing, all scores here are "
            f"too good.",
            "Collect examples that were made independently of each other, at least two a class.",
        )
    ]


def _imbalance(examples: Examples) -> list[Finding]:
    counts, names = examples.counts, examples.class_names
    if not uneven(counts):
        return []
    share = counts.max() / counts.sum()
    return [
        Finding(
            "care",
            "Uneven classes",
            f"{names[counts.argmax()]!r} has {counts.max()} labelled examples, "
            f"{names[counts.argmin()]!r} has {counts.min()}. Whoever always says "
            f"{names[counts.argmax()]!r} is right in {100 * share:.0f} % of your examples.",
            f"From {UNEVEN} times as many on, the mean over the classes decides here and not the "
            f"accuracy, and logistic regression weighs every class the same. Label more of the "
            f"rare classes first.",
        )
    ]


def _few_labels(examples: Examples) -> list[Finding]:
    few = [
        f"{name!r} ({count})"
        for name, count in zip(examples.class_names, examples.counts, strict=True)
        if count < FEW_LABELS
    ]
    if not few:
        return []
    more = f" and {len(few) - 6} more" if len(few) > 6 else ""
    return [
        Finding(
            "care",
            "Few labels in a class",
            f"Fewer than {FEW_LABELS} labelled examples: {', '.join(few[:6])}{more}. What is said "
            f"about these classes rests on one or two held-out examples.",
            "Label more of these first.",
        )
    ]


def _small_test(comparison: Comparison, choice: Choice) -> list[Finding]:
    n = comparison.n_test
    if n >= SMALL_TEST:
        return []
    share = comparison.score(choice.name, balanced=False).mean
    low, high = wilson(share, n)
    return [
        Finding(
            "care",
            "A small held-out part",
            f"Each draw scores {_count(n, 'example', 'examples')}: one more that is right is "
            f"{100 / n:.0f} points. From {n} examples alone, an accuracy of {100 * share:.0f} % "
            f"could be anything from {100 * low:.0f} to {100 * high:.0f} % (Wilson's interval).",
            "Trust differences of that size only where the paired interval says so. Label more, "
            "if the decision matters.",
        )
    ]


def _constant(examples: Examples) -> list[Finding]:
    if examples.kind != "vectors":
        return []
    X = np.asarray(examples.X)
    names = [n for n, c in zip(examples.columns, X.T, strict=True) if len(np.unique(c)) == 1]
    if not names:
        return []
    if len(names) == len(examples.columns):
        level, action = "fix", "There is nothing to learn from. Look at how the file was made."
    else:
        level, action = "note", "Nothing needs to be done; remove them if they are an accident."
    have = "holds" if len(names) == 1 else "hold"
    return [
        Finding(
            level,
            "Columns that never change",
            f"{_quoted(names)} {have} one value only and cannot tell classes apart.",
            action,
        )
    ]


def _blank_images(examples: Examples) -> list[Finding]:
    if examples.kind != "images":
        return []
    X = np.asarray(examples.X).reshape(len(examples.y), -1)
    blank = np.flatnonzero(X.max(axis=1) - X.min(axis=1) < 1e-6)
    if not len(blank):
        return []
    return [
        Finding(
            "fix",
            "Empty images",
            f"{_count(len(blank), 'image has', 'images have')} the same value everywhere: "
            f"{_quoted([examples.places[i] for i in blank])}.",
            "Look at them, and remove them if they are broken.",
        )
    ]


def _long_texts(examples: Examples) -> list[Finding]:
    if not isinstance(examples.X, list):
        return []
    long = sum(len(text.split()) > ENCODER_WORDS for text in examples.X)
    if not long:
        return []
    return [
        Finding(
            "note",
            "Long texts",
            f"{_count(long, 'text has', 'texts have')} more than {ENCODER_WORDS} words. The "
            f"pretrained encoder reads the first 128 pieces of words of a text.",
            "Put what matters first, or cut texts into parts.",
        )
    ]


def _quoted(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(str(name)) for name in names[:5]) + more


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
