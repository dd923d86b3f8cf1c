"""Batch norm's statistics taken from the target, in TensorFlow (Li et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import checked
from fewshot_course._streams import Streams
from fewshot_course.both import adabn as settings
from fewshot_course.both.adabn import Moments
from fewshot_course.both.kl_adaptation import Domains
from fewshot_course.both.training import Run
from fewshot_course.tf._training import to_array, to_tensor
from fewshot_course.tf.kl_adaptation import AdapterNetworks
from fewshot_course.tf.networks import BatchNorm

__all__ = ["AdaBNAdapter", "adapt_batch_norm"]

_LAYERS = (BatchNorm, keras.layers.BatchNormalization)


@checked
def adapt_batch_norm(network: keras.Model, blocks: Sequence[tf.Tensor]) -> int:
    """Set the statistics of every batch-norm layer to those of its inputs over all examples.

    Layer by layer, in the order in which the network calls them: first the mean and the unbiased
    variance of the first layer's inputs, then, with these in place, those of the second, and so
    on (Li et al. 2016, algorithm 1).  That is what one pass of all examples as a single batch
    would give, in the memory of one block.  Weights stay as they are.

    Args:
        network: takes a block; changed in place.
        blocks: the examples in parts of any size, each ``(b, ...)``; no example may be missing.

    Returns:
        The number of layers that were set; 0 for a network without such a layer.

    Raises:
        ValueError: if there are no examples.
    """
    blocks = list(blocks)
    if not sum(len(block) for block in blocks):
        raise ValueError("blocks must hold at least one example, got none.")
    order: dict[keras.layers.Layer, None] = {}
    with _watching(_layers(network), lambda layer, _: order.setdefault(layer)):
        network(blocks[0][:1], training=False)
    for layer in order:
        moments = Moments()
        axis = getattr(layer, "axis", -1)
        with _watching([layer], lambda _, x, into=moments, axis=axis: into.add(_rows(x, axis))):
            for block in blocks:
                network(block, training=False)
        mean, variance = _statistics(layer)
        mean.assign(tf.cast(moments.mean, mean.dtype))
        variance.assign(tf.cast(moments.variance, variance.dtype))
    return len(order)


class AdaBNAdapter(AdapterNetworks, settings.AdaBNAdapter):
    __doc__ = settings.AdaBNAdapter.__doc__

    def _learn(self, data: Domains, streams: Streams, run: Run) -> dict[str, np.ndarray]:
        self._check_has_layers(len(_layers(self.network_.encoder)))
        history = super()._learn(data, streams, run)
        size = 1024
        parts = [data.X_target[i : i + size] for i in range(0, len(data.X_target), size)]
        adapt_batch_norm(
            self.network_.encoder, [to_tensor(part, run.device, self.dtype) for part in parts]
        )
        return history


def _layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Return the batch-norm layers that keep running statistics."""
    return [layer for layer in network._flatten_layers() if isinstance(layer, _LAYERS)]


def _statistics(layer: keras.layers.Layer) -> tuple[Any, Any]:
    if isinstance(layer, BatchNorm):
        return layer.running_mean, layer.running_var
    return layer.moving_mean, layer.moving_variance


@contextmanager
def _watching(layers: Iterable[keras.layers.Layer], see: Any) -> Iterator[None]:
    """Call ``see(layer, inputs)`` whenever one of the layers is called."""
    layers = list(layers)

    def watched(layer: keras.layers.Layer, call: Any) -> Any:
        def seen(x: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
            see(layer, x)
            return call(x, *args, **kwargs)

        return seen

    for layer in layers:  # Keras has no hooks: the instance's own ``call`` hides that of its class
        layer.call = watched(layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _rows(x: tf.Tensor, axis: int) -> np.ndarray:
    """Return activations with channels on ``axis`` as ``(n·..., c)``."""
    moved = np.moveaxis(to_array(x), axis, -1)
    return moved.reshape(-1, moved.shape[-1])
