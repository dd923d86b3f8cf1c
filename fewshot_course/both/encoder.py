"""Frozen features of texts: look them up on disk, encode what is new, keep it.  Framework-free.

The cache is one SQLite file in the user's cache folder.  A key is the SHA-256 of the text and of
everything that decides its features, so a changed model or setting never meets old numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_course._checks import check_choice, check_number
from fewshot_course.both.batches import batches_by_length
from fewshot_course.both.bert import BertFiles, find_bert
from fewshot_course.both.texts import check_max_length, check_texts, tokenise
from fewshot_course.data._files import cache_folder

AT_ONCE = 500  # names in one query
MAX_BYTES = 500_000_000  # of the file; larger ones answer slowly
_TABLE = "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"


class FeatureCache:
    """Features by content hash.  Without a usable file it holds nothing, and says so once.

    Args:
        settings: whatever decides the features beside the text, JSON-able.
        dtype: of the features.
    """

    def __init__(self, settings: Mapping[str, Any], dtype: str) -> None:
        self._mark = json.dumps(dict(settings), sort_keys=True).encode()
        self._dtype = np.dtype(dtype)

    @property
    def path(self) -> Path:
        """The file."""
        return cache_folder() / "features.sqlite"

    def _key(self, text: str) -> bytes:
        # surrogatepass: a lone surrogate is no valid UTF-8, but Python's str may hold one.
        content = text.encode("utf-8", "surrogatepass")
        return hashlib.sha256(self._mark + b"\0" + content).digest()

    def get(self, texts: list[str]) -> dict[int, np.ndarray]:
        """Return position → features ``(d,)`` of the texts that are known."""
        keys = [self._key(text) for text in texts]
        found: dict[bytes, bytes] = {}
        if not self.path.is_file():
            return {}
        try:
            with closing(self._open()) as file:
                for start in range(0, len(keys), AT_ONCE):
                    some = keys[start : start + AT_ONCE]
                    marks = ",".join("?" * len(some))
                    query = f"SELECT key, value FROM features WHERE key IN ({marks})"
                    found.update(file.execute(query, some))
        except sqlite3.Error as error:
            self._give_up(error)
        known = {index: self._unpack(found.get(key)) for index, key in enumerate(keys)}
        return {index: features for index, features in known.items() if features is not None}

    def put(self, texts: list[str], features: np.ndarray) -> None:
        """Keep the features ``(n, d)`` of texts."""
        rows = [(self._key(t), self._pack(f)) for t, f in zip(texts, features, strict=True)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as file:
                with file:
                    file.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)
                if self.path.stat().st_size > MAX_BYTES:
                    # Keys are hashes: half of them is any half.  Nothing tells which are old.
                    with file:
                        file.execute("DELETE FROM features WHERE key < x'80'")
                    file.execute("VACUUM")
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _open(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=30)
        file.execute(_TABLE)
        return file

    def _pack(self, features: np.ndarray) -> bytes:
        raw = np.ascontiguousarray(features, dtype=self._dtype).tobytes()
        return zlib.crc32(raw).to_bytes(4, "little") + raw

    def _unpack(self, value: bytes | None) -> np.ndarray | None:
        if value is None or zlib.crc32(value[4:]).to_bytes(4, "little") != value[:4]:
            return None  # unknown, or damaged: it is computed anew
        return np.frombuffer(value[4:], dtype=self._dtype)

    def _give_up(self, error: Exception) -> None:
        warnings.warn(
            f"The cache of features {self.path} cannot be used ({error}): texts are encoded anew "
            f"each time. Delete the file if it is damaged.",
            UserWarning,
            stacklevel=5,
        )


Pooler = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Token numbers and mask ``(b, L)`` → features ``(b, d)``."""


def frozen_features(
    texts: Any,
    model: str | os.PathLike[str],
    make_pooler: Callable[[BertFiles], Pooler],
    *,
    framework: str,
    normalize: bool,
    max_length: int,
    batch_size: int,
    dtype: str,
    cache: bool,
    device: str,
) -> np.ndarray:
    """Do what ``encode`` of each framework says.

    Args:
        texts: list of str.
        model: "minilm" or a folder.
        make_pooler: loads the encoder; called only if a text is not in the cache.
        framework: part of the key, so that neither framework is given the other's numbers.
        normalize: whether to give each vector the length 1.
        max_length: tokens a text may have.
        batch_size: texts at once.
        dtype: "float32" or "float64".
        cache: whether to read and write features on disk.
        device: where the encoder runs; its kind is part of the key, as other hardware rounds
            otherwise ("cuda:1" is given what "cuda:0" computed, never what the CPU did).
    """
    texts = check_texts("texts", texts)
    check_choice("dtype", dtype, ["float32", "float64"])
    check_number("batch_size", batch_size, low=1, integer=True)
    files = find_bert(model)
    check_max_length(max_length, files.config.max_position_embeddings)
    settings = {"framework": framework, "model": files.sha256, "max_length": max_length}
    settings |= {"dtype": dtype, "device": device.partition(":")[0]}
    store = FeatureCache(settings | {"pool": "mean", "version": 1}, dtype)
    known = store.get(texts) if cache else {}
    features = np.empty((len(texts), files.config.hidden_size), dtype)
    for index, value in known.items():
        features[index] = value
    missing = np.array([index for index in range(len(texts)) if index not in known], np.int64)
    if len(missing):
        new = [texts[index] for index in missing]
        pooler = make_pooler(files)
        tokens = tokenise(
            new, files.folder,
            max_length=max_length, pad_id=files.config.pad_token_id, stacklevel=5,
        )  # fmt: skip
        for batch in batches_by_length(tokens.lengths, batch_size):
            features[missing[batch]] = pooler(*tokens.pad(batch))
        if cache:
            store.put(new, features[missing])
    if normalize:
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features
