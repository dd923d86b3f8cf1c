'''Exercises, written once as solutions with marked gaps.

``chapters/<topic>/exercises/<name>.py`` is plain Python that runs:

    r"""Title of the exercise

    What to do, in MyST Markdown; several paragraphs are fine.

    Hint: What to think of when you are stuck.

    Check: kl.gaussian_kl
    """

    # %% torch
    import torch

    def gaussian_kl(mean_p, ...):
        """What it returns, with shapes."""
        # --- your code: one line on what to fill in
        return ...
        # --- end

    # %% tensorflow
    ...the same function...

A file without ``# %%`` lines has one solution for every framework.  Page and lab show the *stub*,
in which each gap is a comment and ``...``; only the solution drop-down shows what stood there.
This module knows nothing of Sphinx, so that the tests can use it alone.
'''

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FRAMEWORKS = ("torch", "tensorflow")
ANY = "any"
"""The key of a solution that serves every framework."""

_SECTION = re.compile(r"^# %%\s*(.*)$")
_START = re.compile(r"^(\s*)# --- your code(?:: (.*\S))?\s*$")
_END = re.compile(r"^\s*# --- end\s*$")
_ALMOST = re.compile(r"#\s*-+\s*(your code|end)\b", re.IGNORECASE)


class ExerciseError(Exception):
    """An exercise file that cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class ExerciseFile:
    """One exercise.

    Attributes:
        title: one line, no full stop.
        task: what to do, Markdown.
        hint: Markdown.
        check: the name for ``fewshot_course.exercises.check``, e.g. ``kl.gaussian_kl``.
        code: the source with its gap markers, by framework, or under :data:`ANY` alone.
    """

    title: str
    task: str
    hint: str
    check: str
    code: dict[str, str]

    @property
    def function(self) -> str:
        """Name of the function that the student writes."""
        return self.check.rpartition(".")[2]

    def stub(self, framework: str) -> str:
        """Return the source with every gap emptied."""
        return _fill(self.code[framework], solved=False)

    def solution(self, framework: str) -> str:
        """Return the source as it is, without the gap markers."""
        return _fill(self.code[framework], solved=True)

    def gaps(self, framework: str) -> list[str]:
        """Return the lines that stand in gaps: what no student may see."""
        return [line for kind, line in _lines(self.code[framework]) if kind == "gap"]

    def nbgrader_source(self, framework: str) -> str:
        """Return the solution with nbgrader's own marks around each gap."""
        marks = {"start": "### BEGIN SOLUTION", "end": "### END SOLUTION"}
        out = []
        for kind, line in _lines(self.code[framework]):
            indent = line[: len(line) - len(line.lstrip())]
            out.append(indent + marks[kind] if kind in marks else line)
        return "\n".join(out).rstrip()


def read_exercise(path: Path) -> ExerciseFile:
    """Read one exercise file.

    Raises:
        ExerciseError: if there is no such file, or it lacks a part, has a section or gap that is
            not closed or not known, or sections for one framework only.
    """
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.py"))) or "none"
        raise ExerciseError(f"there is no exercise {path.name} (exercises there: {known})")
    source = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ExerciseError(f"{path.name}, line {error.lineno}: {error.msg}") from None
    docstring = ast.get_docstring(tree)
    if docstring is None:
        raise ExerciseError(f"{path.name} has no docstring with title, task, hint and check")
    after_docstring = tree.body[0].end_lineno or 0
    title, task, hint, check = _parts(path.name, docstring)
    code = _sections(path.name, source.splitlines(), after_docstring)
    exercise = ExerciseFile(title, task, hint, check, code)
    for framework, text in code.items():
        _check_code(f"{path.name} ({framework})", text, exercise.function)
    return exercise


def _parts(name: str, docstring: str) -> tuple[str, str, str, str]:
    title, _, rest = docstring.partition("\n")
    found = re.fullmatch(
        r"\s*(?P<task>.+?)\n\nHint: (?P<hint>.+?)\n\nCheck: (?P<check>\w+\.\w+)\s*", rest, re.DOTALL
    )
    if found is None or not title.strip():
        raise ExerciseError(
            f"{name}: the docstring must be a title, the task, a paragraph 'Hint: ...' and a "
            f"line 'Check: topic.function', in this order, with blank lines between them"
        )
    return title.strip(), found["task"].strip(), found["hint"].strip(), found["check"]


def _sections(name: str, lines: list[str], start: int) -> dict[str, str]:
    sections: dict[str, list[str]] = {ANY: []}
    current = ANY
    for number, line in enumerate(lines[start:], start + 1):
        marker = _SECTION.match(line)
        if marker is None:
            sections[current].append(line)
            continue
        current = marker[1].strip()
        if current not in FRAMEWORKS or current in sections:
            raise ExerciseError(
                f"{name}, line {number}: section {current!r}; expected each of "
                f"{', '.join(FRAMEWORKS)} once"
            )
        sections[current] = []
    before = "\n".join(sections[ANY]).strip()
    if len(sections) == 1:
        return {ANY: before}
    # Lines for the linter may stand above the sections; code may not.
    if any(line and not line.startswith("#") for line in sections.pop(ANY)):
        raise ExerciseError(f"{name}: there is code above the first '# %%' line")
    missing = [framework for framework in FRAMEWORKS if framework not in sections]
    if missing:
        raise ExerciseError(f"{name} has no section '# %% {missing[0]}'")
    return {framework: "\n".join(sections[framework]).strip() for framework in FRAMEWORKS}


def _check_code(name: str, code: str, function: str) -> None:
    defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    if function not in defined:
        raise ExerciseError(f"{name} does not define {function}, the function of its check")
    is_open = False
    gaps = 0
    for line in code.splitlines():
        start, end = _START.match(line), _END.match(line)
        if (start and is_open) or (end and not is_open):
            raise ExerciseError(f"{name}: {line.strip()!r} inside or outside of a gap")
        if not start and not end and _ALMOST.search(line):
            raise ExerciseError(f"{name}: {line.strip()!r} is nearly a gap marker; see '# --- end'")
        is_open = bool(start) or (is_open and not end)
        gaps += bool(start)
    if is_open or not gaps:
        raise ExerciseError(f"{name} has {'a gap without its end' if gaps else 'no gap'}")
    try:
        ast.parse(_fill(code, solved=False))
    except SyntaxError as error:
        raise ExerciseError(f"{name}: the stub is no Python ({error.msg}: {error.text})") from None


def _lines(code: str) -> Iterator[tuple[str, str]]:
    """Yield each line with what it is: ``start`` and ``end`` of a gap, ``gap``, or ``given``."""
    in_gap = False
    for line in code.splitlines():
        if _START.match(line):
            in_gap = True
            yield "start", line
        elif _END.match(line):
            in_gap = False
            yield "end", line
        else:
            yield "gap" if in_gap else "given", line


def _fill(code: str, *, solved: bool) -> str:
    """Return the code with its gaps kept (solved) or emptied, without the markers."""
    out: list[str] = []
    for kind, line in _lines(code):
        if kind == "given" or (kind == "gap" and solved):
            out.append(line)
        elif kind == "start" and not solved and (start := _START.match(line)):
            what = f": {start[2]}" if start[2] else ""
            out += [f"{start[1]}# Your code{what}", f"{start[1]}..."]
    return "\n".join(out).rstrip()
