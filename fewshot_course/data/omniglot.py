"""Omniglot, the small background set: characters of five alphabets by twenty drawers each."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from fewshot_course.data._files import DataFile, read
from fewshot_course.data._types import Loaded
from fewshot_course.data.images import resize_images

OMNIGLOT = DataFile(
    path="omniglot/images_background_small1.zip",
    sha256="f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    address="https://raw.githubusercontent.com/brendenlake/omniglot/"
    "057f034baf2ecb8530bc5710e5a23584d2a519cc/python/images_background_small1.zip",
)


def load_omniglot(split: str) -> Loaded:
    """Return the characters, white on black, resized by area from 105 × 105 to 28 × 28.

    A class is a character of one alphabet; its group is the alphabet.
    """
    from PIL import Image

    images: list[np.ndarray] = []
    labels: list[int] = []
    names: list[str] = []
    with zipfile.ZipFile(io.BytesIO(read(OMNIGLOT))) as archive:
        for path in sorted(name for name in archive.namelist() if name.endswith(".png")):
            _, alphabet, character, _ = path.split("/")
            name = f"{alphabet}/{character}"
            if not names or names[-1] != name:
                names.append(name)
            with archive.open(path) as stream, Image.open(stream) as drawing:
                images.append(np.asarray(drawing.convert("L"), dtype=np.float32))
            labels.append(len(names) - 1)
    ink = 1 - np.stack(images) / np.float32(255)  # the drawings are black on white
    groups = tuple(name.split("/")[0] for name in names)
    return Loaded(resize_images(ink, (28, 28)), np.array(labels), tuple(names), groups)
