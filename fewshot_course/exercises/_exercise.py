"""What an exercise's check is made of: cases, an independent oracle, well-known mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TOLERANCES = {"numpy": (1e-6, 1e-8), "torch": (1e-4, 1e-5), "tensorflow": (1e-4, 1e-5)}
"""Relative and absolute tolerance.  NumPy answers get float64 inputs, tensors are float32, the
frameworks' own default, so that a student's constants fit."""


@dataclass(frozen=True)
class Case:
    """One call of the student's function.

    Attributes:
        name: what is special about it, for the message.
        inputs: the arguments by name, in the order of the call; arrays are float64 here.
        hint: what to think of when exactly this case fails.
    """

    name: str
    inputs: dict[str, Any]
    hint: str = ""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that students give, so that the check can name it.

    Attributes:
        says: what was done and what to do, one or two sentences.
        function: the wrong answer, in NumPy, called like the student's.
    """

    says: str
    function: Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """A check.

    Attributes:
        name: ``topic.function``.
        oracle: the right answer by another road than the solution's (quadrature, SciPy), in NumPy;
            called with a case's inputs.
        cases: the calls, the easiest first.
        hint: for answers that fail and match no known mistake.
        mistakes: the well-known wrong answers; each must fail at least one case.
    """

    name: str
    oracle: Callable[..., Any]
    cases: tuple[Case, ...]
    hint: str
    mistakes: tuple[Mistake, ...] = ()

    @property
    def function(self) -> str:
        """Name of the student's function."""
        return self.name.rpartition(".")[2]

    @property
    def call(self) -> str:
        """How the function is called, for messages."""
        return f"{self.function}({', '.join(self.cases[0].inputs)})"

    def expected(self, case: Case) -> np.ndarray:
        """Return the right answer of a case."""
        return np.asarray(self.oracle(**case.inputs), dtype=np.float64)


@dataclass(frozen=True)
class Outcome:
    """The result of a check; printed, it says what to do next.

    Attributes:
        name: the exercise.
        passed: whether every case is right.
        n_right: number of cases that are right.
        n_cases: number of cases.
        message: what went wrong in the first case that failed; empty where all passed.
        framework: what the function was called with: "numpy", "torch", "tensorflow", or "" where
            it could not be called.
        printed: what the function printed in the case that the message tells of.
    """

    name: str
    passed: bool
    n_right: int
    n_cases: int
    message: str = ""
    framework: str = ""
    printed: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        using = {"numpy": "NumPy arrays", "torch": "PyTorch", "tensorflow": "TensorFlow"}
        with_ = f", called with {using[self.framework]}" if self.framework else ""
        if self.passed:
            return f"{self.name}: passed, all {self.n_cases} cases right{with_}."
        lines = [
            f"{self.name}: not yet, {self.n_right} of {self.n_cases} cases right{with_}.",
            "",
            self.message,
        ]
        if self.printed:
            lines += ["", "Your function printed:", _indent(self.printed)]
        return "\n".join(lines)


def show(value: Any) -> str:
    """Return a number or array as short text; of a large array the shape and the first row."""
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array.item():.6g}" if array.dtype.kind in "fiu" else repr(array.item())
    few = array
    while few.size > 12 and few.ndim > 1:
        few = few[0]
    text = " ".join(np.array2string(few, precision=4, threshold=12, edgeitems=4).split())
    text = text.replace("[ ", "[")
    if few is not array:
        return f"array of shape {array.shape}, first row {text}"
    return f"{text}, shape {array.shape}"


def _indent(text: str) -> str:
    lines = text.rstrip().splitlines()
    shown = [f"  {line[:200]}" for line in lines[:10]]
    return "\n".join(shown + (["  ..."] if len(lines) > 10 else []))
