"""The command ``fewshot``: list, run and sweep experiments, and look after the installation.

Everything here is thin over :mod:`fewshot_course.experiments`; no framework is imported before
a cell runs.  Bad usage ends with exit code 2, a run that failed with 1.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import fewshot_course
from fewshot_course._reading import printable
from fewshot_course.experiments import EXPERIMENTS
from fewshot_course.experiments.registry import Cell, Experiment, RunOptions
from fewshot_course.experiments.results import Result, ResultsError, ResultWriter
from fewshot_course.frameworks import check_framework

__all__ = ["app", "main"]

_LONGEST = 2000
"""Characters of an error message that are printed."""

app = typer.Typer(
    name="fewshot",
    help="Few-shot learning, every number tested, in two frameworks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
run_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(run_app, name="run", help="Run an experiment and print its table.")
labs_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(labs_app, name="labs", help="Make notebooks for a class, in a clone of the course.")


def main() -> None:
    """Entry point of the command."""
    app()


def _console() -> Console:
    # A file or pipe has no width: print whole lines there.
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)


def _say(text: object, err: bool = False) -> None:
    """Print a line; what came from a file or a user cannot steer the terminal."""
    typer.echo(printable(str(text)), err=err)


def _cell(text: object) -> str:
    """Return what a table shows of a text."""
    return escape(printable(str(text)))


def _fail(message: object, code: int = 2) -> NoReturn:
    """Print one clear line, cut where it is long, and end."""
    words = " ".join(str(message).split())
    _say(f"Error: {words if len(words) < _LONGEST else f'{words[:_LONGEST]} ...'}", err=True)
    raise typer.Exit(code)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn expected errors into one line; bad usage is 2, what the run meets is 1."""
    from fewshot_course.experiments.runner import RunError

    def show(message: Warning | str, *_: object) -> None:
        _say(f"Warning: {message}", err=True)

    with warnings.catch_warnings(), _terminated_as_interrupted():
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield
        except (ValueError, TypeError) as error:
            _fail(error)
        except (ResultsError, RunError, OSError) as error:
            _fail(error, 1)
        except KeyboardInterrupt as signalled:
            code = 143 if isinstance(signalled, _Terminated) else 130
            _fail("stopped. What was stored is kept; the same command goes on from there.", code)


class _Terminated(KeyboardInterrupt):
    """The system asked the command to end (SIGTERM)."""


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: files are closed, workers stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True)
    ] = False,
) -> None:
    if version:
        _say(f"fewshot-course {fewshot_course.__version__}")
        raise typer.Exit


# ---------------------------------------------------------------------------- list


@app.command("list")
def list_command() -> None:
    """List experiments, their methods, presets and settings, and the data sets."""
    console = _console()
    for experiment in EXPERIMENTS.values():
        console.print(f"\n[bold]{experiment.name}[/bold]  {_cell(experiment.title)}")
        table = Table(box=None, show_header=False, pad_edge=True)
        for method, description in experiment.methods.items():
            table.add_row("method", method, _cell(description))
        for preset, values in experiment.presets.items():
            changes = ", ".join(f"{k} = {v}" for k, v in values.items())
            table.add_row("preset", preset, _cell(changes or "the defaults"))
        for f in dataclasses.fields(experiment.config):
            table.add_row("setting", _flag(f.name), _cell(_setting_help(experiment, f)))
        console.print(table)
    console.print("\n[bold]Data sets[/bold]")
    console.print(_data_table())


def _data_table() -> Table:
    from fewshot_course.data import DATASETS, where

    table = Table("name", "what", "kind", "examples", "licence", "comes from")
    for name, info in DATASETS.items():
        origin = where(name) or "must be downloaded"
        row = (name, info.title, info.kind, f"{info.n:,}", info.licence, origin)
        table.add_row(*map(_cell, row))
    return table


# ---------------------------------------------------------------------------- run

