"""Texts into token numbers: one tokenizer and one order of batches for both frameworks."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_course._checks import check_number, check_unmasked


def check_texts(name: str, texts: Any) -> list[str]:
    """Return ``texts`` as a list of str.

    Raises:
        TypeError: for a single string, or anything in it that is no string.
        ValueError: for no texts, or an empty one.
    """
    unordered = isinstance(texts, Set | Mapping)
    if isinstance(texts, str | bytes) or unordered or not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a list of str, got {type(texts).__name__}.")
    check_unmasked(name, texts)
    listed = list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(
                f"{name}[{index}] must be a str, got {text!r:.60} of type {type(text).__name__}."
            )
        if not text.strip():
            raise ValueError(f"{name}[{index}] is an empty text; leave it out.")
    if not listed:
        raise ValueError(f"{name} has no texts.")
    return [str(text) for text in listed]


@dataclass(frozen=True)
class Tokens:
    """Texts as token numbers.

    Attributes:
        ids: one int64 array ``(length,)`` a text, [CLS] and [SEP] included.
        lengths: number of tokens of each text, ``(n,)`` int64.
        pad_id: the number that fills up.
    """

    ids: tuple[np.ndarray, ...]
    lengths: np.ndarray
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

    def pad(self, index: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return texts padded on the right to the longest of them.

        Args:
            index: which texts, ``(b,)``.

        Returns:
            Token numbers ``(b, L)`` int64, and the mask ``(b, L)`` int64: 1 for a token, 0 for
            padding.
        """
        width = int(self.lengths[index].max())
        ids = np.full((len(index), width), self.pad_id, dtype=np.int64)
        for row, text in enumerate(index):
            ids[row, : self.lengths[text]] = self.ids[text]
        mask = (np.arange(width) < self.lengths[index][:, None]).astype(np.int64)
        return ids, mask


def tokenise(
    texts: list[str], folder: Path, *, max_length: int, pad_id: int = 0, stacklevel: int = 3
) -> Tokens:
    """Split texts into the tokens of a model.

    Args:
        texts: checked texts.
        folder: the model's folder, with ``tokenizer.json`` or ``vocab.txt``.
        max_length: tokens a text may have, the two at its ends included; a longer one is cut
            and a warning says so.
        pad_id: the number that fills up.
        stacklevel: of the warning.

    Raises:
        ImportError: if ``tokenizers`` is not installed.
        ValueError: if the tokenizer's file is damaged.
    """
    tokenizer = _tokenizer(folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    too_long = sum(len(ids) > max_length for ids in found)
    if too_long:
        longest = max(map(len, found))
        warnings.warn(
            f"{too_long} of {len(texts)} texts are longer than {max_length} tokens (the longest "
            f"has {longest}) and were cut; max_length sets the limit.",
            UserWarning,
            stacklevel=stacklevel,
        )
        tokenizer.enable_truncation(max_length)
        found = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    arrays = tuple(np.asarray(ids, dtype=np.int64) for ids in found)
    return Tokens(arrays, np.array([len(ids) for ids in found], dtype=np.int64), pad_id)


def unknown_piece(folder: Path) -> int:
    """Return the number of the token that stands for what a model cannot read, -1 without one."""
    number = _tokenizer(folder).token_to_id("[UNK]")
    return -1 if number is None else int(number)


def _tokenizer(folder: Path) -> Any:
    # One thread: its own would only warn when a process is forked afterwards.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
        from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer
    except ImportError as error:
        raise ImportError(
            f"texts need tokenizers ({error}); install it with: pip install 'fewshot-course[text]'"
        ) from error
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            return Tokenizer.from_file(str(path))
        path = folder / "vocab.txt"
        settings = folder / "tokenizer_config.json"
        facts = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        return BertWordPieceTokenizer(str(path), lowercase=facts.get("do_lower_case", True))
    except Exception as error:  # the Rust library raises the bare Exception
        raise ValueError(f"{path} is damaged or no tokenizer's file: {error}") from None


def check_max_length(max_length: Any, positions: int) -> int:
    """Return ``max_length`` if the model has that many positions."""
    return int(check_number("max_length", max_length, low=3, high=positions, integer=True))
