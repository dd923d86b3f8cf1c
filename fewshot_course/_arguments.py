"""Checks by declaration: a public function's arguments are what its annotations say.

A mathematical function has no room for twenty lines of checks, and its user no use for "mat1 and
mat2 shapes cannot be multiplied".  :func:`checked` reads the annotations when a function is
defined; at a call it looks at types and ranges only, so that it costs microseconds and works on
symbolic tensors.  What still goes wrong below is said in terms of the arguments.
"""

from __future__ import annotations

import dis
import functools
import inspect
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

import numpy as np

from fewshot_course._checks import check_choice, check_number
from fewshot_course._reading import show

__all__ = ["BELOW_ONE", "COUNT", "NOT_NEGATIVE", "POSITIVE", "SHARE", "Range", "checked"]

F = TypeVar("F", bound=Callable[..., Any])


class Range:
    """Numbers that an argument may have: in [low, high], or without one of the ends.

    Args:
        low: smallest value.
        high: largest value.
        low_open: whether ``low`` itself is excluded.
        high_open: whether ``high`` itself is excluded.
    """

    def __init__(
        self,
        low: float = -np.inf,
        high: float = np.inf,
        low_open: bool = False,
        high_open: bool = False,
    ) -> None:
        self.low, self.high, self.low_open, self.high_open = low, high, low_open, high_open

    def check(self, name: str, value: Any, integer: bool) -> None:
        """Raise ``TypeError`` or ``ValueError`` for a value that is no such number."""
        number = value.item() if isinstance(value, np.generic) else value
        check_number(
            name, number, low=self.low, high=self.high, integer=integer, low_open=self.low_open
        )
        if self.high_open and number == self.high:
            raise ValueError(f"{name} must be below {self.high:g}, got {show(value)}.")


POSITIVE = Range(low=0, low_open=True)
NOT_NEGATIVE = Range(low=0)
SHARE = Range(low=0, high=1)
BELOW_ONE = Range(low=0, high=1, high_open=True)
COUNT = Range(low=1)


@overload
def checked(function: F, /) -> F: ...


@overload
def checked(**rules: Range | Iterable[str]) -> Callable[[F], F]: ...


def checked(function: F | None = None, /, **rules: Range | Iterable[str]) -> Any:
    """Check a function's arguments by its annotations, and say errors by their names.

    Args:
        function: what is decorated.
        **rules: argument → its :class:`Range`, or the names it may have.

    A number must be finite; a tensor in its place is taken as it is, for its value may not be
    known yet.  Errors that come out of a framework or of NumPy are raised anew as ``TypeError`` or
    ``ValueError`` with what came for each argument and what the docstring expects.  A function
    that calls back a function of the user's leaves all errors as they are.
    """
    if function is None:
        return lambda other: checked(other, **rules)
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if unknown := set(rules) - set(signature.parameters):
        raise TypeError(f"{function.__name__} has no argument {sorted(unknown)}.")
    checks = [
        (index, p.name, check)
        for index, p in enumerate(parameters)
        if (check := _check_of(p, rules.get(p.name), function.__globals__)) is not None
    ]
    calls_back = any(_CALLBACK.search(str(p.annotation)) for p in parameters)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for index, name, check in checks:
            if index < len(args):
                check(args[index])
            elif name in kwargs:
                check(kwargs[name])
        if calls_back:
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if not _comes_from_below(error, signature):
                raise
            kind = TypeError if isinstance(error, TypeError | AttributeError) else ValueError
            raise kind(_explain(function, signature, args, kwargs, error)) from _root(error)

    return call


_CALLBACK = re.compile(r"\b(Callable|Loss|Predict|Evaluate)\b")

