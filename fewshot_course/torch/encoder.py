"""A BERT that turns texts into features, in PyTorch: the model of ``transformers``."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_course._arguments import BELOW_ONE, checked
from fewshot_course._checks import check_choice
from fewshot_course.both.bert import LORA_TARGETS, BertConfig, BertFiles, find_bert, read_weights
from fewshot_course.both.encoder import Pooler, frozen_features
from fewshot_course.torch import networks
from fewshot_course.torch._training import resolve_device, to_array, to_tensor

if TYPE_CHECKING:
    from transformers import BertModel

__all__ = ["Encoder", "dropout_masks", "encode", "load_encoder", "low_rank_update", "mean_pool"]


class Encoder(nn.Module):
    """BERT without a head: token numbers in, a vector for each token out (Devlin et al. 2019).

    The layers are those of ``transformers.BertModel``.  Its dropout takes masks from outside, so
    that both frameworks drop the same.

    Args:
        config: the architecture.
        lora_rank: rank of a low-rank update of queries and values (Hu et al. 2022); 0: none.
        lora_alpha: its scale; the update is multiplied by ``lora_alpha / lora_rank``.
    """

    def __init__(self, config: BertConfig, lora_rank: int = 0, lora_alpha: float = 16.0) -> None:
        super().__init__()
        self.config = config
        bert = _bert_model(config)
        self.embeddings, self.encoder = bert.embeddings, bert.encoder
        self._dropouts = [_share_dropout(self.embeddings)]
        layers: Any = self.encoder.layer
        for layer in layers:
            attention: Any = layer.attention
            for name in LORA_TARGETS if lora_rank else ():
                linear = _LoRALinear(config.hidden_size, lora_rank, lora_alpha)
                setattr(attention.self, name, linear)
            self._dropouts += map(_share_dropout, (attention.self, attention.output, layer.output))

    def forward(self, ids: Tensor, mask: Tensor, dropout: Sequence[Tensor] | None = None) -> Tensor:
        """Map token numbers ``(n, L)`` and their mask to the token sequence ``(n, L, d)``.

        Padding costs attention only: elsewhere the tokens of all texts stand in one row.

        Args:
            ids: int64.
            mask: 1 for a token, 0 for padding.
            dropout: factors from :func:`dropout_masks`; ``None`` drops nothing.

        Returns:
            ``(n, L, d)``, 0 where there is padding.
        """
        places = mask.flatten().nonzero()[:, 0]
        factors: list[Tensor | None] = [None] * len(self._dropouts)
        if dropout is not None:
            words, *others = dropout  # the words' and the attention weights' are not packed
            factors = [words, *(_pack(f, places) if f.ndim == 3 else f for f in others)]
        for module, factor in zip(self._dropouts, factors, strict=True):
            module.factor = factor
        x = _pack(self.embeddings(input_ids=ids), places)
        hidden = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        layers: Any = self.encoder.layer
        for layer in layers:
            x = layer(x, hidden, places=places)
            x = x[0] if isinstance(x, tuple) else x  # transformers 4 returns a tuple
        return _unpack(x, places, mask.shape)


@checked
def mean_pool(sequence: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of a text's token vectors, padding left out: ``(n, L, d)`` → ``(n, d)``."""
    weight = mask.to(sequence.dtype)[..., None]
    return (sequence * weight).sum(1) / weight.sum(1)


@checked
def low_rank_update(x: Tensor, lora_A: Tensor, lora_B: Tensor, alpha: float) -> Tensor:
    """Return what LoRA adds to a linear layer's output: α/r · x Aᵀ Bᵀ (Hu et al. 2022).

    Args:
        x: ``(..., n_in)``.
        lora_A: ``(r, n_in)``.
        lora_B: ``(n_out, r)``; starts at 0, so that tuning starts from the pretrained model.
        alpha: α.
    """
    return alpha / len(lora_A) * (x @ lora_A.T @ lora_B.T)


@checked(p=BELOW_ONE)
def dropout_masks(
    config: BertConfig, shape: tuple[int, int], p: float, rng: np.random.Generator, device: str,
    dtype: str = "float32",
) -> list[Tensor]:  # fmt: skip
    """Draw what :class:`Encoder` multiplies by: 0 with probability p, else 1/(1 - p).

    On the CPU NumPy draws, so that both frameworks get the same; else the device does.

    Args:
        config: the architecture.
        shape: ``(n, L)`` of the batch.
        p: in [0, 1).
        rng: the ``dropout`` stream.
        device: "cpu", "cuda", ...
        dtype: of the factors.

    Returns:
        Factors of the embeddings, and of each layer's attention weights, attention output and
        output.
    """
    n, length = shape
    wide = (n, length, config.hidden_size)
    weights = (n, config.num_attention_heads, length, length)
    return [
        keep_mask(one, p, rng, device, dtype)
        for one in [wide, *(weights, wide, wide) * config.num_hidden_layers]
    ]


def keep_mask(
    shape: tuple[int, ...], p: float, rng: np.random.Generator, device: str, dtype: str
) -> Tensor:
    """Draw one array of dropout factors."""
    if device == "cpu":
        kept = torch.as_tensor(rng.random(shape, dtype=np.float32) >= p)
    else:
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        kept = torch.rand(shape, device=device, generator=generator) >= p
    return kept.to(getattr(torch, dtype)) / (1.0 - p)


