"""From one process to several in TensorFlow: precision, accumulation, data-parallel training.

Workers are processes with a ``TF_CONFIG``; ``tf.distribute.MultiWorkerMirroredStrategy`` joins
them.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tensorflow as tf

from fewshot_course._arguments import COUNT, checked
from fewshot_course._streams import Streams
from fewshot_course.both import scaling as settings
from fewshot_course.both.scaling import (
    WorkerError,
    check_divides,
    python,
    worker_command,
)
from fewshot_course.both.training import LossScale, Run, fingerprint_of, split_batch
from fewshot_course.data import BatchStream
from fewshot_course.tf import _start, networks, optim
from fewshot_course.tf._training import (
    Networks,
    Updater,
    cross_entropy,
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
    loss_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    weights: Sequence[tf.Variable],
    X: tf.Tensor,
    y: tf.Tensor,
    parts: int,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
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
    total, sums = tf.zeros((), X.dtype), [tf.zeros_like(weight) for weight in weights]
    for part, share in split_batch(len(X), parts):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = loss_of(X[part], y[part])
            loss = tf.constant(share, loss.dtype) * loss
        gradients = tape.gradient(loss, weights)
        total = total + loss
        sums = [a + b for a, b in zip(sums, gradients, strict=True)]
    return total, sums


@checked
def average_gradients(
    gradients: Sequence[Sequence[tf.Tensor]], sizes: Sequence[int]
) -> list[tf.Tensor]:
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
        tf.add_n([tf.constant(share, g.dtype) * g for share, g in zip(shares, same, strict=True)])
        for same in zip(*gradients, strict=True)
    ]


class DataParallelClassifier(Networks, settings.DataParallelClassifier):
    __doc__ = settings.DataParallelClassifier.__doc__

    def _build(self, rng: np.random.Generator, device: str) -> None:
        shape, outputs = self.input_shape_, len(self.classes_)
        with tf.device(device):
            self.network_ = networks.build(self.network, shape, outputs, rng, self.dtype)

    def _learn(
        self, X: np.ndarray, labels: np.ndarray, batches: BatchStream, streams: Streams,
        rank: int, run: Run,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        network = self.network_
        share = check_divides(batches.batch_size, self.workers)
        inputs, targets = to_tensor(X, run.device, self.dtype), to_tensor(labels, run.device)
        weights = [weight.value for weight in network.trainable_variables]
        optimizer = optim.adamw(weights, self.lr, weight_decay=self.weight_decay)

        def loss_of(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            logits = tf.cast(network(x, training=True), inputs.dtype)
            return cross_entropy(logits, y)

        signature = [
            tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype),
            tf.TensorSpec((None,), tf.int64),
        ]
        update = Updater(
            loss_of, [optimizer], device=run.device, precision=self.precision,
            accumulate=self.accumulate, network=network, signature=signature,
            strategy=_start.strategy if self.workers > 1 else None,
        )  # fmt: skip

        def step(number: int) -> Mapping[str, tf.Tensor]:
            own = batches.next()[rank * share : (rank + 1) * share]
            loss = update(tf.gather(inputs, own), tf.gather(targets, own))
            self._tick()
            return {"loss": loss}

        return train(
            step,
            run,
            steps=self.steps,
            modules={"network": network},
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams, "batches": batches, "scale": update.scale},
            fingerprint=fingerprint_of(self, X, labels),
        )

    def _apply(self, X: np.ndarray) -> np.ndarray:
        return self._in_blocks(lambda x: tf.nn.softmax(self.network_(x)), X, max(len(X), 1))

    def _place(self, device: str) -> str:
        place = resolve_device(device)
        at_hand = len(tf.config.list_physical_devices("GPU"))
        if place != "cpu" and self._group()[1] == 1 and self.workers > max(at_hand, 1):
            raise ValueError(
                f"workers={self.workers}, but there are {at_hand} GPUs; each worker takes one."
            )
        return place

    def _group(self) -> tuple[int, int]:
        return _start.group()

    def _commands(self, folder: Path, device: str) -> list[tuple[list[str], dict[str, str]]]:
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(self.workers)]
        commands = []
        for rank in range(self.workers):
            group = {
                "cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}
            }  # fmt: skip
            gpu = {} if device == "cpu" else {"CUDA_VISIBLE_DEVICES": str(rank)}
            worker = [python(), *worker_command("tf", folder)]
            commands.append((worker, {"TF_CONFIG": json.dumps(group), **gpu}))
        return commands


def _free_ports(n: int) -> list[int]:
    """Return ports of this machine that nobody listens at now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
