"""The whole report: read, compare, choose, fit, write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewshot_course._checks import UNLABELLED, check_choice, check_number
from fewshot_course.report._compare import Choice, Comparison, choose, compare, draw_split
from fewshot_course.report._copies import Copies, find_copies
from fewshot_course.report._findings import Finding, find
from fewshot_course.report._label_next import label_next
from fewshot_course.report._methods import methods_for
from fewshot_course.report._model import EXTRAS, FORMAT, Model, readable_mode
from fewshot_course.report._page import GENERATOR, render
from fewshot_course.report._parts import Content
from fewshot_course.report._read import IMAGE_SIZE, Examples, read_examples
from fewshot_course.weights import load_arrays

LABEL_NEXT = 10
LABEL_BY = "unsure cores"
"""Chosen by ``results/report/labelling.jsonl``."""


@dataclass(frozen=True, eq=False)
class Report:
    """What was found and written.

    Attributes:
        page: the HTML file.
        model_path: the fitted model's file.
        model: the fitted model.
        examples: what was read.
        copies: examples that belong together.
        comparison: scores of all methods on all draws.
        choice: the recommendation.
        findings: what may mislead.
        left_out: methods that were not run, with the reason.
    """

    page: Path
    model_path: Path
    model: Model
    examples: Examples
    copies: Copies
    comparison: Comparison
    choice: Choice
    findings: list[Finding]
    left_out: list[str]


def write_report(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    framework: str = "torch",
    draws: int = 10,
    seed: int = 0,
    encoder: str = "auto",
    label: str | None = None,
    text: str | None = None,
    group: str | None = None,
    image_size: int = IMAGE_SIZE,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Compare the methods that fit on a user's examples, and write page and model.

    Args:
        path: a table, an .npz file or a folder of images; see :func:`read_examples`.
        out: the page to write, ending in ``.html``; the model gets the same name with the
            ending ``.safetensors``.  A page and a model of a report are replaced whole; where
            anything goes wrong before, neither is touched.
        framework: "torch" or "tensorflow" ("tf"), for the encoder of texts and for the methods
            that use unlabelled examples.
        draws: how often the examples are split anew, >= 3; slow methods get at most 5.
        seed: of the splits, >= 0.
        encoder: for texts: "auto" (minilm, if its files are at hand; nothing is downloaded),
            "off", or a folder with a BERT in Hugging Face's format.
        label: the column of labels; see :func:`read_examples`.
        text: the column of texts.
        group: the column that says which rows belong together.
        image_size: side to which images of a folder are resized.
        force: whether to replace files of these names that are none of a report too.
        progress: called with the name of each method when its turn comes.

    Raises:
        FileNotFoundError: if there is nothing at ``path``, or no folder for ``out``.
        ValueError: for data that cannot be used, an argument out of range, or a file that would
            be replaced though it is none of a report.
    """
    framework = check_choice("framework", framework, [*EXTRAS, "tf"])
    framework = "tensorflow" if framework == "tf" else framework
    check_number("draws", draws, low=3, high=1000, integer=True)
    check_number("seed", seed, low=0, integer=True)
    page = _check_out(Path(out))
    model_path = page.with_suffix(".safetensors")
    if not force:
        _check_ours(page, model_path)
    examples = read_examples(path, label=label, text=text, group=group, image_size=image_size)
    if encoder not in ("auto", "off") and not Path(encoder).is_dir():
        raise ValueError(f"encoder={encoder!r} must be 'auto', 'off' or a folder with a BERT.")
    copies = find_copies(examples)
    draw_split(examples, copies, np.random.default_rng(seed))  # raises before anything costs time
    methods, left_out = methods_for(examples, framework, encoder)
    comparison = compare(examples, copies, methods, draws, seed, progress)
    choice = choose(comparison)
    findings = find(examples, copies, comparison, choice)
    progress("the model")
    method = next(m for m in methods if m.name == choice.name)
    model = method.model(examples, seed)
    index = np.arange(len(examples.y)) if method.unlabelled else examples.known
    labels = _agreed_labels(examples, copies)
    model.fit(examples.take(index), labels[index])
    content = Content(
        examples, comparison, choice, findings, left_out, model, model_path, seed, draws,
        _next(examples, model, seed),
    )  # fmt: skip
    html = render(content)
    _write_text(page, html, before=lambda: model.save(model_path))
    return Report(page, model_path, model, examples, copies, comparison, choice, findings, left_out)


def _next(examples: Examples, model: Model, seed: int) -> np.ndarray:
    """Return the unlabelled examples to label next."""
    if not len(examples.unknown):
        return examples.unknown
    X = examples.take(examples.unknown)
    chosen = label_next(
        LABEL_BY, model.predict_proba(X), model.features(X), LABEL_NEXT, np.random.default_rng(seed)
    )
    return examples.unknown[chosen]


def _agreed_labels(examples: Examples, copies: Copies) -> np.ndarray:
    """Return the labels, with the commonest one wherever the same example has several."""
    y = examples.y.copy()
    for group in copies.conflicts:
        known = group[y[group] != UNLABELLED]
        y[known] = np.bincount(examples.y[known]).argmax()
    return y


def _check_out(out: Path) -> Path:
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"out={str(out)!r} must end in .html.")
    if out.is_dir():
        raise ValueError(f"out={str(out)!r} is a folder; expected the name of a file.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(out.parent)!r} does not exist; make it first.")
    return out


def _check_ours(page: Path, model: Path) -> None:
    """Raise if a file that would be replaced is no page or model of a report."""
    is_ours = {page: _is_page, model: _is_model}
    for path, ours in is_ours.items():
        if path.exists() and not ours(path):
            raise ValueError(
                f"{str(path)!r} would be replaced, and it is no {path.suffix[1:]} file of a "
                f"report: choose another --out, or say --force (force=True)."
            )


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(4096)


def _is_model(path: Path) -> bool:
    try:
        return bool(load_arrays(path)[1].get("format") == FORMAT)
    except (OSError, ValueError):
        return False


def _write_text(path: Path, text: str, before: Callable[[], object]) -> None:
    """Write a file whole or not at all; ``before`` runs when only the renaming is left."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, readable_mode())
        before()
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
