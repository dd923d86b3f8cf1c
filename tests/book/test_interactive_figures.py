"""What holds for every interactive figure: as a file, without script, on a phone, and its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from building import ROOT
from html_checks import loaded_addresses, pages, parsed

FIGURES = {
    "gaussian-kl": "chapters/kl_adaptation/index.html",
    "maml-steps": "chapters/maml/index.html",
    "em-steps": "chapters/pseudo_labels/gmm/index.html",
    "confidence-threshold": "chapters/pseudo_labels/index.html",
}
ALLOWED = 300_000
"""Bytes of the book's own scripts and styles that a page may load."""


def own_assets(page: Path, html: Path) -> int:
    """Return the bytes of our own scripts and styles (not the theme's) that a page loads."""
    own = {path.relative_to(ROOT / "book") for path in (ROOT / "book" / "_static").rglob("*.*")}
    addresses = {a.partition("?")[0] for tag in parsed(page)(True) for a in loaded_addresses(tag)}
    files = {(page.parent / address).resolve() for address in addresses if ":" not in address}
    inside = [file for file in files if file.is_relative_to(html.resolve())]
    return sum(f.stat().st_size for f in inside if f.relative_to(html.resolve()) in own)


def test_no_page_loads_more_of_ours_than_allowed(book_html: Path) -> None:
    sizes = {str(page): own_assets(page, book_html) for page in pages(book_html)}
    assert max(sizes.values()) <= ALLOWED
    figures = [own_assets(book_html / page, book_html) for page in FIGURES.values()]
    assert min(figures) > 10_000  # they are counted at all


@pytest.mark.browser
@pytest.mark.parametrize("name", FIGURES)
def test_it_works_from_a_file_on_a_phone(browser: Any, book_html: Path, name: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.goto(f"file://{book_html / FIGURES[name]}")
    picture = page.locator(f"{name} svg[role=img]").first
    assert len(picture.get_attribute("aria-label")) > 40
    assert page.locator(f"{name} [aria-live]").first.inner_text().strip()
    for control in page.locator(f"{name} :is(input, select, button)").all():
        if control.is_visible():
            box = control.bounding_box()
            assert box["x"] + box["width"] <= 360
            assert box["height"] >= 20
    assert faults == []
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", FIGURES)
def test_without_script_a_sentence_stands_in_its_place(
    browser: Any, book_html: Path, name: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{book_html / FIGURES[name]}")
    assert "needs JavaScript" in page.locator(f"{name} + noscript").inner_text()
    context.close()
