"""Printed characters, rendered from the fonts that matplotlib ships.

A character is drawn large once, cropped to its ink and fitted into 20 of the 28 pixels, as
MNIST's digits are.  What is kept of it is its signed distance field: how far each point lies
inside (positive) or outside (negative) the strokes, in pixels.  An example samples that field
through a random affine map and a smooth random displacement; a constant added to the field makes
all strokes thicker or thinner.  Everything is drawn with fixed seeds: two calls give the same
arrays.

What really comes out of ``glyphs`` (matplotlib 3.11): 1,031 characters of 15 scripts, far from
evenly: 319 Canadian syllabics, 268 Latin (with phonetic letters), 95 Cyrillic, 71 Georgian, 64
Arabic, 46 Armenian, 33 Greek, 28 Lao, 24 Tifinagh, 22 Old Italic, 19 Ogham, 16 N'Ko, 13 Hebrew,
7 Coptic, 6 Lisu; 796 on the side of the training scripts, 235 on the other.  Of 1,735 letters 704
fall to an earlier one of the same shape.  Some that stay are close all the same: syllabics that
differ by a dot, letters that differ by a hook.  Arabic letters stand alone, not joined.  All come
from one family of fonts, regular and bold: this is print, much easier than handwriting.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fewshot_course.data._files import cache_folder
from fewshot_course.data._types import Loaded
from fewshot_course.data.digits import DIGIT_NAMES

if TYPE_CHECKING:
    from PIL import Image, ImageFont

SIDE = 28
_BOX = 20  # the longer side of a character's ink, in pixels, as in MNIST
_DETAIL = 3  # points of the distance field a pixel
_FONT_SIZE = 120

PRINTED_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
    "cmr10",
    "cmb10",
    "cmss10",
    "cmtt10",
    "cmmi10",
)
"""The shipped fonts with upright digits; cmmi10's are old-style figures."""
PRINTED_PER_FONT = 16

GLYPH_FONTS = ("DejaVuSans", "DejaVuSans-Bold")
"""The two shipped fonts that cover every script below."""
GLYPH_EXAMPLES = 20
TRAIN_SCRIPTS = (
    "LATIN",
    "GREEK",
    "CYRILLIC",
    "COPTIC",
    "OLD ITALIC",
    "LISU",
    "ARMENIAN",
    "CANADIAN SYLLABICS",
)
"""Latin, Greek and Cyrillic and what was made from their letters stand on one side."""
TEST_SCRIPTS = ("GEORGIAN", "HEBREW", "ARABIC", "TIFINAGH", "LAO", "NKO", "OGHAM")
# Cosine similarity from which two rendered characters count as one: on one side of the split, and
# across it, where a look-alike would tell the answer.
_SAME_SHAPE = 0.94
_SAME_SHAPE_ACROSS = 0.90
_SMALLEST = 0.3  # of the font size; smaller marks (dots, raised finals) are no classes
_VERSION = "2"  # raise it when the drawing changes: it names the file in the cache


class Jitter(NamedTuple):
    """How much the examples of a character differ; uniform within plus or minus each value."""

    degrees: float
    shear: float
    scale: float
    shift: float  # pixels
    bend: float  # standard deviation of the smooth displacement, pixels
    stroke: tuple[float, float]  # added to every stroke's edge, pixels


PRINTED_JITTER = Jitter(8.0, 0.15, 0.1, 1.5, 0.4, (-0.15, 0.5))
GLYPH_JITTER = Jitter(10.0, 0.2, 0.12, 1.5, 0.5, (-0.1, 0.4))


class _Drawn(NamedTuple):
    """Characters and their examples, grey levels as bytes: a quarter of the memory."""

    X: np.ndarray
    characters: str


