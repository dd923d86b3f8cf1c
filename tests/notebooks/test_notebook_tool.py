"""The notebook tool: repeatable runs, and a check that catches each way a pair can be wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import notebooks
import open_book
import pytest

ROOT = Path(__file__).resolve().parents[2]

HEADER = """\
---
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---

# A topic

"""
PRESET = """\
```{code-cell} ipython3
:label: setup

import os

preset = os.environ.get("FEWSHOT_COURSE_PRESET", "quick")
print(preset)
```
"""
LOSS = """
Prose between cells.

```{code-cell} ipython3
:label: loss
:tags: [tol-loss]

import sys

print("loss", 0.5, flush=True)
print("threads", os.environ["OMP_NUM_THREADS"])
print(os.path.basename(os.getcwd()))
```
"""
URL = "https://git.example.org/ada/fewshot-course"


def cell(source: str, options: str = "") -> str:
    return f"\n```{{code-cell}} ipython3\n{options}{source}\n```\n"


def make_root(folder: Path, url: str = URL, body: str = PRESET + LOSS) -> Path:
    """A small project with one twin, its install cell written."""
    (folder / "chapters" / "topic").mkdir(parents=True)
    (folder / "_config.yml").write_text(f"repository:\n  url: {url}\n")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "fewshot-course"\nversion = "1.2.3"\n'
    )
    (folder / "chapters" / "topic" / "index.md").write_text("# No notebook\n")
    twin = folder / "chapters" / "topic" / "torch.md"
    twin.write_text(HEADER + body)
    notebooks.sync_install_cell(twin, folder)
    return folder


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project, its one notebook executed."""
    root = make_root(tmp_path_factory.mktemp("course") / "root")
    assert notebooks.main(["run"], root) == 0
    return root


@pytest.fixture
def project(executed: Path, tmp_path: Path) -> Path:
    """A copy of the executed project, to be spoilt."""
    for path in executed.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(executed)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path


def twin_of(root: Path) -> Path:
    return root / "chapters" / "topic" / "torch.md"


def edit(root: Path, change) -> list[str]:
    """Change the stored notebook with ``change(notebook)`` and check the pair."""
    path = twin_of(root).with_suffix(".ipynb")
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    path.write_text(nbformat.writes(notebook))
    return notebooks.check(twin_of(root), root)


# --- running ----------------------------------------------------------------------------------


def test_running_again_gives_the_same_bytes(project):
    path = twin_of(project).with_suffix(".ipynb")
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    notebooks.run(twin_of(project))
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == stamp


def test_a_run_keeps_what_counts(executed):
    notebook = nbformat.read(twin_of(executed).with_suffix(".ipynb"), as_version=4)
    assert [c.id for c in notebook.cells] == ["cell-00", "install", "setup", "cell-03", "loss"]
    (output,) = notebook.cells[-1].outputs  # prints are one output, however the kernel split them
    assert output.text == "loss 0.5\nthreads 1\ntopic\n"
    assert notebook.metadata.kernelspec.name == "python3"
    assert "version" not in notebook.metadata.language_info


