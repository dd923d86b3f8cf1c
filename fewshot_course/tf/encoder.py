"""A BERT that turns texts into features, in TensorFlow: Keras layers with the same weights."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import BELOW_ONE, checked
from fewshot_course._checks import check_choice
from fewshot_course.both.bert import BertConfig, BertFiles, find_bert, read_weights
from fewshot_course.both.encoder import Pooler, frozen_features
from fewshot_course.tf import networks
from fewshot_course.tf._training import resolve_device, to_array, to_tensor
from fewshot_course.tf.networks import LayerNorm

__all__ = ["Encoder", "dropout_masks", "encode", "load_encoder", "low_rank_update", "mean_pool"]


class Encoder(keras.Model):
    """BERT without a head: token numbers in, a vector for each token out (Devlin et al. 2019).

    transformers 5 has no TensorFlow models, so the layers stand here.  Dropout takes masks from
    outside, so that both frameworks drop the same.

    Args:
        config: the architecture.
        lora_rank: rank of a low-rank update of queries and values (Hu et al. 2022); 0: none.
        lora_alpha: its scale; the update is multiplied by ``lora_alpha / lora_rank``.
    """

    def __init__(self, config: BertConfig, lora_rank: int = 0, lora_alpha: float = 16.0) -> None:
        super().__init__(name="bert")
        self.config = config
        shapes = config.shapes(lora_rank)
        # One flat list in the canonical order; a layer's name is the canonical one.
        self.parts = []
        for name, shape in shapes.items():
            layer, _, kind = name.rpartition(".")
            if kind != "weight":
                continue
            if len(shape) == 1:
                self.parts.append(LayerNorm(shape[0], eps=config.layer_norm_eps, name=layer))
            elif layer.endswith("_embeddings"):
                self.parts.append(_Table(shape, name=layer))
            elif f"{layer}.lora_A" in shapes:
                self.parts.append(_LoRALinear(shape[0], lora_rank, lora_alpha, name=layer))
            else:
                self.parts.append(linear(shape[1], shape[0], name=layer))
        self._part = {part.name: part for part in self.parts}
        self.built = True

    def call(
        self, ids: tf.Tensor, mask: tf.Tensor, dropout: Sequence[tf.Tensor] | None = None
    ) -> tf.Tensor:
        """Map token numbers ``(n, L)`` and their mask to the token sequence ``(n, L, d)``.

        Padding costs attention only: elsewhere the tokens of all texts stand in one row.

        Args:
            ids: int64.
            mask: 1 for a token, 0 for padding.
            dropout: factors from :func:`dropout_masks`; ``None`` drops nothing.

        Returns:
            ``(n, L, d)``, 0 where there is padding.
        """
        places = tf.where(tf.reshape(mask, (-1,)) > 0)[:, 0]
        drop = _dropper(dropout, places)
        length = tf.shape(ids)[1]
        words, positions, types, norm = (part for part in self.parts[:4])
        x = words(ids) + types.weight[0] + positions.weight[:length]
        x = _pack(drop(norm(x)), places)
        hidden = (1 - tf.cast(mask, x.dtype))[:, None, None, :] * x.dtype.min
        for index in range(self.config.num_hidden_layers):
            x = self._layer(f"encoder.layer.{index}", x, hidden, places, drop)
        return _unpack(x, places, tf.shape(ids))

    def _layer(
        self, name: str, x: tf.Tensor, hidden: tf.Tensor, places: tf.Tensor, drop: _Drop
    ) -> tf.Tensor:
        """One transformer layer on the tokens ``(tokens, d)``."""

        def linear(layer: str, y: tf.Tensor) -> tf.Tensor:
            # In mixed precision a linear layer returns the low one; sums are made in x's.
            return tf.cast(self._part[f"{name}.{layer}"](y), x.dtype)

        part = self._part
        attended = self._attention(f"{name}.attention.self", x, hidden, places, drop)
        attended = drop(linear("attention.output.dense", attended))
        x = part[f"{name}.attention.output.LayerNorm"](attended + x)
        inner = gelu(linear("intermediate.dense", x))
        return part[f"{name}.output.LayerNorm"](drop(linear("output.dense", inner)) + x)

    def _attention(
        self, name: str, x: tf.Tensor, hidden: tf.Tensor, places: tf.Tensor, drop: _Drop
    ) -> tf.Tensor:
        """Self-attention, several heads at once; returns ``(tokens, d)``."""
        heads = self.config.num_attention_heads
        width = self.config.hidden_size // heads
        shape = tf.shape(hidden)[0], tf.shape(hidden)[-1]

        def split(kind: str) -> tf.Tensor:
            y = _unpack(self._part[f"{name}.{kind}"](x), places, shape)
            return tf.transpose(tf.reshape(y, (*shape, heads, width)), (0, 2, 1, 3))

        query, key, value = split("query"), split("key"), split("value")
        scores = tf.cast(tf.matmul(query, key, transpose_b=True), x.dtype)
        weights = drop(tf.nn.softmax(scores * tf.constant(width**-0.5, x.dtype) + hidden))
        mixed = tf.matmul(tf.cast(weights, value.dtype), value)
        mixed = tf.transpose(mixed, (0, 2, 1, 3))
        return _pack(tf.reshape(mixed, (*shape, heads * width)), places)


@checked
def mean_pool(sequence: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the mean of a text's token vectors, padding left out: ``(n, L, d)`` → ``(n, d)``."""
    weight = tf.cast(mask, sequence.dtype)[..., None]
    return tf.reduce_sum(sequence * weight, 1) / tf.reduce_sum(weight, 1)


