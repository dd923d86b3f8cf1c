"""The labs: students get no solution, solutions pass their checks, nbgrader can read the cells."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import labs
import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from typer.testing import CliRunner

import fewshot_course
from fewshot_course import cli

ROOT = Path(__file__).parents[2]

LABS = {lab.name: lab for lab in labs.find_labs(ROOT)}
NOTEBOOKS = [(name, framework) for name, lab in LABS.items() for framework in lab.frameworks]

EXERCISE = '''r"""Double it

Return $2x$.

Hint: Add it to itself.

Check: demo.double
"""


def double(x):
    """Return 2 x."""
    # --- your code: twice as much
    twice_as_much = x + x
    return twice_as_much
    # --- end
'''
PAGE = """\
# Doubling

**You will learn**

- what {cite:p}`someone2000` twice is;
- how much
  that is.

**You need** numbers; see [](../other/index.md) and [counting](../other/index.md).
Reading takes a minute.

```{exercise-file} double
```
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small course with one topic and one exercise."""
    texts = {
        "_config.yml": "repository:\n  url: https://git.example.org/ada/fewshot-course\n",
        "pyproject.toml": '[project]\nname = "fewshot-course"\nversion = "1.2.3"\n',
        "chapters/demo/index.md": PAGE,
        "chapters/demo/exercises/double.py": EXERCISE,
        "chapters/other/index.md": "# Another page\n",
    }
    for name, text in texts.items():
        path = tmp_path / "clone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "clone"


def code(notebook: nbformat.NotebookNode, name: str) -> str:
    (cell,) = [cell for cell in notebook.cells if cell["id"] == name]
    return cell.source


def make(name: str, framework: str, *, solved: bool) -> nbformat.NotebookNode:
    return labs.lab_notebook(LABS[name], framework, solved=solved)


# --- every lab of the course ----------------------------------------------------------------------


def test_every_topic_of_the_book_with_exercises_is_a_lab() -> None:
    book = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    folders = {
        path.parents[1].relative_to(ROOT / "chapters")
        for path in ROOT.glob("chapters/**/exercises/*.py")
    }
    names = {"-".join(f.parts) for f in folders if f"file: chapters/{f.as_posix()}/index\n" in book}
    assert names
    assert names <= set(LABS)


@pytest.mark.parametrize(("name", "framework"), NOTEBOOKS)
def test_students_get_no_solution(name: str, framework: str) -> None:
    notebook = make(name, framework, solved=False)
    assert labs.leaks(LABS[name], framework, notebook) == []
    # The same search finds every line where it does stand.
    solved = make(name, framework, solved=True)
    found = labs.leaks(LABS[name], framework, solved)
    for stem in LABS[name].exercises:
        assert any(f"{stem}'s solution" in fault for fault in found)


@pytest.mark.parametrize(("name", "framework"), NOTEBOOKS)
def test_solutions_pass_their_checks(name: str, framework: str, capsys) -> None:
    labs.run_cells(make(name, framework, solved=True))
    assert capsys.readouterr().out.count(": passed, all ") == len(LABS[name].exercises)


@pytest.mark.parametrize(("name", "framework"), NOTEBOOKS)
def test_a_notebook_as_it_is_handed_out_fails_at_its_first_check(
    name: str, framework: str, capsys
) -> None:
    with pytest.raises(AssertionError, match="Case "):
        labs.run_cells(make(name, framework, solved=False))
    first = next(iter(LABS[name].exercises.values()))
    assert capsys.readouterr().out.startswith(f"{first.check}: not yet")


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_solution_runs_in_a_kernel(framework: str, tmp_path: Path) -> None:
    notebook = make("kl_adaptation", framework, solved=True)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    checks = [cell for cell in notebook.cells if cell["id"].startswith("check-")]
    assert len(checks) == len(LABS["kl_adaptation"].exercises)
    for cell in checks:
        assert "passed, all" in cell.outputs[0].text


@pytest.mark.parametrize("solved", [False, True])
@pytest.mark.parametrize(("name", "framework"), NOTEBOOKS)
def test_cells_carry_what_nbgrader_needs(name: str, framework: str, solved: bool) -> None:
    """The rules of nbgrader's metadata, version 3 (nbgrader/nbgraderformat/v3)."""
    notebook = make(name, framework, solved=solved)
    nbformat.validate(notebook)
    seen = []
    for cell in notebook.cells:
        grade = cell.metadata["nbgrader"]
        assert set(grade) <= {
            *("schema_version", "grade", "locked", "solution", "task", "grade_id"),
            "points",
        }
        assert grade["schema_version"] == 3
        assert all(isinstance(grade[key], bool) for key in ("grade", "locked", "solution"))
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", grade["grade_id"])
        assert ("points" in grade) == grade["grade"]
        assert not (grade["grade"] and cell.cell_type == "markdown")
        assert not (grade["solution"] and cell.cell_type == "markdown")
        seen.append(grade["grade_id"])
    assert len(seen) == len(set(seen))
    by_kind = {
        kind: [c for c in notebook.cells if c["id"].startswith(kind)]
        for kind in ("answer", "check")
    }
    assert len(by_kind["answer"]) == len(by_kind["check"]) == len(LABS[name].exercises)
    assert all(cell.metadata["nbgrader"]["solution"] for cell in by_kind["answer"])
    assert not any(cell.metadata["nbgrader"]["locked"] for cell in by_kind["answer"])
    total = sum(cell.metadata["nbgrader"]["points"] for cell in by_kind["check"])
    assert f"**Points**: {total}." in code(notebook, "about")


