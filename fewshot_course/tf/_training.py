"""The one training loop in TensorFlow: device, networks and optimisers around ``_loop.run``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course import _loop
from fewshot_course.tf import networks
from fewshot_course.tf.optim import Optimizer
from fewshot_course.weights import part_of

__all__ = ["normal", "resolve_device", "to_array", "to_tensor", "train"]


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
    if kind not in ("cpu", "gpu") or not (index or "0").isdigit() or int(index or 0) >= at_hand:
        raise ValueError(
            f"device={device!r} cannot be used here: TensorFlow sees {at_hand} device(s) of that "
            f"kind."
        )
    return "cpu" if kind == "cpu" else name


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


def train(
    step: Callable[[int], Mapping[str, tf.Tensor]],
    *,
    steps: int,
    modules: Mapping[str, keras.Model],
    optimizers: Mapping[str, Optimizer],
    resumables: Mapping[str, _loop.Resumable],
    fingerprint: Mapping[str, Any],
    device: str,
    stop: Callable[[], bool] | None = None,
    progress: bool = False,
    log_dir: str | os.PathLike[str] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
) -> dict[str, np.ndarray]:
    """Train with ``step`` until ``steps`` updates are done; see :func:`fewshot_course._loop.run`.

    Args:
        step: does one update, returns named scalars, among them "loss".
        steps: number of updates in all.
        modules: the networks by name.
        optimizers: the optimisers by name.
        resumables: random streams, batches and schedules by name.
        fingerprint: what a checkpoint to resume from must match.
        device: where it runs.
        stop: asked after each step; true ends the run before its last step.
        progress: whether to show a progress bar.
        log_dir: folder for TensorBoard.
        checkpoint_dir: folder for checkpoints.

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

    with tf.device(device):
        return _loop.run(
            step,
            steps=steps,
            capture=capture,
            restore=restore,
            resumables=resumables,
            learning_rate=lambda: float(next(iter(optimizers.values())).lr),
            fingerprint={
                "framework": "tensorflow",
                "architecture": {name: _shapes(module) for name, module in modules.items()},
                **fingerprint,
            },
            open_log=_open_log,
            stop=stop,
            progress=progress,
            log_dir=log_dir,
            checkpoint_dir=checkpoint_dir,
        )


def _variables(optimizer: Optimizer) -> dict[str, tf.Variable]:
    slots = {
        f"{index}.{slot}": variable
        for slot, variables in optimizer.slots.items()
        for index, variable in enumerate(variables)
    }
    return {"lr": optimizer.lr, "steps": optimizer.steps, **slots}


def _shapes(module: keras.Model) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in networks.to_numpy(module).items()}


def _open_log(folder: str) -> Callable[[str, float, int], None]:
    writer = tf.summary.create_file_writer(folder)

    def write(name: str, value: float, step: int) -> None:
        with writer.as_default():
            tf.summary.scalar(name, value, step=step)
        writer.flush()

    return write