@checked
def low_rank_update(x: tf.Tensor, lora_A: tf.Tensor, lora_B: tf.Tensor, alpha: float) -> tf.Tensor:
    """Return what LoRA adds to a linear layer's output: α/r · x Aᵀ Bᵀ (Hu et al. 2022).

    Args:
        x: ``(..., n_in)``.
        lora_A: ``(r, n_in)``.
        lora_B: ``(n_out, r)``; starts at 0, so that tuning starts from the pretrained model.
        alpha: α.
    """
    scale = tf.constant(alpha / lora_A.shape[0], x.dtype)
    inner = tf.matmul(x, lora_A, transpose_b=True)
    return scale * tf.matmul(inner, lora_B, transpose_b=True)


@checked(p=BELOW_ONE)
def dropout_masks(
    config: BertConfig, shape: tuple[int, int], p: float, rng: np.random.Generator, device: str,
    dtype: str = "float32",
) -> list[tf.Tensor]:  # fmt: skip
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
) -> tf.Tensor:
    """Draw one array of dropout factors."""
    with tf.device(device):
        if device == "cpu":
            kept = tf.constant(rng.random(shape, dtype=np.float32) >= p)
        else:
            kept = tf.random.stateless_uniform(shape, seed=rng.integers(2**31, size=2)) >= p
        return tf.cast(kept, dtype) / tf.constant(1.0 - p, dtype)


