"""The workflows of GitHub: readable, calling only what exists, with a reason for each gate."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = ("test", "publish", "weekly")
MAKE = re.compile(r"^make ([a-z-]+)(?: [A-Z]+=\S+)*$")
# What is no command of the project, by workflow: room on the machine, and the issue.
OTHERS = {"weekly": re.compile(r'^(sudo rm -rf /|gh (label|issue) create |echo "count=\$\(gh )')}


def read(name: str) -> dict[Any, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def commands(workflow: dict[Any, Any]) -> list[str]:
    return [line for step in steps(workflow) if "run" in step for line in step["run"].splitlines()]


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE))


def faults(name: str, workflow: dict[Any, Any]) -> list[str]:
    """Return the commands that are neither a target of the Makefile nor allowed."""
    other = OTHERS.get(name)
    found = []
    for line in commands(workflow):
        made = MAKE.match(line)
        if not (made and made[1] in targets()) and not (other and other.match(line)):
            found.append(line)
    return found


def first_group(pattern: str | re.Pattern[str], text: str) -> str:
    """Return what the pattern's first group matches."""
    match = re.search(pattern, text)
    assert match, f"{pattern} matches nothing"
    return str(match[1])


def test_these_are_all() -> None:
    assert {path.stem for path in FOLDER.glob("*.y*ml")} == set(WORKFLOWS)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_has_what_a_workflow_needs(name: str) -> None:
    workflow = read(name)
    assert workflow["name"] == name
    assert workflow[True], "`on:` is read as true"  # YAML 1.1, which GitHub knows about
    assert workflow["permissions"] == {"contents": "read"}, "a job that writes says so itself"
    for job in workflow["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        assert 0 < job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert "name" in step or "uses" in step
            # A tag can be moved to other code, a hash cannot.
            assert re.search(r"@[0-9a-f]{40}$", step.get("uses", "@" + "0" * 40))
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_calls_only_commands_that_exist(name: str) -> None:
    assert faults(name, read(name)) == []


@pytest.mark.parametrize("command", ["make nothing-of-that-name", "pytest tests", "sudo rm -rf /x"])
def test_another_command_is_found(command: str) -> None:
    workflow = read("test")
    workflow["jobs"]["test"]["steps"].append({"name": "x", "run": command})
    assert faults("test", workflow) == [command]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_gate_says_why_it_exists(name: str) -> None:
    """Above each step that calls make, and each job that waits for another, stands the reason."""
    lines = (FOLDER / f"{name}.yml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.search(r"run: make ", line):
            above = lines[:number]
            while above and not above[-1].lstrip().startswith("#"):
                assert not re.search(r"run: ", above[-1]), f"line {number + 1} has no reason"
                above.pop()
            comment: list[str] = []
            while above and above[-1].lstrip().startswith("#"):
                comment.insert(0, above.pop().lstrip("# "))
            assert comment[0].startswith("Exists because"), f"line {number + 1}: {comment}"
    assert "Exists because" in "\n".join(lines)


def test_the_test_workflow_runs_every_part_of_make_test() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    parts = first_group(r"(?m)^test: (.+)$", makefile).split()
    job = {"jobs": {"test": read("test")["jobs"]["test"]}}
    called = [first_group(MAKE, line) for line in commands(job)]
    assert called == ["install", *parts]
    assert read("test")["env"]["FEWSHOT_COURSE_REQUIRE_BROWSER"] == "1"


def test_every_promised_python_is_run() -> None:
    """Each builds the book and runs the unit tests; the newest releases are tried every week."""
    classifiers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    promised = set(re.findall(r"Python :: (3\.\d+)", classifiers))
    jobs = read("test")["jobs"]
    (setup,) = [step for step in jobs["test"]["steps"] if "python-version" in step.get("with", {})]
    tried = {setup["with"]["python-version"], *jobs["pythons"]["strategy"]["matrix"]["python"]}
    assert tried == promised
    made = {first_group(MAKE, line) for line in commands({"jobs": {"x": jobs["pythons"]}})}
    assert made == {"book", "unit"}
    assert any("CONSTRAINTS=/dev/null" in line for line in commands(read("weekly")))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_hash_says_which_version_it_is(name: str) -> None:
    text = (FOLDER / f"{name}.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (.+)", text)
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", one) for one in used)


def published(**event: object) -> bool:
    """Return whether the workflow publishes after an event, by its own condition."""
    condition = str(read("publish")["jobs"]["build"]["if"]).strip()
    for name in sorted(re.findall(r"github(?:\.\w+)+", condition), key=len, reverse=True):
        condition = condition.replace(name, repr(event.get(name.removeprefix("github."))))
    condition = condition.removeprefix("${{").removesuffix("}}")
    words = {"&&": "and", "||": "or", "\n": " "}
    for theirs, ours in words.items():
        condition = condition.replace(theirs, ours)
    return bool(eval(condition, {}))


def test_a_fork_cannot_publish() -> None:
    """Its pull request may come from a branch called main, and change what make runs."""
    run = "event.workflow_run."
    own = {
        "event_name": "workflow_run",
        "repository": "owner/course",
        "ref": "refs/heads/main",
        f"{run}conclusion": "success",
        f"{run}event": "push",
        f"{run}head_branch": "main",
        f"{run}head_repository.full_name": "owner/course",
    }
    assert published(**own)
    assert published(event_name="workflow_dispatch", ref="refs/heads/main")
    assert not published(event_name="workflow_dispatch", ref="refs/heads/other")
    for name, value in (
        ("event", "pull_request"),
        ("head_branch", "other"),
        ("conclusion", "failure"),
        ("head_repository.full_name", "somebody/course"),
    ):
        assert not published(**own | {run + name: value})


def test_only_what_was_tested_is_published() -> None:
    workflow = read("publish")
    assert workflow[True]["workflow_run"]["workflows"] == ["test"]
    assert "conclusion == 'success'" in workflow["jobs"]["build"]["if"]
    assert workflow["jobs"]["deploy"]["needs"] == "build"
    (upload,) = [step for step in steps(workflow) if "upload-pages" in step.get("uses", "")]
    built = first_group(r"(?m)^INDEX := (.+)/index\.html$", (ROOT / "Makefile").read_text())
    assert upload["with"]["path"] == built


def planned(target: str) -> str:
    """Return what make would run, whatever a make around this test was told."""
    command = ["make", "--no-print-directory", "-n", target]
    outer = ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "PYTHON")
    env = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout


def test_a_failed_week_opens_an_issue() -> None:
    workflow = read("weekly")
    assert workflow[True]["schedule"]
    report = workflow["jobs"]["report"]
    assert report["needs"] == ["colab", "newest"]
    assert "failure()" in report["if"]
    assert report["permissions"] == {"issues": "write"}
    assert any(line.startswith("gh issue create ") for line in commands(workflow))
    # What the issue would be opened about: Colab's image, and the check inside it.
    plan = planned("colab-image")
    assert "colab-images/public/runtime" in plan
    assert "check-colab PYTHON=python3" in plan
    assert planned("check-colab").strip() == "python3 book/_tools/colab.py"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_shell_can_read_every_command(name: str) -> None:
    for step in steps(read(name)):
        if "run" in step:
            done = subprocess.run(["bash", "-n"], input=step["run"], text=True, check=False)
            assert done.returncode == 0
