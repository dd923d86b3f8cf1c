"""Batch norm's statistics taken from the target, in PyTorch (Li et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot_course._arguments import checked
from fewshot_course._streams import Streams
from fewshot_course.both import adabn as settings
from fewshot_course.both.adabn import Moments
from fewshot_course.both.kl_adaptation import Domains
from fewshot_course.both.training import Run
from fewshot_course.torch._training import to_array, to_tensor
from fewshot_course.torch.kl_adaptation import AdapterNetworks
from fewshot_course.torch.networks import BatchNorm

__all__ = ["AdaBNAdapter", "adapt_batch_norm"]

_LAYERS = (BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@checked
def adapt_batch_norm(network: nn.Module, blocks: Sequence[Tensor]) -> int:
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
    was_training = network.training
    network.eval()
    order: dict[nn.Module, None] = {}
    with torch.no_grad():
        with _watching(_layers(network), lambda layer, _: order.setdefault(layer)):
            network(blocks[0][:1])
        for layer in order:
            moments = Moments()
            with _watching([layer], lambda _, x, into=moments: into.add(_rows(x, axis=1))):
                for block in blocks:
                    network(block)
            mean, variance = _statistics(layer)
            mean.copy_(torch.as_tensor(moments.mean))
            variance.copy_(torch.as_tensor(moments.variance))
    network.train(was_training)
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


def _layers(network: nn.Module) -> list[nn.Module]:
    """Return the batch-norm layers that keep running statistics."""
    found = (module for module in network.modules() if isinstance(module, _LAYERS))
    return [layer for layer in found if layer.running_mean is not None]


def _statistics(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.running_mean, layer.running_var


@contextmanager
def _watching(layers: Iterable[nn.Module], see: Any) -> Iterator[None]:
    """Call ``see(layer, inputs)`` whenever one of the layers is called."""

    def seen(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(layer, inputs[0])

    handles = [layer.register_forward_pre_hook(seen) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(x: Tensor, axis: int) -> np.ndarray:
    """Return activations with channels on ``axis`` as ``(n·..., c)``."""
    moved = np.moveaxis(to_array(x), axis, -1)
    return moved.reshape(-1, moved.shape[-1])