def load_encoder(model: str | os.PathLike[str] = "minilm", dtype: str = "float32") -> Encoder:
    """Load a pretrained BERT.

    Args:
        model: "minilm", or a folder in Hugging Face's format (``config.json``,
            ``model.safetensors``, and ``tokenizer.json`` or ``vocab.txt``).
        dtype: "float32" or "float64".

    Returns:
        The encoder, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: if the folder or a file in it is missing.
        ValueError: if a file is damaged, or the model is no BERT.
        fewshot_course.data.DataError: if ``minilm`` cannot be had.
        ImportError: if ``transformers`` is not installed.
    """
    check_choice("dtype", dtype, ["float32", "float64"])
    return _load(find_bert(model), dtype)


def encode(
    texts: Any,
    model: str | os.PathLike[str] = "minilm",
    *,
    normalize: bool = False,
    max_length: int = 128,
    batch_size: int = 32,
    dtype: str = "float32",
    cache: bool = True,
    device: str = "auto",
) -> np.ndarray:
    """Return frozen features of texts: the mean over the tokens of a pretrained BERT's output.

    Features are kept on disk by content (text, model, settings) and kind of device, so a text is
    encoded once.

    Args:
        texts: list of str.
        model: "minilm", or a folder in Hugging Face's format.
        normalize: whether to give each vector the length 1, as the model card of minilm does.
        max_length: tokens a text may have; a longer one is cut, which a warning announces.
        batch_size: texts at once.
        dtype: "float32" or "float64".
        cache: whether to read and write features on disk.
        device: "auto", "cpu", "cuda", ...

    Returns:
        ``(n, d)`` of ``dtype``, in the order of ``texts``.

    Raises:
        TypeError: if ``texts`` is no list of str.
        ValueError: for an empty text, or a setting out of range.
    """
    place = resolve_device(device)
    return frozen_features(
        texts, model, lambda files: _pooler(files, dtype, place),
        framework="torch", normalize=normalize, max_length=max_length, batch_size=batch_size,
        dtype=dtype, cache=cache, device=place,
    )  # fmt: skip


@functools.lru_cache(maxsize=2)
def _pooler(files: BertFiles, dtype: str, device: str) -> Pooler:
    """Load a frozen encoder; the last two are kept, so that a cross-validation loads one once."""
    encoder = _load(files, dtype).to(device)

    @torch.inference_mode()
    def pooled(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        attended = to_tensor(mask, device)
        return to_array(mean_pool(encoder(to_tensor(ids, device), attended), attended))

    return pooled


def _load(files: BertFiles, dtype: str) -> Encoder:
    encoder = Encoder(files.config).to(getattr(torch, dtype)).eval()
    networks.from_numpy(encoder, read_weights(files, dtype))
    return encoder


def _pack(x: Tensor, places: Tensor) -> Tensor:
    """Keep the tokens at ``places`` of the flat batch: ``(n, L, ...)`` → ``(1, tokens, ...)``."""
    return x.flatten(0, 1).index_select(0, places)[None]


def _unpack(x: Tensor, places: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`_pack`, with 0 at the padding: ``(1, tokens, ...)`` → ``(n, L, ...)``."""
    padded = x.new_zeros(shape[0] * shape[1], *x.shape[2:])
    return padded.index_copy(0, places, x[0]).unflatten(0, tuple(shape))


class _LoRALinear(nn.Linear):
    """A linear layer with a low-rank update."""

    def __init__(self, width: int, rank: int, alpha: float) -> None:
        super().__init__(width, width)
        self.alpha = alpha
        self.lora_A = nn.Parameter(torch.zeros(rank, width))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + low_rank_update(x, self.lora_A, self.lora_B, self.alpha)


class _Dropout(nn.Module):
    """Multiply by a factor that was drawn elsewhere."""

    p = 0.0  # what transformers hands to its attention function
    factor: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.factor is None else x * self.factor


def _share_dropout(module: nn.Module) -> _Dropout:
    module.dropout = _Dropout()
    return module.dropout


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor,
    scaling: float | None = None, dropout: float = 0.0, *, places: Tensor, **_: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Attention as in transformers' eager one, but with the shared dropout, on packed tokens.

    Plain matrix products are faster here than the fused kernel: texts are short.
    """
    shape = (mask.shape[0], mask.shape[-1])
    query, key, value = (
        _unpack(x.transpose(1, 2), places, shape).transpose(1, 2) for x in (query, key, value)
    )
    scores = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
    weights = F.softmax(scores + mask, dim=-1)
    drop: Callable[[Tensor], Tensor] = module.dropout  # type: ignore[assignment]
    return _pack((drop(weights) @ value).transpose(1, 2), places), weights


def _bert_model(config: BertConfig) -> BertModel:
    try:
        with warnings.catch_warnings():
            # In a kernel without ipywidgets, tqdm warns of a progress bar that nothing here draws.
            warnings.filterwarnings("ignore", message="IProgress not found")
            from transformers import AttentionInterface, BertConfig, BertModel
    except ImportError as error:
        raise ImportError(
            f"a text encoder in PyTorch needs transformers >= 5.0 ({error}); install it with: "
            "pip install 'fewshot-course[text]'"
        ) from error
    AttentionInterface.register("fewshot_course", _attention)
    facts = {name: getattr(config, name) for name in config.__dataclass_fields__}
    hugging_face = BertConfig(**facts)
    hugging_face._attn_implementation = "fewshot_course"
    return BertModel(hugging_face, add_pooling_layer=False)
