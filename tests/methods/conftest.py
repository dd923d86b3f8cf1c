"""The fixture that runs a test once in each framework."""

from __future__ import annotations

import importlib
from collections.abc import Callable
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

    def estimator(self, name: str, **params: Any) -> Any:
        """An unfitted estimator by its public name, such as "KLAdapter"."""
        package = importlib.import_module(f"fewshot_course.{PACKAGES[self.name]}")
        return getattr(package, name)(**params)

    def tensor(self, array: Any, dtype: str | None = None) -> Any:
        """A tensor on the CPU."""
        return self.module("_training").to_tensor(np.asarray(array), "cpu", dtype)

    def array(self, tensor: Any) -> np.ndarray:
        """Back to NumPy."""
        return self.module("_training").to_array(tensor)

    def gradients(
        self, function: Callable[..., Any], *arrays: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Value of ``function(*tensors)``, a scalar, and its gradient by each array."""
        tensors = [self.tensor(array) for array in arrays]
        if self.name == "torch":
            for tensor in tensors:
                tensor.requires_grad_(True)
            value = function(*tensors)
            value.backward()
            return self.array(value), [self.array(tensor.grad) for tensor in tensors]
        import tensorflow as tf

        with tf.GradientTape() as tape:
            for tensor in tensors:
                tape.watch(tensor)
            value = function(*tensors)
        return self.array(value), [self.array(g) for g in tape.gradient(value, tensors)]


@pytest.fixture(scope="session", params=list(PACKAGES))
def framework(request: pytest.FixtureRequest) -> Framework:
    return Framework(request.param)


@pytest.fixture(scope="session")
def both() -> tuple[Framework, Framework]:
    """PyTorch and TensorFlow, for tests that compare the two."""
    return Framework("torch"), Framework("tensorflow")


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator, so that no test depends on which ran before."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def differences() -> Callable[..., np.ndarray]:
    """Central differences in float64: a gradient that knows no chain rule."""

    def gradient(
        function: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6
    ) -> np.ndarray:
        result = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            there, back = x.copy(), x.copy()
            there[index] += step
            back[index] -= step
            result[index] = (function(there) - function(back)) / (2 * step)
        return result

    return gradient
