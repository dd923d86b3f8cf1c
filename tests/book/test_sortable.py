"""The leaderboard's tables can be sorted by a click, by keyboard, and stand without a script."""

import pytest

pytestmark = pytest.mark.browser

PAGE = "chapters/capstone/results.html"


def column(table, index):
    return table.locator("tbody tr").evaluate_all(
        "(rows, i) => rows.map(row => row.cells[i].textContent.trim())", index
    )


@pytest.fixture
def table(browser, book_address):
    """The board of the characters: there some methods learned before, and some did not."""
    page = browser.new_page()
    page.goto(book_address + PAGE)
    yield page.locator("table.sortable").nth(1)
    page.close()


def test_a_click_sorts_and_another_turns_round(table):
    accuracy = table.get_by_role("button", name="accuracy, %")
    accuracy.click()
    down = [float(text) for text in column(table, 3)]
    assert down == sorted(down, reverse=True)
    assert len(set(down)) > 3
    accuracy.click()
    assert [float(text) for text in column(table, 3)] == sorted(down)
    heading = table.locator("th", has=table.page.get_by_role("button", name="accuracy, %"))
    assert heading.get_attribute("aria-sort") == "ascending"


def test_no_row_is_lost_and_texts_sort_as_texts(table):
    before = sorted(column(table, 0))
    button = table.get_by_role("button", name="method")
    button.focus()
    table.page.keyboard.press("Enter")
    table.page.keyboard.press("Enter")
    assert column(table, 0) == sorted(before, key=str.lower)


def test_empty_cells_stay_below(table):
    button = table.get_by_role("button", name="s before")
    for _ in range(2):
        button.click()
        found = column(table, 8)
        filled = [text for text in found if text]
        assert found[: len(filled)] == filled
