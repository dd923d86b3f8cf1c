"""Data-parallel training beside a framework: the group of workers, and the classifier's frame.

A group of workers is made by the frameworks' own means.  Each worker is a process of its own that
trains the whole network on its part of every batch; the engine averages the gradients.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import check_choice, check_features, check_labels, check_number
from fewshot_course._processes import PARENT
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.pseudo_labels import check_classes, class_index
from fewshot_course.both.training import Run, check_precision
from fewshot_course.data import BatchStream
from fewshot_course.weights import load_arrays, part_of, save_arrays

NETWORKS = ("mlp", "conv4")
POLL = 0.05
"""Seconds between two looks at the workers."""


class WorkerError(RuntimeError):
    """A worker of a data-parallel training failed; the message says what it said."""


def check_divides(batch_size: int, workers: int) -> int:
    """Return the size of a worker's part of a batch.

    Raises:
        ValueError: if the workers cannot share a batch equally.
    """
    if batch_size % workers:
        raise ValueError(
            f"a batch of {batch_size} examples cannot be shared equally by workers={workers}; "
            f"choose a batch_size that is a multiple of {workers}."
        )
    return batch_size // workers


def need(package: str) -> None:
    """Raise, saying what to install, if an engine's package is not there."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"data-parallel training needs {package}; install it with: "
            "pip install 'fewshot-course[scaling]'"
        )


def run_group(commands: Sequence[tuple[list[str], Mapping[str, str]]], log: Path | None) -> None:
    """Run processes side by side until all have ended; if one fails the others are stopped.

    They are told this process's number, so that they can end with it.

    Args:
        commands: command line and additional environment of each.
        log: file for what they print; ``None``: they share this process's streams.

    Raises:
        WorkerError: if one fails.
    """
    output = open(log, "wb") if log is not None else None  # noqa: SIM115  (closed below)
    processes = []
    try:
        for command, environment in commands:
            processes.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **environment, PARENT: str(os.getpid())},
                    stdout=output,
                    stderr=output,
                )
            )
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                break
            time.sleep(POLL)
        if any(process.poll() for process in processes):
            raise WorkerError(_reason(log))
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if output is not None:
            output.close()


def _reason(log: Path | None) -> str:
    text = "" if log is None else log.read_text(encoding="utf-8", errors="replace")
    found = [line[len(ERROR) :] for line in text.splitlines() if line.startswith(ERROR)]
    if found:
        return f"a worker failed: {found[0]}"
    tail = " ".join(text.split())[-300:]
    return f"a worker ended without a word. Its last output: {tail or 'none'}"


ERROR = "fewshot_course worker: "
"""What the line begins with in which a worker says why it failed."""


# ---------------------------------------------------------------- the estimator