_COMMON = {
    "method": (list[str] | None, None, "A method; may be repeated, or a list with commas."),
    "framework": (str, "both", "torch, tensorflow (or tf), or both."),
    "preset": (str, "quick", "quick or full."),
    "seeds": (int, 10, "Number of draws."),
    "first_seed": (int, 0, "Number of the first draw."),
    "device": (str, "auto", "auto, cpu, cuda, ..."),
    "jobs": (int, 1, "Cells that run at the same time."),
    "threads": (int, 1, "CPU threads a cell."),
    "out": (Path | None, None, "Results file (JSON lines); what it holds is not run again."),
    "checkpoints": (Path | None, None, "Folder for checkpoints of the training."),
}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _setting_help(experiment: Experiment, f: dataclasses.Field[Any]) -> str:
    """Return help, choices, presets and methods of a setting, in one line."""
    parts = [f.metadata["help"]]
    if f.metadata["choices"]:
        parts.append("one of " + ", ".join(f.metadata["choices"]))
    if f.metadata["methods"]:
        parts.append("for " + ", ".join(f.metadata["methods"]))
    values = {p: changes.get(f.name, f.default) for p, changes in experiment.presets.items()}
    if len(set(map(str, values.values()))) == 1:
        parts.append(f"default {f.default}")
    else:
        parts.append(", ".join(f"{preset}: {value}" for preset, value in values.items()))
    return "; ".join(parts)


def _run_command(experiment: Experiment) -> Callable[..., None]:
    """Return the command of one experiment, with an option for each of its settings."""
    from fewshot_course.experiments.registry import field_type

    parameters: dict[str, tuple[Any, Any]] = {}
    for name, (kind, default, text) in _COMMON.items():
        flags = experiment.method_flags if name == "method" else (_flag(name),)
        option = typer.Option(*flags, help=text, show_default=default is not None)
        parameters[name] = (Annotated[kind, option], default)
    for f in dataclasses.fields(experiment.config):
        plain, _ = field_type(experiment.config, f.name)
        option = typer.Option(_flag(f.name), help=_setting_help(experiment, f), show_default=False)
        parameters[f.name] = (Annotated[plain | None, option], None)

    def command(**values: Any) -> None:
        with _one_line_errors():
            _run(experiment, values)

    command.__doc__ = experiment.title + "."
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=a)
            for name, (a, default) in parameters.items()
        ]
    )
    command.__annotations__ = {name: annotation for name, (annotation, _) in parameters.items()}
    return command


def register(experiment: Experiment) -> None:
    """Give an experiment its command ``fewshot run NAME``."""
    run_app.command(experiment.name)(_run_command(experiment))


def _run(experiment: Experiment, values: dict[str, Any]) -> None:
    common = {name: values.pop(name) for name in _COMMON}
    changes = {name: value for name, value in values.items() if value is not None}
    config = experiment.configure(common["preset"], **changes)
    if common["seeds"] < 1:
        raise ValueError(f"--seeds must be at least 1, got {common['seeds']}.")
    seeds = range(common["first_seed"], common["first_seed"] + common["seeds"])
    cells = [
        experiment.cell(method, framework, seed, common["preset"], config)
        for method in _methods(experiment, common["method"])
        for framework in _frameworks(experiment, common["framework"])
        for seed in seeds
    ]
    options = RunOptions(common["device"], common["threads"], _text(common["checkpoints"]))
    backend = "sequential" if common["jobs"] == 1 else "loky"
    _compute(cells, common["out"], options, backend, common["jobs"])


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _methods(experiment: Experiment, named: list[str] | None) -> list[str]:
    if not named:
        return list(experiment.default_methods or experiment.methods)
    names = [name.strip() for part in named for name in part.split(",")]
    return list(dict.fromkeys(names))


def _frameworks(experiment: Experiment, named: str) -> list[str]:
    if named == "both":
        return list(experiment.frameworks)
    return [check_framework(name.strip(), experiment.frameworks) for name in named.split(",")]


for _experiment in EXPERIMENTS.values():
    register(_experiment)


