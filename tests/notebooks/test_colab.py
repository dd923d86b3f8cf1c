"""In Colab the package is installed beside what is there: torch, tensorflow and numpy stay.

``colab_versions.txt`` says what is there, with its source and date.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import colab as colab_tool
import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]

VERSIONS = Path(__file__).with_name("colab_versions.txt")
KEPT = {"torch", "tensorflow", "numpy", "keras"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES: list[str] = PROJECT["dependencies"]


def colab() -> dict[str, str]:
    """Return the versions in Colab by canonical name."""
    lines = VERSIONS.read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def replaced(requirements: list[str], there: dict[str, str]) -> list[str]:
    """Return the requirements that pip would replace something for, or had to add."""
    found = []
    for requirement in map(Requirement, requirements):
        version = there.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version):
            found.append(f"{requirement}, but Colab has {version}")
    return found


def test_the_list_says_where_it_is_from_and_when() -> None:
    text = VERSIONS.read_text(encoding="utf-8")
    assert re.search(r"^# Source: github\.com/googlecolab/backend-info, .*commit$", text, re.M)
    assert re.search(r"\b[0-9a-f]{40}\b", text)
    assert re.search(r"^# Read on \d{4}-\d{2}-\d{2}\.$", text, re.MULTILINE)
    assert set(colab()) >= KEPT


def test_colab_has_all_that_the_package_needs() -> None:
    assert replaced(DEPENDENCIES, colab()) == []


@pytest.mark.parametrize("extra", ["torch", "tf", "text"])
def test_colab_has_all_that_the_notebooks_need(extra: str) -> None:
    assert replaced(PROJECT["optional-dependencies"][extra], colab()) == []


@pytest.mark.parametrize("fault", ["numpy>=2.4", "torch==2.9", "tensorflow>=2.21", "unheard-of>=1"])
def test_a_requirement_that_colab_does_not_meet_is_found(fault: str) -> None:
    assert len(replaced([*DEPENDENCIES, fault], colab())) == 1


# --- the resolver -------------------------------------------------------------------------------


def python_version() -> str:
    found = re.search(r"^# Python (3\.\d+)$", VERSIONS.read_text(encoding="utf-8"), re.M)
    assert found, f"{VERSIONS} does not say which Python"
    return found[1]


def resolve(requirements: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let pip plan an installation and install nothing.

    What Colab has counts as a constraint, so a plan exists only if nothing has to be replaced.
    """
    version = python_version()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--dry-run", "--ignore-installed", "--report", str(folder / "report.json")]
    command += ["--target", str(folder / "target"), "--only-binary", ":all:"]
    command += ["--python-version", version, "--implementation", "cp"]
    for platform in ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"):
        command += ["--platform", platform]
    command += ["-c", str(VERSIONS), *requirements]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture(scope="module")
def _index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no package index answers."""
    done = resolve(["--no-deps", "cycler"], tmp_path_factory.mktemp("probe"))
    if done.returncode:
        pytest.skip("no package index can be reached, so pip can plan nothing")


def planned(folder: Path) -> dict[str, str]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    rows = [row["metadata"] for row in report["install"]]
    return {canonicalize_name(row["name"]): row["version"] for row in rows}


@pytest.mark.network
@pytest.mark.usefixtures("_index")
def test_the_resolver_replaces_nothing(tmp_path: Path) -> None:
    done = resolve(DEPENDENCIES, tmp_path)
    assert done.returncode == 0, done.stderr
    plan, there = planned(tmp_path), colab()
    assert plan["numpy"] == there["numpy"]
    # Neither framework is asked for, so neither can be touched.
    assert not KEPT - {"numpy"} & set(plan)
    others = {name: version for name, version in plan.items() if there.get(name) != version}
    assert others == {}, "not in colab_versions.txt, or at another version"


@pytest.mark.network
@pytest.mark.usefixtures("_index")
def test_the_resolver_refuses_to_replace_numpy(tmp_path: Path) -> None:
    done = resolve([*DEPENDENCIES, f"numpy>{Version(colab()['numpy'])}"], tmp_path)
    assert done.returncode != 0
    assert "numpy" in done.stderr


# --- the weekly run in Colab's image ------------------------------------------------------------


def test_the_weekly_run_holds_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(colab_tool.subprocess, "run", lambda command, check: calls.append(command))
    colab_tool.install(ROOT, {"numpy": "2.0.2", "torch": "2.10.0+cu128"})
    ((_, *call),) = calls
    expected = ["-m", "pip", "install", "-q", str(ROOT), "numpy==2.0.2", "torch==2.10.0+cu128"]
    assert call == expected


def test_the_weekly_run_sees_what_was_replaced() -> None:
    before = {"numpy": "2.0.2", "torch": "2.10.0"}
    assert colab_tool.replaced(before, dict(before)) == []
    assert colab_tool.replaced(before, {"numpy": "2.4.0"}) == [
        "numpy was 2.0.2, is 2.4.0",
        "torch was 2.10.0, is None",
    ]
    assert set(colab_tool.held()) <= {"numpy", "torch", "tensorflow"}


def test_the_weekly_run_names_the_notebook_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, source in (("fine", "print(1)"), ("broken", "1 / 0")):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        path = tmp_path / "chapters" / name / "torch.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
    monkeypatch.setattr(colab_tool, "install", lambda root, there: None)
    assert colab_tool.main(tmp_path) == 1
    shown = capsys.readouterr()
    assert "chapters/fine/torch.ipynb: ran" in shown.out
    assert "1 failed: chapters/broken/torch.ipynb" in shown.out
    assert "ZeroDivisionError" in shown.err
