"""The course's own trained networks: planned, trained in a queue, stored with a card, loaded.

``results/networks.yaml`` plans them, ``fewshot train --all`` trains one after another and goes on
where a kill has left off.  Each ends as two files: ``<name>.safetensors``, the weights, which both
frameworks read; and ``<name>.json``, its card: what was trained on what, for how long, how the
validation score rose, and how it scores on characters that it has never seen.

A notebook loads one with :func:`load_network`.  Two checks hold the cards to what they say:
:func:`repeat_first_steps` trains the first steps again, :func:`repeat_scores` scores a part again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import fewshot_course
from fewshot_course._arguments import COUNT, checked
from fewshot_course._checks import check_choice, check_keys, check_number
from fewshot_course._reading import parse_json, read_yaml
from fewshot_course.checkpoints import CheckpointError
from fewshot_course.data import DataError
from fewshot_course.evaluation import paired_difference
from fewshot_course.experiments import characters, domains
from fewshot_course.experiments.runner import RunError, limit_threads
from fewshot_course.frameworks import (
    check_framework,
    device_kind,
    framework_module,
    resolve_device,
)
from fewshot_course.weights import load_arrays

__all__ = [
    "ArchitectureMismatch",
    "CardMismatch",
    "DataMismatch",
    "MissingNetwork",
    "NetworkError",
    "Plan",
    "TooLarge",
    "load_card",
    "load_network",
    "load_plans",
    "repeat_first_steps",
    "repeat_scores",
    "train_networks",
    "try_settings",
]

SCHEMA = 1
"""Version of the card; a card of a later version is refused."""

MAX_BYTES, MAX_BYTES_IN_ALL = 1_000_000, 12_000_000
"""Largest file of weights, and all of a folder: they are part of the course's repository."""

FIRST_STEPS = 2
"""Losses of a training that the card keeps to be repeated."""

REPEATED = {"tasks": 20, "items": 1000}
"""Tasks or items of each row of scores that :func:`repeat_scores` scores again."""

_RECIPES = {method: recipe for recipe in (characters, domains) for method in recipe.METHODS}
_PACKAGES = {"torch": ("torch",), "tensorflow": ("tensorflow", "keras")}


# ---------------------------------------------------------------------------- what can be wrong


class NetworkError(RunError):
    """A network cannot be trained, stored or loaded; the message says why and what to do."""


class MissingNetwork(NetworkError):
    """There is no such network, or one of its two files is missing."""


class CardMismatch(NetworkError):
    """The card is not that of the weights beside it."""


class ArchitectureMismatch(NetworkError):
    """The weights are those of another architecture or method than the card says."""


class DataMismatch(NetworkError):
    """The data is not what the network was trained or scored on."""


class TooLarge(NetworkError):
    """The weights take more room than the course's repository has for them."""


# ---------------------------------------------------------------------------- plans


@dataclass(frozen=True)
class Plan:
    """One network of the course: all that its training depends on.

    Attributes:
        name: of the two files; lower case letters, digits and hyphens.
        method: class of the estimator, such as "ProtoNet".  It decides on the recipe, by which the
            network is trained and scored: ``characters`` or ``domains``.
        framework: "torch" or "tensorflow", that of the training; both read the result.
        data: "name" and "size" of the images for ``characters.read_parts``; "draw" and settings
            of the experiment for ``domains.read_parts``.
        seed: of initial weights and training tasks or batches, >= 0.
        budget: updates, >= 1.
        validation: what the learning curve shows: "items", or a kind of task and "tasks".
        task: "ways", "shots" and "queries" of a training task; empty where there are none.
        settings: of the estimator, but budget and seed.
        scores: rows of the test.  For characters each is like ``validation``; "turns" (true: the
            quarter turns of the test characters count as classes too) and "with" (settings of
            the estimator that are changed for this row, such as ``{statistics: inductive}``) may
            be added.  For domains it has "part" ("test" or "source") and "items".
    """

    name: str
    method: str
    framework: str
    data: dict[str, Any]
    seed: int
    budget: int
    validation: dict[str, int]
    task: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    scores: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.name or set(self.name) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
            raise ValueError(
                f"name={self.name!r} must consist of lower case letters, digits and hyphens."
            )
        object.__setattr__(self, "framework", check_framework(self.framework))
        check_number("seed", self.seed, low=0, integer=True)
        check_number("budget", self.budget, low=1, integer=True)
        self.recipe.check_plan(self)
        for taken in {self.recipe.BUDGET, "random_state"} & self.settings.keys():
            raise ValueError(f"settings has {taken!r}; it is given by 'budget' or 'seed'.")
        object.__setattr__(self, "scores", tuple(self.scores))

    @property
    def recipe(self) -> Any:
        """The module by which the network is trained and scored.

        Raises:
            ValueError: for a method that no recipe knows.
        """
        return _recipe(self.method)

    @property
    def config(self) -> dict[str, Any]:
        """All but the name and the rows of scores: what the weights depend on."""
        config = dataclasses.asdict(self)
        del config["name"], config["scores"]
        return config

    @property
    def config_hash(self) -> str:
        """Hash of :attr:`config`, 16 hexadecimal digits."""
        return _hash_config(self.config)

    def estimator(self) -> Any:
        """Return the unfitted estimator.

        Raises:
            ValueError: for a method or settings that the framework does not know.
        """
        kind = _method(self.framework, self.method)
        known = kind().get_params(deep=False)
        for name in self.settings:
            check_choice(f"setting of {self.method}", name, known)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in self.settings.items()}
        return kind(**{self.recipe.BUDGET: self.budget}, random_state=self.seed, **settings)


