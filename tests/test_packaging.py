"""The files that say what is installed, and what the course is called, agree with each other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import notebooks
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text)
    for text in (*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra))
]
CONSTRAINTS = {
    canonicalize_name(requirement.name): requirement
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
    for requirement in [Requirement(line)]
}
URL = notebooks.repository_url(ROOT)


def tracked_text_files() -> dict[Path, str]:
    """Return the text of every file under version control, or that could come under it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    texts = {}
    for name in filter(None, done.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            texts[Path(name)] = path.read_bytes().decode("utf-8", errors="ignore")
    return texts


# --- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_dependencies_have_a_lower_bound_that_constraints_meet(requirement):
    operators = {part.operator for part in requirement.specifier}
    assert ">=" in operators
    assert not operators & {"==", "~="}, "exact versions belong into constraints.txt"
    assert canonicalize_name(requirement.name) in CONSTRAINTS, "missing in constraints.txt"
    (pin,) = CONSTRAINTS[canonicalize_name(requirement.name)].specifier
    assert requirement.specifier.contains(pin.version)


def test_constraints_are_exact_public_versions():
    for pin in CONSTRAINTS.values():
        (part,) = pin.specifier
        assert part.operator == "==", pin
        assert pin.url is None, pin
        assert Version(part.version).local is None, f"{pin}: a local build is not published"
    assert str(CONSTRAINTS["torch"].specifier) == "==2.13.0"


def test_only_the_book_has_an_upper_bound():
    """An upper bound would make Colab replace what it has."""
    bounded = {r.name for r in REQUIREMENTS if any("<" in p.operator for p in r.specifier)}
    assert bounded == {"jupyter-book"}


def needed_by(names: set[str]) -> set[str]:
    """Return ``names`` and all that they need, as installed here."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        for text in requires(name) or []:
            child = Requirement(text)
            extras = requirement.extras or {""}
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(child)
    return found


@pytest.mark.parametrize("extra", ["", "book"])
def test_neither_the_package_nor_the_book_needs_a_framework(extra):
    roots = {*PROJECT["dependencies"], *EXTRAS.get(extra, [])}
    assert not needed_by(roots) & {"torch", "tensorflow", "keras", "jax"}


@pytest.mark.parametrize("name", ["torch", "text"])
def test_torch_and_text_bring_no_tensorflow(name):
    assert "tensorflow" not in needed_by(set(EXTRAS[name]))


@pytest.mark.parametrize("name", ["tf", "text"])
def test_tf_and_text_bring_no_torch(name):
    assert "torch" not in needed_by(set(EXTRAS[name]))


def test_environment_yml_agrees():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert PROJECT["requires-python"] == ">=3.11"
    constraint, install = pip["pip"]
    assert constraint == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[(.+)\]", install)[1].split(",")
    assert set(extras) <= set(EXTRAS)
    assert {"torch", "tf", "book"} <= set(extras)


def test_make_installs_every_extra_but_the_peers_and_torch_first():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    torch_line = makefile.index('install -q "torch$(TORCH)"')
    everything = re.search(r'-c \$\(CONSTRAINTS\) -e "\.\[([a-z,]+,[a-z,]+)\]"', makefile)
    # What the course is compared with is large, and no test needs it.
    assert set(everything[1].split(",")) == set(EXTRAS) - {"peers"}
    assert torch_line < everything.start()
    assert 'install -q -c $(CONSTRAINTS) -e ".[book]"' in makefile
    assert "CONSTRAINTS ?= constraints.txt" in makefile


def test_the_version_is_the_same_everywhere():
    version = PROJECT["version"]
    init = (ROOT / "fewshot_course" / "__init__.py").read_text(encoding="utf-8")
    assert re.search(r'^__version__ = "(.+)"$', init, re.MULTILINE)[1] == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (?:\[)?([\d.]+)", changes, re.MULTILINE)[1] == version


# --- addresses --------------------------------------------------------------------------------


def test_the_repository_address_stands_once():
    """In _config.yml; otherwise only in install cells, which are generated from it."""
    generated = notebooks.install_source(ROOT)
    for path, text in tracked_text_files().items():
        if path == Path("_config.yml"):
            assert text.count(URL) == 1
            continue
        if path.suffix in {".md", ".ipynb"}:
            text = text.replace(generated, "").replace(escaped(generated), "")
        assert URL not in text, f"{path} states the repository's address"


def escaped(source: str) -> str:
    """Return a cell's source as it stands in a notebook file."""
    lines = [json.dumps(line, ensure_ascii=False) for line in source.splitlines(keepends=True)]
    return ",\n    ".join(lines)


def test_every_install_cell_is_the_generated_one():
    expected = notebooks.install_block(ROOT)
    for twin in notebooks.find_twins(ROOT):
        assert expected in twin.read_text(encoding="utf-8"), f"{twin.name}: run sync-install-cells"


def test_no_file_depends_on_one_machine():
    """No package registry's host and no path of ours: only .ci/run may look beside the clone."""
    # In pieces, so that this file passes its own test.
    hosts = (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"))
    names = [".".join(host) for host in hosts]
    options = ["-".join(option) for option in (("index", "url"), ("find", "links"))]
    named = re.compile("|".join(re.escape(name) for name in (*names, *options)))
    beside = "/".join(("..", "shared"))
    for path, text in tracked_text_files().items():
        assert not named.search(text), f"{path} names a package registry"
        if path != Path(".ci/run"):
            assert beside not in text, f"{path} names a folder outside the project"


# --- imports ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("fewshot_course", {"torch", "tensorflow", "keras", "transformers"}),
        ("fewshot_course.data", {"torch", "tensorflow", "keras", "transformers"}),
        ("fewshot_course.evaluation", {"torch", "tensorflow", "keras", "transformers"}),
        ("fewshot_course.experiments", {"torch", "tensorflow", "keras", "transformers"}),
        ("fewshot_course.weights", {"torch", "tensorflow", "keras", "transformers"}),
        ("fewshot_course.cli", {"torch", "tensorflow", "keras", "transformers"}),
        ("fewshot_course.torch", {"tensorflow", "keras", "fewshot_course.tf"}),
        ("fewshot_course.tf", {"torch", "fewshot_course.torch"}),
    ],
)
def test_importing_loads_no_other_framework(module, absent):
    code = f"import sys, {module}; print(*sorted(set({sorted(absent)}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_no_two_test_files_share_a_name():
    """Pytest imports them by name: the second of a pair is not collected."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(set(names)) == len(names), sorted({n for n in names if names.count(n) > 1})
