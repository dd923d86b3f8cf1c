"""Calling a student's function without being harmed by it."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable
from types import CodeType
from typing import Any

import numpy as np

from fewshot_course.frameworks import library

FRAMEWORKS = ("numpy", "torch", "tensorflow")


class AnswerError(Exception):
    """What the student's function did instead of returning an array of numbers."""


def candidates(answer: Callable[..., Any]) -> list[str]:
    """Return the frameworks that an answer may be written in, the likeliest first.

    A function says so itself, by the modules it names; one that uses methods only
    (``x.exp().sum()``) is tried with each framework that is imported, then with NumPy.
    """
    try:
        named = _frameworks_named(answer, seen=set())
    except Exception:  # an object whose attributes are not what they seem
        named = set()
    if named & {"torch", "tensorflow"}:
        return [framework for framework in FRAMEWORKS[1:] if framework in named]
    if "numpy" in named:
        return ["numpy"]
    return [framework for framework in FRAMEWORKS[1:] if framework in sys.modules] + ["numpy"]


def to_framework(value: Any, framework: str) -> Any:
    """Return a fresh copy of an array as the framework's own kind; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    if framework == "numpy":
        return value.copy()
    module = library(framework)
    return (module.tensor if framework == "torch" else module.constant)(value.astype(np.float32))


def call(answer: Callable[..., Any], inputs: list[Any], framework: str) -> tuple[np.ndarray, str]:
    """Call the answer and return its value as float64 and what it printed.

    Raises:
        AnswerError: if it raised, or returned what is no array of numbers; ``args`` are the
            message and what was printed until then.
    """
    printed = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            warnings.simplefilter("ignore")  # log(0) and the like show in the value
            arguments = [to_framework(value, framework) for value in inputs]
            value = _to_numpy(answer(*arguments))
    except KeyboardInterrupt:
        raise
    except AnswerError as error:
        raise AnswerError(str(error), printed.getvalue()) from None
    # BaseException, since an answer may call exit().
    except BaseException as error:
        raise AnswerError(f"it raised {_one_line(error)}", printed.getvalue()) from None
    return value, printed.getvalue()


def _to_numpy(value: Any) -> np.ndarray:
    if value is None:
        raise AnswerError("it returned None: is the `return` missing, or is a gap still `...`?")
    if value is Ellipsis:
        raise AnswerError("it returned `...`: a gap is still open.")
    kind = type(value).__name__
    is_array = hasattr(value, "__array__")
    if isinstance(value, (tuple, list, dict, set, str)) or (callable(value) and not is_array):
        raise AnswerError(f"it returned a {kind}, expected one array or number.")
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise AnswerError(f"it returned a {kind} (dtype {array.dtype}), expected real numbers.")
    return array.astype(np.float64)


def _one_line(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error class of the student's own whose __str__ fails
        text = ""
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _frameworks_named(answer: Any, seen: set[int]) -> set[str]:
    """Return the frameworks whose modules a function or its own helpers name."""
    answer = getattr(answer, "python_function", answer)  # of a tf.function
    answer = getattr(answer, "func", answer)  # of a functools.partial
    answer = getattr(answer, "__wrapped__", answer)
    answer = getattr(answer, "__func__", answer)  # of a method
    if id(answer) in seen:
        return set()
    seen.add(id(answer))
    code = getattr(answer, "__code__", None)
    if not isinstance(code, CodeType):
        # A module of layers, a class, a function written in C.
        roots = {_root(kind) for kind in (answer, *type(answer).__mro__)}
        return {framework for framework in map(_framework_of, roots) if framework}
    scope = dict(getattr(answer, "__globals__", {}))
    for name, cell in zip(
        code.co_freevars, getattr(answer, "__closure__", None) or (), strict=False
    ):
        with contextlib.suppress(ValueError):  # a cell that is not filled yet
            scope[name] = cell.cell_contents
    found = set()
    for name in _names(code):
        value = scope.get(name)
        framework = _framework_of(name) if name not in scope else _framework_of(_root(value))
        if framework:
            found.add(framework)
        elif hasattr(value, "__code__"):
            found |= _frameworks_named(value, seen)
    return found


def _names(code: CodeType) -> set[str]:
    """Return the names that a function uses, those of its inner functions included."""
    names = set(code.co_names) | set(code.co_freevars)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _root(value: Any) -> str:
    name = getattr(value, "__name__", "") if type(value).__name__ == "module" else ""
    module = name or getattr(value, "__module__", None) or type(value).__module__
    return str(module).partition(".")[0]


def _framework_of(root: str) -> str:
    if root in ("tensorflow", "keras"):
        return "tensorflow"
    return root if root in FRAMEWORKS else ""