def load_encoder(model: str | os.PathLike[str] = "minilm", dtype: str = "float32") -> Encoder:
    """Load a pretrained BERT.

    Args:
        model: "minilm", or a folder in Hugging Face's format (``config.json``,
            ``model.safetensors``, and ``tokenizer.json`` or ``vocab.txt``).
        dtype: "float32" or "float64".

    Returns:
        The encoder.

    Raises:
        FileNotFoundError: if the folder or a file in it is missing.
        ValueError: if a file is damaged, or the model is no BERT.
        fewshot_course.data.DataError: if ``minilm`` cannot be had.
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
        framework="tensorflow", normalize=normalize, max_length=max_length, batch_size=batch_size,
        dtype=dtype, cache=cache, device=place,
    )  # fmt: skip


@functools.lru_cache(maxsize=2)
def _pooler(files: BertFiles, dtype: str, device: str) -> Pooler:
    """Load a frozen encoder; the last two are kept, so that a cross-validation loads one once."""
    with tf.device(device):
        encoder = _load(files, dtype)
    run = compiled(lambda ids, mask: mean_pool(encoder(ids, mask), mask))

    def pooled(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return to_array(run(to_tensor(ids, device), to_tensor(mask, device)))

    return pooled


def compiled(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Compile a function of token numbers and mask, once for all lengths, at its first call.

    The concrete function is called: ``tf.function`` itself would warn of "retracing" where many
    models come after each other.  Without AutoGraph tracing takes a fraction of the time.
    """
    ints = tf.TensorSpec((None, None), tf.int64)
    traced = functools.cache(
        tf.function(function, input_signature=[ints, ints], autograph=False).get_concrete_function
    )
    return lambda ids, mask: traced()(ids, mask)


def _load(files: BertFiles, dtype: str) -> Encoder:
    with networks.layer_dtype(dtype):
        encoder = Encoder(files.config)
    networks.from_numpy(encoder, read_weights(files, dtype))
    return encoder


_Drop = Callable[[tf.Tensor], tf.Tensor]


def _dropper(factors: Sequence[tf.Tensor] | None, places: tf.Tensor) -> _Drop:
    """Return a function that multiplies by the next factor at each call."""
    if factors is None:
        return lambda x: x
    words, *others = factors  # the words' and the attention weights' are not packed
    coming = iter([words, *(_pack(f, places) if f.shape.rank == 3 else f for f in others)])
    return lambda x: x * next(coming)


def _pack(x: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Keep the tokens at ``places`` of the flat batch: ``(n, L, d)`` → ``(tokens, d)``."""
    return tf.gather(tf.reshape(x, (-1, x.shape[-1])), places)


def _unpack(x: tf.Tensor, places: tf.Tensor, shape: Sequence[Any]) -> tf.Tensor:
    """Undo :func:`_pack`, with 0 at the padding: ``(tokens, d)`` → ``(n, L, d)``."""
    n, length, width = shape[0], shape[1], x.shape[-1]
    padded = tf.scatter_nd(places[:, None], x, tf.cast((n * length, width), places.dtype))
    return tf.reshape(padded, (n, length, width))


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Return x·Φ(x), exactly; Keras' and TensorFlow's own round √2 to float32 on the way."""
    half, root = tf.constant(0.5, x.dtype), tf.constant(2**-0.5, x.dtype)
    return half * x * (1 + tf.math.erf(x * root))


class _Table(keras.layers.Layer):
    """A table of vectors, one for each token, position or type."""

    def __init__(self, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = self.add_weight(shape=shape, initializer="zeros", name="weight")
        self.built = True

    def call(self, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.weight, index)


class _LoRALinear(keras.layers.Dense):
    """A linear layer with a low-rank update."""

    def __init__(self, width: int, rank: int, alpha: float, **kwargs: Any) -> None:
        super().__init__(width, kernel_initializer="zeros", **kwargs)
        self.rank, self.alpha = rank, alpha
        self.build((None, width))

    def build(self, input_shape: tuple[int | None, int]) -> None:
        super().build(input_shape)
        width = self.units
        self.lora_A = self.add_weight(shape=(self.rank, width), initializer="zeros", name="lora_A")
        self.lora_B = self.add_weight(shape=(width, self.rank), initializer="zeros", name="lora_B")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return super().call(x) + low_rank_update(x, self.lora_A, self.lora_B, self.alpha)


def linear(n_in: int, n_out: int, name: str) -> keras.layers.Dense:
    """Make a linear layer whose weights are there at once."""
    layer = keras.layers.Dense(n_out, kernel_initializer="zeros", name=name)
    layer.build((None, n_in))
    return layer
