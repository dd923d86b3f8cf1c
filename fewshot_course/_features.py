"""Frozen features of texts: look them up, encode what is new, keep it.  Framework-free."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from fewshot_course._bert import BertFiles, find_bert
from fewshot_course._checks import check_choice, check_number
from fewshot_course._feature_cache import FeatureCache
from fewshot_course._texts import batches_by_length, check_max_length, check_texts, tokenise

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
    """
    texts = check_texts("texts", texts)
    check_choice("dtype", dtype, ["float32", "float64"])
    check_number("batch_size", batch_size, low=1, integer=True)
    files = find_bert(model)
    check_max_length(max_length, files.config.max_position_embeddings)
    settings = {"framework": framework, "model": files.sha256, "max_length": max_length}
    store = FeatureCache(settings | {"dtype": dtype, "pool": "mean", "version": 1}, dtype)
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
