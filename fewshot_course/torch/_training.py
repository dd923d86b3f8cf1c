"""The one training loop in PyTorch: device, networks and optimisers around ``loop``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
from fewshot_course.torch import networks
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
        raise ValueError(f"device={show(device)} cannot be used here: {reason[:200]}") from None
    return "cpu" if torch.device(device).type == "cpu" else device


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
    if place.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        return ("float32", "float16")
    return ("float32", "bfloat16", "float16")


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
        no_sync: makes the context in which workers keep their gradients to themselves.

    Attributes:
        scale: the loss scale; belongs to the resumables of a training in float16.

    Raises:
        ValueError: if the device does not support the precision.
    """

    def __init__(
        self,
        loss_of: Callable[..., Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        device: str,
        precision: str = "float32",
        accumulate: int = 1,
        no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        check_supported(precision, device, supported_precisions(device))
        self.scale = loss_scale(precision)
        self._loss_of, self._optimizers, self._accumulate = loss_of, optimizers, accumulate
        self._device, self._precision, self._no_sync = device, precision, no_sync

    def __call__(self, *batch: Tensor) -> Tensor:
        """Update the weights; returns the mean loss of the batch before."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses = []
        parts = list(split_batch(len(batch[0]), self._accumulate))
        for number, (part, share) in enumerate(parts, start=1):
            with nullcontext() if number == len(parts) else self._no_sync():
                with self._autocast():
                    loss = share * self._loss_of(*(tensor[part] for tensor in batch))
                (self.scale.value * loss).backward()
            losses.append(loss.detach())
        if self._unscale():
            for optimizer in self._optimizers:
                optimizer.step()
        return torch.stack(losses).sum()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._precision == "float32":
            return nullcontext()
        kind = torch.device(self._device).type
        return torch.autocast(kind, dtype=getattr(torch, self._precision))

    def _unscale(self) -> bool:
        """Divide the gradients by the loss scale; returns whether they may be used."""
        if self.scale.patience is None:
            return True
        groups = [
            group["params"] for optimizer in self._optimizers for group in optimizer.param_groups
        ]
        gradients = [p.grad for group in groups for p in group if p.grad is not None]
        finite = torch.stack([gradient.isfinite().all() for gradient in gradients]).all()
        for gradient in gradients:
            gradient /= self.scale.value
        return self.scale.update(bool(finite))


class Networks(Storable):
    """What every estimator does with its networks in the same way; stands before its settings.

    The estimator has three doors: ``_build`` makes the networks, ``_learn`` trains them, and
    ``_apply`` asks them.  ``_networks`` names them: "network" is the attribute ``network_``.
    """

    _networks: tuple[str, ...] = ("network",)
    _device: str = "cpu"

    _resolve = staticmethod(resolve_device)

    def _modules(self) -> dict[str, nn.Module]:
        """Return the networks by name; one that this model does not need is None and left out."""
        found = {name: getattr(self, f"{name}_") for name in self._networks}
        return {name: module for name, module in found.items() if module is not None}

    @torch.no_grad()
    def _in_blocks(
        self, apply: Callable[[Tensor], Tensor], X: np.ndarray, size: int = 1024
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
            modules[name].eval()


def train(
    step: Callable[[int], Mapping[str, Tensor | float]],
    run: Run,
    *,
    steps: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    resumables: Mapping[str, Resumable],
    fingerprint: Mapping[str, Any],
    stop: Callable[[], bool] | None = None,
    training: bool = True,
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
        training: whether the networks are in training mode meanwhile.  A meta-learner keeps them
            out of it: it takes the statistics of batch norm itself.

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

    for module in modules.values():
        module.train(training)
    history = loop(
        step,
        run,
        steps=steps,
        capture=capture,
        restore=restore,
        resumables=resumables,
        learning_rate=lambda: next((o.param_groups[0]["lr"] for o in optimizers.values()), 0.0),
        fingerprint={
            "framework": "torch",
            "device": device_kind(run.device),
            "threads": torch.get_num_threads(),
            "architecture": {name: _shapes(module) for name, module in modules.items()},
            **fingerprint,
        },
        open_log=_open_log,
        stop=stop,
    )
    for module in modules.values():
        module.eval()
    return history


def _tensors(slots: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in slots.items() if isinstance(value, Tensor)}


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in networks.to_numpy(module).items()}


@contextmanager
def _open_log(folder: str) -> Iterator[Write]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            f"log_dir needs TensorBoard ({error}); install it with: pip install tensorboard"
        ) from error
    with SummaryWriter(folder) as writer:

        def write(name: str, value: float, step: int) -> None:
            writer.add_scalar(name, value, step)
            writer.flush()

        yield write
