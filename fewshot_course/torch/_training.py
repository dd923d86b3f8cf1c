"""The one training loop in PyTorch: device, networks and optimisers around ``_loop.run``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot_course import _loop
from fewshot_course.torch import networks
from fewshot_course.weights import part_of

__all__ = ["normal", "resolve_device", "to_array", "to_tensor", "train"]


def resolve_device(device: str) -> str:
    """Return "cpu", "cuda", ...: ``device``, or for "auto" the fastest one at hand.

    Raises:
        TypeError: if ``device`` is no string.
        ValueError: if this machine has no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, str):
        raise TypeError(f"device must be a string such as 'auto' or 'cpu', got {device!r}.")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used here: {reason}") from None
    return "cpu" if torch.device(device).type == "cpu" else device


def to_tensor(array: np.ndarray, device: str, dtype: str | None = None) -> Tensor:
    """Put an array on the device, as ``dtype`` if given."""
    value = torch.as_tensor(np.ascontiguousarray(array))
    return value.to(device=device, dtype=getattr(torch, dtype) if dtype else None)


def to_array(value: Tensor) -> np.ndarray:
    """Bring a tensor back to NumPy."""
    return value.detach().cpu().numpy()


def normal(rng: np.random.Generator, shape: tuple[int, ...], device: str, dtype: str) -> Tensor:
    """Draw standard normal noise: on the CPU with NumPy, else on the device from a drawn seed."""
    if device == "cpu":
        return to_tensor(rng.standard_normal(shape), device, dtype)
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    return torch.randn(shape, device=device, dtype=getattr(torch, dtype), generator=generator)


def train(
    step: Callable[[int], Mapping[str, Tensor]],
    *,
    steps: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
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
            rates = [group["lr"] for group in optimizer.param_groups]
            arrays[f"{name}.lr"] = np.asarray(rates, np.float64)
            for index, slots in optimizer.state_dict()["state"].items():
                arrays |= {f"{name}.{index}.{k}": to_array(v) for k, v in _tensors(slots).items()}
        return arrays

    def restore(arrays: Mapping[str, np.ndarray]) -> None:
        for name, module in modules.items():
            networks.from_numpy(module, part_of(arrays, name))
        for name, optimizer in optimizers.items():
            whole = optimizer.state_dict()
            whole["state"] = {}
            saved = part_of(arrays, name)
            for group, rate in zip(whole["param_groups"], saved.pop("lr"), strict=True):
                group["lr"] = float(rate)
            for key, array in saved.items():
                index, slot = key.split(".", 1)
                whole["state"].setdefault(int(index), {})[slot] = torch.as_tensor(array)
            optimizer.load_state_dict(whole)

    return _loop.run(
        step,
        steps=steps,
        capture=capture,
        restore=restore,
        resumables=resumables,
        learning_rate=lambda: next(iter(optimizers.values())).param_groups[0]["lr"],
        fingerprint={
            "framework": "torch",
            "architecture": {name: _shapes(module) for name, module in modules.items()},
            **fingerprint,
        },
        open_log=_open_log,
        stop=stop,
        progress=progress,
        log_dir=log_dir,
        checkpoint_dir=checkpoint_dir,
    )


def _tensors(slots: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in slots.items() if isinstance(value, Tensor)}


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in networks.to_numpy(module).items()}


def _open_log(folder: str) -> Callable[[str, float, int], None]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            f"log_dir needs TensorBoard ({error}); install it with: pip install tensorboard"
        ) from error
    writer = SummaryWriter(folder)

    def write(name: str, value: float, step: int) -> None:
        writer.add_scalar(name, value, step)
        writer.flush()

    return write
