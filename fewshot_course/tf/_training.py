"""The one training loop in TensorFlow: device, networks and optimisers around ``loop``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._reading import show
from fewshot_course.both.estimator import Storable, check_answer, networks_in
from fewshot_course.both.training import (
    Resumable,
    Run,
    Write,
    check_supported,
    loop,
    loss_scale,
    split_batch,
)
from fewshot_course.frameworks import device_kind
from fewshot_course.tf import networks
from fewshot_course.tf.optim import Optimizer
from fewshot_course.weights import part_of

__all__ = [
    "Networks",
    "Updater",
    "normal",
    "resolve_device",
    "supported_precisions",
    "to_array",
    "to_tensor",
    "train",
]


def resolve_device(device: str) -> str:
    """Return "cpu", "gpu:0", ...: ``device``, or for "auto" the fastest one at hand.

    "cuda" is taken as another word for "gpu".

    Raises:
        TypeError: if ``device`` is no string.
        ValueError: if this machine has no such device.
    """
    if device == "auto":
        return "gpu:0" if tf.config.list_physical_devices("GPU") else "cpu"
    if not isinstance(device, str):
        raise TypeError(f"device must be a string such as 'auto' or 'cpu', got {device!r}.")
    name = device.lower().replace("cuda", "gpu")
    kind, _, index = name.partition(":")
    at_hand = len(tf.config.list_physical_devices(kind.upper()))
    numbered = re.fullmatch("[0-9]{0,4}", index) is not None
    if kind not in ("cpu", "gpu") or not numbered or int(index or 0) >= at_hand:
        raise ValueError(
            f"device={show(device)} cannot be used here: TensorFlow sees {at_hand} device(s) of "
            f"that kind."
        )
    return "cpu" if kind == "cpu" else name


def supported_precisions(device: str = "auto") -> tuple[str, ...]:
    """Return what matrix products may be computed in on a device.

    float16 is left to GPUs: a CPU can emulate it, but neither faster nor with the range of
    bfloat16.  Support is not speed: a CPU without instructions for bfloat16 emulates it too.

    Args:
        device: "auto", "cpu", "cuda", ...

    Raises:
        ValueError: if this machine has no such device.
    """
    place = resolve_device(device)
    if place == "cpu":
        return ("float32", "bfloat16")
    gpu = tf.config.list_physical_devices("GPU")[int(place.partition(":")[2] or 0)]
    details = tf.config.experimental.get_device_details(gpu)
    if details.get("compute_capability", (8, 0)) < (8, 0):  # only NVIDIA's have one
        return ("float32", "float16")
    return ("float32", "bfloat16", "float16")


def to_tensor(array: np.ndarray, device: str, dtype: str | None = None) -> tf.Tensor:
    """Put an array on the device, as ``dtype`` if given."""
    with tf.device(device):
        return tf.convert_to_tensor(np.asarray(array, dtype=dtype))


def to_array(value: tf.Tensor) -> np.ndarray:
    """Bring a tensor back to NumPy."""
    return value.numpy()


def normal(rng: np.random.Generator, shape: tuple[int, ...], device: str, dtype: str) -> tf.Tensor:
    """Draw standard normal noise: on the CPU with NumPy, else on the device from a drawn seed."""
    if device == "cpu":
        return to_tensor(rng.standard_normal(shape), device, dtype)
    seed = rng.integers(2**31, size=2)
    with tf.device(device):
        return tf.random.stateless_normal(shape, seed=seed, dtype=dtype)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the mean cross-entropy of logits ``(n, C)`` and class indices ``(n,)``, a scalar."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


class Updater:
    """Does one update of the weights from a batch, in mixed precision and in parts if asked to.

    The weights stay in float32; with a lower precision the matrix products are computed in it.
    In parts (gradient accumulation) a batch needs the memory of one part; the gradient is the
    same but for rounding, as long as the loss is a mean over examples that do not see each other.

    Args:
        loss_of: takes tensors of some examples, first axis ``n``; returns their mean loss.
        optimizers: those of all weights that are trained.
        device: where it runs.
        precision: "float32" (the weights' own dtype), "bfloat16" or "float16".
        accumulate: parts of a batch.
        network: its linear and convolutional layers are what computes in a lower precision.
        signature: shapes and dtypes of the tensors of ``loss_of``, lengths left open.
        strategy: averages loss and gradients over the workers it knows; ``None``: one process.

    Attributes:
        scale: the loss scale; belongs to the resumables of a training in float16.

    Raises:
        ValueError: if the device does not support the precision.
    """

    def __init__(
        self,
        loss_of: Callable[..., tf.Tensor],
        optimizers: Sequence[Optimizer],
        *,
        device: str,
        precision: str = "float32",
        accumulate: int = 1,
        network: keras.Model,
        signature: Sequence[tf.TensorSpec],
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        check_supported(precision, device, supported_precisions(device))
        self.scale = loss_scale(precision)
        self._loss_of, self._optimizers, self._accumulate = loss_of, optimizers, accumulate
        self._weights = [weight for one in optimizers for weight in one.parameters]
        self._strategy = strategy
        number = tf.TensorSpec((), tf.float64)
        sums = [tf.TensorSpec(weight.shape, weight.dtype) for weight in self._weights]
        scalar = tf.TensorSpec((), self._weights[0].dtype)
        self._whole = accumulate == 1 and self.scale.patience is None
        with networks.mixed_precision(network, precision):
            if self._whole:
                self._update = self._compile(self._update_whole, signature)
            else:
                self._part = self._compile(self._gradients, [number, *signature])
                self._mean = self._compile(self._mean_of_workers, [scalar, *sums])
                self._apply = self._compile(self._apply_scaled, [number, *sums])

    def _compile(self, function: Callable[..., Any], signature: Sequence[tf.TensorSpec]) -> Any:
        strategy = self._strategy

        def run(*tensors: tf.Tensor) -> Any:
            return function(*tensors) if strategy is None else strategy.run(function, args=tensors)

        # Without AutoGraph tracing takes a fraction of the time.
        compiled = tf.function(run, input_signature=signature, autograph=False)
        return compiled.get_concrete_function()

    def __call__(self, *batch: tf.Tensor) -> tf.Tensor:
        """Update the weights; returns the mean loss of the batch before."""
        if self._whole:
            return self._update(*batch)
        scale = self.scale.value
        sums: list[tf.Tensor] = []
        for part, share in split_batch(len(batch[0]), self._accumulate):
            factor = tf.constant(share * scale, tf.float64)
            found = self._part(factor, *(tensor[part] for tensor in batch))
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        loss, *gradients = sums if self._strategy is None else self._mean(*sums)
        if self.scale.patience is None or self.scale.update(_finite(gradients)):
            self._apply(tf.constant(1 / scale, tf.float64), *gradients)
        return loss / tf.constant(scale, loss.dtype)

    def _update_whole(self, *batch: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._weights)
            loss = self._loss_of(*batch)
        gradients = tape.gradient(loss, self._weights)
        if self._strategy is not None:
            loss, *gradients = self._mean_of_workers(loss, *map(tf.convert_to_tensor, gradients))
        self._step(gradients)
        return loss

    def _gradients(self, factor: tf.Tensor, *batch: tf.Tensor) -> list[tf.Tensor]:
        """Return ``factor`` · loss of a part, and its gradients."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._weights)
            loss = self._loss_of(*batch)
            loss *= tf.cast(factor, loss.dtype)
        return [loss, *map(tf.convert_to_tensor, tape.gradient(loss, self._weights))]

    def _mean_of_workers(self, *tensors: tf.Tensor) -> list[tf.Tensor]:
        mean = tf.distribute.ReduceOp.MEAN
        placed = list(map(tf.identity, tensors))  # an argument has no device yet
        return tf.distribute.get_replica_context().all_reduce(mean, placed)

    def _apply_scaled(self, factor: tf.Tensor, *gradients: tf.Tensor) -> tf.Tensor:
        self._step([tf.cast(factor, g.dtype) * g for g in gradients])
        return factor

    def _step(self, gradients: Sequence[tf.Tensor]) -> None:
        for optimizer in self._optimizers:
            n = len(optimizer.parameters)
            optimizer.apply(gradients[:n])
            gradients = gradients[n:]


def _finite(tensors: Sequence[tf.Tensor]) -> bool:
    return all(bool(tf.reduce_all(tf.math.is_finite(tensor))) for tensor in tensors)


class Networks(Storable):
    """What every estimator does with its networks in the same way; stands before its settings.

    The estimator has three doors: ``_build`` makes the networks, ``_learn`` trains them, and
    ``_apply`` asks them.  ``_networks`` names them: "network" is the attribute ``network_``.
    """

    _networks: tuple[str, ...] = ("network",)
    _device: str = "cpu"

    _resolve = staticmethod(resolve_device)

    def _modules(self) -> dict[str, keras.Model]:
        """Return the networks by name; one that this model does not need is None and left out."""
        found = {name: getattr(self, f"{name}_") for name in self._networks}
        return {name: module for name, module in found.items() if module is not None}

    def _in_blocks(
        self, apply: Callable[[tf.Tensor], tf.Tensor], X: np.ndarray, size: int = 1024
    ) -> np.ndarray:
        """Apply a function of tensors ``(b, ...)`` to ``size`` rows at a time."""
        blocks = [X[start : start + size] for start in range(0, len(X), size)]
        tensors = (to_tensor(block, self._device, self.dtype) for block in blocks)
        return check_answer(np.concatenate([to_array(apply(tensor)) for tensor in tensors]))

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        arrays = super()._fitted_arrays()
        for name, module in self._modules().items():
            arrays |= {f"{name}.{k}": value for k, value in networks.to_numpy(module).items()}
        return arrays

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        super()._restore(arrays)
        self._device = "cpu"
        self._build(np.random.default_rng(0), self._device)
        modules = self._modules()
        for name, part in networks_in(arrays, modules).items():
            networks.from_numpy(modules[name], part)


def train(
    step: Callable[[int], Mapping[str, tf.Tensor | float]],
    run: Run,
    *,
    steps: int,
    modules: Mapping[str, keras.Model],
    optimizers: Mapping[str, Optimizer],
    resumables: Mapping[str, Resumable],
    fingerprint: Mapping[str, Any],
    stop: Callable[[], bool] | None = None,
) -> dict[str, np.ndarray]:
    """Train with ``step`` until ``steps`` updates are done; see ``loop`` in ``both/training.py``.

    Args:
        step: does one update, returns named scalars, among them "loss".
        run: where to run and what to write.
        steps: number of updates in all.
        modules: the networks by name.
        optimizers: the optimisers by name.
        resumables: random streams, batches and schedules by name.
        fingerprint: what a checkpoint to resume from must match.
        stop: asked after each step; true ends the run before its last step.

    Returns:
        name → array ``(steps,)`` of the scalars.
    """

    def capture() -> dict[str, np.ndarray]:
        arrays = {
            f"{name}.{key}": value
            for name, module in modules.items()
            for key, value in networks.to_numpy(module).items()
        }
        for name, optimizer in optimizers.items():
            arrays |= {f"{name}.{k}": to_array(v) for k, v in _variables(optimizer).items()}
        return arrays

    def restore(arrays: Mapping[str, np.ndarray]) -> None:
        for name, module in modules.items():
            networks.from_numpy(module, part_of(arrays, name))
        for name, optimizer in optimizers.items():
            saved = part_of(arrays, name)
            for key, variable in _variables(optimizer).items():
                variable.assign(saved[key])

    with tf.device(run.device):
        return loop(
            step,
            run,
            steps=steps,
            capture=capture,
            restore=restore,
            resumables=resumables,
            learning_rate=lambda: next((float(one.lr) for one in optimizers.values()), 0.0),
            fingerprint={
                "framework": "tensorflow",
                "device": device_kind(run.device),
                "threads": _threads(),
                "architecture": {name: _shapes(module) for name, module in modules.items()},
                **fingerprint,
            },
            open_log=_open_log,
            stop=stop,
        )


def _threads() -> int:
    """Return the threads of one operation: as set, as the environment says, or one a core."""
    told = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    set_here = tf.config.threading.get_intra_op_parallelism_threads()
    return set_here or (int(told) if told.isdigit() else 0) or os.cpu_count() or 1


def _variables(optimizer: Optimizer) -> dict[str, tf.Variable]:
    slots = {
        f"{index}.{slot}": variable
        for slot, variables in optimizer.slots.items()
        for index, variable in enumerate(variables)
    }
    return {"lr": optimizer.lr, "steps": optimizer.steps, **slots}


def _shapes(module: keras.Model) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in networks.to_numpy(module).items()}


@contextmanager
def _open_log(folder: str) -> Iterator[Write]:
    writer = tf.summary.create_file_writer(folder)

    def write(name: str, value: float, step: int) -> None:
        with writer.as_default():
            tf.summary.scalar(name, value, step=step)
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
