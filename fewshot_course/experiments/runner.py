"""Runs cells: one, or many on the cores of a machine or of a Dask cluster.

Every cell is stored the moment it ends.  Started again with the same file, a run computes only
what is missing.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import fewshot_course
from fewshot_course._arguments import COUNT, checked
from fewshot_course._checks import check_choice, check_number
from fewshot_course._processes import end_with
from fewshot_course.checkpoints import check_folder, lock_folder
from fewshot_course.experiments.registry import Cell, RunOptions
from fewshot_course.experiments.results import Result, ResultWriter, pack_answers, read_results
from fewshot_course.frameworks import MODULES, device_kind, framework_module, resolve_device

__all__ = ["BACKENDS", "RunError", "limit_threads", "place_cells", "run_cell", "run_cells"]

BACKENDS = ("sequential", "loky", "dask")
"""Where cells run: one after the other, in local processes, or on a Dask cluster."""
DEFAULTS = RunOptions()
_PACKAGES = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "keras"),
}
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


class RunError(RuntimeError):
    """A run cannot start or go on; the message says why and what to do."""


# ---------------------------------------------------------------------------- one cell


def run_cell(cell: Cell, options: RunOptions = DEFAULTS) -> Result:
    """Run one cell and measure it.

    An exception of the cell becomes a result with an ``error``.  Its checkpoints stay, until
    :func:`run_cells` has stored the result.
    """
    start = time.perf_counter()
    # A failure too is one of that kind of device.
    cell = cell.on(cell.kind if options.device == "auto" else options.device, options.threads)
    with limit_threads(options.threads):
        try:
            if cell.framework in MODULES:
                framework_module(cell.framework)
                _limit_framework(cell.framework, options.threads)
                # Asked here, so that an impossible device fails in every cell, whatever it runs.
                device = resolve_device(cell.framework, options.device)
                options = replace(options, device=device)
                cell = cell.on(device, options.threads)
            else:
                options = replace(options, device="cpu")
            function = cell.experiment.function()
            with _own_checkpoints(options.checkpoint_dir(cell)):
                _reset_peak_memory()
                start = time.perf_counter()
                scores = dict(function(cell, options))
                seconds = time.perf_counter() - start
            answers = scores.pop("answers", None)
            metrics = {name: float(value) for name, value in scores.items()}
            n_test = int(metrics.pop("n_test"))
            result = _result(cell, options, metrics, n_test, seconds, answers=answers)
        except Exception as error:
            return _failed(cell, options, _one_line(error), time.perf_counter() - start)
    return result


@contextmanager
def _own_checkpoints(folder: Path | None) -> Iterator[None]:
    """Take a cell's folder of checkpoints; another run that computes this very cell goes first."""
    if folder is None:
        yield
        return
    with lock_folder(check_folder(folder), wait=True):
        yield


def _failed(cell: Cell, options: RunOptions, error: str, seconds: float = 0.0) -> Result:
    return _result(cell, options, {}, 0, seconds, error)


def _result(
    cell: Cell,
    options: RunOptions,
    metrics: dict[str, float],
    n_test: int,
    seconds: float,
    error: str | None = None,
    answers: Any = None,
) -> Result:
    return Result(
        experiment=cell.experiment.name,
        method=cell.method,
        framework=cell.framework,
        data=cell.data,
        preset=cell.preset,
        config=cell.settings,
        config_hash=cell.config_hash,
        seed=cell.seed,
        metrics=metrics,
        n_test=n_test,
        seconds=round(seconds, 4),
        peak_mb=round(_peak_memory(), 1),
        versions=dict(_versions(cell.framework)),
        device=device_kind(options.device),
        threads=options.threads,
        error=error,
        answers=None if answers is None else pack_answers(answers),
    )


