"""The table of notebook runs on the status page: when, seconds, memory, versions.

``book/_tools/notebooks.py run`` writes the file that the table is made from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RUNS = "book/notebook_runs.json"
HEAD = ("Notebook", "Run on", "Cells", "Seconds", "Memory, MB", "Versions")


class RunTable(SphinxDirective):
    """A row for each notebook of the book."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / RUNS
        self.env.note_dependency(str(path))
        runs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        names = sorted(
            doc for doc in self.env.found_docs if Path(self.env.doc2path(doc)).suffix == ".ipynb"
        )
        rows = []
        for name in names:
            rows.append(self.row(name, runs.get(name)))
        group = nodes.tgroup("", cols=len(HEAD))
        group += [nodes.colspec(colwidth=1) for _ in HEAD]
        group += nodes.thead("", row([nodes.paragraph(text, text) for text in HEAD]))
        group += nodes.tbody("", *rows)
        return [nodes.table("", group, classes=["run-table", "sortable"])]

    def row(self, name: str, facts: dict[str, Any] | None) -> nodes.row:
        link = addnodes.pending_xref(
            "", nodes.inline(name, name), refdomain="std", reftype="doc", refexplicit=True,
            reftarget="/" + name, refdoc=self.env.docname, refwarn=True,
        )  # fmt: skip
        texts = ["not recorded", "", "", "", ""]
        if facts is not None:
            versions = ", ".join(f"{package} {v}" for package, v in facts["versions"].items())
            texts = [facts["date"], facts["cells"], facts["seconds"], facts["peak_mb"], versions]
        cells = [nodes.paragraph(str(text), str(text)) for text in texts]
        return row([nodes.paragraph("", "", link), *cells])


def row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", cell) for cell in cells])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("run-table", RunTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