# ---------------------------------------------------------------------------- sweep


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(help="YAML file: what to run.", metavar="CONFIG.yaml")],
    out: Annotated[Path, typer.Option("--out", help="Results file (JSON lines).")],
    jobs: Annotated[int, typer.Option("--jobs", help="Cells at the same time.")] = 1,
    backend: Annotated[
        str, typer.Option("--backend", help="loky (this machine), dask, or sequential.")
    ] = "loky",
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Address of a Dask scheduler.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")] = "auto",
    threads: Annotated[int, typer.Option("--threads", help="CPU threads a cell.")] = 1,
    checkpoints: Annotated[
        Path | None, typer.Option("--checkpoints", help="Folder for checkpoints of the training.")
    ] = None,
) -> None:
    """Run many cells: methods × settings × seeds × frameworks.

    Started again after a kill, it computes what is missing.
    """
    with _one_line_errors():
        from fewshot_course.experiments.sweep import load_sweep

        cells = load_sweep(config)
        options = RunOptions(device, threads, _text(checkpoints))
        _compute(cells, out, options, backend, jobs, scheduler)


# ---------------------------------------------------------------------------- leaderboard


@app.command()
def leaderboard(
    out: Annotated[Path, typer.Option("--out", help="Results file (JSON lines).")],
    data: Annotated[
        list[str] | None, typer.Option("--data", help="A board; may be repeated. Default: all.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="A method; may be repeated.")
    ] = None,
    framework: Annotated[
        list[str] | None,
        typer.Option("--framework", help="torch, tensorflow or numpy; may be repeated."),
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="quick or full.")] = "quick",
    jobs: Annotated[int, typer.Option("--jobs", help="Cells at the same time.")] = 1,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Run every method on the same draws of the same data, and print who stands where.

    Started again with the same file, it computes what is missing.
    """
    with _one_line_errors():
        from fewshot_course.experiments.leaderboard import BOARDS, cells
        from fewshot_course.experiments.runner import run_cells
        from fewshot_course.experiments.standings import standings

        known = ("numpy", "torch", "tensorflow")
        named = [check_framework(f, known) for f in framework or ()]
        chosen = cells(data, method, named, preset)
        options = RunOptions(device)
        _need_frameworks(chosen)
        _need_places(out, options)
        backend = "sequential" if jobs == 1 else "loky"
        results = run_cells(
            chosen, out, backend=backend, jobs=jobs, options=options, progress=sys.stderr.isatty()
        )
        rows = standings(results)
        for name in dict.fromkeys(row.data for row in rows):
            _print_standings(BOARDS[name].title, [row for row in rows if row.data == name])
        _say(f"{len(results)} results in {out}")
        _end_if_failed(results)


def _print_standings(title: str, rows: Sequence[Any]) -> None:
    from fewshot_course.experiments.standings import standings_table

    content = standings_table(rows, title)
    table = Table(*content.header, title=content.caption, title_justify="left")
    for row in content.rows:
        table.add_row(*(_cell(cell.replace("\n", " ")) for cell in row))
    _console().print(table)


# ---------------------------------------------------------------------------- train


@app.command()
def train(
    names: Annotated[
        list[str] | None, typer.Argument(help="Networks of the plan.", metavar="NAME")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All networks of the plan.")] = False,
    plan: Annotated[Path, typer.Option("--plan", help="YAML file: what to train.")] = Path(
        "results/networks.yaml"
    ),
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the networks. Default: beside the plan.")
    ] = None,
    trials: Annotated[
        Path | None,
        typer.Option(
            "--trials",
            help="Keep no network: score on the validation part and add a line to this file.",
        ),
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option("--checkpoints", help="Default: .checkpoints beside the plan.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")] = "cpu",
) -> None:
    """Train the course's own networks, one after another, and store each with its card.

    Started again after a kill, it goes on where it was; what is stored is not trained again.
    """
    with _one_line_errors():
        from fewshot_course._checks import check_choice
        from fewshot_course.experiments.networks import load_plans, train_networks, try_settings

        plans = load_plans(plan)
        if every == bool(names):
            raise ValueError(f"name networks, or take --all; {plan} has {', '.join(plans)}.")
        chosen = [plans[check_choice("network", name, plans)] for name in names or plans]
        folder = checkpoints or plan.parent / ".checkpoints"
        if trials is not None:
            try_settings(chosen, trials, folder, device=device, say=_say)
            return
        train_networks(chosen, out or plan.with_suffix(""), folder, device=device, say=_say)


# ---------------------------------------------------------------------------- estimate


@app.command()
def estimate(
    what: Annotated[
        str, typer.Argument(help="An experiment, or a sweep file.", metavar="NAME|CONFIG.yaml")
    ],
    method: Annotated[list[str] | None, typer.Option("--method", help=_COMMON["method"][2])] = None,
    framework: Annotated[str, typer.Option("--framework", help=_COMMON["framework"][2])] = "both",
    preset: Annotated[str, typer.Option("--preset", help="quick or full.")] = "quick",
    seeds: Annotated[int, typer.Option("--seeds", help="Number of draws.")] = 10,
    jobs: Annotated[int, typer.Option("--jobs", help="Cells at the same time.")] = 1,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")] = "auto",
    threads: Annotated[int, typer.Option("--threads", help="CPU threads a cell.")] = 1,
    stored: Annotated[
        list[Path] | None,
        typer.Option("--stored", help="Results files; their seconds are taken, not timed anew."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps that are timed.")] = 20,
    repeats: Annotated[int, typer.Option("--repeats", help="Timings of each kind.")] = 3,
    price_per_hour: Annotated[
        float | None, typer.Option("--price-per-hour", help="What an hour of the machine costs.")
    ] = None,
) -> None:
    """Say what a run would cost, from the seconds that a few steps take here.

    With a sweep file, its own methods, frameworks, preset and seeds count.
    """
    with _one_line_errors():
        from fewshot_course._checks import check_choice
        from fewshot_course.experiments import estimate as costs
        from fewshot_course.experiments.results import read_results
        from fewshot_course.experiments.sweep import load_sweep

        if price_per_hour is not None and price_per_hour < 0:
            raise ValueError(f"--price-per-hour must be at least 0, got {price_per_hour:g}.")
        if what.endswith((".yaml", ".yml")):
            cells = load_sweep(Path(what), EXPERIMENTS)
        else:
            experiment = EXPERIMENTS[check_choice("experiment", what, EXPERIMENTS)]
            config = experiment.configure(preset)
            cells = [
                experiment.cell(one, name, seed, preset, config)
                for one in _methods(experiment, method)
                for name in _frameworks(experiment, framework)
                for seed in range(seeds)
            ]
        if not cells:
            raise ValueError(f"--seeds must be at least 1, got {seeds}.")
        _need_frameworks(cells)
        found = costs.estimate_costs(
            cells,
            stored=[result for path in stored or () for result in read_results(path)],
            timed_steps=steps,
            repeats=repeats,
            options=RunOptions(device, threads),
        )
        _print_costs(found, costs.total(found, jobs), jobs, price_per_hour)


def _print_costs(
    costs: Sequence[Any], total: tuple[float, float, float], jobs: int, an_hour: float | None
) -> None:
    from fewshot_course.experiments.estimate import price

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("method", "framework", "settings"):
        table.add_column(name, overflow="fold")
    for name in ("s a step", "s a run", "runs", "s in all", "from"):
        table.add_column(name, justify="right")
    values: dict[str, set[str]] = {}
    for cost in costs:
        for name, value in cost.cell.settings.items():
            values.setdefault(name, set()).add(str(value))
    for cost in costs:
        steps = "" if cost.a_step is None else f"{cost.a_step.mean:.4g} a {cost.count[:-1]}"
        settings = [f"{k} = {v}" for k, v in cost.cell.settings.items() if len(values[k]) > 1]
        mean, low, high = cost.seconds
        table.add_row(
            cost.cell.method,
            cost.cell.framework,
            _cell(", ".join(settings)),
            steps,
            cost.a_cell.format(percent=False),
            str(cost.cells),
            f"{mean:.3g} [{low:.3g}, {high:.3g}]",
            "timed now" if cost.measured else "stored runs",
        )
    _console().print(table)
    mean, low, high = total
    at_once = f", {jobs} at a time" if jobs > 1 else ""
    _say(f"all {sum(c.cells for c in costs)} runs{at_once}: {_duration(mean)} "
               f"[{_duration(low)}, {_duration(high)}]")  # fmt: skip
    if an_hour is not None:
        money = [price(seconds, an_hour) for seconds in total]
        _say(f"at {an_hour:g} an hour: {money[0]:.2f} [{money[1]:.2f}, {money[2]:.2f}]")


def _duration(seconds: float) -> str:
    """Return 45 s, 12 min or 3.5 h."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


# ---------------------------------------------------------------------------- computing


def _compute(
    cells: Sequence[Cell],
    out: Path | None,
    options: RunOptions,
    backend: str,
    jobs: int,
    scheduler: str | None = None,
) -> None:
    """Run cells, print their table, and end with 1 if one failed."""
    from fewshot_course.experiments.runner import run_cells
    from fewshot_course.experiments.summary import summarise

    _need_frameworks(cells)
    _need_places(out, options)
    before = _stored(out, cells, options)
    results = run_cells(
        cells,
        out,
        backend=backend,
        jobs=jobs,
        scheduler=scheduler,
        options=options,
        progress=sys.stderr.isatty(),
    )
    _print_table(summarise(results))
    _print_agreement(results)
    if out is not None:
        reused = f" ({before} of them were there before)" if before else ""
        _say(f"{len(results)} results in {out}{reused}")
    _end_if_failed(results)


def _end_if_failed(results: Sequence[Result]) -> None:
    failed = [result for result in results if result.error]
    if failed:
        first = failed[0]
        _fail(
            f"{len(failed)} of {len(results)} cells failed; the first: {first.method}, "
            f"{first.framework}, seed {first.seed}: {first.error}",
            1,
        )


def _need_frameworks(cells: Sequence[Cell]) -> None:
    """Raise, before any computing, if a framework is not installed."""
    extras = {"torch": "torch", "tensorflow": "tf"}
    for name in dict.fromkeys(cell.framework for cell in cells):
        if name in extras and importlib.util.find_spec(name) is None:
            raise ValueError(
                f"framework={name!r} is not installed: pip install "
                f"'fewshot-course[{extras[name]}]', or choose the other with --framework."
            )


def _need_places(out: Path | None, options: RunOptions) -> None:
    """Raise, before any computing, if results or checkpoints cannot be written."""
    from fewshot_course.checkpoints import CheckpointError, check_folder

    try:
        if out is not None:
            ResultWriter(out).close()
        if options.checkpoints is not None:
            check_folder(options.checkpoints)
    except (ResultsError, CheckpointError) as error:
        raise ValueError(error) from None


def _stored(out: Path | None, cells: Sequence[Cell], options: RunOptions) -> int:
    """Return how many of the cells the file has already."""
    from fewshot_course.experiments.results import read_results
    from fewshot_course.experiments.runner import place_cells

    if out is None or not out.is_file():
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself will say it
        done = {result.key for result in read_results(out) if result.error is None}
    return len(done & {cell.key for cell in place_cells(cells, options)})


def _print_table(rows: Sequence[Any]) -> None:
    from fewshot_course.experiments.summary import is_percent

    settings = list(dict.fromkeys(name for row in rows for name in row.settings))
    several_data = len({row.data for row in rows}) > 1
    table = Table(caption="mean and 95 % interval over the seeds; s and MB of one run")
    columns = [*(["data"] if several_data else []), "method", "framework", *settings]
    metrics = {row.metric for row in rows if row.metric}  # a row that failed has none
    metric = metrics.pop() if len(metrics) == 1 else "score"
    for name in columns:
        table.add_column(name, overflow="fold")
    for name in (metric, "against the baseline, same seeds", "s", "MB"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        percent = is_percent(row.metric)
        score = "failed" if row.score is None else row.score.format(percent=percent)
        if row.failed and row.score is not None:
            score += f" ({row.failed} failed)"
        difference = "" if row.difference is None else row.difference.format(percent=percent)
        if row.difference is not None and not row.difference.excludes_zero:
            difference += " (no clear difference)"
        elif row.holm_p is not None and row.holm_p >= 0.05:
            difference += " (not clear among so many)"
        if row.difference is not None and row.baseline != rows[0].method:
            difference += f", to {row.baseline}"
        cells = [*([row.data] if several_data else []), row.method, row.framework]
        cells += [str(row.settings.get(name, "")) for name in settings]
        cells += [score, difference, f"{row.seconds:.2f}", f"{row.peak_mb:.0f}"]
        table.add_row(*map(_cell, cells))
    _console().print(table)


def _print_agreement(results: Sequence[Result]) -> None:
    """Say how far the two frameworks lie apart on the same seeds."""
    from fewshot_course.experiments.summary import is_percent

    scores: dict[tuple[Any, ...], dict[str, float]] = {}
    for r in results:
        if r.metrics:
            name, value = next(iter(r.metrics.items()))
            key = (r.experiment, r.method, str(sorted(r.config.items())), r.seed, name)
            scores.setdefault(key, {})[r.framework] = value
    pairs = {key: s for key, s in scores.items() if {"torch", "tensorflow"} <= s.keys()}
    if pairs:
        gap, metric = max((abs(s["torch"] - s["tensorflow"]), k[-1]) for k, s in pairs.items())
        text = f"{100 * gap:.2f} points" if is_percent(metric) else f"{gap:.3g}"
        _say(f"torch and tensorflow on the same seeds: at most {text} apart in {len(pairs)} pairs")


# ---------------------------------------------------------------------------- report


@app.command()
def report(
    data: Annotated[
        Path,
        typer.Argument(help="A table, an .npz file, or a folder of images.", metavar="DATA"),
    ],
    out: Annotated[Path, typer.Option("--out", help="The page; the model is put beside it.")],
    label: Annotated[str | None, typer.Option("--label", help="Column of labels.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Column of texts.")] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", help="Column of persons, devices or days, kept on one side."),
    ] = None,
    image_size: Annotated[
        int, typer.Option("--image-size", help="Side of the square that images become.")
    ] = 64,
    framework: Annotated[str, typer.Option("--framework", help="torch or tensorflow.")] = "torch",
    draws: Annotated[int, typer.Option("--draws", help="Times the examples are split.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Of the splits.")] = 0,
    encoder: Annotated[
        str, typer.Option("--encoder", help="For texts: auto, off, or a folder with a BERT.")
    ] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that are none of a report too.")
    ] = False,
) -> None:
    """Compare methods on your own examples; write a page and the fitted model.

    DATA is a table (.csv, .tsv, .xlsx, .parquet, .jsonl, each also as .gz) with a column of
    labels (an empty one: unknown) and one of texts or others of numbers and categories; an .npz
    file with X and y (-1: unknown); or a folder with a sub-folder of images for each class.
    """
    from fewshot_course.report import write_report

    console = Console(stderr=True)
    with _one_line_errors(), console.status("reading") as status:
        try:
            done = write_report(
                data,
                out,
                framework=framework,
                draws=draws,
                seed=seed,
                encoder=encoder,
                label=label,
                text=text,
                group=group,
                image_size=image_size,
                force=force,
                progress=lambda name: status.update(f"computing: {name}"),
            )
        except (OSError, ImportError) as error:
            raise ValueError(error) from None
    choice = done.choice
    score = done.comparison.score(choice.name).format()
    decides = " (mean over the classes)" if done.comparison.balanced else ""
    clear = "" if choice.learns else ", not shown to be better than the majority class"
    _say(f"{choice.name}: {score}{decides}{clear}")
    for finding in done.findings:
        if finding.level != "note":
            _say(f"- {finding.title}: {finding.text}")
    _say(f"{done.page} is the page, {done.model_path} the model")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="The model of a report.", metavar="MODEL")],
    data: Annotated[Path, typer.Argument(help="A table, or a folder of images.", metavar="DATA")],
    out: Annotated[Path, typer.Option("--out", help="The .csv file to write.")],
    text: Annotated[str | None, typer.Option("--text", help="Column of texts.")] = None,
) -> None:
    """Write the class of each example of DATA, and its probabilities, with a report's model."""
    from fewshot_course.report import predict_file

    with _one_line_errors():
        try:
            table = predict_file(model, data, out, text=text)
        except (OSError, ImportError) as error:
            raise ValueError(error) from None
    counts = table["class"].value_counts()
    _say(", ".join(f"{name}: {n}" for name, n in counts.items()))
    _say(f"{out} has {len(table)} rows")


