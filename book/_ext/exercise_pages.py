"""``{exercise-file} name``: an exercise of the topic page's folder, made from its solution.

The directive reads ``exercises/<name>.py`` beside the page (see :mod:`exercise_files`) and shows
the task, the stub with its gaps, how to check the answer, and drop-downs with the hint and the
solution.  Frameworks stand in synced tabs, as everywhere on a topic page.  Refer to it with
``{ref}`exercise-<name>```.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from exercise_files import ANY, ExerciseError, ExerciseFile, read_exercise
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOG = logging.getLogger(__name__)
NAMES = {"torch": "PyTorch", "tensorflow": "TensorFlow"}


class ExerciseFileDirective(SphinxDirective):
    """Show one exercise."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        page = Path(self.env.doc2path(self.env.docname))
        path = page.parent / "exercises" / f"{name}.py"
        self.env.note_dependency(str(path))
        try:
            exercise = read_exercise(path)
        except ExerciseError as error:
            LOG.warning("exercise-file: %s", error, location=self.get_location())
            return []
        box = nodes.container(classes=["exercise-file"])
        label = f"exercise-{name}"
        lines = markdown(exercise, label).splitlines()
        self.state.nested_parse(StringList(lines, source=str(path)), 0, box)
        for section in box.findall(nodes.section):
            # sphinx-exercise gives every exercise's content the same id.
            section["ids"] = [
                f"{label}-content" if i == "exercise-content" else i for i in section["ids"]
            ]
        return [box]


def markdown(exercise: ExerciseFile, label: str) -> str:
    """Return the exercise as MyST Markdown."""
    stub, solution = (
        _tabs({key: f"{show(key)}{after}" for key in exercise.code})
        for show, after in (
            (exercise.stub, "\n\n\n" + _check_lines(exercise)),
            (exercise.solution, ""),
        )
    )
    return "\n".join(
        [
            f"::::::::{{exercise}} {exercise.title}",
            f":label: {label}",
            "",
            exercise.task,
            "",
            stub,
            "",
            ":::::::{dropdown} Hint",
            "",
            exercise.hint,
            ":::::::",
            "",
            ":::::::{dropdown} Solution",
            "",
            solution,
            ":::::::",
            "::::::::",
        ]
    )


def _check_lines(exercise: ExerciseFile) -> str:
    return (
        "from fewshot_course.exercises import check\n\n"
        f'check("{exercise.check}", {exercise.function})'
    )


def _tabs(code: dict[str, str]) -> str:
    """Return code blocks in synced tabs, or one block where the code serves every framework."""
    blocks = {key: f"`````{{code-block}} python\n{text}\n`````" for key, text in code.items()}
    if ANY in blocks:
        return blocks[ANY]
    items = [
        f":::::{{tab-item}} {NAMES[key]}\n:sync: {key}\n\n{block}\n:::::"
        for key, block in blocks.items()
    ]
    return "\n".join(["::::::{tab-set}", ":sync-group: framework", "", *items, "::::::"])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("exercise-file", ExerciseFileDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
