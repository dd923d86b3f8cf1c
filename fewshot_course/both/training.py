"""What the one training loop does around a step; the step itself belongs to a framework.

Progress bar, TensorBoard, stop on NaN, checkpoints and resuming need no tensor, so they stand
here once.  ``_training`` in each framework adds devices and the network's and optimiser's state.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from fewshot_course import __version__
from fewshot_course._checks import check_choice, check_number
from fewshot_course.checkpoints import (
    check_folder,
    load_checkpoint,
    lock_folder,
    save_checkpoint,
)

CHECK_EVERY = 10
"""Steps between two looks at the losses: on a GPU each look waits for the device."""

CHECKPOINT_EVERY = 100
"""Steps between two checkpoints."""


class Resumable(Protocol):
    """Something whose state goes into the checkpoint as JSON: streams, batches, schedules."""

    def state(self) -> dict[str, Any]:
        """Return the state, ready for JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""


class TrainingDiverged(FloatingPointError):
    """The loss is NaN or infinite."""


Write = Callable[[str, float, int], None]
"""Writes a named value of a step to TensorBoard."""

OpenLog = Callable[[str], AbstractContextManager[Write]]

Progress = bool | Callable[[int, dict[str, float]], object]
"""A progress bar or not; or what is told of each update: how many are done, and its losses."""


@dataclass(frozen=True)
class Run:
    """Where one ``fit`` runs and what it writes: made once from its keywords, handed on whole.

    Attributes:
        device: where it runs, as the framework names it; "auto" is resolved before.
        progress: whether to show a progress bar, or a function that is told of each update.
        log_dir: folder for TensorBoard, or None.
        checkpoint_dir: folder for checkpoints, or None; a run that was interrupted resumes.
        writes: whether this process writes at all; of a group of workers one does.
    """

    device: str = "cpu"
    progress: Progress = False
    log_dir: str | os.PathLike[str] | None = None
    checkpoint_dir: str | os.PathLike[str] | None = None
    writes: bool = True

    def stage(self, name: str) -> Run:
        """Return the run of one stage of several: its folders are inside this one's."""
        return replace(
            self,
            log_dir=None if self.log_dir is None else Path(self.log_dir) / name,
            checkpoint_dir=None
            if self.checkpoint_dir is None
            else Path(self.checkpoint_dir) / name,
        )


def loop(
    step: Callable[[int], Mapping[str, Any]],
    run: Run,
    *,
    steps: int,
    capture: Callable[[], dict[str, np.ndarray]],
    restore: Callable[[Mapping[str, np.ndarray]], None],
    resumables: Mapping[str, Resumable],
    learning_rate: Callable[[], float],
    fingerprint: Mapping[str, Any],
    open_log: OpenLog,
    stop: Callable[[], bool] | None = None,
) -> dict[str, np.ndarray]:
    """Call ``step`` until ``steps`` updates are done, resuming where a checkpoint says so.

    Args:
        step: does one update; takes its number, returns named scalars, among them "loss".
        run: where to run and what to write.
        steps: number of updates in all.
        capture: returns weights and optimiser state as arrays.
        restore: takes them back.
        resumables: what else has a state.
        learning_rate: the present rate, for the message of a diverged run.
        fingerprint: what a checkpoint must match; the package version is added.
        open_log: opens TensorBoard's files in a folder, for as long as the training takes.
        stop: asked after each step; true ends the run before its last step.

    Returns:
        name → array ``(steps,)`` of what ``step`` returned, float64; shorter for what only some
        steps returned, or after an early stop.

    Raises:
        TrainingDiverged: at the first NaN or infinite loss; nothing of it is saved.
        CheckpointError: if the folder holds the checkpoint of another run, another run has it,
            or it cannot be written.
    """
    check_number("steps", steps, low=1, integer=True)
    checkpoint_dir, writes = run.checkpoint_dir, run.writes
    mark = {"version": __version__, **fingerprint}
    history: dict[str, list[float]] = {}
    done = 0

    def save(step_number: int) -> None:
        assert checkpoint_dir is not None
        arrays = {f"state.{k}": v for k, v in capture().items()}
        arrays |= {f"history.{k}": np.asarray(v, np.float64) for k, v in history.items()}
        meta = {
            "step": step_number,
            "resumables": {name: item.state() for name, item in resumables.items()},
        }
        save_checkpoint(checkpoint_dir, arrays, meta, fingerprint=mark)

    with ExitStack() as stack:
        write = _open(run, open_log, stack)
        if checkpoint_dir is not None:
            found = load_checkpoint(checkpoint_dir, mark)
            if found is not None:
                arrays, meta = found
                restore({k[6:]: v for k, v in arrays.items() if k.startswith("state.")})
                history = {k[8:]: list(v) for k, v in arrays.items() if k.startswith("history.")}
                for name, resumable in resumables.items():
                    resumable.restore(meta["resumables"][name])
                done = meta["step"]
        pending: list[tuple[Mapping[str, Any], float]] = []
        told = run.progress if callable(run.progress) else None
        shown = bool(run.progress) and told is None and writes
        bar = stack.enter_context(tqdm(total=steps, initial=done, disable=not shown, unit="step"))
        for number in range(done, steps):
            if stop is not None and stop():
                break  # the checkpoint is that of a run which had stopped
            pending.append((step(number), learning_rate()))
            last = number + 1 == steps or (stop is not None and stop())
            checkpoint_due = checkpoint_dir is not None and (number + 1) % CHECKPOINT_EVERY == 0
            if last or checkpoint_due or told is not None or len(pending) == CHECK_EVERY:
                first = number + 1 - len(pending)
                _collect(pending, first, history, write)
                bar.update(len(pending))
                bar.set_postfix(loss=f"{history['loss'][-1]:.4f}")
                pending = []
            if checkpoint_dir is not None and writes and (last or checkpoint_due):
                save(number + 1)
            if told is not None:
                told(number + 1, {name: values[-1] for name, values in history.items()})
    return {name: np.asarray(values, np.float64) for name, values in history.items()}