class DataParallelClassifier(CourseClassifier):
    """A network trained by several workers at once, each on its part of every batch.

    Every worker holds the whole network and draws the same batches; it takes the gradient of its
    own part, and the engine gives all of them the mean (Li et al. 2020).  Then all do the same
    step of AdamW.  Losses and predictions are those of one worker on the whole batch, but for
    rounding, if examples do not see each other: "mlp" keeps that, the batch norm of "conv4"
    normalises each worker's part on its own.

    ``fit`` starts the workers on this machine.  In a script that a launcher has started
    (``torchrun``; for TensorFlow ``TF_CONFIG`` in the environment) it joins their group instead,
    on as many machines as the launcher was told.

    Args:
        network: "mlp" or "conv4".
        workers: number of processes.
        steps: number of updates.
        batch_size: examples in a step, of all workers together; a multiple of ``workers``.
        accumulate: parts in which each worker goes through its share.
        lr: AdamW's learning rate.
        weight_decay: of AdamW; biases and normalisation weights are not decayed.
        dtype: "float32" or "float64".
        precision: what matrix products are computed in while training: "float32" (that is,
            ``dtype``), "bfloat16", or, on a GPU, "float16".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the trained network, on the CPU.
        classes_: labels, ``(C,)`` int64.
        input_shape_: shape of one example.
        history_: "loss" → ``(steps,)``, the mean over the whole batch.
        step_seconds_: wall seconds a step, the first one left out; NaN if there was one only.
    """

    network_: Any
    history_: dict[str, np.ndarray]
    step_seconds_: float
    input_shape_: tuple[int, ...]

    # What an engine knows: its devices, its group of processes, and how one is started.
    _place: Callable[[str], str]
    _group: Callable[[], tuple[int, int]]
    _commands: Callable[[Path, str], list[tuple[list[str], dict[str, str]]]]

    def __init__(
        self,
        network: str = "mlp",
        workers: int = 2,
        steps: int = 100,
        batch_size: int = 64,
        accumulate: int = 1,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        dtype: str = "float32",
        precision: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.workers = workers
        self.steps = steps
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.lr = lr
        self.weight_decay = weight_decay
        self.dtype = dtype
        self.precision = precision
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        device: str = "auto",
        progress: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on labelled examples, by ``workers`` processes at once.

        Args:
            X: vectors ``(n, d)``, or images ``(n, h, w[, c])`` in [0, 1].
            y: labels ≥ 0, ``(n,)``.
            device: "auto", "cpu", "cuda": what every worker computes on; with "cuda" each takes
                a GPU of its own.
            progress: whether to show a progress bar.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself; in a group that was started by hand, in every worker.

        Raises:
            ValueError: for bad data, a setting out of range, a batch that the workers cannot
                share equally, a precision that the device does not support, or a group of
                another size than ``workers``.
            ImportError: if the engine's package is not installed.
            WorkerError: if a worker fails.
        """
        self._check_parameters()
        X = check_features("X", X)
        y = check_labels("y", y, n=len(X))
        self.classes_ = check_classes(y)
        self.input_shape_ = tuple(X.shape[1:])
        check_divides(min(self.batch_size, len(X)), self.workers)
        place = self._place(device)
        rank, size = self._group()
        if size == 1 and self.workers > 1:
            self._launch(X, y, Run(place, progress, log_dir, checkpoint_dir))
            return self
        if size not in (1, self.workers):
            raise ValueError(f"workers={self.workers}, but {size} processes were started.")
        streams = Streams.from_seed(self.random_state)
        self._build(streams.init, place)
        self._ends: list[float] = []
        run = Run(place, progress, log_dir, checkpoint_dir, writes=rank == 0)
        batches = BatchStream(len(X), self.batch_size, streams.batches)
        self.history_ = self._learn(X, class_index(y, self.classes_), batches, streams, rank, run)
        # The first step is left out: it is slower, or the only one.
        self.step_seconds_ = float(np.diff(self._ends).mean()) if self._ends[1:] else float("nan")
        return self

    def _tick(self) -> None:
        """Note that a step is done."""
        self._ends.append(time.perf_counter())

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)``, in the order of ``classes_``."""
        check_is_fitted(self)
        X = check_features("X", X, like=self.input_shape_)
        return self._apply(X)

    def _launch(self, X: np.ndarray, y: np.ndarray, run: Run) -> None:
        """Train in a group of new processes and take over what they have learned."""
        params = self.get_params(deep=False)
        if self.random_state is None:  # one seed for all
            params["random_state"] = int(np.random.default_rng().integers(2**31))
        folders = {"log_dir": run.log_dir, "checkpoint_dir": run.checkpoint_dir}
        options: dict[str, Any] = {"device": run.device, "progress": run.progress}
        options |= {k: None if f is None else os.path.abspath(f) for k, f in folders.items()}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            job = {"params": params, "options": options}
            save_arrays(folder / "job", {"X": X, "y": y}, job)
            log = None if run.progress else folder / "log.txt"
            run_group(self._commands(folder, run.device), log)
            arrays, _ = load_arrays(folder / "result")
        self._restore(part_of(arrays, "fitted"))
        self.history_ = part_of(arrays, "history")
        self.step_seconds_ = float(arrays["step_seconds"])

    def _check_parameters(self) -> None:
        check_choice("network", self.network, NETWORKS)
        for name in ("workers", "steps", "batch_size", "accumulate"):
            check_number(name, getattr(self, name), low=1, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)
        check_number("weight_decay", self.weight_decay, low=0)
        check_choice("dtype", self.dtype, ["float32", "float64"])
        check_precision(self.precision, self.dtype)


def worker_command(framework: str, folder: Path) -> list[str]:
    """Return the arguments of Python that do one worker's part of a job."""
    return ["-m", "fewshot_course.both.worker", framework, str(folder)]


def do_job(classifier: type[DataParallelClassifier], folder: Path) -> None:
    """Train as one worker of the group that this process belongs to; the first one reports."""
    arrays, job = load_arrays(folder / "job")
    model = classifier(**job["params"]).fit(arrays["X"], arrays["y"], **job["options"])
    if model._group()[0] == 0:
        result = {f"fitted.{name}": array for name, array in model._fitted_arrays().items()}
        result |= {f"history.{name}": array for name, array in model.history_.items()}
        result["step_seconds"] = np.asarray(model.step_seconds_)
        save_arrays(folder / "result", result, {})


def python() -> str:
    """Return this interpreter."""
    return sys.executable