_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tensor": (lambda value: hasattr(value, "shape") and hasattr(value, "dtype"), "a tensor"),
    "array": (lambda value: _is_finite(value), "an array of finite numbers"),
    "network": (callable, "a network"),
    "function": (callable, "a function"),
    "mapping": (
        lambda value: isinstance(value, Mapping) and all(v is not None for v in value.values()),
        "a mapping without None",
    ),
    "facts": (lambda value: isinstance(value, Mapping), "a mapping"),
    "several": (
        lambda value: (
            isinstance(value, Iterable)
            and not isinstance(value, str | bytes | Mapping)
            and not (isinstance(value, list | tuple) and any(part is None for part in value))
        ),
        "several values without None",
    ),
    "pair": (
        lambda value: isinstance(value, tuple | list | np.ndarray) and len(value) == 2,
        "a pair of numbers",
    ),
    "name": (lambda value: isinstance(value, str), "a string"),
    "path": (lambda value: isinstance(value, str | os.PathLike), "a path"),
    "generator": (
        lambda value: isinstance(value, np.random.Generator),
        "a generator such as np.random.default_rng(0)",
    ),
    "none": (lambda value: value is None, "None"),
    "integer": (lambda value: _is_number(value, numbers.Integral), "a whole number"),
    "number": (lambda value: _is_number(value, numbers.Real), "a number (finite)"),
    "truth": (lambda value: isinstance(value, bool | np.bool_) or _is_scalar(value), "a bool"),
}

_NAMES = {
    "Tensor": "tensor",
    "tf.Tensor": "tensor",
    "np.ndarray": "array",
    "nn.Module": "network",
    "keras.Model": "network",
    "tuple[float, float]": "pair",
    "tuple[int, int]": "pair",
    "str": "name",
    "os.PathLike[str]": "path",
    "Path": "path",
    "np.random.Generator": "generator",
    "None": "none",
    "int": "integer",
    "float": "number",
    "bool": "truth",
    "Parameters": "mapping",
    "Arrays": "mapping",
    "Shapes": "facts",
    "Loss": "function",
    "Predict": "function",
    "Evaluate": "function",
}
_GENERIC = {
    "Mapping": "mapping",
    "dict": "mapping",
    "Callable": "function",
    "tuple": "several",
    "list": "several",
    "Sequence": "several",
    "Iterable": "several",
    "Collection": "several",
}


