"""The fixture that runs a test once in each framework."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest

PACKAGES = {"torch": "torch", "tensorflow": "tf"}


class Framework:
    """One framework: its twin modules by name, and its tensors to and from NumPy.

    Attributes:
        name: "torch" or "tensorflow".
    """

    def __init__(self, name: str) -> None:
        pytest.importorskip(name, reason=f"{name} is not installed")
        self.name = name

    def module(self, name: str) -> ModuleType:
        """The twin module of that name, such as "networks"."""
        return importlib.import_module(f"fewshot_course.{PACKAGES[self.name]}.{name}")

    def tensor(self, array: Any, dtype: str | None = None) -> Any:
        """A tensor on the CPU."""
        return self.module("_training").to_tensor(np.asarray(array), "cpu", dtype)

    def array(self, tensor: Any) -> np.ndarray:
        """Back to NumPy."""
        return self.module("_training").to_array(tensor)


@pytest.fixture(scope="session", params=list(PACKAGES))
def framework(request: pytest.FixtureRequest) -> Framework:
    return Framework(request.param)
