"""Read what a user brings: a CSV file, an ``.npz`` file, or a folder of images."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fewshot_course._checks import UNLABELLED
from fewshot_course.data.images import resize_images
from fewshot_course.data.text_files import _label_order, table_rows

IMAGE_SIZE = (28, 28)
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MAX_PIXELS, MAX_SIDE = 64_000_000, 30_000
"""Largest picture: a small file may announce one that fills the memory."""
MAX_BYTES = 2_000_000_000
"""Most that an .npz file may unpack to."""
UNLABELLED_FOLDER = "unlabelled"


@dataclass(frozen=True, eq=False)
class Examples:
    """What a user brought.

    Attributes:
        source: the file or folder.
        kind: "texts", "vectors" or "images".
        X: list of str; or vectors ``(n, d)`` float64; or images ``(n, h, w[, c])`` in [0, 1].
        y: index into ``class_names``, or -1 where unknown, ``(n,)`` int64.
        class_names: in alphabetical order, or in numerical order if all are whole numbers.
        places: where each example stands, e.g. "line 7" or "cat/a.png".
        columns: names of the features of vectors.
        remarks: what was noticed while reading, for the report.
    """

    source: Path
    kind: str
    X: list[str] | np.ndarray
    y: np.ndarray
    class_names: tuple[str, ...]
    places: tuple[str, ...]
    columns: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def known(self) -> np.ndarray:
        """Indices of the examples with a label."""
        return np.flatnonzero(self.y != UNLABELLED)

    @property
    def unknown(self) -> np.ndarray:
        """Indices of the examples without a label."""
        return np.flatnonzero(self.y == UNLABELLED)

    @property
    def counts(self) -> np.ndarray:
        """Labelled examples of each class, ``(C,)``."""
        return np.bincount(self.y[self.known], minlength=len(self.class_names))

    def take(self, index: Any) -> Any:
        """Return some of the examples, a list of texts or an array."""
        if isinstance(self.X, list):
            return [self.X[i] for i in index]
        return self.X[np.asarray(index, dtype=np.int64)]


def read_examples(path: str | os.PathLike[str]) -> Examples:
    """Read labelled, and perhaps unlabelled, examples.

    Args:
        path: a ``.csv`` file with the columns ``text`` and ``label``, or with numeric columns and
            ``label`` (an empty label means unknown); an ``.npz`` file with ``X`` (vectors
            ``(n, d)``, or images ``(n, h, w[, c])`` in [0, 1]) and ``y`` (whole numbers, -1 means
            unknown, or words, "" means unknown); or a folder with a sub-folder of images for each
            class, and perhaps one named ``unlabelled``.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: for another ending, or anything in the data that cannot be used; the message
            names the line, row or file.
    """
    path = Path(path)
    if path.is_dir():
        found = _read_folder(path)
    elif not path.exists():
        raise FileNotFoundError(f"there is no file or folder {str(path)!r}.")
    elif path.suffix.lower() == ".csv":
        found = _read_csv(path)
    elif path.suffix.lower() == ".npz":
        found = _read_npz(path)
    else:
        raise ValueError(
            f"{path.name} ends in {path.suffix or 'nothing'!r}; expected a .csv file, an .npz "
            f"file, or a folder with a sub-folder of images for each class."
        )
    _check_classes(found)
    return found


def read_images(paths: Iterable[str | os.PathLike[str]]) -> np.ndarray:
    """Read image files as the report does: grey, 28 × 28 pixels, in [0, 1].

    A picture is stretched to a square by area.  Transparent parts become white.

    Args:
        paths: image files.

    Returns:
        Images ``(n, 28, 28)`` float32.

    Raises:
        ValueError: if a file cannot be read as an image; the message names it.
    """
    return np.stack([_read_image(Path(path))[0] for path in paths])


# ---------------------------------------------------------------------------- labels


def _encode(words: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number the class names; the empty word is -1."""
    known = [word for word in words if word]
    names = sorted(set(known), key=_label_order(known))
    number = {name: index for index, name in enumerate(names)} | {"": UNLABELLED}
    return np.array([number[word] for word in words], dtype=np.int64), tuple(names)


def _check_classes(examples: Examples) -> None:
    name, counts = examples.source.name, examples.counts
    for word in examples.class_names:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{name} has the class {word!r}, which holds half a character or bytes that are no "
                f"UTF-8; no file could keep its name. Give it another one."
            ) from None
    if len(examples.known) == 0:
        raise ValueError(f"{name} has no labelled example.")
    if len(counts) < 2:
        raise ValueError(
            f"{name} has examples of the single class {examples.class_names[0]!r}; "
            f"expected two or more."
        )
    lonely = [repr(c) for c, n in zip(examples.class_names, counts, strict=True) if n < 2]
    if lonely:
        more = f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
        raise ValueError(
            f"{name} has a single example of the class {', '.join(lonely[:5])}{more}: at least "
            f"two of each are needed, one to learn from and one to test on. "
            f"Label more, or leave the class out."
        )


