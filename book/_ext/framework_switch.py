"""One topic page, two frameworks: labelled cells in synced tabs, and numbers out of notebooks.

A topic's prose stands once, in ``index.md``.  Beside it lie ``torch.ipynb`` and
``tensorflow.ipynb``.  The page takes what it shows out of them:

``{fw-cell} label``
    the cell of that label in both notebooks, in tabs.  ``:alt:`` says what its picture shows
    (required where there is one), ``:no-source:`` and ``:no-output:`` leave a part out.
``{nb-cell} label``
    the same for a notebook that needs no framework; ``:notebook:`` is its file's stem
    (``notebook`` unless told).
``{fw-bar}``
    the page's switch, with both notebooks and their Colab links.
``{num}`notebook:label:name```
    the value of the line ``name = value`` that the labelled cell printed.  ``{num}`label:name```
    quotes both frameworks' notebooks and shows the one that the reader chose.

A label, line or text for a picture that is missing is a warning, and the build is strict.
Notebook pages get the way to their twin, to their topic and to Colab under their title.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from notebook_cells import (
    FRAMEWORKS,
    CellError,
    find_cell,
    output_nodes,
    printed_value,
    source_node,
)
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx_design.shared import create_component

from fewshot_course import __version__

LOG = logging.getLogger(__name__)
PLACEHOLDER_OWNER = "OWNER"


class CellDirective(SphinxDirective):
    """What ``fw-cell`` and ``nb-cell`` have in common."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {
        "alt": directives.unchanged_required,
        "no-source": directives.flag,
        "no-output": directives.flag,
    }

    def show(self, stem: str) -> list[nodes.Node]:
        """Return source and output of the labelled cell in the notebook ``stem``."""
        path = Path(self.env.doc2path(self.env.docname)).parent / f"{stem}.ipynb"
        self.env.note_dependency(str(path))
        label = self.arguments[0]
        alt = self.options.get("alt")
        shown: list[nodes.Node] = []
        try:
            cell = find_cell(path, label)
            if "no-source" not in self.options:
                shown.append(source_node(cell))
            if "no-output" not in self.options:
                named = f"{alt} ({FRAMEWORKS[stem]})" if alt and stem in FRAMEWORKS else alt
                shown.extend(output_nodes(cell, self.env, named))
        except CellError as error:
            LOG.warning(
                "%s: %s in %s: %s", self.name, label, path.name, error, location=self.get_location()
            )
        if alt:
            # The notebook's own page shows the same picture; it takes the text from here.
            alts = vars(self.env).setdefault("cell_alts", {})
            alts[f"{self.folder()}{stem}", label] = alt
        return shown

    def folder(self) -> str:
        """Return this page's folder, with a slash at its end (empty at the root)."""
        return self.env.docname.rpartition("/")[0] + "/" if "/" in self.env.docname else ""


class FrameworkCell(CellDirective):
    """Show a labelled cell of both notebooks in synced tabs."""

    def run(self) -> list[nodes.Node]:
        tabs = create_component("tab-set", classes=["sd-tab-set", "fw-cell"])
        for position, (stem, name) in enumerate(FRAMEWORKS.items()):
            content = create_component("tab-content", classes=["sd-tab-content"])
            content += self.show(stem)
            label = nodes.rubric(name, name, classes=["sd-tab-label"])
            label["sync_group"], label["sync_id"] = "framework", stem
            item = create_component("tab-item", classes=["sd-tab-item"], selected=position == 0)
            item += [label, content]
            tabs += item
        self.set_source_info(tabs)
        return [tabs]


