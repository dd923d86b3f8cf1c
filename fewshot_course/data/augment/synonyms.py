"""A small table of synonyms, written for the course.

It lies beside this module in ``synonyms.txt``: one group a line, words that may stand for each
other in a customer's message or a review, whatever their other meanings.  A language model wrote
it for this course, and nothing was copied from a thesaurus; WordNet has far more words, and more
that do not fit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from types import MappingProxyType

from fewshot_course._arguments import checked

__all__ = ["default_synonyms", "synonym_table"]


@checked
def synonym_table(groups: Iterable[Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Return word → the other words of its groups.

    Args:
        groups: words that may stand for each other; kept in lower case.

    Raises:
        ValueError: for a group of fewer than two different words.
    """
    table: dict[str, dict[str, None]] = {}
    for group in groups:
        words = list(dict.fromkeys(word.lower() for word in group))
        if len(words) < 2:
            raise ValueError(f"groups holds {words!r}; expected two different words or more.")
        for word in words:
            table.setdefault(word, {}).update(dict.fromkeys(w for w in words if w != word))
    return {word: tuple(others) for word, others in table.items()}


@functools.cache
def default_synonyms() -> Mapping[str, tuple[str, ...]]:
    """Return the course's table, which cannot be changed."""
    file = resources.files("fewshot_course.data.augment") / "synonyms.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    groups = [line.split() for line in lines if line and not line.startswith("#")]
    return MappingProxyType(synonym_table(groups))
