"""What an experiment is: its name, methods, data, typed settings, presets, and how to run it.

An experiment is a module here with a dataclass of settings, a constant ``EXPERIMENT``, and a
function that runs one cell; one line in ``fewshot_course/experiments/__init__.py`` registers it.
A *cell* is one run: one method in one framework with one configuration and one seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fewshot_course._checks import check_choice, check_number
from fewshot_course.frameworks import FRAMEWORKS, check_framework, device_kind

__all__ = [
    "Cell",
    "Config",
    "Experiment",
    "RunOptions",
    "field_type",
    "setting",
]


# ---------------------------------------------------------------------------- settings


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    methods: tuple[str, ...] | None = None,
    file: bool = False,
    added: bool = False,
) -> Any:
    """Return a dataclass field of a :class:`Config`.

    Args:
        default: the value in the quick preset, unless the preset says otherwise.
        help: what the setting is, with its unit; shown on the command line.
        low: smallest allowed number.
        high: largest allowed number.
        choices: allowed texts.
        methods: the methods that use the setting; ``None`` for all.  For the others it counts
            neither in the hash nor in the result line.
        file: whether the text may be the path of a file (besides ``choices``, if given); the
            file's content then counts in the hash.
        added: whether the setting came when runs had been stored, which its default repeats: it
            counts in the hash and in the result line only where it differs from the default.
    """
    metadata = {
        "help": help,
        "low": low,
        "high": high,
        "choices": choices,
        "methods": methods,
        "file": file,
        "added": added,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """Base of all settings: checks every field against its type and bounds.

    Fields are of type int, float, bool or str, or one of these ``| None``, and are declared by
    :func:`setting`.
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = _check_setting(type(self), f, getattr(self, f.name))
            object.__setattr__(self, f.name, value)


def field_type(config: type[Config], name: str) -> tuple[type, bool]:
    """Return the plain type of a setting, and whether it may be ``None``."""
    annotation = typing.get_type_hints(config)[name]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (plain,) = (a for a in typing.get_args(annotation) if a is not type(None))
        return plain, True
    return annotation, False


def _check_setting(config: type[Config], f: dataclasses.Field[Any], value: Any) -> Any:
    """Return ``value`` in the type of its field, or raise, naming the field."""
    kind, may_be_none = field_type(config, f.name)
    if value is None and may_be_none:
        return None
    if kind in (int, float):
        low, high = f.metadata.get("low"), f.metadata.get("high")
        if kind is float and isinstance(value, str):
            value = _number(value)  # YAML reads 1e-3 as a text
        value = check_number(
            f.name,
            value,
            low=-float("inf") if low is None else low,
            high=float("inf") if high is None else high,
            integer=kind is int,
        )
        return kind(value)  # 1 and 1.0 are one configuration
    if not isinstance(value, kind):
        raise TypeError(
            f"{f.name} must be of type {kind.__name__}, got {value!r} of type "
            f"{type(value).__name__}."
        )
    choices = f.metadata.get("choices")
    is_file = f.metadata.get("file") and Path(str(value)).is_file()
    if choices and not is_file:
        return check_choice(f.name, value, choices)
    return value


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


# ---------------------------------------------------------------------------- experiments