@pytest.mark.parametrize(("name", "framework"), NOTEBOOKS)
def test_the_first_cell_says_what_a_student_must_know(name: str, framework: str) -> None:
    about = code(make(name, framework, solved=False), "about")
    for part in ("**Goals**\n\n- ", "**You need** ", "**Computing time**", "**Memory**"):
        assert part in about
    assert re.search(r"CPU (\d+\.\d minutes|not measured)", about)
    assert re.search(r"GPU (\d+\.\d minutes|not measured)", about)
    # Nothing of the book's own markup is left over.
    assert not re.search(r"\{\w+[:\w]*\}`|\]\((?!https?:)", about)
    text = "".join(c.source for c in make(name, framework, solved=False).cells)
    assert "{cite" not in text


@pytest.mark.parametrize(("name", "framework"), NOTEBOOKS)
def test_locked_cells_are_the_same_for_students(name: str, framework: str) -> None:
    """Nbgrader takes locked cells from the source when it grades."""
    given, source = (make(name, framework, solved=solved).cells for solved in (False, True))
    assert [cell["id"] for cell in given] == [cell["id"] for cell in source]
    for ours, theirs in zip(source, given, strict=True):
        assert ours.metadata == theirs.metadata
        if ours.metadata["nbgrader"]["locked"]:
            assert ours.source == theirs.source


def test_in_nbgraders_marks_stands_what_students_do_not_see() -> None:
    exercise = LABS["maml"].exercises["meta_gradient"]
    source = exercise.nbgrader_source("torch")
    assert source.count("### BEGIN SOLUTION") == source.count("### END SOLUTION") >= 1
    inside = re.findall(r"### BEGIN SOLUTION\n(.*?)\n *### END SOLUTION", source, re.DOTALL)
    assert "\n".join(inside).splitlines() == exercise.gaps("torch")


def test_measurements_belong_to_labs_that_are_there() -> None:
    rows = yaml.safe_load((ROOT / labs.MEASURED).read_text(encoding="utf-8"))
    for row in rows:
        assert (row["lab"], row["framework"]) in NOTEBOOKS
        assert row["device"] in ("cpu", "gpu")
        assert 0 < row["seconds"] < 600
        assert 20 < row["peak_mb"] < 16_000


# --- planted faults -------------------------------------------------------------------------------


