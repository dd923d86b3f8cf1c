"""Checks of your answers to the course's exercises; they work offline.

In a notebook::

    from fewshot_course.exercises import check
    check("kl.gaussian_kl", gaussian_kl)

The function may be written in NumPy, PyTorch or TensorFlow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fewshot_course._checks import check_choice
from fewshot_course.exercises._exercise import (
    TOLERANCES,
    Case,
    Exercise,
    Mistake,
    Outcome,
    show,
)
from fewshot_course.exercises._running import FRAMEWORKS, AnswerError, call, candidates
from fewshot_course.frameworks import library

__all__ = ["TOPICS", "Case", "Exercise", "Mistake", "Outcome", "available", "check", "exercise"]

TOPICS = (
    "augmentation",
    "capstone",
    "compression",
    "fine_tuning",
    "generative",
    "kl",
    "maml",
    "pseudo_labels",
    "scaling",
    "small_samples",
)
"""The modules of this package that hold exercises; each has a tuple ``EXERCISES``."""


def available() -> list[str]:
    """Return the names of all exercises that can be checked."""
    return [one.name for topic in TOPICS for one in _exercises(topic)]


def exercise(name: str) -> Exercise:
    """Return an exercise's cases and oracle.

    Raises:
        ValueError: for a name that is not known.
    """
    check_choice("name", name, available())
    return next(one for one in _exercises(name.partition(".")[0]) if one.name == name)


def check(name: str, answer: Callable[..., Any], framework: str | None = None) -> Outcome:
    """Try an answer on the exercise's cases and say how it did.

    Args:
        name: the exercise, e.g. ``"kl.gaussian_kl"``.
        answer: your function.  It gets float64 arrays (NumPy) or float32 tensors.
        framework: "numpy", "torch" or "tensorflow"; found from the function if not given.

    Returns:
        The outcome.  Whatever the function does, no error comes out of it: the outcome tells.

    Raises:
        ValueError: for a name or framework that is not known.
        ImportError: if ``framework`` is not installed.
    """
    asked = exercise(name)
    if framework is not None:
        check_choice("framework", framework, FRAMEWORKS)
        if framework != "numpy":
            library(framework)
    if not callable(answer) or hasattr(type(answer), "__array__"):
        message = (
            f"check needs your function, but got a value of type {type(answer).__name__}. Pass "
            f"the function itself, without brackets: check({name!r}, {asked.function})"
        )
        return Outcome(name, False, 0, len(asked.cases), message)
    options = candidates(answer) if framework is None else [framework]
    return _check_with(asked, answer, _first_that_runs(asked.cases[0], answer, options))


def _exercises(topic: str) -> tuple[Exercise, ...]:
    return importlib.import_module(f"{__name__}.{topic}").EXERCISES


def _first_that_runs(case: Case, answer: Callable[..., Any], options: list[str]) -> str:
    """Return the first framework that the answer can be called with, else the likeliest."""
    for framework in options if len(options) > 1 else []:
        try:
            call(answer, list(case.inputs.values()), framework)
        except AnswerError:
            continue
        return framework
    return options[0]


def _check_with(asked: Exercise, answer: Callable[..., Any], framework: str) -> Outcome:
    n_right, first, values = 0, None, []
    for case in asked.cases:
        expected, value, printed = asked.expected(case), None, ""
        try:
            value, printed = call(answer, list(case.inputs.values()), framework)
            problem = _compare(value, expected, framework)
        except AnswerError as error:
            problem, printed = str(error.args[0]), error.args[1]
        values.append(value)
        if not problem:
            n_right += 1
        elif first is None:
            first = case, problem, printed, value
    if first is None:
        return Outcome(asked.name, True, n_right, len(asked.cases), framework=framework)
    case, problem, printed, value = first
    advice = ""
    if value is not None:  # else the problem itself says what to do
        shapes_fit = value.shape == asked.expected(case).shape
        general = (case.hint if shapes_fit else "") or asked.hint
        advice = _known_mistake(asked, values, framework) or general
    message = _message(asked, case, problem, value, advice)
    return Outcome(asked.name, False, n_right, len(asked.cases), message, framework, printed)


def _compare(value: np.ndarray, expected: np.ndarray, framework: str) -> str:
    """Return what is wrong with a value; nothing if it is right."""
    if value.shape != expected.shape:
        return f"it returned shape {value.shape}, expected {expected.shape}."
    if np.isnan(value).any() and not np.isnan(expected).any():
        return f"it returned NaN in {int(np.isnan(value).sum())} of {value.size} places."
    return "" if _agree(value, expected, framework) else "the value differs."


def _agree(value: np.ndarray, expected: np.ndarray, framework: str) -> bool:
    relative, absolute = TOLERANCES[framework]
    return value.shape == expected.shape and np.allclose(
        value, expected, rtol=relative, atol=absolute, equal_nan=True
    )


def _known_mistake(asked: Exercise, values: list[np.ndarray | None], framework: str) -> str:
    """Return what to say if the answer's values are those of a well-known mistake."""
    for mistake in asked.mistakes:
        with np.errstate(all="ignore"):
            wrong = [np.asarray(mistake.function(**case.inputs)) for case in asked.cases]
        if all(
            value is not None and _agree(value, other, framework)
            for value, other in zip(values, wrong, strict=True)
        ):
            return mistake.says
    return ""


def _message(
    asked: Exercise, case: Case, problem: str, value: np.ndarray | None, advice: str
) -> str:
    lines = [f"Case {case.name!r}, {asked.call}: {problem}"]
    rows = {**case.inputs, "expected": asked.expected(case)}
    if value is not None:
        rows["got"] = value
    width = max(map(len, rows))
    lines += [f"  {name:<{width}} = {show(row)}" for name, row in rows.items()]
    return "\n".join(lines + ([f"Hint: {advice}"] if advice else []))
