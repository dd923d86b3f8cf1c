"""The page of ``fewshot report`` as a reader sees it, in chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import own_data
import pytest

from fewshot_course.report import write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("reports")
    rows = own_data.texts(6)
    rows += [(rows[0][0].upper(), rows[1][1])]  # a grave finding too
    sources = [
        own_data.write_csv(folder / "mails.csv", ["text", "label"], rows),
        own_data.vector_csv(folder),
        own_data.image_folder(folder, 5),
    ]
    return [
        write_report(source, folder / f"{i}.html", draws=3, encoder="off").page.as_uri()
        for i, source in enumerate(sources)
    ]


@pytest.fixture
def contexts(browser: Any) -> Iterator[list[Any]]:
    opened: list[Any] = []
    yield opened
    for context in opened:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_has_no_fault_and_fits_a_phone(
    browser: Any, contexts: list[Any], addresses: list[str], scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": 360, "height": 800}, color_scheme=scheme)
    contexts.append(context)
    page, faults = context.new_page(), []
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: None if r.url[:5] in ("file:", "data:") else faults.append(r.url))
    for address in addresses:
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for finding in (
            Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        ):
            faults.append(f"{address}: {finding['id']}: {finding['nodes'][0]['html'][:200]}")
    assert faults == []


def test_the_page_follows_the_readers_scheme(
    browser: Any, contexts: list[Any], addresses: list[str]
) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        contexts.append(browser.new_context(color_scheme=scheme))
        page = contexts[-1].new_page()
        page.goto(addresses[0])
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]