# ---------------------------------------------------------------------------- labs


@labs_app.command("build")
def labs_build(
    out: Annotated[Path, typer.Option("--out", help="Folder for the notebooks.")] = Path("labs"),
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", help="A topic, e.g. maml; may be repeated. All without it."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace notebooks that have been changed too.")
    ] = False,
) -> None:
    """Write student notebooks with gaps and solution notebooks, with nbgrader's cells.

    They are made from the exercise files of the course, so this works in a clone.
    """
    with _one_line_errors():
        _say(_build_labs(_checkout(), out, topic or [], force))


def _checkout() -> Path:
    """Return the clone that the package was installed from, or the one around this folder."""
    places = [Path(fewshot_course.__file__).resolve().parents[1], Path.cwd(), *Path.cwd().parents]
    for place in places:
        if (place / "book" / "_tools" / "labs.py").is_file():
            return place
    raise ValueError(
        "labs are made from the exercise files of the course, which are not part of the installed "
        "package: clone the repository, go into it, and run this command there."
    )


def _build_labs(root: Path, out: Path, topics: Sequence[str], force: bool) -> str:
    """Run the clone's own tool and return its last line.

    In a process of its own: the modules of a folder that happens to be around are none of ours.
    """
    needed = ("jupytext", "nbclient", "nbformat")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"making labs needs {', '.join(missing)}: pip install -e '.[book]' in the clone"
        )
    tool = str(root / "book" / "_tools" / "labs.py")
    command = [sys.executable, tool, "build", "--out", str(out)]
    command += [f"--topic={topic}" for topic in topics] + ["--force"] * force
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode:
        raise ValueError(lines[-1] if lines else f"{tool} ended with {done.returncode}")
    return lines[-1]


