"""Two tables of the status page: notebook runs (when, seconds, memory, versions), and coverage.

``book/_tools/notebooks.py run`` and ``make coverage`` write the files that they are made from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RUNS = "book/notebook_runs.json"
COVERAGE = "book/coverage.json"
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
        return [table(HEAD, rows)]

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


class CoverageTable(SphinxDirective):
    """A row for each part of the package: its lines, and the share that the tests ran."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / COVERAGE
        self.env.note_dependency(str(path))
        if not path.is_file():
            return [nodes.paragraph("", "Not measured yet: make coverage.")]
        facts = json.loads(path.read_text(encoding="utf-8"))
        parts = facts["parts"]
        parts["together"] = [sum(part[i] for part in parts.values()) for i in (0, 1)]
        rows = []
        for name, (ran, lines) in parts.items():
            texts = (str(lines), f"{100 * ran / lines:.1f}")
            cells = [nodes.paragraph(text, text) for text in texts]
            rows.append(row([nodes.paragraph("", "", nodes.literal(name, name)), *cells]))
        said = f"Measured on {facts['date']} with Python {facts['python']}."
        return [
            nodes.paragraph(said, said),
            table(("Part", "Lines", "% that ran"), rows, "coverage-table"),
        ]


def table(head: Sequence[str], rows: list[nodes.row], kind: str = "run-table") -> nodes.table:
    group = nodes.tgroup("", cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", row([nodes.paragraph(text, text) for text in head]))
    group += nodes.tbody("", *rows)
    return nodes.table("", group, classes=[kind, "sortable"])


def row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", cell) for cell in cells])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("run-table", RunTable)
    app.add_directive("coverage-table", CoverageTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
