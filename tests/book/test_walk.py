"""A newcomer's walk: front page, topic, the other framework, an exercise, its solution, and on."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytestmark = pytest.mark.browser


def test_a_newcomer_finds_the_way(browser: Any, book_address: str) -> None:
    from playwright.sync_api import expect

    page = browser.new_page(viewport={"width": 1100, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))

    # The front page shows in one screen what one can learn and where to start.
    page.goto(book_address + "book/index.html")
    for title in ("I have 20 examples", "Read", "Run", "Check"):
        card = page.locator(".sd-card", has_text=title).first
        assert card.bounding_box()["y"] < 900
    topic = page.locator(".topic-table a", has_text="Domain adaptation by KL divergence")
    topic.click()
    expect(page.locator(".bd-article h1")).to_contain_text("Domain adaptation")

    # The other framework, for every block of code on the page.
    page.get_by_role("button", name="TensorFlow").click()
    code = page.locator(".sd-tab-content:visible .highlight")
    assert code.count() > 3
    assert all("import torch" not in text for text in code.all_inner_texts())

    # An exercise with its hint and its solution, both closed at first.
    exercise = page.locator(".exercise-file").first
    exercise.scroll_into_view_if_needed()
    hint, solution = (
        exercise.locator("details", has_text=name).first for name in ("Hint", "Solution")
    )
    for dropdown in (hint, solution):
        assert dropdown.get_attribute("open") is None
        dropdown.locator("summary").first.click()
        expect(dropdown.locator(".sd-summary-content")).to_be_visible()
    answer = solution.locator(".sd-tab-content:visible .highlight").first
    expect(answer).to_contain_text("tensorflow")
    expect(answer).to_contain_text("def ")

    # And on: the notebook, in the framework that was chosen.
    page.locator("a.right-next").click()
    expect(page).to_have_url(re.compile(r"kl_adaptation/torch\.html"))
    page.locator("a.right-next").click()
    expect(page.locator(".bd-article h1")).to_contain_text("TensorFlow")
    assert faults == []
    page.close()


def test_every_topic_leads_to_its_notebooks_exercises_and_quiz(
    browser: Any, book_address: str
) -> None:
    page = browser.new_page()
    page.goto(book_address + "book/index.html")
    links = page.locator(".topic-table tbody tr td:first-child a")
    topics = [link.get_attribute("href") for link in links.all()]
    assert len(topics) >= 7
    for href in topics:
        page.goto(book_address + "book/" + href)
        assert page.locator(".quiz-question").count() >= 5, href
        if "pseudo_labels" not in href:  # its exercises stand on the pages of its three methods
            assert page.locator(".exercise-file").count() >= 3, href
        assert page.locator("main a[href$='.html']").count() > 2, href
    page.close()
