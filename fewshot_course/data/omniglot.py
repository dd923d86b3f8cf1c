"""Omniglot: 1,623 characters of fifty alphabets, each drawn once by twenty people.

Two ways to divide it are in use.  Lake's goes by alphabet: thirty in the background set, twenty
in the evaluation set (the splits of the data set).  That of Vinyals et al. (2016), which most
published tables follow, draws 1,200 characters at random, whatever their alphabet, and makes
three new classes of each by quarter turns (:func:`character_parts`, :func:`quarter_turns`).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course._checks import check_features, check_labels, check_number
from fewshot_course.data._files import DataFile, read
from fewshot_course.data._types import Loaded
from fewshot_course.data.images import resize_images

__all__ = ["character_parts", "quarter_turns"]

SPLITS = ("background", "evaluation")
_ADDRESS = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/"
    "057f034baf2ecb8530bc5710e5a23584d2a519cc/python/"
)


def hash_drawings(content: bytes) -> str:
    """Return the SHA-256 of the drawings in an archive, however they were packed.

    It is taken over the PNG members, sorted by path: the path, a zero byte, and the SHA-256 of
    the member (32 bytes).

    Args:
        content: a zip archive.

    Returns:
        64 hexadecimal digits.

    Raises:
        zipfile.BadZipFile: if it is none, or a member is damaged.
    """
    digest = hashlib.sha256()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for path in _drawings(archive):
            digest.update(path.encode() + b"\0" + hashlib.sha256(archive.read(path)).digest())
    return digest.hexdigest()


def _drawings(archive: zipfile.ZipFile) -> list[str]:
    return sorted(name for name in archive.namelist() if name.endswith(".png"))


def _archive(part: str, sha256: str) -> DataFile:
    name = f"images_{part}.zip"
    return DataFile(f"omniglot/{name}", sha256, _ADDRESS + name, digest=hash_drawings)


ARCHIVES = {
    "background": _archive(
        "background", "07356096b8076fcf915341f8715e94822249e2a4d5b999fd2d0f6cf9ebffebd5"
    ),
    "evaluation": _archive(
        "evaluation", "f5165eb5f20d18e13c6515650b69a42a2c0507506969d410ba5e4a1c572bd542"
    ),
}
"""Lake's parts → their archives.  The public ones and others of the same drawings are equal."""

SMALL = DataFile(
    path="omniglot/images_background_small1.zip",
    sha256="f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    address=f"{_ADDRESS}images_background_small1.zip",
)


def load_omniglot(split: str) -> Loaded:
    """Return the characters, white on black, resized by area from 105 × 105 to 28 × 28.

    A class is a character of one alphabet, named "alphabet/character"; its group is the alphabet.

    Args:
        split: "background", "evaluation", or "all", the one after the other.
    """
    return _characters([ARCHIVES[part] for part in SPLITS if split in ("all", part)])


def load_omniglot_small(split: str) -> Loaded:
    """Return the five alphabets of the small background set 1, as :func:`load_omniglot` does."""
    return _characters([SMALL])


def _characters(files: Sequence[DataFile]) -> Loaded:
    """Read archives, one after the other; in each, characters and drawings go by their names."""
    from PIL import Image

    drawings: dict[str, list[np.ndarray]] = {}
    for file in files:
        with zipfile.ZipFile(io.BytesIO(read(file))) as archive:
            for path in _drawings(archive):
                _, alphabet, character, _ = path.split("/")
                with archive.open(path) as stream, Image.open(stream, formats=["PNG"]) as drawing:
                    pixels = np.asarray(drawing.convert("L"), dtype=np.float32)
                drawings.setdefault(f"{alphabet}/{character}", []).append(pixels)
    # The drawings are black on white.  Character by character: all at once would need gigabytes,
    # and so the pixels are the same whatever else is read.
    images = [
        resize_images(1 - np.stack(pages) / np.float32(255), (28, 28))
        for pages in drawings.values()
    ]
    labels = np.repeat(np.arange(len(images)), [len(pages) for pages in images])
    names = tuple(drawings)
    groups = tuple(name.split("/")[0] for name in names)
    return Loaded(np.concatenate(images), labels, names, groups)


@checked
def character_parts(
    class_names: Sequence[str],
    *,
    n_train: int = 1200,
    n_validation: int = 0,
    seed: int = 0,
) -> dict[str, tuple[str, ...]]:
    """Divide characters at random, whatever their alphabet (Vinyals et al. 2016).

    The paper's own list is lost; a fixed seed stands for it.  The order of ``class_names`` does
    not matter, and the test part does not depend on ``n_validation``.

    Args:
        class_names: all characters, such as ``load_dataset("omniglot").class_names``.
        n_train: characters that may be learned from, validation included.
        n_validation: how many of these are kept for choices.
        seed: of the draw.

    Returns:
        "train", "validation" and "test" → names, sorted.

    Raises:
        ValueError: if a name occurs twice, or the numbers do not fit.
    """
    names = sorted(class_names)
    if len(set(names)) != len(names):
        raise ValueError("class_names has a name twice.")
    n_train = check_number("n_train", n_train, low=1, high=len(names), integer=True)
    n_validation = check_number("n_validation", n_validation, low=0, high=n_train - 1, integer=True)
    order = np.random.default_rng(seed).permutation(len(names))
    cuts = np.split(order, [n_train - n_validation, n_train])
    return {
        part: tuple(names[index] for index in np.sort(chosen))
        for part, chosen in zip(("train", "validation", "test"), cuts, strict=True)
    }


@checked
def quarter_turns(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Make four classes of each: as it is, and turned by 90, 180 and 270 degrees.

    Divide the classes first: the turns of a character must stay in one part.

    Args:
        X: square images ``(n, s, s)`` or ``(n, s, s, c)``, floats in [0, 1].
        y: labels ``(n,)``, 0 to C-1.

    Returns:
        Images ``(4n, ...)`` and labels 0 to 4C-1; a turn by k quarters adds k·C to the label.

    Raises:
        ValueError: for images that are not square, or labels that do not fit.
    """
    X = check_features("X", X)
    if X.ndim < 3 or X.shape[1] != X.shape[2]:
        raise ValueError(f"X must hold square images (n, s, s), got shape {X.shape}.")
    y = check_labels("y", y, n=len(X))
    n_classes = int(y.max()) + 1
    turned = [np.rot90(X, quarters, axes=(1, 2)) for quarters in range(4)]
    labels = [y + quarters * n_classes for quarters in range(4)]
    return np.concatenate(turned), np.concatenate(labels)
