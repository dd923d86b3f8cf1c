"""The books as a reader sees them, in chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from html_checks import pages

pytestmark = pytest.mark.browser

TOPIC = "chapters/kl_adaptation/index.html"
AXE = {
    "preload": False,  # axe would fetch the styles again, from wrong addresses
    "resultTypes": ["violations"],
}
# What looks alike is looked at twenty times: with hundreds of entries, rows, coloured words of code
# and formulas (hidden from screen readers, which read the MathML beside) axe takes minutes.  Of the
# words those count that can be seen: axe says nothing of the colours of others.
SHORTEN = """() => {
  const kept = 20;
  const cut = (entries) => [...entries].slice(kept).forEach((entry) => entry.remove());
  cut(document.querySelectorAll("dl.py, .genindextable li"));
  document.querySelectorAll("tbody").forEach((body) => cut(body.children));
  cut(document.querySelectorAll("mjx-math"));
  const seen = {};
  document.querySelectorAll(".highlight span[class]").forEach((word) => {
    if (!word.checkVisibility()) return;
    seen[word.className] = (seen[word.className] ?? 0) + 1;
    if (seen[word.className] > kept) word.replaceWith(...word.childNodes);
  });
}"""
# Colours that fade from one to the other are at their end.
SETTLE = """() => new Promise((settled) => requestAnimationFrame(() => requestAnimationFrame(() => {
  document.getAnimations().forEach((animation) => animation.finish());
  settled();
})))"""
# The pages are dealt out to so many tests, so that several processes can share the work.
SHARES = 4
# Dark pages differ from light ones in their colours only.
AXE_DARK = {**AXE, "runOnly": ["color-contrast", "link-in-text-block"]}


class Watch:
    """What went wrong while a page was open: errors, and requests that left the machine."""

    def __init__(self, page: Any, allowed: str) -> None:
        self.faults: list[str] = []
        page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self._check(request.url, allowed))

    def _check(self, url: str, allowed: str) -> None:
        if not url.startswith((allowed, "data:", "blob:")):
            self.faults.append(f"request to {url}")


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open pages that share their storage, as the pages of one reader do."""
    contexts = []

    def open_page(width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
        )
        context.set_default_timeout(60_000)  # a loaded machine is slow, not wrong
        contexts.append(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def addresses(book_html: Path, book_address: str, demo_html: Path, demo_address: str) -> list[str]:
    """All pages of both books (the page at the top only leads to the front page)."""
    return [
        base + str(path.relative_to(html))
        for html, base in ((book_html, book_address), (demo_html, demo_address))
        for path in pages(html)
        if path != html / "index.html"
    ]


def visible_framework(page: Any) -> str:
    return page.locator(".sd-tab-content:visible .cell-source").first.inner_text()


def serious_findings(page: Any, options: dict[str, Any]) -> list[str]:
    """What axe finds on a page, of which entries that look alike are left out (in the page)."""
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate(SHORTEN)
    return [
        f"{finding['id']}: {finding['nodes'][0]['html'][:200]}"
        for finding in Axe().run(page, options=options).response["violations"]
        if finding["impact"] in ("serious", "critical")
    ]


def set_scheme(page: Any, scheme: str) -> None:
    """As when the reader's system turns dark: the pages follow it."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(f"document.documentElement.dataset.theme == '{scheme}'")
    page.evaluate(SETTLE)


@pytest.mark.parametrize("share", range(SHARES))
def test_no_page_has_a_fault(
    new_page: Callable[..., Any], addresses: list[str], share: int
) -> None:
    """Each page is opened once, on a phone, and then looked at on a screen, in light and dark.

    None scrolls sideways, has a serious axe finding or an error in the console, or asks for
    anything that is not on this machine.
    """
    page, faults = new_page(), []
    watch = Watch(page, "http://127.0.0.1:")
    for address in addresses[share::SHARES]:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 360, "height": 800})
        page.goto(address)
        if page.locator(".math").count():
            page.wait_for_selector("mjx-container", state="attached")
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            faults.append(f"{address}: wider than a phone")
        page.set_viewport_size({"width": 1280, "height": 900})
        for scheme, options in (("light", AXE), ("dark", AXE_DARK)):
            set_scheme(page, scheme)
            faults += [f"{address}, {scheme}: {it}" for it in serious_findings(page, options)]
    assert faults + watch.faults == []


def test_planted_faults_are_found(new_page: Callable[..., Any], demo_address: str) -> None:
    page = new_page()
    page.goto(demo_address + TOPIC)
    assert serious_findings(page, AXE) == []
    page.evaluate("document.querySelector('article').append(document.createElement('input'))")
    # One kind of coloured word, pale in the light and dim in the dark.
    for scheme, colour, ground in (("light", "#eee", "#fff"), ("dark", "#222", "#000")):
        style = f"color: {colour} !important; background: {ground} !important"
        page.add_style_tag(content=f"html[data-theme={scheme}] .highlight .nb {{ {style} }}")
    assert sorted(found.split(">")[0] for found in serious_findings(page, AXE)) == [
        'color-contrast: <span class="nb"', "label: <input",
    ]  # fmt: skip
    set_scheme(page, "dark")
    (found,) = serious_findings(page, AXE_DARK)
    assert found.startswith('color-contrast: <span class="nb"')


def test_the_choice_of_a_framework_is_kept_across_pages(
    new_page: Callable[..., Any], demo_address: str, book_address: str
) -> None:
    page = new_page()
    page.goto(demo_address + TOPIC)
    assert visible_framework(page).startswith("# PyTorch")
    page.get_by_role("button", name="TensorFlow").click()
    assert visible_framework(page).startswith("# TensorFlow")
    assert page.locator("[aria-pressed=true]").inner_text() == "TensorFlow"
    assert page.locator(".fw-only-tensorflow").is_visible()
    assert not page.locator(".fw-only-torch").is_visible()
    page.goto(demo_address + "book/index.html")
    page.goto(demo_address + TOPIC)
    assert visible_framework(page).startswith("# TensorFlow")
    assert page.locator(".fw-only-tensorflow").is_visible()


def test_a_tab_moves_all_tabs_and_the_bar(new_page: Callable[..., Any], demo_address: str) -> None:
    page = new_page()
    page.goto(demo_address + TOPIC)
    page.locator(".sd-tab-label", has_text="TensorFlow").nth(1).click()
    assert visible_framework(page).startswith("# TensorFlow")
    assert page.locator("[aria-pressed=true]").inner_text() == "TensorFlow"
    page.locator(".sd-tab-set input:checked").first.press("ArrowLeft")
    assert visible_framework(page).startswith("# PyTorch")


@pytest.mark.parametrize(
    ("asked", "shown"),
    [("tensorflow", "# TensorFlow"), ("torch", "# PyTorch"), ("nonsense", "# PyTorch")],
)
def test_the_address_can_choose_the_framework(
    new_page: Callable[..., Any], demo_address: str, asked: str, shown: str
) -> None:
    page = new_page()
    page.goto(f"{demo_address}{TOPIC}?framework={asked}")
    assert visible_framework(page).startswith(shown)


def test_the_book_works_as_a_file(new_page: Callable[..., Any], demo_html: Path) -> None:
    page = new_page()
    watch = Watch(page, "file://")
    page.goto(f"file://{demo_html}/index.html")
    page.wait_for_url("**/book/index.html")
    page.goto(f"file://{demo_html}/{TOPIC}?framework=tensorflow")
    assert visible_framework(page).startswith("# TensorFlow")
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").first.bounding_box()["width"] > 5
    assert page.locator("mjx-merror").count() == 0
    page.goto(f"file://{demo_html}/search.html?q=framework")
    page.wait_for_selector("#search-results li a")
    assert watch.faults == []


def test_the_watch_sees_requests_and_errors(new_page: Callable[..., Any]) -> None:
    page = new_page()
    watch = Watch(page, "file://")
    page.route("**/*", lambda route: route.abort())
    page.set_content('<img src="http://example.invalid/x.png"><script>undefined_name()</script>')
    page.wait_for_timeout(200)
    assert any("example.invalid" in fault for fault in watch.faults)
    assert any("undefined_name" in fault for fault in watch.faults)


def test_the_search_field_stands_once(new_page: Callable[..., Any], book_address: str) -> None:
    page = new_page()
    page.goto(book_address + "book/index.html")
    assert page.locator(".search-button__button:visible").count() == 1
