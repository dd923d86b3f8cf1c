"""Reading what somebody else may have written: nothing is believed before it is looked at.

JSON and YAML with a limit on depth and size, words for messages that stay short, and what the
arrays of a model's file must be before a network is built for them.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAX_YAML_BYTES, MAX_YAML_VALUES = 1_000_000, 100_000
"""Largest YAML file, and most values in it when every alias is written out."""

MAX_UNFOUNDED = 50_000_000
"""Most elements that a file may ask for beyond those that it brings."""

_SIZES = {
    "channels", "components_per_class", "discriminator_width", "generator_hidden", "hidden",
    "latent_dim", "layers", "lora_rank", "n_outputs_", "n_pca", "channels_", "layers_",
}  # fmt: skip
"""Settings and facts that say how large a network is."""

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = _shorten.maxlong = 80
_shorten.maxlevel = 2


def show(value: Any) -> str:
    """Return ``repr(value)``, cut where it is long: for messages."""
    try:
        return _shorten.repr(value)
    except Exception:  # a repr of somebody else's class
        return f"<{type(value).__name__}>"


_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return a text with everything written out that steers a terminal or turns a line around.

    That is control characters (but tab and line feed), marks and overrides of direction, and
    the lone surrogates that stand for bytes of a file name that are no UTF-8.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: if it is none, or nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Return what a YAML file holds: mappings, lists and plain values only.

    Raises:
        ValueError: naming the file: if it cannot be read, is no YAML or larger than
            ``MAX_YAML_BYTES``, is nested too deeply, or grows beyond ``MAX_YAML_VALUES`` values
            by its aliases.
    """
    import yaml

    try:
        if Path(path).is_file() and os.path.getsize(path) > MAX_YAML_BYTES:
            raise ValueError(f"{path} is larger than {MAX_YAML_BYTES:,} bytes.")
        text = Path(path).read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = _count(root, {}, yaml)
        if values > MAX_YAML_VALUES:
            raise ValueError(
                f"{path} has aliases that make {values:,} values of it; {MAX_YAML_VALUES:,} are "
                f"allowed."
            )
        return yaml.safe_load(text)
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply, or in itself.") from None


def _count(node: Any, known: dict[int, int], yaml: Any) -> int:
    """Return how many values a node stands for when aliases are written out."""
    if id(node) not in known:
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value if isinstance(node, yaml.SequenceNode) else []
        known[id(node)] = 1 + sum(_count(part, known, yaml) for part in parts)
    return known[id(node)]


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ``ValueError`` where an array holds NaN or infinity, or negative variances."""
    for name, array in arrays.items():
        if name.endswith("running_var") and (array < 0).any():
            raise ValueError(f"the array {name!r} holds variances < 0")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"the array {name!r} holds NaN or infinite values")


def check_classes_array(classes: np.ndarray) -> None:
    """Raise ``ValueError`` unless an array may be a classifier's ``classes_``."""
    right = classes.ndim == 1 and classes.dtype.kind == "i" and len(classes) > 0
    if not right or classes.min() < 0 or (np.diff(classes) <= 0).any():
        raise ValueError(
            f"classes_ must hold whole numbers >= 0 that rise, got {show(classes)} of dtype "
            f"{classes.dtype}"
        )


def check_shape(name: str, shape: Any) -> None:
    """Raise ``ValueError`` unless this may be the shape of one example."""
    right = isinstance(shape, list | tuple) and 1 <= len(shape) <= 3
    if not right or not all(_size(name, one) > 0 for one in shape):
        raise ValueError(f"{name} must be one to three whole numbers > 0, got {show(shape)}")
    if math.prod(shape) > MAX_UNFOUNDED:
        raise ValueError(f"{name}={show(shape)} makes more than {MAX_UNFOUNDED:,} numbers")


def check_array(name: str, array: np.ndarray, kinds: str, shape: tuple[int | None, ...]) -> None:
    """Raise ``ValueError`` unless an array has a kind of dtype and a shape.

    Args:
        name: for the message.
        array: of a file.
        kinds: letters of NumPy's ``dtype.kind``, such as "f" or "iu".
        shape: as expected; ``None`` is any length.
    """
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in kinds:
        wanted = ", ".join("any" if one is None else str(one) for one in shape)
        raise ValueError(
            f"{name} has dtype {array.dtype} and shape {array.shape}, expected one of {kinds!r} "
            f"and ({wanted})"
        )


def check_sizes(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ``ValueError`` where a file asks for a network far larger than its arrays.

    A layer from a to b units has a·b weights, so that much a file must bring.

    Args:
        facts: name → setting or fact, as the file has them.
        arrays: what it brings.
    """
    wanted, ends = 1, [1]
    for name in _SIZES & facts.keys():
        if facts[name] is None:
            continue
        sizes = [_size(name, one) for one in _as_list(facts[name])] or [1]
        wanted = max(wanted, *sizes, *(a * b for a, b in itertools.pairwise(sizes)))
        if name.startswith("channels"):
            wanted = max(wanted, sizes[0] ** 2)
        else:
            ends += [sizes[0], sizes[-1]]
    shape = [_size("input_shape_", one) for one in _as_list(facts.get("input_shape_", []))]
    pixels = math.prod(shape)
    wanted = max(wanted, pixels)
    if len(shape) < 2 or facts.get("network", "mlp") not in (None, "conv4", "conv4-strided"):
        ends.append(pixels)  # every one of them meets every unit
    wanted = max(wanted, *(a * b for a, b in itertools.combinations([*ends, 1], 2)))
    found = sum(array.size for array in arrays.values())
    if wanted > max(found, MAX_UNFOUNDED):
        raise ValueError(f"it asks for {show(wanted)} weights, but brings {found:,}")


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _size(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be made of whole numbers >= 0, got {show(value)}")
    return value
