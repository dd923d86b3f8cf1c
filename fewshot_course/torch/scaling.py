"""From one process to several in PyTorch: precision, accumulation, data-parallel training.

Workers are started by ``torchrun``; ``accelerate`` wraps the network in DistributedDataParallel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot_course._arguments import COUNT, checked
from fewshot_course._streams import Streams
from fewshot_course.both import scaling as settings
from fewshot_course.both.scaling import (
    WorkerError,
    check_divides,
    need,
    python,
    worker_command,
)
from fewshot_course.both.training import LossScale, Run, fingerprint_of, split_batch
from fewshot_course.data import BatchStream
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import (
    Networks,
    Updater,
    resolve_device,
    supported_precisions,
    to_tensor,
    train,
)

__all__ = [
    "DataParallelClassifier",
    "LossScale",
    "WorkerError",
    "accumulate_gradients",
    "average_gradients",
    "split_batch",
    "supported_precisions",
]


@checked(parts=COUNT)
def accumulate_gradients(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    weights: Sequence[Tensor],
    X: Tensor,
    y: Tensor,
    parts: int,
) -> tuple[Tensor, list[Tensor]]:
    """Return the loss of a batch and its gradient, worked through in parts.

    The mean over n examples is Σ_k (n_k / n) · (mean over part k), and so is its gradient; only
    one part is in memory at a time.

    Args:
        loss_of: maps examples and labels to their mean loss.
        weights: what to take the gradient by.
        X: ``(n, ...)``.
        y: ``(n,)``.
        parts: number of parts, ≥ 1; their sizes differ by one at most.

    Returns:
        The mean loss, a scalar, and the gradient by each of the weights.
    """
    total, sums = torch.zeros(()).to(X), [torch.zeros_like(weight) for weight in weights]
    for part, share in split_batch(len(X), parts):
        loss = share * loss_of(X[part], y[part])
        gradients = torch.autograd.grad(loss, weights)
        total = total + loss.detach()
        sums = [a + b for a, b in zip(sums, gradients, strict=True)]
    return total, sums


@checked
def average_gradients(gradients: Sequence[Sequence[Tensor]], sizes: Sequence[int]) -> list[Tensor]:
    """Return what an all-reduce gives every worker: Σ_r (n_r / n) · g_r.

    With g_r the gradient of the mean loss over worker r's n_r examples this is the gradient of
    the mean over all of them.

    Args:
        gradients: for each worker the gradient by each weight.
        sizes: examples that each worker had.

    Raises:
        ValueError: if there is not one size a worker.
    """
    if len(sizes) != len(gradients):
        raise ValueError(f"sizes has {len(sizes)} numbers for {len(gradients)} workers.")
    shares = [size / sum(sizes) for size in sizes]
    return [
        torch.stack([share * g for share, g in zip(shares, same, strict=True)]).sum(0)
        for same in zip(*gradients, strict=True)
    ]


class DataParallelClassifier(Networks, settings.DataParallelClassifier):
    __doc__ = settings.DataParallelClassifier.__doc__

    def _build(self, rng: np.random.Generator, device: str) -> None:
        shape, outputs = self.input_shape_, len(self.classes_)
        self.network_ = networks.build(self.network, shape, outputs, rng, self.dtype).eval()

    def _learn(
        self, X: np.ndarray, labels: np.ndarray, batches: BatchStream, streams: Streams,
        rank: int, run: Run,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        network, wrapped, no_sync, mean = self.network_, self.network_, {}, None
        device = run.device
        if self.workers > 1:
            from accelerate import Accelerator

            accelerator = Accelerator(cpu=device == "cpu")
            device = str(accelerator.device)
            wrapped = accelerator.prepare(network)
            no_sync = {"no_sync": wrapped.no_sync}
            mean = accelerator.reduce
        network.to(device)
        share = check_divides(batches.batch_size, self.workers)
        inputs, targets = to_tensor(X, device, self.dtype), to_tensor(labels, device)
        optimizer = optim.adamw(network.parameters(), self.lr, weight_decay=self.weight_decay)

        def loss_of(x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(wrapped(x).to(inputs.dtype), y)

        update = Updater(
            loss_of, [optimizer], device=device, precision=self.precision,
            accumulate=self.accumulate, **no_sync,
        )  # fmt: skip

        def step(number: int) -> Mapping[str, Tensor]:
            own = to_tensor(batches.next()[rank * share : (rank + 1) * share], device)
            loss = update(inputs[own], targets[own])
            loss = loss if mean is None else mean(loss, reduction="mean")
            self._tick()
            return {"loss": loss}

        history = train(
            step,
            replace(run, device=device),
            steps=self.steps,
            modules={"network": network},
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams, "batches": batches, "scale": update.scale},
            fingerprint=fingerprint_of(self, X, labels),
        )
        self.network_, self._device = network.cpu(), "cpu"
        if self.workers > 1:
            accelerator.end_training()
        return history

    def _apply(self, X: np.ndarray) -> np.ndarray:
        return self._in_blocks(lambda x: F.softmax(self.network_(x), dim=1), X, max(len(X), 1))

    def _place(self, device: str) -> str:
        place = resolve_device(device)
        if self.workers > 1:
            need("accelerate")
            if place != "cpu" and self.workers > torch.cuda.device_count():
                raise ValueError(
                    f"workers={self.workers}, but there are {torch.cuda.device_count()} GPUs; "
                    "each worker takes one."
                )
        return place

    def _group(self) -> tuple[int, int]:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

    def _commands(self, folder: Path, device: str) -> list[tuple[list[str], dict[str, str]]]:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        worker = worker_command("torch", folder)
        return [([python(), *launcher, str(self.workers), *worker], {"OMP_NUM_THREADS": "1"})]
