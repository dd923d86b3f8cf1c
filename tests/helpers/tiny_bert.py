"""A BERT of a few thousand weights, in a folder as Hugging Face's: fast enough for any test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fewshot_course.both.bert import BertConfig

WORDS = [
    "the", "a", "my", "your", "card", "account", "is", "was", "not",
    "lost", "stolen", "new", "old", "please", "help", "where", "when", "how",
    "top", "up", "transfer", "money", "payment", "failed", "late", "fee", "refund",
    "exchange", "rate", "good", "bad", "fine", "very", "too", "cash", "open",
]  # fmt: skip
CONFIG = BertConfig(
    vocab_size=5 + len(WORDS),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=32,
    max_position_embeddings=24,
    type_vocab_size=2,
)


def make(folder: Path, prefix: str = "", seed: int = 0) -> Path:
    """Write configuration, tokenizer and random float64 weights; returns the folder."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    facts = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}
    facts |= {"model_type": "bert", "hidden_act": "gelu"}
    (folder / "config.json").write_text(json.dumps(facts))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(words))
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in CONFIG.shapes().items():
        centre = float(name.endswith("LayerNorm.weight"))
        arrays[prefix + name] = centre + 0.3 * rng.standard_normal(shape)
    save_file(arrays, folder / "model.safetensors")
    return folder


def texts_and_labels(n: int, classes: int = 2, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Random texts of one to twelve words; a class has a favourite word."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    texts = []
    for label in y:
        words = rng.choice(WORDS, size=rng.integers(1, 12))
        texts.append(" ".join([WORDS[4 + label], *words]))
    return texts, y
