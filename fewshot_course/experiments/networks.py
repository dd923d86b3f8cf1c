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
from sklearn.base import clone

import fewshot_course
from fewshot_course._arguments import checked
from fewshot_course._checks import check_choice, check_number
from fewshot_course._reading import parse_json, read_yaml, show
from fewshot_course.checkpoints import CheckpointError
from fewshot_course.data import DataError
from fewshot_course.evaluation import mean_interval, paired_difference
from fewshot_course.experiments import characters
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
"""Losses of a training that the card keeps to be repeated.

The rate of the first update is the same however long a run is, even if it falls to 0 at the end.
So a run of two updates has the first two losses of the long one; the second loss knows of initial
weights, data, order of the tasks, gradient and optimiser.
"""

REPEATED_TASKS = 20
"""Tasks of each row of scores that :func:`repeat_scores` scores again."""

_METHODS = ("ANIL", "FOMAML", "FrozenBody", "MAML", "MatchingNet", "ProtoNet", "Reptile")
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
        method: class of the meta-learner, such as "ProtoNet".
        framework: "torch" or "tensorflow", that of the training; both read the result.
        data: "name" and "size" of the images, see ``characters.read_parts``.
        seed: of initial weights and training tasks, >= 0.
        budget: updates, >= 1.
        task: "ways", "shots" and "queries" of a training task.
        validation: the same and "tasks": what the learning curve shows.
        settings: of the estimator, but budget and seed.
        scores: rows of the test, each like ``validation``; "turns" (true: the quarter turns of
            the test characters count as classes too) and "with" (settings of the estimator that
            are changed for this row, such as ``{statistics: inductive}``) may be added.
    """

    name: str
    method: str
    framework: str
    data: dict[str, Any]
    seed: int
    budget: int
    task: dict[str, int]
    validation: dict[str, int]
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
        _check_keys("data", self.data, ["name", "size"])
        _check_keys("task", self.task, ["ways", "shots", "queries"])
        _check_keys("validation", self.validation, ["ways", "shots", "queries", "tasks"])
        for row in self.scores:
            wanted = ["ways", "shots", "queries", "tasks"]
            _check_keys("scores", row, wanted, optional=["turns", "with"])
        for taken in {"iterations", "random_state"} & self.settings.keys():
            raise ValueError(f"settings has {taken!r}; it is given by 'budget' or 'seed'.")
        object.__setattr__(self, "scores", tuple(self.scores))

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
        return kind(iterations=self.budget, random_state=self.seed, **settings)


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
    required = [f.name for f in fields if f.name not in ("settings", "scores")]
    for number, entry in enumerate(entries, start=1):
        name = str(entry.get("name", ""))
        if name.startswith("."):
            continue
        try:
            _check_keys("the entry", entry, required, optional=["settings", "scores"])
            plan = Plan(**entry)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, entry {number} ({name or 'no name'}): {error}") from None
        if plan.name in plans:
            raise ValueError(f"{path} has {plan.name!r} twice.")
        plans[plan.name] = plan
    return plans


def _check_keys(
    what: str, found: Mapping[str, Any], required: Sequence[str], optional: Sequence[str] = ()
) -> None:
    if not isinstance(found, Mapping):
        raise TypeError(f"{what} must be a mapping, got {show(found)}.")
    for name in found:
        check_choice(f"{what}: key", name, [*required, *optional])
    missing = [name for name in required if name not in found]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}.")


def _hash_config(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def _method(framework: str, name: str) -> Any:
    module = framework_module(framework)
    return getattr(module, check_choice("method", name, _METHODS))


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
            f"{row['ways']}-way {row['shots']}-shot {100 * row['accuracy']:.1f} %"
            for row in card["scores"]
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
        parts = characters.read_parts(plan.data)
        estimator = plan.estimator()
        first = _first_losses(plan, parts, device, folder)
        looks, seconds = characters.train(
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
            "curve": [_point(look, plan.validation) for look in looks],
        }
        card["scores"] = [_score(estimator, parts, row, row["tasks"]) for row in plan.scores]
        _write_card(folder / f"{plan.name}.json", card)
    _remove_folder(checkpoints)
    return card


def _first_losses(
    plan: Plan, parts: characters.Parts, device: str, folder: Path | None = None
) -> list[float]:
    """Train a few updates; with a folder, see whether the weights have room in it."""
    short = plan.estimator().set_params(iterations=FIRST_STEPS)
    short.fit(characters.sampler(parts["train"], plan.task), device=device)
    if folder is not None:
        with tempfile.TemporaryDirectory() as scratch:
            size = short.save(Path(scratch) / "network.safetensors").stat().st_size
        _check_room(plan.name, size, folder)
    return [float(loss) for loss in short.history_["loss"]]


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
        parts = characters.read_parts(plan.data)
        parts = {name: parts[name] for name in ("train", "validation")}
        try:
            looks, seconds = characters.train(
                plan.estimator(), parts, plan.task, plan.validation, checkpoints, device
            )
        except FloatingPointError as error:  # a rate that is too high is a result too
            line["error"] = str(error)
        else:
            curve = [_point(look, plan.validation) for look in looks]
            line |= {k: curve[-1][k] for k in ("score", "low", "high")}
            line |= {"seconds": seconds, "curve": curve}
    _remove_folder(checkpoints)
    return line | {"versions": _versions(plan.framework)}


# ---------------------------------------------------------------------------- the card


def _point(look: Mapping[str, Any], task: Mapping[str, int]) -> dict[str, float]:
    """Return one point of the learning curve: score in [0, 1] and its interval over the tasks."""
    interval = mean_interval(_shares(look["correct"], task))
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
    early = _shares(before[-1]["correct"], plan.validation)
    late = _shares(looks[-1]["correct"], plan.validation)
    change = paired_difference(late, early)
    return {
        "from_updates": before[-1]["updates"],
        "change": round(change.mean, 5) + 0.0,  # no -0.0
        "low": round(change.low, 5),
        "high": round(change.high, 5),
        "reached": bool(abs(change.mean) <= mean_interval(late).half_width),
    }


def _score(
    estimator: Any, parts: characters.Parts, row: Mapping[str, Any], n_tasks: int
) -> dict[str, Any]:
    """Score a network on test tasks; the interval is that over the tasks.

    All networks meet the same tasks of a kind, and the first of more tasks are those of fewer.
    """
    task = {**row, "tasks": n_tasks}
    arrays = parts[characters.score_part(row)]
    ready = _with(estimator, row.get("with", {}))
    correct = characters.count_correct(ready, arrays, task, characters.TEST_SEED)
    interval = mean_interval(_shares(correct, row))
    return {
        **task,
        "accuracy": round(interval.mean, 5),
        "low": round(interval.low, 5),
        "high": round(interval.high, 5),
        "correct": [int(count) for count in correct],
    }


def _with(estimator: Any, changes: Mapping[str, Any]) -> Any:
    """Return the fitted estimator with some settings changed; the one given stays as it is."""
    if not changes:
        return estimator
    changed = clone(estimator).set_params(**changes)
    for name, value in vars(estimator).items():
        if name not in changes:
            setattr(changed, name, value)
    return changed


def _shares(correct: Sequence[int] | np.ndarray, task: Mapping[str, int]) -> np.ndarray:
    return np.asarray(correct, np.float64) / (task["ways"] * task["queries"])


def _data_facts(parts: characters.Parts) -> dict[str, Any]:
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
    with limit_threads(1), _plain_errors():
        parts = characters.read_parts(config["data"])
        _check_data(card, parts, ["train"])
        return card["first_losses"], _first_losses(Plan(**config), parts, "cpu")


@checked
def repeat_scores(
    name: str,
    framework: str = "torch",
    folder: str | os.PathLike[str] | None = None,
    n_tasks: int = REPEATED_TASKS,
) -> list[tuple[int, int, int]]:
    """Score the first tasks of each row of a card again.

    Args:
        name: of the network.
        framework: to score in.
        folder: of weights and cards; ``None``: the course's own.
        n_tasks: tasks of each row, at most as many as the card has.

    Returns:
        For each row: right query examples by the card and now, and their number.  They agree but
        for a few, whose two nearest classes are equally near up to rounding.

    Raises:
        DataMismatch: if the test data is not that of the card.
        NetworkError: as :func:`load_network`, and for data that is missing.
    """
    card = load_card(name, folder)
    estimator = load_network(name, framework, folder)
    pairs = []
    with limit_threads(1), _plain_errors():
        parts = characters.read_parts(card["config"]["data"])
        for row in card["scores"]:
            _check_data(card, parts, [characters.score_part(row)])
            n = min(n_tasks, row["tasks"])
            plan = {k: row[k] for k in row if k not in ("accuracy", "low", "high", "correct")}
            again = _score(estimator, parts, plan, n)
            queries = n * row["ways"] * row["queries"]
            pairs.append((sum(row["correct"][:n]), sum(again["correct"]), queries))
    return pairs


def _check_data(card: Mapping[str, Any], parts: characters.Parts, names: Iterable[str]) -> None:
    for name in names:
        found, wanted = _hash_arrays(*parts[name]), card["data"][name]["sha256"]
        if found != wanted:
            raise DataMismatch(
                f"{card['name']}: the {name} part of {card['config']['data']['name']} is not what "
                f"the card was made with: SHA-256 {found}, the card says {wanted}. The data "
                f"changed, or how it is read or divided; train the network anew."
            )
