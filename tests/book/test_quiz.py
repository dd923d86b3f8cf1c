"""Quizzes: the files are whole, faults are refused by name, and a page answers without a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from building import ROOT
from html_checks import parsed
from quiz import QuizError, read_quiz

TOPICS = [
    topic["folder"]
    for topic in yaml.safe_load((ROOT / "book" / "topics.yml").read_text(encoding="utf-8"))
    if f"chapters/{topic['folder']}/index" in (ROOT / "_toc.yml").read_text(encoding="utf-8")
]
QUESTIONS = 5

RIGHT = {"text": "one", "feedback": "Since one is one.", "right": True}
WRONG = {"text": "two", "feedback": "Two is another number."}
ALSO_WRONG = {"text": "three", "feedback": "So is three."}
GOOD = {"question": "What is one?", "options": [RIGHT, WRONG, ALSO_WRONG]}


def write(folder: Path, entries: Any) -> Path:
    path = folder / "topic" / "quiz.yml"
    path.parent.mkdir(exist_ok=True)
    text = entries if isinstance(entries, str) else yaml.safe_dump(entries)
    path.write_text(text, encoding="utf-8")
    return path


# --- the files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_five_questions_with_feedback_for_each_option(topic: str) -> None:
    questions = read_quiz(ROOT / "chapters" / topic / "quiz.yml")
    assert len(questions) == QUESTIONS
    for question in questions:
        assert [option.right for option in question.options].count(True) == 1
        feedback = [option.feedback for option in question.options]
        assert len(set(feedback)) == len(feedback)
        assert all(len(text) > 20 for text in feedback)
    page = (ROOT / "chapters" / topic / "index.md").read_text(encoding="utf-8")
    assert page.count("```{quiz}") == 1


@pytest.mark.parametrize("topic", TOPICS)
def test_the_right_answer_is_not_given_away_by_its_place(topic: str) -> None:
    places = [
        [option.right for option in question.options].index(True)
        for question in read_quiz(ROOT / "chapters" / topic / "quiz.yml")
    ]
    assert max(map(places.count, places)) <= 3
    assert len(set(places)) >= 3


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (question,) = read_quiz(write(tmp_path, [GOOD]))
    assert question.text == "What is one?"
    assert [option.right for option in question.options] == [True, False, False]


def changed(**changes: Any) -> list[dict[str, Any]]:
    return [GOOD, {**GOOD, "question": "And now?", **changes}]


FAULTS = {
    "no YAML": ("- question: a: b", "is no YAML"),
    "no list": ({"question": "?"}, "must be a list of questions"),
    "empty": ("", "must be a list of questions"),
    "no options": ([GOOD, {"question": "And now?"}], "question 2: expected 'question' and"),
    "a key misspelt": (changed(hint="x"), "question 2: expected 'question' and 'options'"),
    "two options": (
        changed(options=[RIGHT, WRONG]),
        "question 2: expected a list of 3 to 8 options",
    ),
    "nine options": (
        changed(options=[RIGHT, *({**WRONG, "text": f"{n}"} for n in range(2, 10))]),
        "question 2: expected a list of 3 to 8 options",
    ),
    "none is right": (
        changed(options=[WRONG, ALSO_WRONG, {**WRONG, "text": "four"}]),
        "question 2: 0 options are right, expected exactly one",
    ),
    "two are right": (
        changed(options=[RIGHT, {**WRONG, "right": True}, ALSO_WRONG]),
        "question 2: 2 options are right, expected exactly one",
    ),
    "no feedback": (
        changed(options=[RIGHT, {"text": "two"}, ALSO_WRONG]),
        "question 2, option 2: 'feedback' must be a text, got None",
    ),
    "empty feedback": (
        changed(options=[RIGHT, WRONG, {**ALSO_WRONG, "feedback": " "}]),
        "question 2, option 3: 'feedback' must be a text",
    ),
    "a number, no text": (
        changed(options=[RIGHT, WRONG, {**ALSO_WRONG, "text": 3}]),
        "question 2, option 3: 'text' must be a text, got 3",
    ),
    "right is a word": (
        changed(options=[RIGHT, {**WRONG, "right": "no"}, ALSO_WRONG]),
        "question 2, option 2: 'right' must be true or false, got 'no'",
    ),
    "an option twice": (
        changed(options=[RIGHT, WRONG, WRONG]),
        "question 2: an option stands twice",
    ),
    "two paragraphs": (
        changed(options=[RIGHT, WRONG, {**ALSO_WRONG, "feedback": "a\n\nb"}]),
        "question 2, option 3: 'feedback' must be one paragraph",
    ),
    "asked twice": ([GOOD, GOOD], "question 2: asked before"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_file_is_refused_by_file_and_question(tmp_path: Path, fault: str) -> None:
    entries, message = FAULTS[fault]
    with pytest.raises(QuizError, match=re.escape(message)) as error:
        read_quiz(write(tmp_path, entries))
    assert "topic/quiz.yml" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuizError, match=r"there is no .*/quiz\.yml"):
        read_quiz(tmp_path / "quiz.yml")


# --- the pages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", TOPICS)
def test_the_page_holds_questions_options_and_answers(book_html: Path, topic: str) -> None:
    page = parsed(book_html / "chapters" / topic / "index.html")
    questions = read_quiz(ROOT / "chapters" / topic / "quiz.yml")
    boxes = page.select(".quiz fieldset")
    assert len(boxes) == len(questions)
    for box, question in zip(boxes, questions, strict=True):
        assert box.select("legend")[0].get_text(strip=True)
        radios = box.select("label > input[type=radio]")
        assert len({radio["name"] for radio in radios}) == 1
        labels = [label for label in box.select("label") if label.select("input[type=radio]")]
        names = [label.get_text(strip=True)[:2] for label in labels]
        assert names == ["A.", "B.", "C.", "D.", "E."][: len(radios)]
        assert [radio.has_attr("data-right") for radio in radios] == [
            option.right for option in question.options
        ]
        assert box.select(".quiz-verdict")[0]["role"] == "status"
        answers = box.select("details .quiz-feedback")
        assert len(answers) == len(question.options)
        assert all(answer.get_text(strip=True) for answer in answers)
        # Markdown was read, not shown.
        assert "$" not in box.get_text()


PAGE = "chapters/maml/index.html"


@pytest.fixture
def opened(browser: Any, book_html: Path) -> Any:
    """A topic page, opened as a file: no server answers."""
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"file://{book_html / PAGE}")
    yield page
    assert faults == []
    context.close()


@pytest.mark.browser
def test_a_quiz_is_answered_by_keyboard(opened: Any) -> None:
    options = read_quiz(ROOT / "chapters" / "maml" / "quiz.yml")[0].options
    right = [option.right for option in options].index(True)
    assert right == 1, "the test walks from the first, wrong option to the second, right one"
    box = opened.locator("#quiz-1")
    verdict, answers = box.get_by_role("status"), box.locator("details")
    assert not answers.is_visible()

    box.get_by_role("button", name="Check").click()
    assert verdict.inner_text() == "Choose an answer first."

    box.get_by_role("radio").first.focus()
    opened.keyboard.press("Space")
    assert verdict.inner_text() == ""
    opened.keyboard.press("Tab")  # from the radio buttons to the button
    opened.keyboard.press("Enter")
    assert verdict.inner_text() == f"Not yet. {options[0].feedback}"
    assert not answers.is_visible()

    opened.keyboard.press("Shift+Tab")
    opened.keyboard.press("ArrowDown")
    assert verdict.inner_text() == "", "a new choice is not judged before it is checked"
    opened.keyboard.press("Enter")
    assert verdict.inner_text() == f"Right. {options[1].feedback}"
    assert answers.is_visible()
    assert opened.locator("#quiz-2").get_by_role("status").inner_text() == ""


@pytest.mark.browser
def test_formulas_in_the_feedback_stay_typeset(opened: Any) -> None:
    opened.wait_for_selector("#quiz-2 mjx-container")
    box = opened.locator("#quiz-2")
    options = read_quiz(ROOT / "chapters" / "maml" / "quiz.yml")[1].options
    right = [option.right for option in options].index(True)
    assert "$" in options[right].feedback
    box.get_by_role("radio").nth(right).check()
    box.get_by_role("button", name="Check").click()
    assert box.locator(".quiz-verdict mjx-container").count() > 0


@pytest.mark.browser
def test_without_script_the_answers_stand_in_drop_downs(browser: Any, book_html: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{book_html / PAGE}")
    box = page.locator("#quiz-1")
    assert box.locator("legend").is_visible()
    assert box.locator(".quiz-option").first.is_visible()
    assert box.get_by_role("radio").count() == 0, "there is nothing to choose"
    assert not box.locator(".quiz-feedback").first.is_visible()
    box.locator("summary").click()
    assert box.locator(".quiz-feedback").first.is_visible()
    context.close()