def load_printed_digits(split: str) -> Loaded:
    """Return the printed digits ``(2080, 28, 28)``: 13 fonts, 16 examples of a digit in each."""
    X = _printed_digits()
    return Loaded(_to_unit(X), np.repeat(np.arange(10), len(X) // 10), DIGIT_NAMES)


def load_glyphs(split: str) -> Loaded:
    """Return the characters of all scripts, of :data:`TRAIN_SCRIPTS`, or of the others.

    A class is a character, named by Unicode; its group is its script.  Half of a character's
    examples are regular, half bold.
    """
    drawn = _glyphs()
    scripts = {
        "all": TRAIN_SCRIPTS + TEST_SCRIPTS,
        "train": TRAIN_SCRIPTS,
        "test": TEST_SCRIPTS,
    }[split]
    kept = [index for index, c in enumerate(drawn.characters) if script_of(c) in scripts]
    X = drawn.X.reshape(-1, GLYPH_EXAMPLES, SIDE, SIDE)[kept].reshape(-1, SIDE, SIDE)
    characters = [drawn.characters[index] for index in kept]
    return Loaded(
        _to_unit(X),
        np.repeat(np.arange(len(kept)), GLYPH_EXAMPLES),
        tuple(unicodedata.name(character) for character in characters),
        tuple(script_of(character) for character in characters),
    )


def _to_unit(X: np.ndarray) -> np.ndarray:
    """Return grey levels 0 to 255 as float32 in [0, 1]."""
    return X.astype(np.float32) / np.float32(255)


@cache
def _printed_digits() -> np.ndarray:
    images = []
    for digit in range(10):
        for index, font in enumerate(PRINTED_FONTS):
            rng = np.random.default_rng([digit, index])
            field = _distance_field(_ink(font, str(digit)))
            images.append(_examples(field, PRINTED_PER_FONT, PRINTED_JITTER, rng))
    return np.concatenate(images)


@cache
def _glyphs() -> _Drawn:
    """Return the drawn characters, from the user's cache where they were drawn before."""
    fonts = hashlib.sha256(b"".join(font_path(font).read_bytes() for font in GLYPH_FONTS))
    path = cache_folder() / "glyphs" / f"glyphs-{_VERSION}-{fonts.hexdigest()[:16]}.npz"
    drawn = _read_drawn(path)
    if drawn is None:
        drawn = _draw_glyphs()
        _write_drawn(path, drawn)
    return drawn


def _draw_glyphs() -> _Drawn:
    characters = distinct_characters()
    images = []
    for character in characters:
        rng = np.random.default_rng(ord(character))
        for font in GLYPH_FONTS:
            field = _distance_field(_ink(font, character))
            count = GLYPH_EXAMPLES // len(GLYPH_FONTS)
            images.append(_examples(field, count, GLYPH_JITTER, rng))
    return _Drawn(np.concatenate(images), "".join(characters))


def _digest(drawn: _Drawn) -> str:
    return hashlib.sha256(drawn.X.tobytes() + drawn.characters.encode()).hexdigest()


def _read_drawn(path: Path) -> _Drawn | None:
    """Return what an earlier call drew, or ``None`` where nothing (whole) lies there."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            drawn = _Drawn(arrays["X"], str(arrays["characters"]))
            return drawn if str(arrays["digest"]) == _digest(drawn) else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write_drawn(path: Path, drawn: _Drawn) -> None:
    """Keep what was drawn for the next time; a cache that cannot be written only costs time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".draw-") as folder:
            fresh = Path(folder) / path.name
            np.savez(fresh, X=drawn.X, characters=drawn.characters, digest=_digest(drawn))
            os.replace(fresh, path)
    except OSError:
        pass


def script_of(character: str) -> str:
    """Return the script that begins a character's Unicode name, or "" for any other."""
    name = unicodedata.name(character, "")
    known = (script for script in TRAIN_SCRIPTS + TEST_SCRIPTS if name.startswith(script + " "))
    return next(known, "")


def _candidates() -> list[str]:
    """Return the letters of the known scripts that both fonts have, scripts in their order.

    Letters that Unicode takes apart (accented ones, ligatures, presentation forms) are left out.
    """
    from matplotlib.ft2font import FT2Font

    in_every_font = set.intersection(
        *(set(FT2Font(str(font_path(font))).get_charmap()) for font in GLYPH_FONTS)
    )
    letters = [
        character
        for character in map(chr, sorted(in_every_font))
        if unicodedata.category(character) in ("Lu", "Ll", "Lo")
        and unicodedata.normalize("NFKD", character) == character
        and script_of(character)
        and max(_draw(GLYPH_FONTS[0], character).size) >= _SMALLEST * _FONT_SIZE
    ]
    order = TRAIN_SCRIPTS + TEST_SCRIPTS
    return sorted(letters, key=lambda character: (order.index(script_of(character)), character))


def distinct_characters() -> list[str]:
    """Return the candidates whose rendered shape is no earlier candidate's.

    Shapes are compared after cropping and scaling, so a small letter that is its capital drawn
    smaller counts as the same, and so do look-alikes of different scripts.
    """
    candidates = _candidates()
    shapes = np.stack([_blurred_shape(character) for character in candidates])
    similarity = shapes @ shapes.T
    in_train = np.array([script_of(character) in TRAIN_SCRIPTS for character in candidates])
    same_side = in_train[:, None] == in_train[None, :]
    alike = similarity >= np.where(same_side, _SAME_SHAPE, _SAME_SHAPE_ACROSS)
    kept: list[int] = []
    for index in range(len(candidates)):
        if not alike[index, kept].any():
            kept.append(index)
    return [candidates[index] for index in kept]


def _blurred_shape(character: str) -> np.ndarray:
    """Return a character's slightly blurred image as a unit vector ``(784,)``."""
    from scipy.ndimage import gaussian_filter

    ink = _ink(GLYPH_FONTS[0], character)
    image = ink.reshape(SIDE, _DETAIL, SIDE, _DETAIL).mean(axis=(1, 3))
    image = gaussian_filter(image, 1.0)
    return image.ravel() / np.linalg.norm(image)


def font_path(name: str) -> Path:
    """Return the file of a font that matplotlib ships."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(
        str(font_path(name)), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC
    )


def _draw(font: str, character: str) -> Image.Image:
    """Draw a character large, white on black, and crop it to its ink."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (4 * _FONT_SIZE, 3 * _FONT_SIZE))
    ImageDraw.Draw(canvas).text((_FONT_SIZE, _FONT_SIZE), character, fill=255, font=_font(font))
    return canvas.crop(canvas.getbbox())


def _ink(font: str, character: str) -> np.ndarray:
    """Draw a character and fit it centred into the square.

    Returns:
        Float32 ``(SIDE * _DETAIL, SIDE * _DETAIL)``: the share of ink at each point.
    """
    from PIL import Image

    ink = _draw(font, character)
    scale = _BOX * _DETAIL / max(ink.size)
    width, height = (max(1, round(length * scale)) for length in ink.size)
    ink = ink.resize((width, height), Image.Resampling.BOX)
    square = np.zeros((SIDE * _DETAIL, SIDE * _DETAIL), dtype=np.float32)
    top, left = (len(square) - height) // 2, (len(square) - width) // 2
    square[top : top + height, left : left + width] = np.asarray(ink, dtype=np.float32) / 255
    return square


def _distance_field(ink: np.ndarray) -> np.ndarray:
    """Return the signed distance to the edge of the ink, in pixels, positive inside."""
    from scipy.ndimage import distance_transform_edt

    inside = ink >= 0.5
    distance = distance_transform_edt(inside) - distance_transform_edt(~inside)
    return (distance / _DETAIL).astype(np.float32)


def _examples(
    field: np.ndarray, count: int, jitter: Jitter, rng: np.random.Generator
) -> np.ndarray:
    """Draw ``count`` examples of a character: grey levels 0 to 255, ``(count, SIDE, SIDE)``."""
    from scipy.ndimage import map_coordinates

    angle = np.deg2rad(rng.uniform(-jitter.degrees, jitter.degrees, count))
    shear = rng.uniform(-jitter.shear, jitter.shear, count)
    scale = 1 + rng.uniform(-jitter.scale, jitter.scale, (2, count))
    shift = rng.uniform(-jitter.shift, jitter.shift, (2, count, 1, 1))
    stroke = rng.uniform(*jitter.stroke, (count, 1, 1))
    bend = jitter.bend * rng.standard_normal((2, count, *2 * (len(_KNOTS[0]),)))
    bend = _KNOTS @ bend @ _KNOTS.T

    # Where in the upright character does each pixel of the example look?
    row, column = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    cosine, sine = (f(angle)[:, None, None] for f in (np.cos, np.sin))
    turned_row = cosine * row - sine * column
    turned_column = sine * row + cosine * column + shear[:, None, None] * row
    at = np.stack([turned_row, turned_column]) / scale[..., None, None] + shift + bend
    at = (at + SIDE / 2) * _DETAIL - 0.5
    distance = map_coordinates(field, at.reshape(2, -1), order=1, mode="nearest")
    grey = np.clip(0.5 + distance.reshape(count, SIDE, SIDE) + stroke, 0, 1)
    return np.round(255 * grey).astype(np.uint8)


def _knots(count: int) -> np.ndarray:
    """Return ``(SIDE, count)``: linear interpolation from ``count`` knots to the pixels."""
    at = np.linspace(0, count - 1, SIDE)[:, None]
    return np.clip(1 - np.abs(at - np.arange(count)), 0, 1)


_KNOTS = _knots(5)