def _one_line(exception: BaseException) -> str:
    """Return type, message, and place of an exception, in one line."""
    frames = traceback.extract_tb(exception.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    message = " ".join(str(exception).split())
    return f"{type(exception).__name__}: {message}{place}"


@cache
def _versions(framework: str) -> dict[str, str]:
    versions = {
        "python": platform.python_version(),
        "fewshot_course": fewshot_course.__version__,
    }
    for name in ("numpy", *_PACKAGES.get(framework, ())):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


# ---------------------------------------------------------------------------- threads, memory


@checked(threads=COUNT)
@contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Limit the threads of linear algebra and of frameworks that are imported within.

    Several cells at a time, each with a thread a core, would only get in each other's way; and
    the number of threads changes the last digits of a sum, so it must not depend on the machine.
    """
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        with threadpool_limits(threads):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _limit_framework(framework: str, threads: int) -> None:
    """Limit a framework that may have been imported before (tensorflow reads the environment)."""
    if framework == "torch":
        sys.modules["torch"].set_num_threads(threads)


def _reset_peak_memory() -> None:
    """Start the system's record of peak memory anew, where it lets us (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_memory() -> float:
    """Return the peak resident memory in 10^6 bytes; 0 where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


# ---------------------------------------------------------------------------- many cells


def run_cells(
    cells: Iterable[Cell],
    out: str | os.PathLike[str] | None = None,
    *,
    backend: str = "sequential",
    jobs: int = 1,
    scheduler: str | None = None,
    options: RunOptions = DEFAULTS,
    progress: bool = False,
) -> list[Result]:
    """Run cells; each is stored as it ends, and those that ``out`` has are not run again.

    Cells that failed before are tried again.

    Args:
        cells: what to run; a cell that occurs twice is run once.
        out: results file (JSON lines), made if missing; ``None`` stores nothing.
        backend: "sequential" (in this process), "loky" (processes of this machine) or "dask".
        jobs: processes; for "dask" with a scheduler the cluster's own workers are used.
        scheduler: address of a Dask scheduler, e.g. "tcp://192.168.0.2:8786".
        options: device, threads a cell, and folder for checkpoints.
        progress: show a progress bar on stderr.

    Returns:
        One result a cell, in the order of the cells.

    Raises:
        ValueError: for an unknown backend, ``jobs`` < 1, or a scheduler without "dask".
        ResultsError: if ``out`` cannot be read or written; nothing has been computed then.
        RunError: if the cluster cannot be used.
    """
    check_choice("backend", backend, BACKENDS)
    check_number("jobs", jobs, low=1, integer=True)
    if scheduler is not None and backend != "dask":
        raise ValueError(f"scheduler={scheduler!r} needs backend='dask', got {backend!r}.")
    wanted = {cell.key: cell for cell in place_cells(cells, options)}
    done: dict[tuple[str, int], Result] = {}
    with ExitStack() as stack:
        writer = None
        if out is not None:
            writer = stack.enter_context(ResultWriter(out))
            done = {r.key: r for r in read_results(out) if r.error is None and r.key in wanted}
        missing = {key: cell for key, cell in wanted.items() if key not in done}
        if not missing:
            return [done[key] for key in wanted]
        advance = stack.enter_context(_bar(len(wanted), len(done), progress))
        stream = stack.enter_context(_open_backend(backend, jobs, scheduler, options))
        for result in _outlive_workers(missing, stream, options):
            if writer is not None:
                writer.append(result)
            if result.error is None and (folder := options.checkpoint_dir(wanted[result.key])):
                shutil.rmtree(folder, ignore_errors=True)  # stored: nothing to resume
            done[result.key] = result
            advance()
    return [done[key] for key in wanted]


def place_cells(cells: Iterable[Cell], options: RunOptions = DEFAULTS) -> list[Cell]:
    """Return cells where they will run, so that stored results of that device are found.

    "auto" is what it is on this machine, for workers on others too; a device that is named is
    taken by its name, whether or not this machine has it.
    """
    cells = list(cells)
    if options.device != "auto":
        return [cell.on(options.device, options.threads) for cell in cells]
    devices = {}
    for name in {cell.framework for cell in cells} & MODULES.keys():
        with limit_threads(options.threads), suppress(ImportError, ValueError):  # the cell says it
            devices[name] = resolve_device(name, "auto")
    return [cell.on(devices.get(cell.framework, "cpu"), options.threads) for cell in cells]


def _run_placed(cell: Cell, options: RunOptions, parent: int | None = None) -> Result:
    """Run a cell on the kind of device that it was placed on, in whatever process.

    A worker of this machine is told its ``parent``, and ends with it.
    """
    end_with(parent)
    return run_cell(
        cell, replace(options, device=cell.kind) if options.device == "auto" else options
    )


Stream = Callable[[Sequence[Cell]], Iterator[Result]]
"""Runs cells and yields their results as they end; dispatches in order."""


def _outlive_workers(
    missing: dict[tuple[str, int], Cell], stream: Stream, options: RunOptions
) -> Iterator[Result]:
    """Run all cells, even if one takes its worker process down with it.

    When a worker dies, nobody says which cell it was.  So the next cells are run one at a time
    until the culprit is found; the rest goes on in parallel.
    """
    left = dict(missing)
    while left:
        try:
            for result in stream(list(left.values())):
                del left[result.key]
                yield result
        except _worker_deaths():
            while left:
                key, cell = next(iter(left.items()))
                try:
                    (result,) = stream([cell])
                    died = False
                except _worker_deaths():
                    message = (
                        "WorkerDied: the process that ran this cell was killed (out of memory?)"
                    )
                    result = _failed(cell, options, message)
                    died = True
                del left[key]
                yield result
                if died:
                    break


def _worker_deaths() -> tuple[type[BaseException], ...]:
    deaths: tuple[type[BaseException], ...] = (BrokenProcessPool,)
    if "distributed" in sys.modules:
        deaths += (sys.modules["distributed"].KilledWorker,)
    return deaths


@contextmanager
def _open_backend(
    backend: str, jobs: int, scheduler: str | None, options: RunOptions
) -> Iterator[Stream]:
    """Yield a function that runs cells on the backend."""
    if backend == "sequential":
        yield lambda cells: (_run_placed(cell, options) for cell in cells)
        return
    import joblib

    def stream(cells: Sequence[Cell]) -> Iterator[Result]:
        # One cell a batch: a result must be here, and stored, when its cell ends.
        parallel = joblib.Parallel(
            return_as="generator_unordered", batch_size=1, pre_dispatch=pre_dispatch
        )
        parent = os.getpid() if backend == "loky" else None  # Dask's workers watch for themselves
        return parallel(joblib.delayed(_run_placed)(cell, options, parent) for cell in cells)

    with ExitStack() as stack:
        if backend == "loky":
            pre_dispatch: int | str = "2 * n_jobs"
            stack.enter_context(
                joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=options.threads)
            )
        else:
            client = stack.enter_context(_dask_client(jobs, scheduler))
            pre_dispatch = 2 * sum(client.nthreads().values())
            stack.enter_context(joblib.parallel_config("dask", n_jobs=-1))
        yield stream


@contextmanager
def _dask_client(jobs: int, scheduler: str | None) -> Iterator[Any]:
    """Connect to a scheduler, or start workers on this machine."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise RunError(
            "The backend 'dask' needs dask and distributed: pip install 'fewshot-course[cluster]'."
        ) from None
    if scheduler is None:
        with (
            LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise RunError(
            f"No Dask scheduler answers at {scheduler!r} ({_one_line(error)}). Start one with "
            f"'dask scheduler' and give the address that it prints, tcp://HOST:8786."
        ) from None
    with client:
        _check_workers(client, scheduler)
        yield client


def _check_workers(client: Any, scheduler: str) -> None:
    """Raise unless every worker has one thread and the same version of this package."""
    workers = client.nthreads()
    if not workers:
        raise RunError(
            f"The scheduler at {scheduler} has no workers. Start some: "
            f"dask worker {scheduler} --nworkers 2 --nthreads 1"
        )
    crowded = [address for address, n in workers.items() if n > 1]
    if crowded:
        # Frameworks keep global state (threads, devices), and peak memory is a process's.
        raise RunError(
            f"The worker {crowded[0]} has {workers[crowded[0]]} threads; cells need a process "
            f"each. Start the workers with --nthreads 1."
        )
    for address, version in client.run(_package_version, on_error="return").items():
        if version != fewshot_course.__version__:
            raise RunError(
                f"The worker {address} has fewshot_course {version}, this machine has "
                f"{fewshot_course.__version__}. Install the same version everywhere."
            )


def _package_version() -> str:
    return fewshot_course.__version__


@contextmanager
def _bar(total: int, done: int, show: bool) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr; yield the function that moves it."""
    if not show:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("cells", BarColumn(), MofNCompleteColumn(), "left", TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda: bar.advance(task)
