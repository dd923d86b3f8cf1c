"""Every page of the built books: nothing from elsewhere, no dead link, a text for every picture."""

from __future__ import annotations

import re
from pathlib import Path

import html_checks
import pytest
from building import ROOT

from fewshot_course import __version__

PAGE = '<!doctype html><html><body id="top">{}</body></html>'


def test_nothing_is_loaded_from_elsewhere(books: list[Path]) -> None:
    assert [html_checks.external_resources(book) for book in books] == [[], []]


def test_every_link_and_anchor_leads_somewhere(books: list[Path]) -> None:
    assert [html_checks.dead_links(book) for book in books] == [[], []]


def test_every_picture_has_a_text(books: list[Path]) -> None:
    assert [html_checks.pictures_without_text(book) for book in books] == [[], []]


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ("external_resources", '<script src="https://example.org/a.js"></script>'),
        ("external_resources", '<link rel="stylesheet" href="//example.org/a.css">'),
        ("external_resources", '<img alt="x" src="http://example.org/a.png">'),
        ("external_resources", '<script>const from = "https://example.org/x.js"</script>'),
        ("dead_links", '<a href="#nowhere">x</a>'),
        ("dead_links", '<a href="missing.html">x</a>'),
        ("dead_links", '<a href="other.html#nowhere">x</a>'),
        ("dead_links", '<img alt="x" src="missing.png">'),
        ("pictures_without_text", '<img src="a.png">'),
        ("pictures_without_text", '<img src="a.png" alt="">'),
        ("pictures_without_text", '<img src="a.png" alt="../_images/a.png">'),
        ("pictures_without_text", '<svg aria-label=" "></svg><svg aria-hidden="true"></svg>'),
        ("pictures_without_text", "<canvas></canvas>"),
    ],
)
def test_the_checks_find_a_planted_fault(tmp_path: Path, check: str, fault: str) -> None:
    (tmp_path / "other.html").write_text(PAGE.format("fine"))
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "page.html").write_text(PAGE.format('<a href="other.html#top">fine</a>'))
    html_checks.parsed.cache_clear()
    html_checks.anchors.cache_clear()
    assert getattr(html_checks, check)(tmp_path) == []
    (tmp_path / "page.html").write_text(PAGE.format(fault))
    html_checks.parsed.cache_clear()
    html_checks.anchors.cache_clear()
    assert len(getattr(html_checks, check)(tmp_path)) == 1


def test_a_style_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text('@import "https://example.org/b.css";')
    assert len(html_checks.external_resources(tmp_path)) == 1


def test_colab_links_are_made_from_the_repository_address(demo_html: Path) -> None:
    page = html_checks.parsed(demo_html / "chapters/kl_adaptation/index.html")
    links = [a["href"] for a in page.select(".fw-bar a") if "colab" in a["href"]]
    # At the release's tag, like the package that the notebook installs.
    start = f"https://colab.research.google.com/github/someone/fewshot-course/blob/v{__version__}/"
    paths = [f"chapters/kl_adaptation/{stem}.ipynb" for stem in ("torch", "tensorflow")]
    assert links == [start + path for path in paths]


def test_a_placeholder_makes_no_dead_colab_link(book_html: Path) -> None:
    for path in html_checks.pages(book_html):
        assert not re.search(r'href="[^"]*/OWNER/', path.read_text(encoding="utf-8")), path


def test_a_notebook_page_leads_to_its_topic_and_its_twin(demo_html: Path) -> None:
    page = html_checks.parsed(demo_html / "chapters/kl_adaptation/torch.html")
    links = [a["href"] for a in page.select(".fw-bar a") if "colab" not in a["href"]]
    assert links == ["index.html", "tensorflow.html"]


def test_the_topic_page_shows_both_notebooks_cells(demo_html: Path) -> None:
    page = html_checks.parsed(demo_html / "chapters/kl_adaptation/index.html")
    first = page.select(".fw-cell")[0]
    panels = [panel.get_text() for panel in first.select(".sd-tab-content")]
    assert "# PyTorch" in panels[0]
    assert "mean = 0.51" in panels[0]
    assert "# TensorFlow" in panels[1]
    assert "mean = 0.52" in panels[1]
    pictures = [image["alt"] for image in page.select(".fw-cell img")]
    assert pictures == ["A square (PyTorch)", "A square (TensorFlow)"]


def test_a_number_that_both_print_stands_once(demo_html: Path) -> None:
    page = html_checks.parsed(demo_html / "chapters/kl_adaptation/index.html")
    numbers = [(number.get_text(), number["class"]) for number in page.select(".num")]
    assert numbers == [
        ("0.51", ["num", "fw-only-torch"]),
        ("0.52", ["num", "fw-only-tensorflow"]),
        ("0.51", ["num"]),
        ("10", ["num"]),
    ]


def test_the_table_of_topics_tells_what_is_there(demo_html: Path) -> None:
    page = html_checks.parsed(demo_html / "book/index.html")
    rows = [row.select("td") for row in page.select(".topic-table tbody tr")]
    states = {row[0].get_text(strip=True): row[-1].get_text(strip=True) for row in rows}
    assert states["Meta-learning"] == "planned"
    assert states["Domain adaptation by KL divergence"] == "there: page,PyTorch,TensorFlow"


def test_the_reference_names_every_public_module(book_html: Path) -> None:
    pages = [html_checks.parsed(book_html / f"book/{name}.html") for name in ("api", "api_shared")]
    documented = {
        str(tag["id"]).split("#")[0] for page in pages for tag in page.select("dt.sig[id]")
    }
    for path in (ROOT / "fewshot_course").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if "._" in module or "__init__" in module or module == "fewshot_course.cli":
            continue
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r'"(\w+)"', text.partition("__all__ = [")[2].partition("]")[0]):
            homes = {f"{module}.{name}", f"{module.rpartition('.')[0]}.{name}"}
            homes |= {home.replace(".tf.", ".torch.") for home in homes}
            assert homes & documented, f"{module}.{name}"
