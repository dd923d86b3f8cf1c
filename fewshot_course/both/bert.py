"""A BERT on disk: a folder in Hugging Face's format, read without any framework.

The canonical names of its weights are those of ``transformers.BertModel``; pooler and task heads
are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from fewshot_course._checks import check_choice
from fewshot_course._reading import show
from fewshot_course.data.minilm import file_sha256, minilm_folder

WEIGHTS = "model.safetensors"
LORA_TARGETS = ("query", "value")
"""The linear layers that get a low-rank update, as in Hu et al. (2022)."""


@dataclass(frozen=True)
class BertConfig:
    """The architecture, by the names of Hugging Face's ``config.json``."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def shapes(self, lora_rank: int = 0) -> dict[str, tuple[int, ...]]:
        """Return canonical name → shape of every weight, in the order of the layers.

        With a rank, queries and values have the two factors of a low-rank update beside them.
        """
        wide, inner = self.hidden_size, self.intermediate_size
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocab_size, wide),
            "embeddings.position_embeddings.weight": (self.max_position_embeddings, wide),
            "embeddings.token_type_embeddings.weight": (self.type_vocab_size, wide),
            **_norm("embeddings.LayerNorm", wide),
        }
        for index in range(self.num_hidden_layers):
            layer = f"encoder.layer.{index}"
            for name in ("query", "key", "value"):
                shapes |= _linear(f"{layer}.attention.self.{name}", wide, wide)
                if lora_rank and name in LORA_TARGETS:
                    shapes[f"{layer}.attention.self.{name}.lora_A"] = (lora_rank, wide)
                    shapes[f"{layer}.attention.self.{name}.lora_B"] = (wide, lora_rank)
            shapes |= _linear(f"{layer}.attention.output.dense", wide, wide)
            shapes |= _norm(f"{layer}.attention.output.LayerNorm", wide)
            shapes |= _linear(f"{layer}.intermediate.dense", wide, inner)
            shapes |= _linear(f"{layer}.output.dense", inner, wide)
            shapes |= _norm(f"{layer}.output.LayerNorm", wide)
        return shapes


def _linear(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


@dataclass(frozen=True)
class BertFiles:
    """A model whose files are there.

    Attributes:
        folder: where they lie.
        config: the architecture.
        sha256: of configuration, tokenizer and weights together: which model this is.
    """

    folder: Path
    config: BertConfig
    sha256: str


def find_bert(model: str | os.PathLike[str]) -> BertFiles:
    """Find a model by name or path and check its configuration; weights are not read yet.

    Args:
        model: "minilm", or the path of a folder in Hugging Face's format with ``config.json``,
            ``model.safetensors``, and ``tokenizer.json`` or ``vocab.txt``.

    Raises:
        TypeError: if ``model`` is no name or path.
        FileNotFoundError: if there is no such folder, or a file is missing in it.
        ValueError: for an unknown name, or a model that is no BERT.
        fewshot_course.data.DataError: if ``minilm`` cannot be had.
    """
    folder = _folder(model)
    missing = [name for name in ("config.json", WEIGHTS) if not (folder / name).is_file()]
    vocabulary = next((n for n in ("tokenizer.json", "vocab.txt") if (folder / n).is_file()), None)
    if vocabulary is None:
        missing.append("tokenizer.json (or vocab.txt)")
    if missing:
        hint = ""
        if (folder / "pytorch_model.bin").is_file():
            hint = (
                " pytorch_model.bin is a pickle, which is not read: load it with transformers "
                "and save it again with save_pretrained."
            )
        raise FileNotFoundError(f"model={str(model)!r} lacks {', '.join(missing)}.{hint}")
    assert vocabulary is not None
    config = _read_config(folder / "config.json")
    parts = [file_sha256(folder / name) for name in ("config.json", vocabulary, WEIGHTS)]
    return BertFiles(folder, config, hashlib.sha256("".join(parts).encode()).hexdigest())


def _folder(model: Any) -> Path:
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be 'minilm' or a folder's path, got {show(model)}.")
    if os.fspath(model) == "minilm":
        return minilm_folder()
    folder = Path(model).expanduser()
    with suppress(OSError, ValueError):  # a name that is too long, or no name at all
        if os.fspath(model) and folder.is_dir():
            return folder
    if isinstance(model, str) and os.sep not in model:
        check_choice("model", model, ["minilm"])
    raise FileNotFoundError(f"model={show(str(model))} is no folder.")


def _read_config(path: Path) -> BertConfig:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        kind = facts.get("model_type")
        fields = BertConfig.__dataclass_fields__
        config = BertConfig(**{name: facts[name] for name in fields if name in facts})
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged or incomplete: {error}") from None
    if kind != "bert":
        raise ValueError(f"{path}: model_type is {kind!r}, expected 'bert'.")
    wanted = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
    for name, value in wanted.items():
        if facts.get(name, value) != value:
            raise ValueError(f"{path}: {name} is {facts[name]!r}, expected {value!r}.")
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"{path}: hidden_size={config.hidden_size} is no multiple of "
            f"num_attention_heads={config.num_attention_heads}."
        )
    return config


def read_weights(files: BertFiles, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Read the encoder's weights: canonical name → array, in the order of the layers.

    Files of ``BertForSequenceClassification`` and other heads are read too: the prefix ``bert.``
    is taken off and the head left out.  Converted old ones call the weight and bias of a layer
    norm gamma and beta.

    Raises:
        ValueError: if the file is damaged, or a weight is missing or has another shape.
    """
    path = files.folder / WEIGHTS
    try:
        with safe_open(str(path), framework="numpy") as file:
            names = {_canonical(name): name for name in file.keys()}  # noqa: SIM118  (the file is no dict)
            shapes = files.config.shapes()
            if missing := [name for name in shapes if name not in names]:
                raise ValueError(f"{path} has no weights for {', '.join(missing[:3])} ...")
            arrays = {name: file.get_tensor(names[name]).astype(dtype) for name in shapes}
    except (SafetensorError, TypeError) as error:  # TypeError: NumPy has no bfloat16
        raise ValueError(f"{path} is damaged or of a type that cannot be read: {error}") from None
    _check_shapes(path, arrays, shapes)
    return arrays


def _check_shapes(
    path: Path, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"{path}: {name} has shape {arrays[name].shape}, config.json says {shape}."
            )


def _canonical(name: str) -> str:
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
