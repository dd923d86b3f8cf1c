"""Texts as words, segments and tokens, and back."""

from __future__ import annotations

import re

from fewshot_course._arguments import checked

__all__ = ["join_tokens", "segments", "strip_punctuation", "tokens"]

_TOKEN = re.compile(r"['’]?\w+(?:['’-]\w+)*|[^\w\s]")
_PUNCTUATION = ".,!?;:()[]{}\"'’‘“”…—–-*/"
_ENDS_SEGMENT = re.compile(r"[.!?;:,…—]['\"”’)]*$")
_NO_SPACE_BEFORE = set(".,!?;:)]}…%")
_NO_SPACE_AFTER = set("([{")


@checked
def strip_punctuation(word: str) -> tuple[str, str, str]:
    """Split a word into what stands before it, the word itself, and what stands after it.

    ``'"fine,"'`` gives ``('"', 'fine', ',"')``.
    """
    shorter = word.lstrip(_PUNCTUATION)
    core = shorter.rstrip(_PUNCTUATION)
    return word[: len(word) - len(shorter)], core, shorter[len(core) :]


@checked
def segments(text: str) -> list[list[str]]:
    """Cut a text into segments: runs of words up to a punctuation mark.

    Returns:
        Lists of words; together they are ``text.split()``.
    """
    found: list[list[str]] = [[]]
    for word in text.split():
        found[-1].append(word)
        if _ENDS_SEGMENT.search(word):
            found.append([])
    return [segment for segment in found if segment]


@checked
def tokens(text: str) -> list[str]:
    """Cut a text into words in lower case and punctuation marks, for models of sequences."""
    return _TOKEN.findall(text.lower())


@checked
def join_tokens(sequence: list[str]) -> str:
    """Write tokens as a text, without a space before a comma."""
    pieces: list[str] = []
    glue = True  # nothing stands before the first token
    for token in sequence:
        glued = glue or token in _NO_SPACE_BEFORE or token[0] in "'’"
        pieces.append(token if glued else " " + token)
        glue = token in _NO_SPACE_AFTER
    return "".join(pieces)