# ---------------------------------------------------------------------------- CSV


def _read_csv(path: Path) -> Examples:
    rows = table_rows(path.read_bytes(), path.name)
    _, header = next(rows)
    for column in ("label", "text"):
        if header.count(column) > 1:
            raise ValueError(f"{path.name} has {header.count(column)} columns named {column!r}.")
    if "label" not in header:
        raise ValueError(
            f"{path.name} has no column 'label'; its first line names "
            f"{', '.join(map(repr, header[:8]))}."
        )
    table = list(rows)
    if not table:
        raise ValueError(f"{path.name} has no rows below the line with the column names.")
    place = header.index("label")
    y, names = _encode([row[place].strip() for _, row in table])
    places = tuple(f"line {line}" for line, _ in table)
    others = [index for index, column in enumerate(header) if index != place]
    if "text" in header:
        texts = [row[header.index("text")].strip() for _, row in table]
        empty = [where for where, text in zip(places, texts, strict=True) if not text]
        if empty:
            raise ValueError(f"{path.name}: {_some(empty)} has no text.")
        unused = [header[i] for i in others if header[i] != "text"]
        remarks = (f"Columns that were not used: {', '.join(unused)}.",) if unused else ()
        return Examples(path, "texts", texts, y, names, places, remarks=remarks)
    if not others:
        raise ValueError(f"{path.name} has no column beside 'label'; name one 'text', or numbers.")
    X = np.array([_numbers(path.name, header, line, row, others) for line, row in table])
    return Examples(path, "vectors", X, y, names, places, tuple(header[i] for i in others))


def _numbers(
    name: str, header: list[str], line: int, row: list[str], columns: list[int]
) -> list[float]:
    values = []
    for index in columns:
        cell = row[index].strip()
        try:
            value = float(cell)
        except ValueError:
            value = np.nan
            problem = f"holds {cell!r}, which is no number" if cell else "is empty"
        else:
            problem = f"holds {cell}"
        if not np.isfinite(value):
            raise ValueError(
                f"{name}: line {line}, column {header[index]!r} {problem}. Every column but "
                f"'label' must hold finite numbers; texts belong into a column named 'text'."
            )
        values.append(value)
    return values


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more


# ---------------------------------------------------------------------------- npz


def _read_npz(path: Path) -> Examples:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_BYTES:
            raise ValueError(
                f"{path.name} unpacks to {unpacked:,} bytes; at most {MAX_BYTES:,} are read."
            )
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("X", "y") if name not in file.files]
            if missing:
                raise ValueError(
                    f"{path.name} has no array {' and no '.join(missing)}; it holds "
                    f"{', '.join(file.files) or 'nothing'}."
                )
            X, y = file["X"], file["y"]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise ValueError(
            f"{path.name} holds Python objects, which are not read for safety (or is damaged): "
            f"save X and y as plain arrays of numbers."
        ) from None
    except Exception as error:  # zipfile and NumPy raise a dozen kinds for a damaged file
        raise ValueError(f"{path.name} is damaged or no .npz file ({error}).") from None
    X = _check_array(path.name, X)
    y, names = _array_labels(path.name, y, len(X))
    places = tuple(f"row {i}" for i in range(len(X)))
    if X.ndim == 2:
        columns = tuple(f"feature {j}" for j in range(X.shape[1]))
        return Examples(path, "vectors", X.astype(np.float64), y, names, places, columns)
    return Examples(path, "images", X.astype(np.float32), y, names, places)


def _check_array(name: str, X: np.ndarray) -> np.ndarray:
    if X.dtype.kind not in "fiub":
        raise ValueError(f"{name}: X must hold numbers, got dtype {X.dtype}.")
    if X.ndim not in (2, 3, 4) or 0 in X.shape:
        raise ValueError(
            f"{name}: X must have shape (n, d), (n, h, w) or (n, h, w, c), got {X.shape}."
        )
    finite = np.isfinite(X.reshape(len(X), -1)).all(axis=1)
    if not finite.all():
        rows = [f"row {i}" for i in np.flatnonzero(~finite)]
        raise ValueError(f"{name}: X has NaN or infinite values in {_some(rows)} (counted from 0).")
    if X.ndim > 2 and (X.dtype.kind != "f" or X.min() < 0 or X.max() > 1):
        raise ValueError(
            f"{name}: X holds images of dtype {X.dtype} with values in [{X.min()}, {X.max()}]; "
            f"expected floats in [0, 1]. Divide by 255 first."
        )
    return X


