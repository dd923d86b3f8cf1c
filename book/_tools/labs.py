"""Make the labs: student notebooks with gaps, and solution notebooks, from the exercise files.

    python book/_tools/labs.py build [--out FOLDER] [--topic NAME ...]
    python book/_tools/labs.py measure [LAB ...]     time and memory of solution notebooks

``fewshot labs build`` is the same as the first line.  A lab is a folder under ``chapters/`` with
an ``exercises/`` folder; its title, goals, prerequisites and the order of the exercises come from
the topic page ``index.md``, so nothing is told twice.  Time and memory come from
``book/labs.yml``, which ``measure`` writes; what was not measured is called so.

The folders are nbgrader's: ``release/`` has what students get, ``source/`` the solutions, with
nbgrader's marks around each gap.  A notebook for students that holds a line of a solution is
refused before anything is written.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import notebooks
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from exercise_files import (  # noqa: E402
    ANY,
    FRAMEWORKS,
    ExerciseError,
    ExerciseFile,
    read_exercise,
)

NAMES = {"torch": "PyTorch", "tensorflow": "TensorFlow", "numpy": "NumPy"}
POINTS = 2
"""Points for an exercise: all cases of its check right, or none."""
MINUTES_AN_EXERCISE = 15
"""What a student should plan for thinking and writing; an estimate, and said to be one."""
MEASURED = "book/labs.yml"
SHORTEST_LEAK = 12
"""Fewer characters than these may stand anywhere by chance (``n = len(x)``)."""


class LabError(ValueError):
    """A lab that cannot be made; the message names the file."""


@dataclass(frozen=True)
class Lab:
    """What a topic page and its exercises give.

    Attributes:
        name: the folder under ``chapters/``, ``-`` for ``/``: ``pseudo_labels-gmm``.
        title: the page's title.
        goals: what the page teaches, one sentence or part of one each.
        needs: what a reader must know.
        exercises: file name without ending, and exercise, in the order of the page.
    """

    name: str
    title: str
    goals: tuple[str, ...]
    needs: str
    exercises: dict[str, ExerciseFile]

    @property
    def frameworks(self) -> tuple[str, ...]:
        """Both frameworks; one NumPy notebook where no exercise has a framework."""
        own = any(ANY not in exercise.code for exercise in self.exercises.values())
        return FRAMEWORKS if own else ("numpy",)


# --- reading ------------------------------------------------------------------------------------


def find_labs(root: Path) -> list[Lab]:
    """Return the labs of all topics that have exercises."""
    folders = sorted(path.parent for path in (root / "chapters").rglob("exercises"))
    return [read_lab(folder, root) for folder in folders if (folder / "index.md").is_file()]


def read_lab(folder: Path, root: Path) -> Lab:
    """Read a topic page and the exercises that it shows.

    Raises:
        LabError: The page has no title, goals, prerequisites or exercises where they are looked
            for, or leaves out an exercise file.
    """
    page = folder / "index.md"
    text, name = page.read_text(encoding="utf-8"), page.relative_to(root)
    goals = _part(name, text, r"^\*\*You will learn\*\*\n\n((?:- .*\n(?:  .*\n)*)+)", "goals")
    needs = _part(name, text, r"^\*\*You need\*\* (.+?)(?:\n\n|\nReading takes)", "prerequisites")
    shown = re.findall(r"^```\{exercise-file\} (\w+)", text, re.MULTILINE)
    files = {path.stem: path for path in (folder / "exercises").glob("*.py")}
    if set(shown) != set(files):
        raise LabError(f"{name} shows the exercises {shown}, but exercises/ has {sorted(files)}")
    try:
        exercises = {stem: read_exercise(files[stem]) for stem in shown}
    except ExerciseError as error:
        raise LabError(f"{folder.relative_to(root)}: {error}") from None
    return Lab(
        "-".join(folder.relative_to(root / "chapters").parts),
        _part(name, text, r"^# (.+)$", "title"),
        tuple(plain(goal, page).rstrip(";.") for goal in re.split(r"^- ", goals, flags=re.M)[1:]),
        plain(needs, page),
        exercises,
    )


def _part(name: Path, text: str, pattern: str, what: str) -> str:
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL if "+?" in pattern else re.MULTILINE)
    if found is None:
        raise LabError(f"{name}: found no {what} ({pattern})")
    return found[1]


def plain(text: str, page: Path) -> str:
    """Return a page's Markdown as it can stand elsewhere: no links into the book, no citations."""

    def title(link: re.Match[str]) -> str:
        target = (page.parent / link[1]).with_suffix(".md")
        found = target.is_file() and re.search(
            r"^# (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE
        )
        if not found:
            raise LabError(f"{page}: {link[0]} leads nowhere")
        return f'the page "{found[1]}"'

    text = re.sub(r"\s*\{cite:p\}`[^`]*`", "", text)
    text = re.sub(r"\[\]\(([^)#]+)[^)]*\)", title, text)
    text = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)
    text = re.sub(r"\{[\w:]+\}(`[^`]*`)", r"\1", text)
    return text.strip()


