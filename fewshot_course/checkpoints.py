"""Checkpoints that survive a kill at any moment; framework-free.

One checkpoint is one safetensors file: the arrays, and beside them in its header a JSON
``meta`` (step, schedules, random streams), a JSON ``fingerprint`` of the run it belongs to, and
a SHA-256 of it all.  One file can be put in place by one rename, so it is there or it is not.

A folder holds ``checkpoint.safetensors`` and the one before it,
``checkpoint.previous.safetensors``.  It belongs to one run at a time (:func:`lock_folder`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as _parse_arrays
from safetensors.numpy import save as _serialise

from fewshot_course._arguments import checked
from fewshot_course._reading import parse_json

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "check_folder",
    "load_checkpoint",
    "lock_folder",
    "save_checkpoint",
]

CURRENT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
DAMAGED = "checkpoint.damaged.safetensors"
_FORMAT = "fewshot_course.checkpoint/1"
_MISSING = object()
_WRONG_CONTENT = (ValueError, TypeError, KeyError, AttributeError)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used or written; the message says which, why and what to do."""


class Checkpoint(NamedTuple):
    """What was saved.

    Attributes:
        arrays: name → array; the arrays are copies and may be written to.
        meta: the JSON-able rest.
    """

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


class _Damaged(Exception):
    """The file is truncated, altered, or no safetensors file."""


@checked
def save_checkpoint(
    folder: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    *,
    fingerprint: Mapping[str, Any],
) -> Path:
    """Write a checkpoint; a kill at any point leaves this one or the last one to load.

    The file is written under another name, flushed to the disk, and renamed.  The checkpoint
    that was there before is kept as the previous one.  Writers wait for each other, and for a
    run that has the folder.

    Args:
        folder: where to; made if it does not exist.
        arrays: name → array of a boolean, integer or float type, any shape.
        meta: JSON-able; whole numbers of any size, infinity and NaN are kept exactly.
        fingerprint: JSON-able; what must be equal for the checkpoint to be resumed: method,
            framework, package version, architecture (names and shapes), hyper-parameters,
            hash of the data.

    Returns:
        The path of the checkpoint.

    Raises:
        TypeError: if ``arrays`` holds something else, or ``meta`` is not JSON-able.
        CheckpointError: if the folder holds a checkpoint of another run (nothing is
            overwritten), cannot be written to, or the disk is full (the last checkpoint stays).
    """
    payload = _pack(arrays, meta, fingerprint)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder, wait=True):
            _put_in_place(folder, payload, fingerprint)
    except OSError as error:
        raise CheckpointError(_cannot_write(folder, error)) from error
    return folder / CURRENT


def _put_in_place(folder: Path, payload: bytes, fingerprint: Mapping[str, Any]) -> None:
    """Write the file beside the last one and rename both; the folder is locked."""
    current, previous = folder / CURRENT, folder / PREVIOUS
    current_is_good = _may_be_replaced(current, fingerprint)
    if not current_is_good:
        _may_be_replaced(previous, fingerprint)
    for left_behind in folder.glob(f"{CURRENT}.*.tmp"):  # by a writer that was killed
        _remove(left_behind)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f"{CURRENT}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if current_is_good:
            os.replace(current, previous)
        elif current.exists():
            os.replace(current, folder / DAMAGED)  # the previous good one must stay
        os.replace(name, current)
        _sync_folder(folder)
    except OSError:
        _remove(Path(name))
        raise


@checked
def load_checkpoint(
    folder: str | os.PathLike[str], fingerprint: Mapping[str, Any] | None = None
) -> Checkpoint | None:
    """Read the last good checkpoint in ``folder``.

    If the last file is damaged or gone (a kill between two renames), the previous one is taken;
    for a damaged one a warning says so.

    Args:
        folder: where :func:`save_checkpoint` wrote.
        fingerprint: what the checkpoint must match, key by key; ``None`` takes any.

    Returns:
        The checkpoint, or ``None`` if there is none.

    Raises:
        CheckpointError: for a checkpoint of another run (the message names the key and both
            values), for a damaged one with no good one before it, or an unreadable folder.
    """
    damage: list[str] = []
    for name in (CURRENT, PREVIOUS):
        path = Path(folder) / name
        try:
            checkpoint, found = _unpack(path.read_bytes())
        except FileNotFoundError:
            continue
        except _Damaged as error:
            damage.append(f"{path} is damaged ({error})")
            continue
        except OSError as error:
            raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error
        if fingerprint is not None:
            _refuse_foreign(path, found, fingerprint)
        if damage:
            warnings.warn(f"{damage[0]}; resuming from {path}, the one before it.", stacklevel=2)
        return checkpoint
    if damage:
        raise CheckpointError(
            f"{'; '.join(damage)}; there is no good checkpoint before it. Nothing was changed. "
            f"Delete the file to start anew, or choose another folder."
        )
    return None


@checked
def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Make ``folder`` and try to write into it, so that a run fails before it has cost anything.

    Raises:
        CheckpointError: if that does not work.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A name of its own: workers of one run try the same folder at the same time.
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise CheckpointError(_cannot_write(folder, error)) from error
    return folder


# ---------------------------------------------------------------------------- one run a folder


_HELD: dict[tuple[int, int], int] = {}
"""Folders (device and inode) that this process has locked, and the thread that did."""


