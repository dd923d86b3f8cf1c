"""Faults of the stock theme, mended, and the way into the book.

- thebe's scripts are loaded on every page, twice, and would fetch code from elsewhere;
- the theme's repository button would be a dead link while the address is a placeholder;
- the book's first page lies below the output folder: ``index.html`` leads there.

What needs a browser (names for screen readers) is in ``_static/course.js``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from framework_switch import is_placeholder
from sphinx.application import Sphinx

REDIRECT = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url={page}"></head>
<body><p><a href="{page}">{title}</a></p></body></html>
"""


def hide_dead_button(app: Sphinx, config: Any) -> None:
    """Leave out the repository button while there is no repository to lead to."""
    if is_placeholder(config):
        config.html_theme_options["use_repository_button"] = False


def drop_thebe(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Remove the scripts of an extension that this book does not use."""
    context["script_files"] = [
        script for script in context.get("script_files", []) if "thebe" not in _text_of(script)
    ]


def _text_of(script: Any) -> str:
    body = getattr(script, "attributes", {}).get("body") or ""
    return f"{getattr(script, 'filename', '') or ''} {body}".lower()


def write_redirect(app: Sphinx, error: Exception | None) -> None:
    """Let ``index.html`` at the top lead to the front page."""
    if error is None and app.builder.format == "html" and app.config.root_doc != "index":
        page = app.builder.get_target_uri(app.config.root_doc)
        text = REDIRECT.format(page=page, title=app.config.html_title, language="en")
        (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", hide_dead_button)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", write_redirect)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
