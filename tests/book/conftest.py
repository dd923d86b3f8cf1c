"""The book, built strictly once, and a browser to look at it with."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import demo_book
import pytest
from building import ROOT, build_strictly
from filelock import FileLock

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def built(root: Path, out: Path) -> Path:
    result = build_strictly(root, out)
    if result.returncode:
        pytest.fail(f"the book was not built:\n{result.stdout}{result.stderr}", pytrace=False)
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def built_once(folder: Path, name: str, source: Callable[[], Path]) -> Path:
    """Build a book in the first process that asks; the others wait and take it."""
    out = folder / name
    with FileLock(folder / f"{name}.lock"):
        if not (out / "done").exists():
            built(source(), out)
            (out / "done").touch()
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def book_html(shared: Path) -> Path:
    """The course's own book: the one that FEWSHOT_COURSE_BOOK names, else built here."""
    if "FEWSHOT_COURSE_BOOK" in os.environ:
        html = ROOT / os.environ["FEWSHOT_COURSE_BOOK"]
        if not (html / "index.html").is_file():
            pytest.fail(f"FEWSHOT_COURSE_BOOK: there is no book in {html}.", pytrace=False)
        return html
    return built_once(shared, "book", lambda: ROOT)


@pytest.fixture(scope="session")
def demo_html(shared: Path) -> Path:
    """A small book made by the same means, with one topic of each kind."""

    def source() -> Path:
        root = shared / "demo_source"
        root.mkdir(exist_ok=True)
        demo_book.write(root, ROOT)
        return root

    return built_once(shared, "demo", source)


@pytest.fixture(scope="session")
def books(book_html: Path, demo_html: Path) -> list[Path]:
    return [book_html, demo_html]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _serve(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def book_address(book_html: Path) -> Iterator[str]:
    yield from _serve(book_html)


@pytest.fixture(scope="session")
def demo_address(demo_html: Path) -> Iterator[str]:
    yield from _serve(demo_html)


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium; a skip without it, or an error where it is required."""
    if CHROMIUM is None:
        reason = "no chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("FEWSHOT_COURSE_REQUIRE_BROWSER") == "1":
            pytest.fail(f"FEWSHOT_COURSE_REQUIRE_BROWSER=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def topic_page(request: pytest.FixtureRequest, browser: Any, book_address: str) -> Iterator[Any]:
    """The page that holds the interactive figure of a test module: its ``TOPIC``."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.goto(book_address + request.module.TOPIC)
    yield page
    context.close()


@pytest.fixture
def figure(request: pytest.FixtureRequest, topic_page: Any) -> Any:
    """The interactive figure of a test module, its ``FIGURE``, as new; the page is opened once."""
    name = request.module.FIGURE
    topic_page.locator(name).evaluate("old => old.replaceWith(document.createElement(old.tagName))")
    return topic_page.locator(name)
