"""``{quiz}``: the questions of ``quiz.yml`` beside the page, to be answered in the page itself.

``chapters/<topic>/quiz.yml`` is a list of questions::

    - question: Which of these is a distance?
      options:
        - text: The KL divergence
          feedback: It is not symmetric.
        - text: The length of a difference
          right: true
          feedback: It is symmetric and obeys the triangle inequality.

Every option says why it is right or wrong, and exactly one of a question is ``right``.  All texts
are MyST Markdown of one paragraph, formulas included.

The page holds everything: without script each question has a drop-down with all answers.
``_static/quiz.js`` adds the button that checks a choice, ``_static/quiz.css`` the looks.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOG = logging.getLogger(__name__)
FEWEST_OPTIONS = 3
# Options are called by letters, in a classroom and by screen readers: one that is only a formula
# would have no name.
LETTERS = "ABCDEFGH"


class QuizError(Exception):
    """A quiz file that cannot be used; the message names the file and the question."""


@dataclass(frozen=True)
class Option:
    """One option: what it says, why it is right or wrong, and whether it is right."""

    text: str
    feedback: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """One question with its options; exactly one is right."""

    text: str
    options: tuple[Option, ...]


def read_quiz(path: Path) -> list[Question]:
    """Read a quiz file.

    Raises:
        QuizError: There is no such file, it is no YAML, or a question lacks something, knows no
            right answer or several, or gives no feedback for an option.
    """
    if not path.is_file():
        raise QuizError(f"there is no {path.parent.name}/{path.name}")
    name = f"{path.parent.name}/{path.name}"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise QuizError(f"{name} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list) or not entries:
        raise QuizError(f"{name} must be a list of questions")
    questions = [_question(f"{name}, question {n}", entry) for n, entry in enumerate(entries, 1)]
    texts = [question.text for question in questions]
    for number, text in enumerate(texts, 1):
        if text in texts[: number - 1]:
            raise QuizError(f"{name}, question {number}: asked before")
    return questions


def _question(where: str, entry: Any) -> Question:
    if not isinstance(entry, dict) or set(entry) != {"question", "options"}:
        raise QuizError(f"{where}: expected 'question' and 'options', and nothing else")
    text = _text(where, "question", entry["question"])
    given = entry["options"]
    if not isinstance(given, list) or not FEWEST_OPTIONS <= len(given) <= len(LETTERS):
        raise QuizError(f"{where}: expected a list of {FEWEST_OPTIONS} to {len(LETTERS)} options")
    options = tuple(_option(f"{where}, option {n}", one) for n, one in enumerate(given, 1))
    n_right = sum(option.right for option in options)
    if n_right != 1:
        raise QuizError(f"{where}: {n_right} options are right, expected exactly one")
    if len({option.text for option in options}) < len(options):
        raise QuizError(f"{where}: an option stands twice")
    return Question(text, options)


def _option(where: str, entry: Any) -> Option:
    if not isinstance(entry, dict) or not set(entry) <= {"text", "feedback", "right"}:
        raise QuizError(f"{where}: expected 'text', 'feedback' and perhaps 'right: true'")
    right = entry.get("right", False)
    if not isinstance(right, bool):
        raise QuizError(f"{where}: 'right' must be true or false, got {right!r}")
    text = _text(where, "text", entry.get("text"))
    return Option(text, _text(where, "feedback", entry.get("feedback")), right)


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise QuizError(f"{where}: {key!r} must be a text, got {value!r}")
    if "\n\n" in value.strip():
        raise QuizError(f"{where}: {key!r} must be one paragraph")
    return " ".join(value.split())


# --- the page -----------------------------------------------------------------------------------


class QuizDirective(SphinxDirective):
    """Show the quiz of the page's folder."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.doc2path(self.env.docname)).parent / "quiz.yml"
        self.env.note_dependency(str(path))
        try:
            questions = read_quiz(path)
        except QuizError as error:
            LOG.warning("quiz: %s", error, location=self.get_location())
            return []
        shown: list[nodes.Node] = [_raw('<div class="quiz">')]
        for number, question in enumerate(questions, 1):
            shown += self.question(number, question, path)
        return [*shown, _raw("</div>")]

    def question(self, number: int, question: Question, path: Path) -> list[nodes.Node]:
        """Return a fieldset with radio buttons, a place for the verdict, and all answers."""
        name = f"quiz-{number}"
        shown = [
            _raw(f'<fieldset class="quiz-question" id="{name}"><legend>{number}. '),
            *self.inline(question.text, path),
            _raw("</legend>"),
        ]
        lettered = list(zip(LETTERS, question.options, strict=False))
        for position, (letter, option) in enumerate(lettered):
            right = ' data-right="true"' if option.right else ""
            start = '<label class="quiz-option"><input type="radio"'
            shown += [
                _raw(f'{start} name="{name}" value="{position}"{right}> <span>{letter}. '),
                *self.inline(option.text, path),
                _raw("</span></label>"),
            ]
        shown.append(_raw('<div class="quiz-verdict" role="status"></div>'))
        summary = f"Answers to question {number}"
        shown.append(
            _raw(f'<details class="quiz-answers"><summary>{html.escape(summary)}</summary><ul>')
        )
        for letter, option in lettered:
            verdict = "right" if option.right else "wrong"
            shown += [
                _raw(f"<li><strong>{letter} is {verdict}:</strong> "),
                *self.inline(option.text, path),
                _raw('<br><span class="quiz-feedback">'),
                *self.inline(option.feedback, path),
                _raw("</span></li>"),
            ]
        return [*shown, _raw("</ul></details></fieldset>")]

    def inline(self, text: str, path: Path) -> list[nodes.Node]:
        """Return Markdown of one paragraph as what stands within it."""
        box = nodes.container()
        self.state.nested_parse(StringList([text], source=str(path)), 0, box)
        if len(box) != 1 or not isinstance(box[0], nodes.paragraph):
            LOG.warning("quiz: %r is no plain paragraph", text, location=self.get_location())
            return []
        return list(box[0].children)


def _raw(text: str) -> nodes.Node:
    return nodes.raw("", text, format="html")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("quiz", QuizDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