class NotebookCell(CellDirective):
    """Show a labelled cell of a notebook that needs no framework."""

    option_spec: ClassVar[dict[str, Any]] = {
        **CellDirective.option_spec,
        "notebook": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        stem = self.options.get("notebook", "notebook")
        return [nodes.container("", *self.show(stem), classes=["nb-cell"])]


class NumberRole(SphinxRole):
    """Quote a number that a labelled cell printed."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        parts = [part.strip() for part in self.text.split(":", 2)]
        here = Path(self.env.doc2path(self.env.docname)).parent
        stems = list(FRAMEWORKS) if len(parts) == 2 else parts[:1]
        values = {}
        try:
            if len(parts) < 2:
                raise CellError("expected label:name or notebook:label:name")
            for stem in stems:
                path = here / f"{stem}.ipynb"
                self.env.note_dependency(str(path))
                values[stem] = printed_value(path, *parts[-2:])
        except CellError as error:
            LOG.warning("num: %s: %s", self.text, error, location=self.get_location())
            return [], []
        if len(set(values.values())) == 1:
            value = next(iter(values.values()))
            return [nodes.inline(value, value, classes=["num"])], []
        return [
            nodes.inline(value, value, classes=["num", f"fw-only-{stem}"])
            for stem, value in values.items()
        ], []


class framework_bar(nodes.General, nodes.Element):
    """The switch of a topic page; written by :func:`visit_framework_bar`."""


class FrameworkBar(SphinxDirective):
    """The page's switch, with the way to both notebooks."""

    def run(self) -> list[nodes.Node]:
        folder = self.env.docname.rpartition("/")[0]
        for stem in FRAMEWORKS:
            if f"{folder}/{stem}" not in self.env.found_docs:
                LOG.warning(
                    "fw-bar: %s/%s is no page of the book",
                    folder,
                    stem,
                    location=self.get_location(),
                )
        return [framework_bar(folder=folder)]


def visit_framework_bar(writer: Any, node: framework_bar) -> None:
    items = []
    for stem, name in FRAMEWORKS.items():
        path = f"{node['folder']}/{stem}.ipynb"
        items.append(
            f'<li class="fw-item" data-framework="{stem}">'
            f'<button type="button" class="fw-choose" data-framework="{stem}" aria-pressed="false">'
            f"{name}</button> "
            f'<a href="{stem}.html">notebook<span class="sr-only"> in {name}</span></a> '
            f"{colab_link(writer.config, path, name)}</li>"
        )
    writer.body.append(bar(items, "Framework"))
    raise nodes.SkipNode


def skip_framework_bar(writer: Any, node: framework_bar) -> None:
    raise nodes.SkipNode


def bar(items: list[str], name: str) -> str:
    return f'<nav class="fw-bar" aria-label="{name}"><ul>{"".join(items)}</ul></nav>\n'


def is_placeholder(config: Any) -> bool:
    """Tell whether the repository's address in _config.yml still has to be filled in."""
    return f"/{PLACEHOLDER_OWNER}/" in repository(config)


def repository(config: Any) -> str:
    """Return the address of the repository, as _config.yml has it."""
    return config.html_theme_options.get("repository_url", "").rstrip("/")


def colab_link(config: Any, path: str, name: str) -> str:
    """Return the link that opens the notebook at ``path`` in Colab, or a note where it cannot.

    The link names the release's tag, as the notebook's install cell does: a later change of the
    repository does not part the notebook from the package that it installs.
    """
    if is_placeholder(config):
        note = "The repository has no public address yet; set it in _config.yml."
        return f'<span class="fw-note" title="{note}">Colab: not yet public</span>'
    colab = "https://colab.research.google.com/github/"
    address = repository(config).replace("https://github.com/", colab)
    target = html.escape(f"{address}/blob/v{__version__}/{path}")
    return f'<a href="{target}">Colab<span class="sr-only">: open the {name} notebook</span></a>'


def notebook_page_bar(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Under the title of a notebook's page: its topic, its twin, and Colab."""
    if doctree is None or not str(app.env.doc2path(pagename)).endswith(".ipynb"):
        return
    folder, _, stem = pagename.rpartition("/")
    items = []
    if f"{folder}/index" in app.env.found_docs:
        items.append('<li class="fw-item"><a href="index.html">Topic page</a></li>')
    stems = FRAMEWORKS if stem in FRAMEWORKS else {stem: "Notebook"}
    for other, name in stems.items():
        if other == stem:
            title = f'<strong aria-current="page">{name}</strong>'
        else:
            title = f'<a href="{other}.html">{name}</a>'
        link = colab_link(app.config, f"{folder}/{other}.ipynb", name)
        items.append(f'<li class="fw-item">{title} {link}</li>')
    context["body"] = context["body"].replace("</h1>", "</h1>" + bar(items, "This notebook"), 1)


def name_pictures(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give every picture of a notebook's page its text: the cell's ``alt``, or the topic page's."""
    alts = getattr(app.env, "cell_alts", {})
    for cell in doctree.findall(
        lambda node: (
            node.get("nb_element") == "cell_code" if isinstance(node, nodes.container) else False
        )
    ):
        metadata = cell.get("cell_metadata", {})
        label = metadata.get("label")
        alt = metadata.get("alt") or alts.get((docname, label))
        for picture in cell.findall(nodes.image):
            if alt:
                picture["alt"] = alt
            elif not picture.get("alt"):
                LOG.warning(
                    "picture without text: give the cell %r an alt in its metadata, or show it "
                    "with fw-cell and :alt:",
                    label or cell.get("cell_index"),
                    location=docname,
                )


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(
        framework_bar,
        html=(visit_framework_bar, None),
        latex=(skip_framework_bar, None),
        text=(skip_framework_bar, None),
    )
    app.add_directive("fw-cell", FrameworkCell)
    app.add_directive("nb-cell", NotebookCell)
    app.add_directive("fw-bar", FrameworkBar)
    app.add_role("num", NumberRole())
    app.connect("doctree-resolved", name_pictures)
    app.connect("html-page-context", notebook_page_bar)
    # The texts for pictures are kept in the environment but not purged page by page: builds are
    # always full (book/_tools/build.py).
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
