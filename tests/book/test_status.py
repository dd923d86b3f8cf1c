"""The status page and the table of topics say what the files say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import html_checks
import yaml
from building import ROOT

RUNS = json.loads((ROOT / "book/notebook_runs.json").read_text(encoding="utf-8"))
TOPICS = yaml.safe_load((ROOT / "book/topics.yml").read_text(encoding="utf-8"))


def test_every_notebook_of_the_book_has_a_row_with_what_its_run_took(book_html: Path) -> None:
    page = html_checks.parsed(book_html / "book/status.html")
    rows = {
        str(link["href"]): row
        for row in page.select(".run-table tbody tr")
        for link in row.select("a")[:1]
    }
    shown = {
        path.relative_to(book_html).with_suffix("").as_posix()
        for path in book_html.rglob("*.html")
        if (ROOT / path.relative_to(book_html)).with_suffix(".ipynb").is_file()
    }
    assert {(Path("book") / href).with_suffix("").as_posix() for href in rows} == {
        str(Path("book") / relative(name)) for name in shown
    }
    for name in shown:
        cells = [cell.get_text(strip=True) for cell in rows[f"{relative(name)}.html"].select("td")]
        facts = RUNS[name]
        assert cells[1:5] == [
            facts["date"], str(facts["cells"]), str(facts["seconds"]), str(facts["peak_mb"])
        ]  # fmt: skip
        assert "python" in cells[5]


def relative(name: str) -> str:
    """A page's address as seen from the status page."""
    return name.removeprefix("book/") if name.startswith("book/") else f"../{name}"


def test_minutes_of_a_topic_are_those_of_its_page() -> None:
    told = 0
    for topic in TOPICS:
        page = ROOT / "chapters" / topic["folder"] / "index.md"
        if not page.is_file():
            continue
        text = page.read_text(encoding="utf-8")
        if found := re.search(r"Reading takes about (\d+) minutes", text):
            assert topic["minutes"] == int(found[1]), topic["folder"]
            told += 1
    assert told >= 5
