"""Which frameworks there are, and the one place that imports their modules by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course._checks import check_choice

FRAMEWORKS = ("torch", "tensorflow")
"""The frameworks by the names that results and addresses use; "tf" is accepted."""


MODULES = {"torch": "torch", "tensorflow": "tf"}
"""Framework → its subpackage of ``fewshot_course``."""


def check_framework(name: str, known: tuple[str, ...] = FRAMEWORKS) -> str:
    """Return the name of a framework as results use it."""
    if name == "tf" and "tensorflow" in known:
        return "tensorflow"
    return check_choice("framework", name, known)


def framework_module(framework: str, name: str | None = None) -> Any:
    """Import and return a framework's subpackage, or the module of that name in it.

    Args:
        framework: "torch" or "tensorflow".
        name: such as "encoder".

    Raises:
        ValueError: for an unknown framework.
        ImportError: if the framework is not installed.
    """
    package = f"fewshot_course.{MODULES[check_framework(framework)]}"
    return importlib.import_module(package if name is None else f"{package}.{name}")


def library(framework: str) -> Any:
    """Import and return a framework itself, without the course's methods.

    Raises:
        ValueError: for an unknown framework.
        ImportError: if it is not installed.
    """
    return importlib.import_module(check_framework(framework))


def resolve_device(framework: str, device: str) -> str:
    """Return what a framework calls a device; "auto": what its ``fit`` would take.

    Raises:
        TypeError: if ``device`` is no string.
        ValueError: if this machine has no such device.
    """
    return str(framework_module(framework, "_training").resolve_device(device))


def device_kind(device: str) -> str:
    """Return "cpu", "cuda", ... for a device's name in either framework."""
    return device.partition(":")[0].lower().replace("gpu", "cuda")


@dataclass(frozen=True)
class TextFeatures:
    """Texts → the mean over their tokens, of length 1, ``(n, d)``; no framework before the call.

    Two of the same settings are equal, so that one may be the key of a cache.

    Attributes:
        framework: whose encoder.
        model: as for ``encode``.
        max_length: tokens a text may have.
        device: "auto", "cpu", "cuda", ...
    """

    framework: str
    model: str = "minilm"
    max_length: int = 128
    device: str = "auto"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts, those of before from the cache on disk."""
        encoder = framework_module(self.framework, "encoder")
        return encoder.encode(
            list(texts), self.model, normalize=True, max_length=self.max_length, device=self.device
        )