def read_measurements(root: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return what was measured, by lab, framework and device."""
    path = root / MEASURED
    rows = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else []
    return {(row["lab"], row["framework"], row["device"]): row for row in rows or []}


# --- writing ------------------------------------------------------------------------------------


def lab_notebook(
    lab: Lab, framework: str, *, solved: bool, root: Path = ROOT
) -> nbformat.NotebookNode:
    """Return a lab's notebook, for students or solved."""
    cells = [
        _cell("markdown", "about", about(lab, framework, read_measurements(root))),
        _cell("code", "install", notebooks.install_source(root)),
        _cell("code", "tools", "from fewshot_course.exercises import check"),
    ]
    for number, (stem, exercise) in enumerate(lab.exercises.items(), 1):
        key = ANY if ANY in exercise.code else framework
        code = exercise.nbgrader_source(key) if solved else exercise.stub(key)
        cells += [
            _cell("markdown", f"task-{stem}", task(number, exercise)),
            _cell("code", f"answer-{stem}", code, solution=True),
            _cell("code", f"check-{stem}", check_cell(exercise), points=POINTS),
        ]
    cells.append(_cell("markdown", "end", END))
    notebook = new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["colab"] = {"provenance": []}
    nbformat.validate(notebook)
    return notebook


END = """\
## Before you hand in

Restart the kernel and run all cells once, from top to bottom.
A function that only works in the order in which you wrote the cells is not done."""


def _cell(
    kind: str, name: str, source: str, *, solution: bool = False, points: int | None = None
) -> nbformat.NotebookNode:
    """Return a cell with nbgrader's metadata; all but the answers are locked."""
    cell = (new_code_cell if kind == "code" else new_markdown_cell)(source)
    cell["id"] = name
    grade = {
        "schema_version": 3,
        "grade": points is not None,
        "solution": solution,
        "locked": not solution,
        "task": False,
        "grade_id": name,
    }
    if points is not None:
        grade["points"] = points
    cell.metadata["nbgrader"] = grade
    return cell


def about(lab: Lab, framework: str, measured: dict[Any, dict[str, Any]]) -> str:
    """Return the first cell: what the lab is about, what it needs and how it is graded.

    It is the same in both notebooks: nbgrader puts locked cells of the source over a student's.
    """
    n = len(lab.exercises)
    cpu = measured.get((lab.name, framework, "cpu"))
    gpu = measured.get((lab.name, framework, "gpu"))
    rows = [
        f"| {number} | {exercise.title} | {POINTS} |"
        for number, exercise in enumerate(lab.exercises.values(), 1)
    ]
    return "\n".join(
        [
            f"# Lab: {lab.title}, in {NAMES[framework]}",
            "",
            f"You write {n} functions, and each has a check that says what is wrong.",
            "",
            "**Goals**",
            "",
            *(f"- {goal}" for goal in lab.goals),
            "",
            f"**You need** {lab.needs}",
            "Read the topic page first.",
            "",
            f"**Your time**: plan {n * MINUTES_AN_EXERCISE} minutes, "
            f"{MINUTES_AN_EXERCISE} an exercise. This is an estimate; it was not measured.",
            "",
            f"**Computing time**, all cells, solved: CPU {minutes(cpu)}; GPU {minutes(gpu)}.",
            "",
            f"**Memory** at the peak: CPU {memory(cpu)}; GPU {memory(gpu)}.",
            "",
            f"**Points**: {n * POINTS}. An exercise counts if all cases of its check are right.",
            "",
            "| | exercise | points |",
            "|---|---|---|",
            *rows,
            "",
            "Run the cells in order. Where a line says *Your code*, put yours in place of `...`.",
            "You may add lines, but keep the function's name and arguments.",
        ]
    )


def minutes(row: dict[str, Any] | None) -> str:
    """Return a measured time for a reader, or say that there is none."""
    if row is None:
        return "not measured"
    shown = max(0.1, round(row["seconds"] / 60, 1))
    return f"{shown:.1f} minutes (measured {row['date']}, {row['cores']} cores)"


def memory(row: dict[str, Any] | None) -> str:
    """Return a measured peak of memory for a reader, or say that there is none."""
    return "not measured" if row is None else f"{row['peak_mb'] / 1000:.1f} GB"


def task(number: int, exercise: ExerciseFile) -> str:
    """Return the cell that tells an exercise; its hint is folded away."""
    hint = f"<details><summary>Hint</summary>\n\n{exercise.hint}\n\n</details>"
    text = f"## {number}. {exercise.title} ({POINTS} points)\n\n{exercise.task}\n\n{hint}"
    return re.sub(r"\s*\{cite:[pt]\}`[^`]*`", "", text)


def check_cell(exercise: ExerciseFile) -> str:
    """Return the graded cell: it prints what is wrong, and fails if something is."""
    return (
        f'outcome = check("{exercise.check}", {exercise.function})\n'
        "print(outcome)\n"
        "assert outcome.passed, outcome.message"
    )


README = """\
# Labs

`release/` is for students, `source/` has the solutions. Do not publish the second one.
They are ordinary notebooks, which also open in Colab (File, Upload notebook).

With nbgrader (tried with 0.9.6), make this folder the course folder, or copy `source/` into yours:

    nbgrader generate_assignment maml-torch     # registers it, and writes release/ itself
    nbgrader collect maml-torch                 # or put the notebooks into submitted/
    nbgrader autograde maml-torch
    nbgrader formgrader

Each framework is an assignment of its own. An exercise gives its points if the check cell after it
runs without error. The checks come from the package `fewshot_course`, which holds independent
reference solutions; a student who looks for them will find them, so let examinations ask for more
than this.

Made from the course's exercise files by `fewshot labs build`. Running it again overwrites these
files, and nothing else.
"""


# --- no solution in a student's notebook ----------------------------------------------------------


def leaks(lab: Lab, framework: str, notebook: nbformat.NotebookNode) -> list[str]:
    """Return a sentence for each solution line that a notebook holds; spaces do not matter.

    A whole line is looked for in the exercise's own code cell; one of some length anywhere, the
    hints and other exercises included.
    """
    everything = _squeeze("\n".join(cell.source for cell in notebook.cells))
    found = []
    for stem, exercise in lab.exercises.items():
        gap = exercise.gaps(ANY if ANY in exercise.code else framework)
        own = {
            _squeeze(line)
            for cell in notebook.cells
            if cell["id"] == f"answer-{stem}"
            for line in cell.source.splitlines()
        }
        for line in filter(None, map(_squeeze, gap)):
            if line in own or (len(line) >= SHORTEST_LEAK and line in everything):
                found.append(f"{lab.name} ({framework}): shows a line of {stem}'s solution: {line}")
    if any(cell.get("outputs") for cell in notebook.cells):
        found.append(f"{lab.name} ({framework}): a cell has an output")
    return found


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", "", text)


# --- commands -----------------------------------------------------------------------------------


def build(root: Path, out: Path, topics: Sequence[str] = (), *, force: bool = False) -> list[Path]:
    """Write the notebooks of the labs (all, or those of some topics) below ``out``.

    Args:
        root: the checkout.
        out: folder for ``release/``, ``source/`` and a README.
        topics: names of topics or labs: ``maml``, ``pseudo_labels``, ``pseudo_labels/gmm``.
        force: whether to replace files that hold something else than would be written, such as
            a notebook that an instructor has edited.

    Returns:
        The files written.

    Raises:
        LabError: A topic is not known, a student's notebook would show a solution, or a file
            there has been changed.  Then nothing is written.
    """
    texts = {out / "README.md": README}
    for lab in select(find_labs(root), topics):
        for framework in lab.frameworks:
            # For nbgrader a folder is an assignment, and a student hands in one framework.
            name = "/".join([f"{lab.name}-{framework}"] * 2) + ".ipynb"
            student = lab_notebook(lab, framework, solved=False, root=root)
            if found := leaks(lab, framework, student):
                raise LabError("; ".join(found))
            solution = lab_notebook(lab, framework, solved=True, root=root)
            texts[out / "release" / name] = nbformat.writes(student) + "\n"
            texts[out / "source" / name] = nbformat.writes(solution) + "\n"
    changed = [
        path
        for path, text in texts.items()
        if not force and path.exists() and path.read_text(encoding="utf-8") != text
    ]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise LabError(
            f"{changed[0]}{more} would be replaced, but was edited or made by another version: "
            f"choose another --out, or say --force"
        )
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")  # whole or not there, also after a kill
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)
    return list(texts)