# ---------------------------------------------------------------------------- cache


@app.command()
def cache(
    clear: Annotated[
        list[str] | None,
        typer.Option("--clear", help="What to delete, by its name; may be repeated."),
    ] = None,
) -> None:
    """Show what the course keeps on this machine (data sets, features of texts), or delete it."""
    from fewshot_course.data import cached, clear_cache

    with _one_line_errors():
        for name in clear or ():
            _say(f"{clear_cache(name) / 1e6:.1f} MB of {name} deleted")
        table = Table("name", "MB", "place")
        for name, (size, place) in cached().items():
            table.add_row(_cell(name), f"{size / 1e6:.1f}", _cell(place))
        _console().print(table)


# ---------------------------------------------------------------------------- doctor


@app.command()
def doctor() -> None:
    """Say what is installed, which devices and data are at hand, and what is missing."""
    from fewshot_course.experiments import doctor as checks

    console = _console()
    console.print(
        f"fewshot-course {fewshot_course.__version__}, Python {sys.version.split()[0]}, "
        f"{os.cpu_count()} cores"
    )
    table = Table("package", "version", "needed for", title="Packages", title_justify="left")
    for package in checks.packages():
        table.add_row(package.name, package.version or "[red]missing[/red]", _cell(package.what))
    console.print(table)
    table = Table("framework", "devices", title="Devices", title_justify="left")
    for framework, devices in checks.devices().items():
        table.add_row(framework, _cell(devices))
    console.print(table)
    console.print("[bold]Data[/bold]")
    console.print(_data_table())
    for line in checks.advice():
        console.print(f"- {_cell(line)}")


if __name__ == "__main__":
    main()