@checked
@contextmanager
def lock_folder(folder: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Keep a folder of checkpoints for this run; another process cannot train or save in it.

    The lock goes when the process ends, however it ends, and leaves no file behind.  The thread
    that has it may take it again.  Where the system or the file system knows no locks, there is
    none.

    Args:
        folder: must exist.
        wait: wait for another run that has the folder, instead of raising.

    Raises:
        CheckpointError: if another run has the folder.
        OSError: if the folder cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    while True:
        descriptor = os.open(folder, os.O_RDONLY)
        key = _identity(os.fstat(descriptor))
        if _HELD.get(key) == threading.get_ident():
            os.close(descriptor)
            yield
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            raise CheckpointError(
                f"Another run is training with checkpoints in {folder}. Wait for it, or choose "
                f"another folder."
            ) from None
        except OSError:  # a file system without locks
            os.close(descriptor)
            yield
            return
        if _is_still(folder, key):
            break
        os.close(descriptor)  # it was deleted, and perhaps made anew, while we waited
        Path(folder).mkdir(parents=True, exist_ok=True)
    _HELD[key] = threading.get_ident()
    try:
        yield
    finally:
        del _HELD[key]
        os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_still(folder: str | os.PathLike[str], key: tuple[int, int]) -> bool:
    try:
        return _identity(os.stat(folder)) == key
    except FileNotFoundError:
        return False


# ---------------------------------------------------------------------------- one file


def _pack(
    arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], fingerprint: Mapping[str, Any]
) -> bytes:
    """Return the bytes of a checkpoint file."""
    solid: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray | np.generic) or array.dtype.kind not in "biuf":
            kind = getattr(array, "dtype", type(array).__name__)
            raise TypeError(
                f"arrays[{name!r}] must be a NumPy array of a boolean, integer or float type, "
                f"got {kind}."
            )
        # asarray, not ascontiguousarray: the latter gives scalars a dimension.
        solid[name] = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    texts = {
        "format": _FORMAT,
        "meta": _to_json("meta", meta),
        "fingerprint": _to_json("fingerprint", fingerprint),
    }
    return _serialise(solid, metadata={**texts, "sha256": _digest(texts, solid)})


def _unpack(raw: bytes) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the checkpoint in ``raw`` and its fingerprint; raise :class:`_Damaged`."""
    try:
        size = int.from_bytes(raw[:8], "little")
        texts = dict(parse_json(raw[8 : 8 + size]).get("__metadata__", {}))
        arrays = {name: np.array(array) for name, array in _parse_arrays(raw).items()}
    except (
        SafetensorError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise _Damaged(f"{len(raw)} bytes that are no whole safetensors file") from error
    expected = texts.pop("sha256", None)
    if expected is None:
        raise _Damaged("a safetensors file, but no checkpoint: it has no checksum")
    if expected != _digest(texts, arrays):
        raise _Damaged("its content does not match its checksum")
    if texts.get("format") != _FORMAT:
        raise CheckpointError(
            f"The checkpoint has format {texts.get('format')!r}, this version reads {_FORMAT!r}. "
            f"Use the version of fewshot_course that wrote it, or another folder."
        )
    try:
        meta, fingerprint = parse_json(texts["meta"]), parse_json(texts["fingerprint"])
    except (KeyError, ValueError) as error:
        raise _Damaged(f"a checksum, but no content that can be read: {error!r}") from error
    if not isinstance(meta, dict) or not isinstance(fingerprint, dict):
        raise _Damaged("meta and fingerprint must be mappings")
    return Checkpoint(arrays, meta), fingerprint


def _digest(texts: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of everything in a checkpoint; lengths keep the parts apart."""
    sha = hashlib.sha256()
    for key in sorted(texts):
        sha.update(json.dumps([key, texts[key]]).encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _to_json(name: str, value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(value), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be JSON-able: {error}.") from None


# ---------------------------------------------------------------------------- whose is it


def _may_be_replaced(path: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Say whether ``path`` is a good checkpoint of this run; raise if it is of another one."""
    try:
        _, found = _unpack(path.read_bytes())
    except (FileNotFoundError, _Damaged):
        return False
    _refuse_foreign(path, found, fingerprint)
    return True


def _refuse_foreign(path: Path, found: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    # Through JSON, so that tuples equal lists and number types do not matter.
    differences = _differences(found, json.loads(_to_json("fingerprint", wanted)))
    if not differences:
        return
    shown = "; ".join(
        f"{key} is {_show(old)} in the checkpoint and {_show(new)} now"
        for key, old, new in differences[:3]
    )
    more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
    raise CheckpointError(
        f"{path} belongs to another run: {shown}{more}. Nothing was changed. "
        f"Choose another folder, delete this one to start anew, or go back to the old settings."
    )


def _differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Return ``(key, old, new)`` wherever two JSON values differ, dotted keys for nested ones."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [(key, old, new)]
    found = []
    for name in sorted({*old, *new}):
        dotted = f"{key}.{name}" if key else name
        found += _differences(old.get(name, _MISSING), new.get(name, _MISSING), dotted)
    return found


def _show(value: Any) -> str:
    if value is _MISSING:
        return "absent"
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ---------------------------------------------------------------------------- the disk


def _cannot_write(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full: cannot write a checkpoint to {folder}. The last checkpoint, if "
            f"there was one, is kept. Free some space and start again: the run resumes."
        )
    return (
        f"Cannot write a checkpoint to {folder}: {error.strerror or error}. "
        f"Choose a folder that can be written to."
    )


def _sync_folder(folder: Path) -> None:
    """Flush the renames to the disk, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    # Where the folder itself is the trouble, the error that is being raised says so.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