def select(labs: list[Lab], topics: Sequence[str]) -> list[Lab]:
    """Return the labs that ``topics`` name, all without any."""
    chosen = []
    for topic in topics:
        name = topic.strip("/").replace("/", "-")
        matching = [lab for lab in labs if lab.name == name or lab.name.startswith(f"{name}-")]
        if not matching:
            known = ", ".join(lab.name for lab in labs)
            raise LabError(f"topic={topic!r} is not known; expected one of {known}")
        chosen += [lab for lab in matching if lab not in chosen]
    return chosen if topics else labs


def run_cells(notebook: nbformat.NotebookNode) -> None:
    """Run a notebook's code cells in this process, without a kernel."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell["id"], "exec"), scope)


def measure(root: Path, names: Sequence[str] = ()) -> None:
    """Run solution notebooks (all, or of some labs), each in a process; write time and memory."""
    labs = find_labs(root)
    there = {lab.name for lab in labs}
    kept = {key: row for key, row in read_measurements(root).items() if row["lab"] in there}
    for lab in select(labs, names):
        for framework in lab.frameworks:
            command = [sys.executable, str(Path(__file__)), "measure-one", lab.name, framework]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
            seconds, peak_mb = map(float, done.stdout.splitlines()[-1].split())
            kept[lab.name, framework, "cpu"] = {
                "lab": lab.name,
                "framework": framework,
                "device": "cpu",
                "seconds": round(seconds, 1),
                "peak_mb": round(peak_mb),
                "cores": len(os.sched_getaffinity(0)),
                "python": platform.python_version(),
                "date": datetime.date.today(),
            }
            print(lab.name, framework, f"{seconds:.1f} s, {peak_mb:.0f} MB", flush=True)
    head = "# Written by book/_tools/labs.py measure: do not edit.\n"
    rows = [kept[key] for key in sorted(kept)]
    (root / MEASURED).write_text(head + yaml.safe_dump(rows, sort_keys=False), encoding="utf-8")


def measure_one(root: Path, name: str, framework: str) -> None:
    """Run one solution notebook and print its seconds and its peak of memory in MB."""
    start = time.perf_counter()
    (lab,) = [lab for lab in find_labs(root) if lab.name == name]
    run_cells(lab_notebook(lab, framework, solved=True, root=root))
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes here
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(time.perf_counter() - start, peak)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Make the labs from the exercise files.")
    parser.add_argument("action", choices=["build", "measure", "measure-one"])
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("labs"))
    parser.add_argument("--topic", action="append", default=[])
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args(arguments)
    if options.action == "measure":
        measure(ROOT, options.names)
    elif options.action == "measure-one":
        measure_one(ROOT, *options.names)
    else:
        try:
            written = build(ROOT, options.out, options.topic, force=options.force)
        except LabError as error:
            print(error, file=sys.stderr)
            return 1
        except OSError as error:
            print(f"cannot write to --out {options.out}: {error.strerror}", file=sys.stderr)
            return 1
        n_students = sum("release" in path.parts for path in written)
        places = options.out / "release", options.out / "source"
        print(f"{n_students} notebooks in {places[0]}, their solutions in {places[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
