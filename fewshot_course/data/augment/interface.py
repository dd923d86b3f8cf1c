"""What every augmenter has in common: one method, and ways to put several together.

An augmenter is a conditional distribution q(x', y' | x, y) over texts that one can draw from.
``augment(texts, labels, rng)`` draws **one new text for each text**, in the same order, and does
not return the originals: so augmenters can be chained, and position i of what comes out belongs to
position i of what went in.  ``extend`` puts the originals in front and draws several copies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course._checks import check_labels, check_number

__all__ = ["Augmenter", "Compose", "Identity", "OneOf", "PerText", "check_pairs", "extend"]


class Augmenter(Protocol):
    """Anything that draws one new text for each text."""

    def augment(
        self, texts: Sequence[str], labels: Any, rng: np.random.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Return new texts and their labels ``(n,)`` int64, one for each of ``texts``."""
        ...


@checked
def check_pairs(texts: Any, labels: Any) -> tuple[list[str], np.ndarray]:
    """Return texts as a list and labels as int64 ``(n,)``.

    Unlike for an encoder, empty texts are allowed; augmenters leave them empty.

    Raises:
        TypeError: if ``texts`` is no list of str, or labels are no whole numbers.
        ValueError: for a negative label, or another number of labels than of texts.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be a list of str, got {type(texts).__name__}.")
    listed = list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(
                f"texts[{index}] must be a str, got {text!r:.60} of type {type(text).__name__}."
            )
    y = check_labels("labels", np.asarray(labels, dtype=None if len(listed) else np.int64))
    if len(y) != len(listed):
        raise ValueError(f"labels has {len(y)} labels for {len(listed)} texts.")
    return listed, y


class PerText(ABC):
    """Base of augmenters that look at one text at a time.

    Each text gets a random stream of its own, seeded in order: what becomes of a text does not
    depend on how many texts come after it.
    """

    def augment(
        self, texts: Sequence[str], labels: Any, rng: np.random.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Return one changed text for each of ``texts``, and the labels, which are kept."""
        listed, y = check_pairs(texts, labels)
        seeds = rng.integers(2**63, size=len(listed), dtype=np.int64)
        new = [
            " ".join(self.change(text.split(), np.random.default_rng(seed)))
            for text, seed in zip(listed, seeds, strict=True)
        ]
        return new, y.copy()

    @abstractmethod
    def change(self, words: list[str], rng: np.random.Generator) -> list[str]:
        """Return the changed words of one text; no words give none."""


class Identity:
    """Return every text as it is: the distribution that augmentation starts from."""

    def augment(
        self, texts: Sequence[str], labels: Any, rng: np.random.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Return copies of texts and labels."""
        listed, y = check_pairs(texts, labels)
        return listed, y.copy()


class Compose:
    """One augmenter after the other: q₂(x'' | x') applied to what q₁(x' | x) drew.

    Args:
        *parts: augmenters, the first one first.
    """

    def __init__(self, *parts: Augmenter) -> None:
        self.parts = parts

    def augment(
        self, texts: Sequence[str], labels: Any, rng: np.random.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Return what the last part makes of what the others made."""
        new, y = check_pairs(texts, labels)
        for part, stream in zip(self.parts, rng.spawn(len(self.parts)), strict=True):
            new, y = part.augment(new, y, stream)
        return new, y


class OneOf:
    """A mixture: each text is changed by one augmenter that is drawn at random.

    Args:
        *parts: augmenters, each as likely as the others; all see all texts, so that a generator
            is fitted to the whole class.
    """

    def __init__(self, *parts: Augmenter) -> None:
        if not parts:
            raise ValueError("parts has no augmenter; expected one or more.")
        self.parts = parts

    def augment(
        self, texts: Sequence[str], labels: Any, rng: np.random.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Return for each text what its part makes of it."""
        listed, y = check_pairs(texts, labels)
        chosen = rng.integers(len(self.parts), size=len(listed))
        streams = rng.spawn(len(self.parts))
        drawn = [p.augment(listed, y, s) for p, s in zip(self.parts, streams, strict=True)]
        new = [drawn[part][0][i] for i, part in enumerate(chosen)]
        return new, np.array([drawn[part][1][i] for i, part in enumerate(chosen)], dtype=np.int64)


@checked
def extend(
    texts: Sequence[str],
    labels: Any,
    augmenter: Augmenter,
    copies: int,
    rng: np.random.Generator,
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the originals, then ``copies`` drawn texts for each, with weights that sum to n.

    The sum of losses with these weights estimates Σᵢ E[loss(x', yᵢ)], where x' is the original
    with probability 1 / (m + 1) and else drawn from q(x' | xᵢ): an original and its copies share
    the weight 1.  Without weights m copies make the data m + 1 times as large in a penalised
    loss, and so weaken the penalty, even if all copies are equal to the original.

    Args:
        texts: originals, n of them.
        labels: ``(n,)`` whole numbers >= 0.
        augmenter: draws the copies.
        copies: m, drawn texts for each original, >= 0.
        rng: decides what is drawn.

    Returns:
        Texts and labels of (m + 1) n examples, the originals first, then one round of n copies
        after the other; and the weights, ``(n (m + 1),)`` float64, all 1 / (m + 1).
    """
    listed, y = check_pairs(texts, labels)
    copies = int(check_number("copies", copies, low=0, integer=True))
    all_texts, all_labels = list(listed), [y]
    for stream in rng.spawn(copies):
        new, new_labels = augmenter.augment(listed, y, stream)
        all_texts += new
        all_labels.append(new_labels)
    return all_texts, np.concatenate(all_labels), np.full(len(all_texts), 1 / (copies + 1))
