"""A page on paper: its text and figures, drop-downs open, no sidebars, dark or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

PAGE = "chapters/maml/index.html"
A4 = {"width": 794, "height": 1123}  # pixels of A4 at 96 a inch
NOT_PRINTED = (
    ".bd-header",
    ".bd-header-article",
    ".bd-sidebar-primary",
    ".bd-sidebar-secondary",
    ".prev-next-footer",
    ".bd-footer",
    ".fw-bar",
    ".quiz-check",
    ".copybtn",
    "a.headerlink",
)


@pytest.fixture(params=["light", "dark"], scope="module")
def opened(request: pytest.FixtureRequest, browser: Any, book_html: Path) -> Iterator[Any]:
    """The page, opened once in each mode: its formulas take a while."""
    context = browser.new_context(viewport=A4, color_scheme=request.param)
    page = context.new_page()
    page.goto(f"file://{book_html / PAGE}")
    page.wait_for_selector("mjx-container")
    yield page
    context.close()


@pytest.fixture
def page(opened: Any) -> Any:
    """The page on the screen, nothing unfolded."""
    opened.emulate_media(media="screen")
    opened.wait_for_function("document.querySelector('.bd-article details:not([open])')")
    return opened


def shown(page: Any, selector: str) -> int:
    """Return how many elements are seen; what a closed drop-down holds has a size, but is not."""
    seen = "e.checkVisibility() && e.getBoundingClientRect().height > 0"
    script = f"(all) => all.filter((e) => {seen}).length"
    return page.locator(selector).evaluate_all(script)


def test_what_cannot_be_clicked_on_paper_is_not_printed(page: Any) -> None:
    on_screen = [selector for selector in NOT_PRINTED if shown(page, selector)]
    assert {".bd-header-article", ".bd-sidebar-primary", ".fw-bar", ".quiz-check"} <= set(on_screen)
    page.emulate_media(media="print")
    assert [selector for selector in NOT_PRINTED if shown(page, selector)] == []


def test_the_sections_are_printed_in_the_width_of_the_paper(page: Any) -> None:
    page.emulate_media(media="print")
    titles = page.locator("h1").all_inner_texts()
    assert [text for text in titles if text.strip()].count("Meta-learning") >= 1
    assert shown(page, "h1") == 1, "the title stands once"
    sections = page.locator(".bd-article section > h2").count()
    assert sections > 5
    assert shown(page, ".bd-article section > h2") == sections
    article = page.locator(".bd-article").bounding_box()
    assert article["width"] > 0.9 * A4["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= A4["width"]
    cut = """(all) => all.filter((box) => box.getClientRects().length
      && getComputedStyle(box).overflowX !== "visible"
      && box.scrollWidth > box.clientWidth + 1).map((box) => box.outerHTML.slice(0, 200))"""
    assert page.locator(".bd-article pre, .bd-article .cell-table").evaluate_all(cut) == []


def test_drop_downs_are_open_on_paper_and_closed_again(page: Any) -> None:
    closed = page.locator(".bd-article details:not([open])")
    n_closed, theme = closed.count(), page.evaluate("document.documentElement.dataset.theme")
    assert n_closed >= 8, "a hint and a solution for each exercise"
    assert shown(page, ".bd-article details > :not(summary)") == 0
    page.emulate_media(media="print")
    # The medium's change is told with the next frame.
    page.wait_for_function("!document.querySelector('.bd-article details:not([open])')")
    contents = ".exercise details > :not(summary), .quiz-answers > ul"
    assert shown(page, contents) == page.locator(contents).count() > 0
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.emulate_media(media="screen")
    page.wait_for_function("document.querySelector('.bd-article details:not([open])')")
    assert closed.count() == n_closed
    assert page.evaluate("document.documentElement.dataset.theme") == theme


def test_without_script_drop_downs_are_open_too(browser: Any, book_html: Path) -> None:
    context = browser.new_context(viewport=A4, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{book_html / PAGE}")
    contents = page.locator(".exercise details > :not(summary)").first
    assert not contents.is_visible()
    page.emulate_media(media="print")
    assert contents.is_visible()
    assert page.locator(".quiz-answers > ul").first.is_visible()
    context.close()


def test_it_makes_a_document_of_pages(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.pdf"
    page.pdf(path=path, format="A4")
    data = path.read_bytes()
    assert data.startswith(b"%PDF")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") > 5
