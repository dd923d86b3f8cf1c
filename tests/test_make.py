"""The Makefile's promises that can be tried without installing anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Called from make itself, that make's own options must not come in.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, check=False
    )


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile, a stand-in for Python, and what the rules depend on."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def fake_venv(project: Path) -> Path:
    """Give the project a .venv whose Python only writes down how it was called."""
    (project / ".venv" / "bin").mkdir(parents=True)
    calls = project / "calls"
    script(project / ".venv" / "bin" / "python", f'echo "$@" >> "{calls}"')
    return calls


def test_old_pythons_are_refused(project):
    pretend = "import sys; sys.version_info = (3, 10); exec(sys.argv[1])"
    old = script(project / "old", f"exec '{sys.executable}' -c '{pretend}' \"$2\"")
    done = make(project, "book", f"PYTHON={old}")
    assert done.returncode != 0
    assert f"The course needs Python 3.11 or newer; {old} is 3.10" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / ".venv").exists()


def test_a_missing_python_is_named(project):
    done = make(project, "book", "PYTHON=python-of-nobody")
    assert done.returncode != 0
    assert "python-of-nobody was not found" in done.stderr
    assert not (project / ".venv").exists()


def test_an_existing_environment_is_kept_and_filled_once(project):
    calls = fake_venv(project)
    python = f"PYTHON={sys.executable}"
    assert make(project, "install", python).returncode == 0
    book, torch, rest = calls.read_text().splitlines()
    assert "-c constraints.txt" in book
    assert "torch" not in book
    assert "tensorflow" not in book
    assert torch.endswith("torch==2.13.0")
    assert "-c constraints.txt" in rest
    assert make(project, "install", python).returncode == 0
    assert len(calls.read_text().splitlines()) == 3, "a second call installs nothing"
    os.utime(project / "constraints.txt")
    assert make(project, "install", python).returncode == 0
    assert len(calls.read_text().splitlines()) == 6, "new constraints are installed"


def test_a_failed_installation_is_not_remembered(project):
    fake_venv(project)
    script(project / ".venv" / "bin" / "python", "exit 1")
    for _ in range(2):
        assert make(project, "install", f"PYTHON={sys.executable}").returncode != 0


def test_the_book_is_built_again_only_when_a_page_changes(project):
    (project / "book").mkdir()
    page, other = project / "book" / "a.md", project / "book" / "b.md"
    page.write_text("a")
    other.write_text("b")
    calls = fake_venv(project)
    (project / "_build" / "html").mkdir(parents=True)  # what the stand-in does not build

    def builds() -> int:
        assert make(project, "book", f"PYTHON={sys.executable}").returncode == 0
        return calls.read_text().count("build.py")

    assert builds() == 1
    assert builds() == 1
    page.write_text("changed")
    os.utime(page, (2e9, 2e9))  # times of files are coarse
    assert builds() == 2
    os.utime(page, (1e9, 1e9))
    assert builds() == 2
    other.unlink()
    assert builds() == 3, "a page that was removed is a change"


def test_no_notebook_at_all_is_an_error(project):
    fake_venv(project)
    done = make(project, "nbval", f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert "no notebook found" in done.stderr


def test_ci_runs_the_two_commands_and_requires_the_browser():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert text.index("FEWSHOT_COURSE_REQUIRE_BROWSER=1") < text.index("make book </dev/null")
    assert text.index("make book </dev/null") < text.index("make test </dev/null")
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0


def test_a_commit_is_checked_by_make_lint():
    import yaml

    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert [hook["entry"] for hook in repo["hooks"]] == ["make lint"]


def test_the_book_is_built_on_every_interpreter_that_ci_finds(project):
    """Those that pyproject.toml promises, less that of .venv; a shim that leads nowhere is none."""
    (project / ".venv" / "bin").mkdir(parents=True)
    script(project / ".venv" / "bin" / "python", "echo 3.11")
    for version, says in {"3.11.7": "3.11", "3.12.1": "3.12", "3.12.10": "3.12"}.items():
        (project / "pyenv" / "versions" / version / "bin").mkdir(parents=True)
        script(project / "pyenv" / "versions" / version / "bin" / "python", f"echo {says}")
    (project / "bin").mkdir()
    for tool in ("make", "git", "chromium"):
        script(project / "bin" / tool, f'echo {tool} "$@"')
    script(project / "bin" / "python3.13", "exit 127")
    (project / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", project / ".ci" / "run")
    environment = {
        **os.environ,
        "PATH": f"{project / 'bin'}:{os.environ['PATH']}",
        "PYENV_ROOT": str(project / "pyenv"),
    }
    done = subprocess.run(
        [project / ".ci" / "run"], env=environment, capture_output=True, text=True, check=True
    )
    made = [line for line in done.stdout.splitlines() if line.startswith("make ")]
    assert made[:2] == ["make book", "make test"]
    (other,) = made[2:]
    assert other.endswith(f"book PYTHON={project}/pyenv/versions/3.12.10/bin/python")
    assert "Python 3.13 is not here: the book was not built on it" in done.stdout
