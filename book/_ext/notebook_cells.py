"""Labelled cells of committed notebooks, as docutils nodes.

A cell that a page refers to carries a ``label`` in its metadata.  Nothing is executed here: the
notebooks' stored source and outputs are the truth, and the notebook tests compare them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx import addnodes
from sphinx.environment import BuildEnvironment

FRAMEWORKS = {"torch": "PyTorch", "tensorflow": "TensorFlow"}
"""Stem of the notebook's file and the framework's name."""

_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class CellError(Exception):
    """A labelled cell, or a number in its output, that cannot be shown as asked."""


def find_cell(path: Path, label: str) -> Any:
    """Return the one code cell of the notebook at ``path`` that has this ``label``.

    Raises:
        CellError: if there is no such notebook, no such cell, or more than one.
    """
    if not path.is_file():
        raise CellError(f"there is no notebook {path.name} beside this page")
    cells = nbformat.read(path, as_version=4).cells
    labels = [cell.metadata.get("label") for cell in cells]
    found = [cell for cell in cells if cell.metadata.get("label") == label]
    if not found:
        known = ", ".join(sorted(filter(None, labels))) or "none"
        raise CellError(f"no cell labelled {label!r} in {path.name} (labels there: {known})")
    if len(found) > 1:
        raise CellError(f"{len(found)} cells labelled {label!r} in {path.name}; expected one")
    if found[0].cell_type != "code":
        raise CellError(f"the cell labelled {label!r} in {path.name} is no code cell")
    return found[0]


def printed_text(cell: Any) -> str:
    """Return what a cell printed, and the text of its last value where that is no picture."""
    text = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            text.append(output.text)
        elif output.output_type == "execute_result" and "image/png" not in output.data:
            text.append(output.data.get("text/plain", "") + "\n")
    return _ANSI_COLOUR.sub("", "".join(text))


def printed_value(path: Path, label: str, name: str) -> str:
    """Return ``value`` of the line ``name = value`` that a labelled cell printed.

    The name is everything before the first ``=``, so names may have spaces in them.

    Raises:
        CellError: if no line, or more than one, has that name.
    """
    pairs = [line.split("=", 1) for line in printed_text(find_cell(path, label)).splitlines()]
    named = [(pair[0].strip(), pair[1].strip()) for pair in pairs if len(pair) == 2]
    values = [value for key, value in named if key == name]
    if len(values) != 1:
        known = ", ".join(key for key, _ in named) or "none"
        raise CellError(
            f"cell {label!r} of {path.name} prints {len(values)} lines '{name} = ...', "
            f"expected one (names there: {known})"
        )
    return values[0]


def source_node(cell: Any) -> nodes.Node:
    """Return the cell's source as a highlighted block."""
    block = nodes.literal_block(cell.source, cell.source, language="python")
    return nodes.container("", block, classes=["cell-source"])


def output_nodes(cell: Any, env: BuildEnvironment, alt: str | None) -> list[nodes.Node]:
    """Return the cell's stored outputs: printed text, tables and PNG pictures.

    Args:
        cell: the notebook's cell.
        env: Sphinx's environment; pictures are written below its output folder.
        alt: what the pictures show, for readers who do not see them.

    Raises:
        CellError: for a cell that was never run or that failed, a picture without ``alt``, and
            an output of another kind.
    """
    if cell.execution_count is None:
        raise CellError("the cell was never run")
    shown: list[nodes.Node] = []
    for output in cell.outputs:
        if output.output_type == "error":
            raise CellError(f"the cell stopped with {output.ename}")
        if output.output_type == "stream":
            if output.name == "stderr":
                raise CellError("the cell has output on stderr")
            shown.append(_text(output.text))
        elif "image/png" in output.data:
            if not alt:
                raise CellError("the cell has a picture: say with :alt: what it shows")
            uri = _write_picture(base64.b64decode(output.data["image/png"]), env)
            shown.append(nodes.image(uri=uri, alt=alt, classes=["cell-figure"]))
        elif "text/html" in output.data:
            shown.extend(_table(output.data))
        elif "text/plain" in output.data:
            shown.append(_text(output.data["text/plain"]))
        else:
            raise CellError(f"outputs of kind {', '.join(output.data)} cannot be shown")
    return shown


def _text(text: str) -> nodes.Node:
    plain = _ANSI_COLOUR.sub("", text).rstrip()
    block = nodes.literal_block(plain, plain, language="none")
    return nodes.container("", block, classes=["cell-output"])


def _table(data: dict[str, str]) -> list[nodes.Node]:
    """Return the HTML where HTML is built, the plain text elsewhere."""
    html = nodes.raw("", data["text/html"], format="html")
    table = nodes.container("", html, classes=["cell-output", "cell-table"])
    other = addnodes.only("", _text(data.get("text/plain", "")), expr="not html")
    return [addnodes.only("", table, expr="html"), other]


def _write_picture(png: bytes, env: BuildEnvironment) -> str:
    """Write a picture below the build folder and return its address for an image node.

    The name is made of the content, so a changed picture is never served from a browser's cache.
    """
    folder = Path(env.app.outdir).parent / "labelled_cells"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"cell-{hashlib.sha256(png).hexdigest()[:16]}.png"
    path.write_bytes(png)
    # A leading slash means "from the source folder", wherever the build folder lies.
    return "/" + os.path.relpath(path, env.srcdir).replace(os.sep, "/")