def test_run_keeps_no_widgets_and_no_timings(tmp_path):
    source = (
        "from IPython.display import display\n"
        'kind = "application/vnd.jupyter.widget-view+json"\n'
        'display({kind: {"model_id": "x"}, "text/plain": "a bar"}, raw=True)'
    )
    root = make_root(tmp_path / "root", body=PRESET + cell(source))
    assert notebooks.main(["run"], root) == 0
    notebook = nbformat.read(twin_of(root).with_suffix(".ipynb"), as_version=4)
    assert notebook.cells[-1].outputs == []
    assert "execution" not in notebook.cells[-1].metadata


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys\n\nprint('careful', file=sys.stderr)", "wrote to stderr"),
        ("import warnings\n\nwarnings.warn('careful')", "wrote to stderr"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_run_refuses_what_could_not_be_compared(tmp_path, capsys, source, message):
    root = make_root(tmp_path / "root", body=PRESET + cell(source))
    assert notebooks.main(["run"], root) == 1
    assert message in capsys.readouterr().err
    assert not twin_of(root).with_suffix(".ipynb").exists()


def test_run_refuses_a_label_used_twice(tmp_path, capsys):
    root = make_root(tmp_path / "root", body=PRESET + PRESET)
    assert notebooks.main(["run"], root) == 1
    assert "'setup' is used twice" in capsys.readouterr().err


def test_only_text_twins_are_notebooks(project, capsys):
    assert notebooks.find_twins(project) == [twin_of(project)]
    page = twin_of(project).with_name("index.md")
    assert notebooks.main(["check", str(page)], project) == 1
    assert "no text twin" in capsys.readouterr().err


@pytest.mark.skipif(
    "OPENBLAS_CORETYPE" not in notebooks.KERNEL_ENVIRONMENT, reason="not an x86-64 processor"
)
def test_kernels_do_not_depend_on_the_processor():
    """Libraries heed the variables: a mistyped one would show only on another machine.

    MKL does not tell what it chose; its variable is the one that stays unchecked.
    """
    pytest.importorskip("torch", reason="torch is not installed")
    code = (
        "import numpy, threadpoolctl, torch; "
        "cores = [i['architecture'] for i in threadpoolctl.threadpool_info() "
        "if i['internal_api'] == 'openblas']; "
        "print(torch.backends.cpu.get_cpu_capability(), *sorted(set(cores)))"
    )
    environment = {**os.environ, **notebooks.KERNEL_ENVIRONMENT}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["AVX2", "Haswell"]
    convolve = (
        "import torch; x = torch.ones(8, 16, 64, 64); "
        "torch.nn.functional.conv2d(x, x[:, :, :3, :3].contiguous())"
    )
    found = subprocess.run(
        [sys.executable, "-c", convolve],
        env=environment | {"ONEDNN_VERBOSE": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search("cpu,isa:.*AVX2", found.stdout), found.stdout[:500]
    assert "AVX-512" not in found.stdout


# --- checking ---------------------------------------------------------------------------------


def test_a_sound_pair_has_no_faults(project, capsys):
    assert notebooks.main(["check"], project) == 0
    assert "1 notebook pairs are in step" in capsys.readouterr().out


def test_check_catches_a_changed_twin(project):
    twin = twin_of(project)
    twin.write_text(twin.read_text().replace("Prose between", "Words between"))
    assert notebooks.check(twin, project) == [
        "chapters/topic/torch.md: out of step with torch.ipynb"
    ]


def set_output(**values):
    def change(notebook):
        notebook.cells[-1].outputs[0].update(values)

    return change


def set_cell(position, **values):
    def change(notebook):
        notebook.cells[position].update(values)

    return change


def store_error(notebook):
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])
    notebook.cells[-1].outputs.append(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_cell(-1, source="print('other')"), "out of step"),
        (lambda notebook: notebook.cells.pop(3), "out of step"),
        (lambda notebook: notebook.cells[-1].metadata.pop("tags"), "out of step"),
        (lambda notebook: notebook.cells[-1].metadata.update(label="x"), "out of step"),
        (set_cell(-1, execution_count=None), "cell loss was never run"),
        (set_cell(-1, execution_count=7), "not run once from top to bottom"),
        (store_error, "cell loss stores an error: ValueError"),
        (set_output(name="stderr"), "cell loss stores stderr"),
        (set_output(text="see /home/ada/x"), "path of one machine: '/home/ada/x'"),
        (set_output(text="'/tmp/pytest'"), "path of one machine"),
        (set_output(text="cwd=/work"), "path of one machine"),
        (set_output(text="/root/.cache/x"), "path of one machine"),
        (set_output(text="C:\\Users\\ada"), "path of one machine"),
        (set_output(text="<Axes at 0x7f00aa11bb22>"), "memory address"),
        (lambda notebook: notebook.metadata.kernelspec.update(name="ada-env"), "kernel python3"),
        (set_cell(1, source="print('hello')"), "first code cell is not the install cell"),
        (set_cell(2, source="print('hello')"), "second code cell does not read"),
    ],
)
def test_check_catches(project, change, message):
    assert message in "\n".join(edit(project, change))


@pytest.mark.parametrize(
    "text", ["https://example.org/home/ada", "a/work/b", "the /homework", "data/tmp/x", "1/tmp"]
)
def test_other_slashes_are_no_machine_path(project, text):
    assert edit(project, set_output(text=text)) == []


@pytest.mark.parametrize("tag", sorted(notebooks.SKIP_TAGS))
def test_check_refuses_tags_that_switch_comparing_off(project, tag):
    faults = edit(project, lambda notebook: notebook.cells[-1].metadata.tags.append(tag))
    assert "asks nbval to pass over it" in "\n".join(faults)


def test_check_catches_missing_halves(project, capsys):
    twin = twin_of(project)
    twin.with_suffix(".ipynb").rename(twin.with_name("other.ipynb"))
    assert notebooks.main(["check"], project) == 1
    output = capsys.readouterr().out
    assert "torch.md: has no torch.ipynb" in output
    assert "other.ipynb: has no text twin" in output


def test_check_catches_an_old_install_cell(project):
    (project / "_config.yml").write_text("repository:\n  url: https://git.example.org/new/home\n")
    (fault,) = notebooks.check(twin_of(project), project)
    assert "the first code cell is not the install cell; run sync-install-cells" in fault


# --- the install cell -------------------------------------------------------------------------


PACKAGES = {"numpy": "2.0.2", "torch": "2.10.0+cu128", "tensorflow": "2.19.0", "rich": "13.9.4"}