def _is_finite(value: Any) -> bool:
    """Whether a value is an array, and, where it holds floats, all of them are finite."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return False
    return not (isinstance(value, np.ndarray) and value.dtype.kind == "f") or bool(
        np.isfinite(value).all()
    )


def _is_scalar(value: Any) -> bool:
    """Whether a value is an array or tensor of no axes, whose value may not be known."""
    return (
        hasattr(value, "dtype")
        and getattr(value, "shape", None) is not None
        and (len(value.shape) == 0)
    )


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, kind):
        return bool(np.isfinite(float(value)))  # type: ignore[arg-type]  # a number
    return _is_scalar(value)


def _kinds_of(annotation: str) -> list[str] | None:
    """Return the kinds that an annotation allows; ``None`` where one of them is not known."""
    kinds = []
    depth, start = 0, 0
    for position, letter in enumerate(annotation + "|"):
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            name = annotation[start:position].strip()
            kind = _NAMES.get(name) or _GENERIC.get(name.partition("[")[0])
            if kind == "mapping" and name.endswith("Any]"):
                kind = "facts"
            if kind is None:
                return None
            kinds.append(kind)
            start = position + 1
    return kinds


def _check_of(
    parameter: inspect.Parameter, rule: Range | Iterable[str] | None, names: dict[str, Any]
) -> Callable[[Any], None] | None:
    """Return what raises for a wrong value of one argument; ``None`` where anything goes."""
    name = parameter.name
    kinds = _kinds_of(str(parameter.annotation))
    optional = kinds is not None and "none" in kinds
    integer = kinds is not None and "integer" in kinds and "number" not in kinds

    def check_rule(value: Any) -> None:
        if value is None and optional:
            return
        if not isinstance(rule, Range):
            check_choice(name, value, rule)  # type: ignore[arg-type]  # names
        elif not _is_scalar(value) or isinstance(value, np.generic):
            rule.check(name, value, integer)

    if rule is not None:
        return check_rule
    if kinds is None:
        return _check_of_class(name, str(parameter.annotation), names)
    allowed = [_KINDS[kind] for kind in kinds]

    def check_kind(value: Any) -> None:
        if not any(fits(value) for fits, _ in allowed):
            wanted = " or ".join(dict.fromkeys(words for _, words in allowed))
            right_type = ("number" in kinds and isinstance(value, float)) or (
                "array" in kinds and hasattr(value, "dtype")
            )
            kind = ValueError if right_type else TypeError  # NaN or infinity
            raise kind(f"{name} must be {wanted}, got {_describe(value)}.")

    return check_kind


def _check_of_class(
    name: str, annotation: str, names: dict[str, Any]
) -> Callable[[Any], None] | None:
    """Return the check of an argument that must be of a class of the package."""
    if not annotation.isidentifier() or annotation == "Any":
        return None

    def check_class(value: Any) -> None:
        kind = names.get(annotation)  # looked up at the call: it may be defined further below
        if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
            return
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be of type {annotation}, got {_describe(value)}.")

    return check_class


_CANNOT = "cannot take "
_PACKAGE = "fewshot_course"
_NOT_OF_ARGUMENTS = (AssertionError, ImportError, MemoryError, OSError, RecursionError, Warning)
_BELOW = ("builtins", "numpy", "torch", "tensorflow", "keras", "safetensors", "scipy")


def _root(error: BaseException) -> BaseException:
    """Return what was raised first; a checked function may have called another one."""
    while str(error).partition(" ")[2].startswith(_CANNOT) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _comes_from_below(error: Exception, signature: inspect.Signature) -> bool:
    """Whether an error says nothing about the arguments yet, and may be about them."""
    kind = type(error)
    if kind.__module__.partition(".")[0] not in _BELOW or isinstance(error, _NOT_OF_ARGUMENTS):
        return False
    if re.search("Exhausted|OutOfMemory", kind.__name__) or "out of memory" in str(error):
        return False
    if isinstance(error, TypeError | ValueError) and _root(error) is error:
        named = any(re.search(rf"\b{name}\b", str(error)) for name in signature.parameters)
        return not named and not _is_own(error)
    return True


def _is_own(error: Exception) -> bool:
    """Whether the course itself has raised an error, and so has said what is wrong."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _explain(
    function: Callable[..., Any],
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: Exception,
) -> str:
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError as wrong:
        return f"{function.__name__}: {wrong}."
    came = ", ".join(f"{name} = {_describe(value)}" for name, value in bound.items())
    below = str(_root(error)).strip().partition("\n")[0][:200] or type(error).__name__
    expected = _documented(function)
    return f"{function.__name__} {_CANNOT}{came}: {below.rstrip('.')}.{expected}"


def _describe(value: Any) -> str:
    """Return a value in a few words: an array by its shape and dtype."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        dtype = str(value.dtype).replace("<dtype: '", "").replace("'>", "").replace("torch.", "")
        return f"{type(value).__name__} {_shape(value)} {dtype}"
    if isinstance(value, tuple | list) and any(hasattr(part, "shape") for part in value):
        return f"({', '.join(_describe(part) for part in value)})"
    if value is None or isinstance(value, str | bytes | numbers.Number):
        return show(value)
    return f"an object of type {type(value).__name__}"


def _shape(value: Any) -> str:
    try:
        return str(tuple(value.shape))
    except (TypeError, ValueError):  # a shape that is not known yet
        return str(value.shape)


def _documented(function: Callable[..., Any]) -> str:
    """Return what the docstring says of the arguments, in one line."""
    lines = inspect.getdoc(function) or ""
    found = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", lines, re.MULTILINE)
    if found is None:
        return ""
    text = re.sub(r"\s+", " ", found[1].strip()).replace("``", "")
    return f" Expected: {text[:600]}"
