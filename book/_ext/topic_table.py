"""The table of topics, with the state of each read from the files: it cannot be out of date.

``book/topics.yml`` names the topics that the course is planned to have.  A topic whose page is
part of the book is "there", with links to what it has; the others are "planned".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

TOPICS = "book/topics.yml"
NOTEBOOKS = {"torch": "PyTorch", "tensorflow": "TensorFlow", "notebook": "Notebook"}


def read_topics(root: Path) -> list[dict[str, str]]:
    """Return the planned topics: ``folder``, ``title``, ``about``, ``minutes`` to read."""
    return yaml.safe_load((root / TOPICS).read_text(encoding="utf-8"))


class TopicTable(SphinxDirective):
    """A table of all topics; with ``:there:`` or ``:planned:`` only of those."""

    option_spec = {"there": directives.flag, "planned": directives.flag}  # noqa: RUF012  (docutils wants it so)

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(Path(self.env.srcdir) / TOPICS))
        rows = []
        for topic in read_topics(Path(self.env.srcdir)):
            there = self.page(topic, "index") in self.env.found_docs
            if ("there" in self.options and not there) or ("planned" in self.options and there):
                continue
            title = self.link(topic, "index", topic["title"]) if there else _text(topic["title"])
            minutes = str(topic.get("minutes", "")) if there else ""
            rows.append([title, _text(topic["about"]), _text(minutes), self.status(topic, there)])
        if not rows:
            return [_text("None yet.")]
        return [_table(["Topic", "What you learn", "Minutes to read", "State"], rows)]

    def page(self, topic: dict[str, str], stem: str) -> str:
        return f"chapters/{topic['folder']}/{stem}"

    def link(self, topic: dict[str, str], stem: str, text: str) -> nodes.Node:
        reference = addnodes.pending_xref(
            "",
            nodes.inline(text, text),
            refdomain="std",
            reftype="doc",
            refexplicit=True,
            reftarget="/" + self.page(topic, stem),
            refdoc=self.env.docname,
            refwarn=True,
        )
        return nodes.paragraph("", "", reference)

    def status(self, topic: dict[str, str], there: bool) -> nodes.Node:
        if not there:
            return _text("planned")
        cell = nodes.paragraph("", "there: page")
        for stem, name in NOTEBOOKS.items():
            if self.page(topic, stem) in self.env.found_docs:
                cell += [nodes.Text(", "), *self.link(topic, stem, name).children]
        return cell


def _text(text: str) -> nodes.paragraph:
    return nodes.paragraph(text, text)


def _table(head: list[str], rows: list[list[nodes.Node]]) -> nodes.Node:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", _row([_text(name) for name in head]))
    group += nodes.tbody("", *[_row(row) for row in rows])
    return nodes.table("", group, classes=["topic-table"])


def _row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", cell) for cell in cells])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("topic-table", TopicTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