def run_install_cell(root: Path, monkeypatch, installed: bool) -> list[tuple[str, str]]:
    """Execute the install cell as a machine with or without the package would."""
    calls: list[tuple[str, str]] = []
    shell = SimpleNamespace(run_line_magic=lambda name, line: calls.append((name, line)))
    spec = SimpleNamespace() if installed else None
    there = [SimpleNamespace(name=name, version=version) for name, version in PACKAGES.items()]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: there)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    exec(notebooks.install_source(root), {})
    return calls


def test_install_cell_fetches_the_package_and_holds_what_is_there(tmp_path, monkeypatch):
    root = make_root(tmp_path / "root")
    ((magic, line),) = run_install_cell(root, monkeypatch, installed=False)
    assert magic == "pip"
    assert shlex.split(line) == [
        "install",
        "-q",
        f"fewshot-course @ git+{URL}@v1.2.3",
        "numpy==2.0.2",
        "torch==2.10.0+cu128",
        "tensorflow==2.19.0",
    ]


@pytest.mark.parametrize(
    ("tag", "gpu", "said"),
    [
        (None, True, ""),
        (None, False, ""),
        ("release-colab", True, '"full"'),
        ("release-colab", False, "stay with the preset quick"),
    ],
)
def test_install_cell_proposes_a_preset_in_colab_only(
    tmp_path, monkeypatch, capsys, tag, gpu, said
):
    root = make_root(tmp_path / "root")
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    if tag:
        monkeypatch.setenv("COLAB_RELEASE_TAG", tag)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
    run_install_cell(root, monkeypatch, installed=True)
    printed = capsys.readouterr().out
    assert said in printed
    assert bool(printed) == bool(tag)


def test_install_cell_does_nothing_where_the_package_is(tmp_path, monkeypatch):
    root = make_root(tmp_path / "root", url="https://git.example.org/OWNER/fewshot-course")
    assert run_install_cell(root, monkeypatch, installed=True) == []


def test_install_cell_refuses_the_placeholder(tmp_path, monkeypatch):
    root = make_root(tmp_path / "root", url="https://git.example.org/OWNER/fewshot-course")
    with pytest.raises(RuntimeError, match="OWNER/fewshot-course is a placeholder"):
        run_install_cell(root, monkeypatch, installed=False)


def test_syncing_twice_changes_nothing_more(project, capsys):
    twin = twin_of(project)
    before = twin.read_text()
    assert notebooks.main(["sync-install-cells"], project) == 0
    assert twin.read_text() == before
    (project / "_config.yml").write_text("repository:\n  url: https://git.example.org/new/home\n")
    assert notebooks.main(["sync-install-cells"], project) == 0
    assert twin.read_text() == before.replace(URL, "https://git.example.org/new/home")
    # The executed half follows, and keeps what its other cells printed.
    assert notebooks.check(twin, project) == []


# --- ruff -------------------------------------------------------------------------------------


def test_lint_reads_and_repairs_text_twins(tmp_path, capfd):
    prose = "\nProse  with   spaces, as it was.\n"
    body = PRESET + prose + cell("import json\n\nx = [ 1,2 ]\nprint( x )")
    root = make_root(tmp_path / "root", body=body)
    assert notebooks.main(["lint"], root) == 1
    assert "F401" in capfd.readouterr().out
    assert notebooks.main(["lint", "--fix"], root) == 0
    text = twin_of(root).read_text()
    assert prose in text
    assert "x = [1, 2]\nprint(x)" in text
    assert "json" not in text


# --- opening the book -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "environment", "screen"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"DISPLAY": ":0", "CI": "true"}, False),
        ("darwin", {}, True),
        ("darwin", {"CI": "1"}, False),
    ],
)
def test_a_window_is_opened_only_where_it_can_be_seen(platform, environment, screen):
    assert open_book.has_screen(platform, environment) is screen


def test_what_a_run_took_is_remembered_and_what_is_gone_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    file = tmp_path / "runs.json"
    for name in ("one", "two"):
        (tmp_path / f"{name}.md").write_text("")
        facts = {"cells": 3, "seconds": 2, "peak_mb": 90, "versions": {"python": "3.12"}}
        notebooks.remember(tmp_path / f"{name}.md", facts, file)
    assert json.loads(file.read_text()).keys() == {"one", "two"}
    (tmp_path / "one.md").unlink()
    notebooks.remember(tmp_path / "two.md", {"cells": 4, "seconds": 5}, file)
    (name, facts), *rest = json.loads(file.read_text()).items()
    assert (name, facts["cells"], rest) == ("two", 4, [])


def test_the_kernel_tells_its_memory_and_versions(project):
    notebook, facts = notebooks.execute(twin_of(project))
    assert facts["peak_mb"] > 20
    assert facts["versions"]["python"].startswith("3.")
    assert all("ru_maxrss" not in cell.source for cell in notebook.cells)