def _open(run: Run, open_log: OpenLog, stack: ExitStack) -> Write | None:
    """Take the folder of checkpoints for this run, and open TensorBoard's files."""
    if run.checkpoint_dir is not None:
        check_folder(run.checkpoint_dir)
        if run.writes:
            stack.enter_context(lock_folder(run.checkpoint_dir))
    if run.log_dir is None or not run.writes:
        return None
    return stack.enter_context(open_log(os.fspath(run.log_dir)))


def _collect(
    pending: list[tuple[Mapping[str, Any], float]],
    first: int,
    history: dict[str, list[float]],
    write: Write | None,
) -> None:
    """Bring scalars over from the device, refuse NaN, and note the rest."""
    for offset, (scalars, rate) in enumerate(pending):
        for name, scalar in scalars.items():
            value = float(scalar)
            if name == "loss" and not np.isfinite(value):
                raise TrainingDiverged(
                    f"the loss is {value} at step {first + offset} (learning rate {rate:g}). "
                    f"Lower the learning rate, or look for extreme values in the data."
                )
            history.setdefault(name, []).append(value)
            if write is not None:
                write(name, value, first + offset)


def fingerprint_of(estimator: Any, *data: np.ndarray | None, stage: str = "") -> dict[str, Any]:
    """Return what a checkpoint must match: the method, its settings, and the data.

    The version, the framework and the architecture are added by ``train``.

    Args:
        estimator: what is fitted.
        data: the arrays it learns from.
        stage: of a training in several.
    """
    name = type(estimator).__name__
    return {
        "method": f"{name}.{stage}" if stage else name,
        "params": describe(estimator.get_params(deep=False)),
        "data": hash_arrays(*data),
    }


def describe(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyper-parameters for the fingerprint of a checkpoint, ready for JSON.

    A function is told by its name: its address differs from one process to the next.
    """
    return {
        name: getattr(value, "__qualname__", type(value).__qualname__)
        if callable(value)
        else repr(value.item() if isinstance(value, np.generic) else value)
        for name, value in params.items()
    }


def hash_arrays(*arrays: np.ndarray | None) -> str:
    """Return a short SHA-256 of arrays, for the fingerprint of a checkpoint."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------- mixed precision, batches in parts


PRECISIONS = ("float32", "bfloat16", "float16")
"""What matrix products may be computed in; "float32" stands for the dtype of the weights."""


def check_precision(precision: Any, dtype: str) -> str:
    """Return ``precision`` if it is known and the weights can be its master copy.

    Raises:
        ValueError: for an unknown name, or a low precision beside weights that are not float32.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision != "float32" and dtype != "float32":
        raise ValueError(
            f"precision={precision!r} keeps its master weights in float32, got dtype={dtype!r}."
        )
    return precision


def check_supported(precision: str, device: str, supported: tuple[str, ...]) -> None:
    """Raise if a device cannot compute in this precision.

    Raises:
        ValueError: naming the precision, the device and what it supports.
    """
    if precision not in supported:
        raise ValueError(
            f"precision={precision!r} is not supported on device={device!r}, which has "
            f"{', '.join(supported)}."
        )


def split_batch(n: int, parts: int) -> Iterator[tuple[slice, float]]:
    """Cut a batch into consecutive parts of like size.

    The mean over the batch is the sum of share · (mean over the part): with these shares the
    gradient of the parts adds up to that of the batch, also where the parts differ in size.

    Args:
        n: examples in the batch, ≥ 1.
        parts: how many; no more than there are examples are made.

    Yields:
        Which examples, and their share of the batch, in (0, 1].
    """
    check_number("n", n, low=1, integer=True)
    parts = min(check_number("parts", parts, low=1, integer=True), n)
    for k in range(parts):
        start, stop = k * n // parts, (k + 1) * n // parts
        yield slice(start, stop), (stop - start) / n


class LossScale:
    """The factor that keeps small gradients from vanishing in float16 (Micikevicius et al. 2018).

    The loss is multiplied by it before the gradient is taken, the gradient divided by it
    afterwards.  A gradient that is infinite or NaN means that the factor is too large: it is
    halved and the update left out.  After ``patience`` good updates it is doubled.

    Args:
        value: to start from; 1 with ``patience=None`` never changes.
        patience: good updates before it is doubled; ``None``: the factor stays.

    Attributes:
        value: the present factor.
        skipped: updates left out so far.
    """

    def __init__(self, value: float = 2.0**16, patience: int | None = 2000) -> None:
        self.value, self.patience = check_number("value", value, low=0, low_open=True), patience
        self.good = self.skipped = 0

    def update(self, finite: bool) -> bool:
        """Note whether a gradient was finite; returns whether the weights may be updated."""
        if self.patience is None:
            return True  # a bad loss is reported by the training loop
        if not finite:
            self.value, self.good, self.skipped = self.value / 2, 0, self.skipped + 1
            return False
        self.good += 1
        if self.good == self.patience:
            self.value, self.good = self.value * 2, 0
        return True

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs, ready for JSON."""
        return {"value": self.value, "good": self.good, "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.value, self.good, self.skipped = state["value"], state["good"], state["skipped"]


def loss_scale(precision: str) -> LossScale:
    """Return the scale that a precision needs: only float16 has too few small numbers."""
    return LossScale() if precision == "float16" else LossScale(1.0, None)