def _array_labels(name: str, y: np.ndarray, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    if y.shape != (n,):
        raise ValueError(f"{name}: y has shape {y.shape}, expected ({n},), a label a row of X.")
    if y.dtype.kind == "U":
        return _encode([str(word).strip() for word in y])
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    if y.dtype.kind not in "iub":
        raise ValueError(f"{name}: y must hold whole numbers or words, got dtype {y.dtype}.")
    if y.dtype.kind != "b" and y.min() < UNLABELLED:
        raise ValueError(f"{name}: y holds the label {y.min()}; expected >= 0, or -1 for unknown.")
    return _encode(["" if label == UNLABELLED else str(int(label)) for label in y.tolist()])


# ---------------------------------------------------------------------------- images


def _read_folder(path: Path) -> Examples:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ValueError(
            f"the folder {path.name} has no sub-folders; expected one with images for each class."
        )
    images: list[np.ndarray] = []
    words: list[str] = []
    places: list[str] = []
    shapes: set[tuple[int, int]] = set()
    ignored = [p.name for p in path.iterdir() if p.is_file() and not p.name.startswith(".")]
    for folder in folders:
        files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        usable = [p for p in files if p.is_file() and p.suffix.lower() in IMAGE_ENDINGS]
        ignored += [f"{folder.name}/{p.name}" for p in files if p not in usable]
        if not usable and folder.name != UNLABELLED_FOLDER:
            raise ValueError(
                f"the folder {path.name}/{folder.name} holds no image; known endings are "
                f"{', '.join(IMAGE_ENDINGS)}."
            )
        for file in usable:
            image, shape = _read_image(file)
            images.append(image)
            shapes.add(shape)
            places.append(f"{folder.name}/{file.name}")
            words.append("" if folder.name == UNLABELLED_FOLDER else folder.name)
    if not images:
        raise ValueError(f"the folder {path.name} holds no image.")
    y, names = _encode(words)
    remarks = _image_remarks(shapes, sorted(ignored))
    X = np.stack(images)
    return Examples(path, "images", X, y, names, tuple(places), remarks=remarks)


def _image_remarks(shapes: set[tuple[int, int]], ignored: list[str]) -> tuple[str, ...]:
    h, w = IMAGE_SIZE
    remarks = []
    if shapes != {IMAGE_SIZE}:
        sizes = sorted(shapes)
        came = " × ".join(map(str, sizes[0])) if len(sizes) == 1 else f"{len(sizes)} sizes"
        remarks.append(
            f"The images came as {came} (height × width) and were made grey and {h} × {w}. "
            f"Detail that is smaller than that is lost."
        )
    if any(max(s) > 1.5 * min(s) for s in shapes):
        remarks.append("Some images are far from square; they were stretched. Crop them first.")
    if ignored:
        remarks.append(f"Left out, since they are no images of a class: {_some(ignored)}.")
    return tuple(remarks)


def _read_image(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Return a grey image ``(28, 28)`` float32 and the size it had, (height, width)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # see _check_pixels
            opened = Image.open(path, formats=IMAGE_FORMATS)
        with opened:
            _check_pixels(*opened.size)  # of the header: nothing has been unpacked yet
            picture: Image.Image = ImageOps.exif_transpose(opened)
            height, width = picture.height, picture.width
            grey = _grey(_coarser(picture))
    except FileNotFoundError:
        raise ValueError(f"there is no image {path}.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image {path} cannot be read ({error}).") from None
    return resize_images(grey[None], IMAGE_SIZE)[0].astype(np.float32), (height, width)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(
            f"it has {width} × {height} pixels; at most {MAX_PIXELS:,} and {MAX_SIDE:,} a side "
            f"are read. Make it smaller"
        )


def _coarser(picture: Image.Image) -> Image.Image:
    """Average blocks of a large picture: at 28 × 28 pixels nobody sees it, and memory is saved."""
    factor = min(picture.size) // 1024
    if factor < 2 or picture.mode.startswith(("I", "F")):
        return picture
    if picture.mode in ("1", "L"):
        return picture.convert("L").reduce(factor)
    clear = "A" in picture.getbands() or "transparency" in picture.info
    return picture.convert("RGBA" if clear else "RGB").reduce(factor)


def _grey(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith(("I", "F")):  # 16 bits a pixel; "L" would cut them at 255
        values = np.asarray(picture, dtype=np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        return np.clip(values / top, 0.0, 1.0)
    if "A" in picture.getbands() or "transparency" in picture.info:
        colour = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)
    return np.asarray(picture.convert("L"), dtype=np.float64) / 255
