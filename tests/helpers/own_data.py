"""Small data sets of each kind, as a user would bring them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = {
    "money": ["refund", "payment", "invoice", "card", "charged", "fee"],
    "parcel": ["parcel", "courier", "delivery", "tracking", "box", "late"],
    "login": ["password", "login", "account", "code", "locked", "email"],
}
FILLER = ["please", "help", "my", "the", "today", "again", "why", "is"]


def texts(n: int = 8, unlabelled: int = 0, seed: int = 0) -> list[tuple[str, str]]:
    """Return (text, label): three classes with words of their own; the last ones unlabelled."""
    rng = np.random.default_rng(seed)
    rows: dict[str, str] = {}
    while len(rows) < len(WORDS) * (n + unlabelled):
        label = list(WORDS)[len(rows) % len(WORDS)]
        own, filler = rng.permutation(WORDS[label])[:2], rng.permutation(FILLER)[:3]
        rows[" ".join(rng.permutation([*own, *filler]).tolist())] = label
    labels = list(rows.values())
    labels[len(WORDS) * n :] = [""] * (len(WORDS) * unlabelled)
    return list(zip(rows, labels, strict=True))


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def text_csv(folder: Path, n: int = 8, unlabelled: int = 0) -> Path:
    return write_csv(folder / "mails.csv", ["text", "label"], texts(n, unlabelled))


def vectors(
    n: int = 10, classes: int = 3, d: int = 9, apart: float = 2.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return Gaussians around centres that lie ``apart`` standard deviations from the origin."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), n)
    centres = apart * np.eye(classes, d)
    return centres[y] + rng.standard_normal((len(y), d)), y


def vector_npz(folder: Path, n: int = 10, unlabelled: int = 0) -> Path:
    X, y = vectors(n + unlabelled)
    hidden = np.arange(len(y)) % (n + unlabelled) >= n
    np.savez(folder / "rows.npz", X=X, y=np.where(hidden, -1, y))
    return folder / "rows.npz"


def vector_csv(folder: Path, n: int = 10, d: int = 4) -> Path:
    X, y = vectors(n, d=d)
    names = ["red", "green", "blue"]
    rows = [[*map(repr, x.tolist()), names[label]] for x, label in zip(X, y, strict=True)]
    return write_csv(folder / "rows.csv", [*(f"f{j}" for j in range(d)), "label"], rows)


def image_folder(folder: Path, n: int = 6, unlabelled: int = 0, size: int = 40) -> Path:
    """Write noisy bars, upright and flat."""
    rng = np.random.default_rng(0)
    root = folder / "bars"
    for label in ("flat", "upright"):
        for k in range(n + unlabelled):
            picture = rng.uniform(0, 80, (size, size))
            at = int(rng.integers(5, size - 10))
            bar = picture if label == "flat" else picture.T
            bar[at : at + 5] += 150
            name = label if k < n else "unlabelled"
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).save(root / name / f"{label}{k}.png")
    return root
