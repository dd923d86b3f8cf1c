"""The spell check of `make lint` reads the project's words and finds a slip."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SLIP = "rec" + "ieve"  # in two parts, so that the check of this file finds nothing


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the check as `make lint` does, with the project's settings."""
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    command = [sys.executable, "-m", "codespell_lib", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["book/page.md", "module.py", "chapters/topic/quiz.yml", "a.js"])
def test_a_slip_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("You receive few examples.\n", encoding="utf-8")
    assert check(tmp_path).returncode == 0
    path.write_text(f"You {SLIP} few examples.\n", encoding="utf-8")
    done = check(tmp_path)
    assert done.returncode != 0
    assert f"{path.name}:1: {SLIP} ==> receive" in done.stdout


def test_the_texts_of_the_course_keep_their_slips(tmp_path: Path) -> None:
    path = tmp_path / "fewshot_course" / "data" / "texts" / "tickets.csv"
    path.parent.mkdir(parents=True)
    path.write_text(f"I did not {SLIP} it\n", encoding="utf-8")
    assert check(tmp_path).returncode == 0


def test_make_lint_runs_it() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lint = makefile.partition("\nlint:")[2].partition("\n\n")[0]
    assert "$(PY) -m codespell_lib .\n" in lint + "\n"
