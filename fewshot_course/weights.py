"""The canonical layout of weights: names and shapes of torch's ``state_dict``, in NumPy.

Both frameworks read and write it: ``networks.to_numpy`` and ``networks.from_numpy`` stand in
:mod:`fewshot_course.torch` and :mod:`fewshot_course.tf`.  A linear layer's weight is
``(out, in)``, a convolution's ``(out, in, height, width)``; order is that of the layers.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as _to_bytes

from fewshot_course._arguments import checked
from fewshot_course._reading import check_finite, parse_json, show

__all__ = ["check_layout", "initial_weights", "load_arrays", "part_of", "save_arrays"]

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


@checked
def part_of(arrays: Mapping[str, np.ndarray], name: str) -> Arrays:
    """Return the arrays whose names begin with ``name.``, without that: one network of several.

    Args:
        arrays: name → array.
        name: of the part.
    """
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


@checked
def initial_weights(shapes: Shapes, rng: np.random.Generator, dtype: str = "float32") -> Arrays:
    """Draw initial weights for layers in canonical layout.

    Weights and biases of linear and convolutional layers are uniform in ±1/√fan_in, torch's
    own default.  Normalisation layers start as the identity.  Values are drawn in float64 and
    rounded once, so float32 and float64 networks start from the same point.

    Args:
        shapes: name → shape, in the order of the layers.
        rng: the ``init`` stream.
        dtype: of the result, "float32" or "float64".

    Returns:
        name → array.

    Raises:
        ValueError: for a name or shape that no rule covers.
    """
    arrays: Arrays = {}
    for name, shape in shapes.items():
        kind = name.rpartition(".")[2]
        weight_shape = shapes.get(name.removesuffix(kind) + "weight", ())
        is_norm = len(weight_shape) == 1
        if kind == "running_mean" or (kind == "bias" and is_norm):
            value = np.zeros(shape)
        elif kind == "running_var" or (kind == "weight" and is_norm):
            value = np.ones(shape)
        elif kind in ("weight", "bias") and len(weight_shape) >= 2:
            bound = 1.0 / np.sqrt(np.prod(weight_shape[1:]))
            value = rng.uniform(-bound, bound, size=shape)
        else:
            raise ValueError(f"no rule to initialise {name!r} of shape {tuple(shape)}.")
        arrays[name] = value.astype(dtype)
    return arrays


@checked
def check_layout(arrays: Mapping[str, np.ndarray], shapes: Shapes) -> None:
    """Raise ``ValueError`` where ``arrays`` do not have the names and shapes of a network."""
    missing, extra = set(shapes) - set(arrays), set(arrays) - set(shapes)
    if missing or extra:
        raise ValueError(
            f"weights do not fit the network: missing {sorted(missing)}, "
            f"unexpected {sorted(extra)}."
        )
    for name, shape in shapes.items():
        if tuple(arrays[name].shape) != tuple(shape):
            raise ValueError(
                f"weight {name!r} has shape {tuple(arrays[name].shape)}, "
                f"the network expects {tuple(shape)}."
            )


@checked
def save_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> Path:
    """Write arrays and a JSON header into one safetensors file, whole or not at all.

    Args:
        path: the file; its folder must exist.
        arrays: name → array.
        header: anything that JSON can hold; kept in the file's metadata.

    Returns:
        The path written.

    Raises:
        OSError: if the folder cannot be written; an older file stays as it was.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; expected the name of a file.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist; make it first.")
    # asarray, not ascontiguousarray: the latter gives scalars a dimension.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = _to_bytes(contiguous, metadata={"header": json.dumps(dict(header), default=_plain)})
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers, which a search over hyper-parameters brings, and paths into JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"the header cannot hold {value!r} of type {type(value).__name__}.")


@checked
def load_arrays(path: str | os.PathLike[str]) -> tuple[Arrays, dict[str, Any]]:
    """Read what :func:`save_arrays` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, was written by something else, or holds NaN or
            infinite values.
    """
    target = Path(path)
    if not target.is_file():
        raise FileNotFoundError(f"there is no file {target}.")
    try:
        with safe_open(str(target), framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (the file is no dict)
            metadata = file.metadata() or {}
    except (SafetensorError, TypeError, RecursionError) as error:
        raise ValueError(f"{target} is damaged or no safetensors file: {error}") from None
    if "header" not in metadata:
        raise ValueError(f"{target} was not written by fewshot_course: it has no header.")
    try:
        header = parse_json(metadata["header"])
    except ValueError as error:
        raise ValueError(f"{target} is damaged: its header is no JSON ({error}).") from None
    if not isinstance(header, dict):
        raise ValueError(f"{target} is damaged: its header is {show(header)}, no mapping.")
    try:
        check_finite(arrays)
    except ValueError as error:
        raise ValueError(f"{target} is damaged: {error}.") from None
    return arrays, header


def pack(name: str, array: np.ndarray) -> Arrays:
    """Return how an array is written: whole, or, where that is shorter, without what is 0.

    The short form has one bit for each place and the values that are not 0.

    Args:
        name: of the array.
        array: any.
    """
    kept = array != 0
    if kept.sum() * array.itemsize + array.size / 8 >= array.nbytes:
        return {name: array}
    return {
        f"{name}.kept": np.packbits(kept),
        f"{name}.shape": np.array(array.shape, np.int64),
        f"{name}.values": array[kept],
    }


def unpack(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Return the arrays that :func:`pack` has written.

    Raises:
        ValueError: where shape, bits and values do not fit together.
    """
    whole = {}
    for name, array in arrays.items():
        if name.endswith((".shape", ".values")):
            continue
        if not name.endswith(".kept"):
            whole[name] = array
            continue
        name = name.removesuffix(".kept")
        shape, values = tuple(arrays[f"{name}.shape"].tolist()), arrays[f"{name}.values"]
        size = math.prod(shape)
        if min(shape, default=0) < 0 or (size + 7) // 8 != array.size:
            raise ValueError(f"{name!r} has the shape {shape}, which its bits do not fill.")
        dense = np.zeros(size, values.dtype)
        dense[np.unpackbits(array, count=size).astype(bool)] = values
        whole[name] = dense.reshape(shape)
    return whole
