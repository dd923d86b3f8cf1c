"""Which frameworks there are, and the one place that imports their modules by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

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
        encoder = importlib.import_module(f"fewshot_course.{MODULES[self.framework]}.encoder")
        return encoder.encode(
            list(texts), self.model, normalize=True, max_length=self.max_length, device=self.device
        )