@dataclass(frozen=True)
class Experiment:
    """An experiment of the registry.

    Attributes:
        name: as on the command line.
        title: one line that says what it shows.
        config: the dataclass of its settings.
        presets: "quick" and "full" → the settings that differ from the defaults.
        methods: name → one line that says what the method does; the first is the baseline.
        data: names of the data sets it takes.
        run: ``"module:function"``, imported when a cell runs.  The function takes a
            :class:`Cell` and :class:`RunOptions` and returns the metrics, headline first, and
            ``n_test``.
        frameworks: those that it runs in.
        default_methods: what runs if no method is named; all methods if empty.
        version: raise it when a change of the code changes the results of equal settings, so
            that stored results of the old code are not taken for those of the new.
        partners: method → the method that differs from it in one thing alone: same network,
            head, steps and noise.  Tables compare it with this one; with the baseline where none
            is named.
        data_setting: the setting that names the data of a cell.
        method_flags: how the command line calls the method.
    """

    name: str
    title: str
    config: type[Config]
    presets: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, str]
    data: tuple[str, ...]
    run: str
    frameworks: tuple[str, ...] = FRAMEWORKS
    default_methods: tuple[str, ...] = ()
    version: int = 1
    partners: Mapping[str, str] = field(default_factory=dict)
    data_setting: str = "data"
    method_flags: tuple[str, ...] = ("--method",)

    def configure(self, preset: str = "quick", **changes: Any) -> Config:
        """Return the settings of a preset with some changed.

        Raises:
            ValueError: for an unknown preset or setting (the nearest known one is named), or a
                value out of bounds.
            TypeError: for a value of a wrong type.
        """
        values = dict(self.presets[check_choice("preset", preset, self.presets)])
        known = [f.name for f in dataclasses.fields(self.config)]
        for name, value in changes.items():
            values[check_choice("setting", name, known)] = value
        return self.config(**values)

    def cell(
        self,
        method: str,
        framework: str,
        seed: int,
        preset: str = "quick",
        config: Config | None = None,
    ) -> Cell:
        """Return one cell, checked.

        Raises:
            ValueError: for an unknown method, framework or preset, or a negative seed.
            TypeError: for a seed that is no whole number.
        """
        return Cell(
            experiment=self,
            method=check_choice("method", method, self.methods),
            framework=check_framework(framework, self.frameworks),
            preset=check_choice("preset", preset, self.presets),
            config=self.configure(preset) if config is None else config,
            seed=int(check_number("seed", seed, low=0, integer=True)),
        )

    def function(self) -> Callable[[Cell, RunOptions], dict[str, Any]]:
        """Import and return the function that runs a cell.

        It returns the metrics, the headline first, "n_test", and perhaps "answers": which test
        items were answered right, ``(items,)``, NaN for those that this draw did not ask.
        """
        module, _, name = self.run.partition(":")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Cell:
    """One run: what to run, with what settings, on which draw.

    The seed chooses the split of the data as well as the initial weights, so that all methods
    and frameworks meet the same draws.

    Attributes:
        kind: kind of the device it runs on, "cpu", "cuda", ...
        threads: CPU threads that it may use.
    """

    experiment: Experiment
    method: str
    framework: str
    preset: str
    config: Any
    seed: int
    kind: str = "cpu"
    threads: int = 1

    def on(self, device: str, threads: int = 1) -> Cell:
        """Return this cell on a device that is named; without a framework it has the CPU."""
        kind = device_kind(device) if self.framework in FRAMEWORKS else "cpu"
        return dataclasses.replace(self, kind=kind, threads=threads)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that the method uses."""
        return {
            f.name: getattr(self.config, f.name)
            for f in dataclasses.fields(self.config)
            if f.metadata.get("methods") is None or self.method in f.metadata["methods"]
            if not f.metadata.get("added") or getattr(self.config, f.name) != f.default
        }

    @cached_property
    def config_hash(self) -> str:
        """Hash of all that changes the result, but the seed; the preset's name does not.

        The kind of device counts where it is not the CPU, and the number of threads where it is
        not 1: sums are rounded otherwise there, and such a run is never taken for a stored one of
        the CPU with one thread.
        """
        content = {
            "experiment": self.experiment.name,
            "version": self.experiment.version,
            "method": self.method,
            "framework": self.framework,
            "settings": self.settings,
            "files": self._file_hashes(),
        }
        if self.kind != "cpu":
            content["device"] = self.kind
        if self.threads != 1:
            content["threads"] = self.threads
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _file_hashes(self) -> dict[str, str]:
        """SHA-256 of the files that settings name."""
        named = {f.name for f in dataclasses.fields(self.config) if f.metadata.get("file")}
        values = {name: self.settings[name] for name in named & self.settings.keys()}
        return {
            name: _file_hash(Path(value))
            for name, value in values.items()
            if isinstance(value, str) and Path(value).is_file()
        }

    @property
    def key(self) -> tuple[str, int]:
        """Hash of the configuration, and seed."""
        return self.config_hash, self.seed

    @property
    def data(self) -> str:
        """Name of the data, for the result line."""
        return str(self.settings.get(self.experiment.data_setting, self.experiment.data[0]))

    def __str__(self) -> str:
        return f"{self.experiment.name}, {self.method}, {self.framework}, seed {self.seed}"


@dataclass(frozen=True)
class RunOptions:
    """How to run a cell.

    The kind of the device and the number of threads change the last digits of its result, so both
    are part of the cell's hash.

    Attributes:
        device: "auto" (what the framework's ``fit`` would take), "cpu", "cuda", …
        threads: CPU threads for the linear algebra and the framework, >= 1.
        checkpoints: folder for checkpoints of the training in the cells, or ``None``.
    """

    device: str = "auto"
    threads: int = 1
    checkpoints: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.device, str) or not self.device:
            raise TypeError(f"device must be a text such as 'auto' or 'cpu', got {self.device!r}.")
        check_number("threads", self.threads, low=1, integer=True)

    def checkpoint_dir(self, cell: Cell) -> Path | None:
        """Return the folder for the checkpoints of one cell; to be handed to ``fit``."""
        if self.checkpoints is None:
            return None
        return Path(self.checkpoints) / f"{cell.config_hash}-{cell.seed}"


def _file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