@checked
def load_plans(path: str | os.PathLike[str]) -> dict[str, Plan]:
    """Read the plans of networks, in the order in which they are to be trained.

    Args:
        path: YAML file with a list of mappings, the fields of :class:`Plan`; entries whose name
            begins with a dot are patterns for others and are left out.

    Raises:
        ValueError: for a file that cannot be read, an unknown or missing field (the entry is
            named), or a name that occurs twice.
    """
    entries = read_yaml(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} must hold a list of networks, each a mapping.")
    plans: dict[str, Plan] = {}
    fields = dataclasses.fields(Plan)
    optional = ("task", "settings", "scores")
    required = [f.name for f in fields if f.name not in optional]
    for number, entry in enumerate(entries, start=1):
        name = str(entry.get("name", ""))
        if name.startswith("."):
            continue
        try:
            check_keys("the entry", entry, required, optional)
            plan = Plan(**entry)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, entry {number} ({name or 'no name'}): {error}") from None
        if plan.name in plans:
            raise ValueError(f"{path} has {plan.name!r} twice.")
        plans[plan.name] = plan
    return plans


def _hash_config(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def _recipe(method: str) -> Any:
    return _RECIPES[check_choice("method", method, _RECIPES)]


def _method(framework: str, name: str) -> Any:
    module = framework_module(framework)
    return getattr(module, check_choice("method", name, _RECIPES))


# ---------------------------------------------------------------------------- the queue


def train_networks(
    plans: Iterable[Plan],
    out: str | os.PathLike[str],
    checkpoints: str | os.PathLike[str],
    *,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Train networks one after another; those that ``out`` has are not trained again.

    Started again after a kill, it goes on with the network and the update where it was.

    Args:
        plans: in the order of the training.
        out: folder of the weights and cards; made if missing.
        checkpoints: folder for the checkpoints, one folder a network; removed when it is stored.
        device: where to train.
        say: called with a line when a network begins and ends.

    Returns:
        The cards' paths, in the order of the plans.

    Raises:
        CardMismatch: if ``out`` has a network of that name that was made by another plan, or
            damaged files.  Nothing has been trained then.
        NetworkError: for data that is missing, or checkpoints of another run.
        TooLarge: before the training, if the weights would take too much room.
    """
    plans = list(plans)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [plan for plan in plans if not _is_stored(plan, folder)]
    for number, plan in enumerate(missing, start=1):
        say(f"{plan.name} ({number} of {len(missing)}): {plan.budget} updates of {plan.method}")
        card = _train(plan, folder, Path(checkpoints) / plan.name, device)
        scores = ", ".join(
            f"{plan.recipe.describe(row)} {100 * row['accuracy']:.1f} %" for row in card["scores"]
        )
        say(f"{plan.name}: {card['seconds']:.0f} s; {scores}")
    return [folder / f"{plan.name}.json" for plan in plans]


def _is_stored(plan: Plan, folder: Path) -> bool:
    """Tell whether the folder has the network of this very plan."""
    if not (folder / f"{plan.name}.json").is_file():
        return False
    card = load_card(plan.name, folder)
    if card["config_hash"] != plan.config_hash:
        raise CardMismatch(
            f"{folder / plan.name}.json was made by another plan: {_differences(card, plan)}. "
            f"Give the new network another name, or delete the card to train it anew."
        )
    return True


def _differences(card: Mapping[str, Any], plan: Plan) -> str:
    old, new = card["config"], plan.config
    return "; ".join(
        f"{k} was {old.get(k)!r} and is {new[k]!r}" for k in new if old.get(k) != new[k]
    )


def _train(plan: Plan, folder: Path, checkpoints: Path, device: str) -> dict[str, Any]:
    """Train one network, write its two files, and return its card."""
    with limit_threads(1), _plain_errors():
        device = resolve_device(plan.framework, device)
        commit = _commit()  # of the code that trains, not of that which is there hours later
        recipe = plan.recipe
        parts = recipe.read_parts(plan.data)
        estimator = plan.estimator()
        first = _first_losses(plan, parts, device, folder)
        looks, seconds = recipe.train(
            estimator, parts, plan.task, plan.validation, checkpoints, device
        )
        if not np.allclose(estimator.history_["loss"][: len(first)], first, rtol=1e-5):
            raise NetworkError(
                f"{plan.name}: the training began with the losses "
                f"{estimator.history_['loss'][: len(first)].tolist()}, a short run with {first}: "
                f"the checkpoints in {checkpoints} are of other code. Delete them."
            )
        weights = folder / f"{plan.name}.safetensors"
        estimator.save(weights)
        weights.chmod(0o644)
        arrays, _ = load_arrays(weights)
        content = weights.read_bytes()
        card = {
            "schema": SCHEMA,
            "name": plan.name,
            "config": plan.config,
            "config_hash": plan.config_hash,
            "seed": plan.seed,
            "commit": commit,
            "weights": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)},
            "shapes": {name: list(array.shape) for name, array in arrays.items()},
            "data": _data_facts(parts),
            "seconds": seconds,
            "device": _device_name(device),
            "versions": _versions(plan.framework),
            "first_losses": first,
            "plateau": _plateau(looks, plan),
            "curve": [_point(look, plan) for look in looks],
        }
        card["scores"] = [_score(plan, estimator, parts, row) for row in plan.scores]
        _write_card(folder / f"{plan.name}.json", card)
    _remove_folder(checkpoints)
    return card


def _first_losses(
    plan: Plan, parts: Mapping[str, Any], device: str, folder: Path | None = None
) -> list[float]:
    """Train a few updates; with a folder, see whether the weights have room in it."""
    estimator = plan.estimator()
    losses = plan.recipe.first_losses(estimator, parts, plan.task, device, FIRST_STEPS)
    if folder is not None:
        with tempfile.TemporaryDirectory() as scratch:
            size = estimator.save(Path(scratch) / "network.safetensors").stat().st_size
        _check_room(plan.name, size, folder)
    return losses


def _check_room(name: str, size: int, folder: Path) -> None:
    if size > MAX_BYTES:
        raise TooLarge(
            f"{name}: the weights take {size:,} bytes, more than {MAX_BYTES:,}. "
            f"Choose a narrower network."
        )
    others = [p for p in folder.glob("*.safetensors") if p.stem != name]
    total = size + sum(path.stat().st_size for path in others)
    if total > MAX_BYTES_IN_ALL:
        raise TooLarge(
            f"{name}: with its {size:,} bytes the networks in {folder} would take {total:,}, more "
            f"than {MAX_BYTES_IN_ALL:,}. Remove one that no page needs."
        )


# ---------------------------------------------------------------------------- trials


def try_settings(
    plans: Iterable[Plan],
    out: str | os.PathLike[str],
    checkpoints: str | os.PathLike[str],
    *,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Train networks that are not kept, to choose settings by their validation scores.

    Every trial becomes a line of ``out``, whether it was chosen or not; no test character is
    read.  Trials that the file has are not run again.

    Args:
        plans: the trials; their rows of scores are not looked at.
        out: file (JSON lines).
        checkpoints: folder for checkpoints.
        device: where to train.
        say: called with a line when a trial ends.

    Returns:
        The lines of the plans: name, configuration and its hash, what was scored on, validation
        score with its interval over tasks, learning curve, seconds.  A training that diverged
        has an "error" and no score.
    """
    path = Path(out)
    known = [parse_json(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = {(line["name"], line["config_hash"]): line for line in known}
    lines = []
    for plan in plans:
        key = (plan.name, plan.config_hash)
        if key not in done:
            done[key] = _try(plan, Path(checkpoints) / plan.name, device)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(done[key]) + "\n")
            say(f"{plan.name}: {done[key].get('error') or done[key]['score']}")
        lines.append(done[key])
    return lines


def _try(plan: Plan, checkpoints: Path, device: str) -> dict[str, Any]:
    line: dict[str, Any] = {
        "name": plan.name,
        "config": plan.config,
        "config_hash": plan.config_hash,
        "scored_on": "validation",
    }
    with limit_threads(1), _plain_errors():
        recipe = plan.recipe
        parts = recipe.read_parts(plan.data)
        parts = {name: parts[name] for name in (*recipe.LEARNS_FROM, "validation") if name in parts}
        try:
            looks, seconds = recipe.train(
                plan.estimator(), parts, plan.task, plan.validation, checkpoints, device
            )
        except FloatingPointError as error:  # a rate that is too high is a result too
            line["error"] = str(error)
        else:
            curve = [_point(look, plan) for look in looks]
            line |= {k: curve[-1][k] for k in ("score", "low", "high")}
            line |= {"seconds": seconds, "curve": curve}
    _remove_folder(checkpoints)
    return line | {"versions": _versions(plan.framework)}


# ---------------------------------------------------------------------------- the card


def _point(look: Mapping[str, Any], plan: Plan) -> dict[str, float]:
    """Return one point of the learning curve: score in [0, 1] and its interval."""
    interval = plan.recipe.interval(look["correct"], plan.validation)
    ends = {"score": interval.mean, "low": interval.low, "high": interval.high}
    return {
        "updates": look["updates"],
        "seconds": look["seconds"],
        **{name: round(value, 5) for name, value in ends.items()},
    }


def _plateau(looks: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, Any] | None:
    """Compare the validation score at the end with that at three quarters of the budget.

    The training has reached a plateau if the difference is smaller than half the interval of the
    score itself.  The tasks are the same, so the difference has a paired interval too.
    """
    before = [look for look in looks if look["updates"] <= 0.75 * plan.budget]
    if not before:
        return None
    early, late = (
        plan.recipe.shares(look["correct"], plan.validation) for look in (before[-1], looks[-1])
    )
    change = paired_difference(late, early)
    width = plan.recipe.interval(looks[-1]["correct"], plan.validation).half_width
    return {
        "from_updates": before[-1]["updates"],
        "change": round(change.mean, 5) + 0.0,  # no -0.0
        "low": round(change.low, 5),
        "high": round(change.high, 5),
        "reached": bool(abs(change.mean) <= width),
    }


def _score(
    plan: Plan,
    estimator: Any,
    parts: Mapping[str, Any],
    row: Mapping[str, Any],
    n: int | None = None,
) -> dict[str, Any]:
    """Score a network on a row of the test, or on its first ``n`` tasks or items.

    All networks meet the same ones of a kind.
    """
    recipe = plan.recipe
    correct = recipe.answers(estimator, parts, row, n)
    interval = recipe.interval(correct, row)
    return {
        **row,
        recipe.UNITS: len(correct),
        "accuracy": round(interval.mean, 5),
        "low": round(interval.low, 5),
        "high": round(interval.high, 5),
        "correct": recipe.pack(correct),
    }


def _data_facts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return size and SHA-256 of each part, over images and labels as they were used."""
    return {
        part: {
            "examples": len(X),
            "classes": int(y.max()) + 1,
            "sha256": _hash_arrays(X, y),
        }
        for part, (X, y) in parts.items()
    }


def _hash_arrays(X: np.ndarray, y: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in (X, y.astype(np.int64)):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _device_name(device: str) -> str:
    return f"cpu ({platform.machine()})" if device_kind(device) == "cpu" else device


def _versions(framework: str) -> dict[str, str]:
    packages = ("numpy", *_PACKAGES[framework])
    return {
        "python": platform.python_version(),
        "fewshot_course": fewshot_course.__version__,
        **{name: metadata.version(name) for name in packages},
    }


def _commit() -> str | None:
    """Return the commit of the code, "+changes" if it differs; ``None`` outside a clone."""
    root = Path(fewshot_course.__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "fewshot_course")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Write a card, a field a line and a row a line, whole or not at all."""
    lines = []
    for key, value in card.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n  ".join(json.dumps(row) for row in value)
            lines.append(f"{json.dumps(key)}: [\n  {rows}\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("{" + ",\n ".join(lines) + "}\n", encoding="utf-8")
    os.replace(temporary, path)


def _remove_folder(folder: Path) -> None:
    for path in folder.glob("*"):
        path.unlink()
    if folder.is_dir():
        folder.rmdir()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what data and checkpoints complain of into a :class:`NetworkError`."""
    try:
        yield
    except (DataError, CheckpointError) as error:
        raise NetworkError(str(error)) from error


# ---------------------------------------------------------------------------- loading


def networks_folder() -> Path:
    """Return the folder of the course's networks, ``results/networks`` of a clone.

    Raises:
        MissingNetwork: if the package does not lie in a clone.
    """
    folder = Path(fewshot_course.__file__).parents[1] / "results" / "networks"
    if not folder.is_dir():
        raise MissingNetwork(
            f"There is no folder {folder}: the trained networks are part of a clone of the "
            f"course, not of the installed package. Name their folder."
        )
    return folder


@checked
def load_card(name: str, folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Read a network's card, and see that it is that of the weights beside it.

    Args:
        name: of the network.
        folder: of weights and cards; ``None``: the course's own.

    Returns:
        The card: "config" and "config_hash", "seed", "commit", "weights" (SHA-256 and bytes),
        "shapes", "data" (of each part: examples, classes, SHA-256), "seconds", "device",
        "versions", "first_losses", "curve" (rows of updates, seconds, validation score with the
        ends of its interval over tasks), "plateau", and "scores" (rows with accuracy, ends of
        the interval, and the number of right query examples in each task, "correct").

    Raises:
        MissingNetwork: if there is no such network, or one of its two files is missing.
        CardMismatch: if the card is damaged, of a later version, or of other weights.
    """
    place = networks_folder() if folder is None else Path(folder)
    path, weights = place / f"{name}.json", place / f"{name}.safetensors"
    for file in (path, weights):
        if not file.is_file():
            known = sorted(p.stem for p in place.glob("*.json"))
            raise MissingNetwork(
                f"There is no file {file}; {place} has {', '.join(known) or 'no networks'}. "
                f"Make it with: fewshot train {name}"
            )
    try:
        card = parse_json(path.read_text(encoding="utf-8"))
        found, wanted = _sha256(weights), card["weights"]["sha256"]
        schema, same_config = card["schema"], _hash_config(card["config"]) == card["config_hash"]
    except (ValueError, KeyError, TypeError) as error:
        raise CardMismatch(f"{path} is damaged or no card: {error!r}.") from None
    if schema > SCHEMA:
        raise CardMismatch(f"{path} has schema {schema}, this version reads {SCHEMA}.")
    if found != wanted:
        raise CardMismatch(
            f"{path} is not the card of {weights}: the SHA-256 of the weights is {found}, the "
            f"card says {wanted}. Take both files from one commit, or train the network anew."
        )
    if not same_config:
        raise CardMismatch(f"{path} was changed by hand: its config has not its config_hash.")
    return card


@checked
def load_network(
    name: str, framework: str = "torch", folder: str | os.PathLike[str] | None = None
) -> Any:
    """Load one of the course's trained networks, in either framework.

    Args:
        name: of the network, such as "glyphs-protonet-seed0".
        framework: "torch" or "tensorflow", whatever it was trained in.
        folder: of weights and cards; ``None``: the course's own.

    Returns:
        The fitted meta-learner, ready for ``adapt`` and ``evaluate``.

    Raises:
        MissingNetwork: if there is no such network.
        CardMismatch: if its card is not that of the weights.
        ArchitectureMismatch: if the weights are those of another method or architecture.
    """
    card = load_card(name, folder)
    place = networks_folder() if folder is None else Path(folder)
    path = place / f"{name}.safetensors"
    framework = check_framework(framework)
    arrays, header = load_arrays(path)
    config = card["config"]
    wrong = [] if header.get("class") == config["method"] else ["method"]
    params = header.get("params", {})
    wrong += [key for key, value in config["settings"].items() if params.get(key) != value]
    shapes = {key: list(array.shape) for key, array in arrays.items()}
    wrong += [f"shape of {key}" for key in shapes | card["shapes"]
              if shapes.get(key) != card["shapes"].get(key)]  # fmt: skip
    if wrong:
        raise ArchitectureMismatch(
            f"{path} holds another network than its card says: they differ in "
            f"{', '.join(wrong)}. Take both files from one commit, or train the network anew."
        )
    try:
        return _method(framework, config["method"]).load(path)
    except ValueError as error:
        raise ArchitectureMismatch(f"{path} does not fit the {config['method']}: {error}") from None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------------------- checks


@checked
def repeat_first_steps(
    name: str, framework: str | None = None, folder: str | os.PathLike[str] | None = None
) -> tuple[list[float], list[float]]:
    """Train the first steps of a network again.

    Args:
        name: of the network.
        framework: to train in; ``None``: that of the card.
        folder: of weights and cards; ``None``: the course's own.

    Returns:
        The losses of the card and those of now.  They agree to 1e-4 relative, in either
        framework; more says that data, seed, initial weights or training are other ones.

    Raises:
        DataMismatch: if the training data is not that of the card.
        NetworkError: as :func:`load_card`, and for data that is missing.
    """
    card = load_card(name, folder)
    config = dict(card["config"], name=name)
    config["framework"] = framework or config["framework"]
    plan = Plan(**config)
    with limit_threads(1), _plain_errors():
        parts = plan.recipe.read_parts(plan.data)
        _check_data(card, parts, plan.recipe.LEARNS_FROM)
        return card["first_losses"], _first_losses(plan, parts, "cpu")


@checked(n=COUNT)
def repeat_scores(
    name: str,
    framework: str = "torch",
    folder: str | os.PathLike[str] | None = None,
    n: int | None = None,
) -> list[tuple[int, int, int]]:
    """Score the first tasks or items of each row of a card again.

    Args:
        name: of the network.
        framework: to score in.
        folder: of weights and cards; ``None``: the course's own.
        n: tasks or items of each row, at most as many as there are; ``None``: those of
            ``REPEATED``.

    Returns:
        For each row: right answers by the card and now, and the number of questions.  They agree
        but for a few, where two classes are equally near up to rounding.

    Raises:
        DataMismatch: if the test data is not that of the card.
        NetworkError: as :func:`load_network`, and for data that is missing.
    """
    card = load_card(name, folder)
    estimator = load_network(name, framework, folder)
    plan = Plan(name=name, **card["config"])
    recipe, pairs = plan.recipe, []
    with limit_threads(1), _plain_errors():
        parts = recipe.read_parts(plan.data)
        for stored in card["scores"]:
            row = {k: stored[k] for k in stored if k not in ("accuracy", "low", "high", "correct")}
            _check_data(card, parts, [recipe.score_part(row)])
            there = row[recipe.UNITS]
            if n is not None and n > there:
                raise ValueError(f"n={n}, but a row of {name} has {there} {recipe.UNITS}.")
            asked = n or min(REPEATED[recipe.UNITS], there)
            before = recipe.unpack(stored["correct"])[:asked]
            now = recipe.answers(estimator, parts, row, asked)
            questions = asked * recipe.questions(row)
            pairs.append((int(before.sum()), int(now.sum()), questions))
    return pairs


def _check_data(card: Mapping[str, Any], parts: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        found, wanted = _hash_arrays(*parts[name]), card["data"][name]["sha256"]
        if found != wanted:
            raise DataMismatch(
                f"{card['name']}: the {name} part of {_data_name(card)} is not what "
                f"the card was made with: SHA-256 {found}, the card says {wanted}. The data "
                f"changed, or how it is read or divided; train the network anew."
            )


def _data_name(card: Mapping[str, Any]) -> str:
    data = card["config"]["data"]
    return str(data.get("name", data.get("data")))
