"""What must hold for every page of a built book; each function returns the faults it found."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

LOADED = {
    "script": ["src"],
    "img": ["src", "srcset"],
    "source": ["src", "srcset"],
    "iframe": ["src"],
    "embed": ["src"],
    "object": ["data"],
    "video": ["src", "poster"],
    "audio": ["src"],
}
LOADING_LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "manifest",
}
ELSEWHERE = re.compile(r"^\s*(https?:)?//")
CSS_ELSEWHERE = re.compile(r"""(url\(\s*["']?|@import\s+["'])(https?:)?//""")


@cache
def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def pages(html: Path) -> list[Path]:
    return sorted(path for path in html.rglob("*.html") if "_static" not in path.parts)


def external_resources(html: Path) -> list[str]:
    """Scripts, styles, pictures and the like that a page would load from elsewhere."""
    found = []
    for path in pages(html):
        for tag in parsed(path).find_all(True):
            for value in loaded_addresses(tag):
                if ELSEWHERE.match(value):
                    found.append(f"{path.relative_to(html)}: <{tag.name}> {value}")
            text = tag.string or ""
            if tag.name == "script" and not tag.get("src") and "https://" in text:
                found.append(f"{path.relative_to(html)}: script with an address: {text[:80]}")
    for path in html.rglob("*.css"):
        if CSS_ELSEWHERE.search(path.read_text(encoding="utf-8", errors="replace")):
            found.append(f"{path.relative_to(html)}: url or @import from elsewhere")
    return found


def loaded_addresses(tag: Tag) -> list[str]:
    names = LOADED.get(tag.name, [])
    if tag.name == "link" and LOADING_LINKS & set(tag.get_attribute_list("rel")):
        names = ["href"]
    return [str(tag[name]) for name in names if tag.get(name)]


def dead_links(html: Path) -> list[str]:
    """Links and resources within the book whose file, or whose anchor, is not there."""
    found = []
    for path in pages(html):
        for tag in parsed(path).find_all(True):
            values = loaded_addresses(tag)
            if tag.name == "a" and tag.get("href"):
                values = [str(tag["href"])]
            for value in values:
                if fault := link_fault(path, value, html):
                    found.append(f"{path.relative_to(html)}: {value}: {fault}")
    return found


def link_fault(page: Path, address: str, html: Path) -> str:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return ""
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return "no such file"
    if not target.is_relative_to(html.resolve()) and target != page:
        return "outside the book"
    anchor = unquote(parts.fragment)
    if anchor and target.suffix == ".html" and anchor not in anchors(target):
        return "no such anchor"
    return ""


@cache
def anchors(path: Path) -> set[str]:
    tags = parsed(path).find_all(True)
    return {str(tag[name]) for tag in tags for name in ("id", "name") if tag.get(name)}


def pictures_without_text(html: Path) -> list[str]:
    """Pictures whose ``alt`` is missing, empty or just the name of a file.

    A drawing within the page (``svg``, ``canvas``, ``object``) has a label, or is told to be
    decoration.
    """
    found = []
    for path in pages(html):
        for image in parsed(path).find_all("img"):
            text = str(image.get("alt", "")).strip()
            if not text or re.search(r"\.(png|svg|jpe?g|gif|webp)$", text):
                found.append(f"{path.relative_to(html)}: {image.get('src')} has alt {text!r}")
        for drawing in parsed(path).find_all(["svg", "canvas", "object"]):
            label = str(drawing.get("aria-label", "")).strip()
            if drawing.get("aria-hidden") != "true" and not label:
                found.append(f"{path.relative_to(html)}: <{drawing.name}> has no label")
    return found