def test_a_small_course_gives_both_notebooks(clone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = labs.build(clone, out)
    assert {str(path.relative_to(out)) for path in written} == {
        "README.md",
        "release/demo-numpy/demo-numpy.ipynb",
        "source/demo-numpy/demo-numpy.ipynb",
    }
    student = nbformat.read(out / "release/demo-numpy/demo-numpy.ipynb", as_version=4)
    assert "twice_as_much" not in nbformat.writes(student)
    about = code(student, "about")
    assert "- what twice is\n- how much\n  that is\n" in about
    assert '**You need** numbers; see the page "Another page" and counting.' in about
    assert "CPU not measured; GPU not measured." in about
    assert code(student, "install") == labs.notebooks.install_source(clone)
    again = {path: path.read_bytes() for path in written}
    assert {path: path.read_bytes() for path in labs.build(clone, out)} == again


def test_a_notebook_that_was_edited_is_kept(clone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    labs.build(clone, out)
    edited = out / "release/demo-numpy/demo-numpy.ipynb"
    edited.write_text("an instructor's own words", encoding="utf-8")
    (out / "README.md").write_text("notes", encoding="utf-8")
    with pytest.raises(labs.LabError, match=r"README\.md and 1 more would be replaced"):
        labs.build(clone, out)
    assert edited.read_text(encoding="utf-8") == "an instructor's own words"
    labs.build(clone, out, force=True)
    assert "cells" in edited.read_text(encoding="utf-8")


LEAKS = {
    "in the hint": ("Hint: Add it to itself.", "Hint: Write `twice_as_much = x + x`."),
    "in the task, other spaces": ("Return $2x$.", "Return $2x$: twice_as_much=x+x."),
    "outside the gap": (
        "    # --- your code",
        "    twice_as_much = x + x\n    # --- your code",
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_refused_and_nothing_is_written(leak: str, clone: Path, tmp_path: Path) -> None:
    old, new = LEAKS[leak]
    (clone / "chapters/demo/exercises/double.py").write_text(EXERCISE.replace(old, new))
    with pytest.raises(labs.LabError, match=r"demo \(numpy\): shows a line of double's solution"):
        labs.build(clone, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_leak_in_another_exercise_is_found(clone: Path, tmp_path: Path) -> None:
    other = EXERCISE.replace("def double", "def quadruple").replace("demo.double", "demo.quadruple")
    other = other.replace("    # --- your code", "    twice_as_much = x + x\n    # --- your code")
    other = other.replace("    # --- end", "    # --- end").replace(
        "    twice_as_much = x + x\n    return", "    return"
    )
    (clone / "chapters/demo/exercises/quadruple.py").write_text(other)
    page = clone / "chapters/demo/index.md"
    page.write_text(PAGE + "\n```{exercise-file} quadruple\n```\n")
    with pytest.raises(labs.LabError, match="double's solution"):
        labs.build(clone, tmp_path / "out")


def test_outputs_are_a_leak() -> None:
    notebook = make("maml", "torch", solved=False)
    notebook.cells[2]["outputs"] = [nbformat.v4.new_output("stream", text="42")]
    assert labs.leaks(LABS["maml"], "torch", notebook) == ["maml (torch): a cell has an output"]


def test_a_wrong_solution_fails_its_check() -> None:
    notebook = make("maml", "torch", solved=True)
    for cell in notebook.cells:
        cell.source = re.sub(
            r"(### BEGIN SOLUTION\n\s*)(\w+ = |return )", r"\1\g<2>2 * ", cell.source
        )
    with pytest.raises(AssertionError):
        labs.run_cells(notebook)


PAGE_FAULTS = {
    "no goals": ("**You will learn**", "**Goals**", "found no goals"),
    "no prerequisites": ("**You need**", "Needed:", "found no prerequisites"),
    "no title": ("# Doubling", "Doubling", "found no title"),
    "an exercise left out": ("{exercise-file} double", "{note} double", "exercises/ has"),
    "a dead link": ("[](../other/index.md)", "[](../nowhere.md)", "leads nowhere"),
}


@pytest.mark.parametrize("fault", PAGE_FAULTS)
def test_a_page_that_lacks_something_is_named(fault: str, clone: Path) -> None:
    old, new, message = PAGE_FAULTS[fault]
    (clone / "chapters/demo/index.md").write_text(PAGE.replace(old, new))
    with pytest.raises(labs.LabError, match=message) as error:
        labs.find_labs(clone)
    assert "chapters/demo/index.md" in str(error.value)


def test_a_broken_exercise_is_named(clone: Path) -> None:
    (clone / "chapters/demo/exercises/double.py").write_text(EXERCISE.replace("# --- end", ""))
    with pytest.raises(labs.LabError, match=r"chapters/demo: double\.py .*without its end"):
        labs.find_labs(clone)


def test_measured_numbers_are_shown(clone: Path) -> None:
    row = {"lab": "demo", "framework": "numpy", "device": "cpu", "seconds": 90.0}
    row |= {"peak_mb": 1234, "cores": 2, "date": "2030-01-02"}
    (clone / "book").mkdir()
    (clone / "book/labs.yml").write_text(yaml.safe_dump([row]))
    (lab,) = labs.find_labs(clone)
    about = code(labs.lab_notebook(lab, "numpy", solved=False, root=clone), "about")
    assert "CPU 1.5 minutes (measured 2030-01-02, 2 cores); GPU not measured." in about
    assert "CPU 1.2 GB; GPU not measured." in about


# --- the command ----------------------------------------------------------------------------------


def fewshot(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_the_command_writes_the_labs_of_a_topic(tmp_path: Path) -> None:
    before = list(sys.path)
    done = fewshot(
        "labs", "build", "--out", tmp_path, "--topic", "pseudo_labels", "--topic", "maml"
    )
    assert done.exit_code == 0, done.output
    assert sys.path == before
    assert "8 notebooks in" in done.stdout
    names = {path.name for path in (tmp_path / "release").iterdir()}
    labs_there = ("maml", "pseudo_labels-gan", "pseudo_labels-gmm", "pseudo_labels-vae")
    assert names == {f"{lab}-{one}" for lab in labs_there for one in ("torch", "tensorflow")}


def test_an_unknown_topic_is_one_line(tmp_path: Path) -> None:
    done = fewshot("labs", "build", "--out", tmp_path / "out", "--topic", "astrology")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: topic='astrology' is not known; expected one of aug")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = fewshot("labs", "build", "--out", tmp_path / "file", "--topic", "maml")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: cannot write to --out")


def test_without_a_clone_the_command_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    installed = tmp_path / "site-packages" / "fewshot_course"
    installed.mkdir(parents=True)
    monkeypatch.setattr(fewshot_course, "__file__", str(installed / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    done = fewshot("labs", "build")
    assert done.exit_code == 2
    assert "clone the repository" in done.stderr
    # In a clone it finds the clone, whatever is installed.
    (tmp_path / "book" / "_tools").mkdir(parents=True)
    shutil.copy(ROOT / "book/_tools/labs.py", tmp_path / "book/_tools/labs.py")
    (tmp_path / "chapters").mkdir()
    monkeypatch.chdir(tmp_path / "chapters")
    assert cli._checkout() == tmp_path
