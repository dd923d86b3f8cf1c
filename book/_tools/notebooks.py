"""Execute, check and label the course's notebooks.

A notebook is a pair: a text twin (``torch.md``, MyST, what you edit) and the executed
``torch.ipynb`` beside it (what the book renders and nbval compares).  A Markdown file under
``chapters/`` or ``book/`` is such a twin when its front matter names a ``kernelspec``.

    python book/_tools/notebooks.py run [FILE.md ...]        execute twins, write the .ipynb
    python book/_tools/notebooks.py check [FILE.md ...]      all that a committed pair must keep
    python book/_tools/notebooks.py lint [--fix] [FILE.md]   ruff, lint and format, cell by cell
    python book/_tools/notebooks.py sync-install-cells       write install cells from _config.yml

Without files each command takes every pair of the book.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from fewshot_course.evaluation.plots import compress_png

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("chapters", "book")
RUNS = ROOT / "book" / "notebook_runs.json"  # when each notebook last ran, and what it took
SECONDS_ALLOWED = 60  # what a reader waits for with the quick preset
CELL_TIMEOUT = 600
CODE_WIDTH = 76  # what a page shows without scrolling sideways

PRESET_LINE = 'os.environ.get("FEWSHOT_COURSE_PRESET", "quick")'

# What a kernel must see so that two runs print the same: one thread (sums in one order), no
# GPU, the quick preset.  The nbval plugin in tests/notebooks sets the same.
KERNEL_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "FEWSHOT_COURSE_PRESET": "quick",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
}
if platform.machine() in ("x86_64", "AMD64"):
    # Libraries choose kernels by the processor, and those for AVX-512 round differently.  Training
    # makes accuracies of that; so all machines take the kernels that every one of them has.
    KERNEL_ENVIRONMENT |= {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    }

# Ways to make nbval pass over a cell.  None is allowed: every printed number is compared.
SKIP_TAGS = {"nbval-ignore-output", "nbval-skip", "nbval-raises-exception", "raises-exception"}
SKIP_COMMENT = re.compile(
    r"^\s*#\s*(NBVAL_IGNORE_OUTPUT|NBVAL_SKIP|NBVAL_RAISES_EXCEPTION"
    r"|PYTEST_VALIDATE_IGNORE_OUTPUT)\s*$",
    re.MULTILINE,
)

# An absolute path of somebody's machine, e.g. "/home/ada/..." or "C:\Users\ada".
MACHINE_PATH = re.compile(
    r"(?<![\w.~/:-])/(?:home|work|tmp|root|opt|mnt|var|Users)(?=/|\b)(?!-)|\b[A-Z]:\\\w", re.ASCII
)
MEMORY_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
CODE_CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class NotebookError(Exception):
    """A notebook that breaks one of the book's rules, or failed to run."""


# --- which files are notebooks ----------------------------------------------------------------


def is_twin(path: Path) -> bool:
    """Tell whether a Markdown file is the text twin of a notebook."""
    if path.suffix != ".md" or not path.is_file():
        return False
    header = FRONT_MATTER.match(path.read_text(encoding="utf-8"))
    return header is not None and "kernelspec" in (yaml.safe_load(header[1]) or {})


def find(root: Path, suffix: str) -> Iterator[Path]:
    """Yield the files of the book's folders that end in ``suffix``, built copies left out."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob(f"*{suffix}")):
            inner = path.relative_to(root).parts
            if not {"_build", ".ipynb_checkpoints"} & set(inner):
                yield path


def find_twins(root: Path) -> list[Path]:
    """Return all text twins under ``root``."""
    return [path for path in find(root, ".md") if is_twin(path)]


# --- the install cell -------------------------------------------------------------------------


def repository_url(root: Path) -> str:
    """Return the repository's address; ``_config.yml`` is the only file that states it."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return str(config["repository"]["url"]).rstrip("/")


def install_source(root: Path) -> str:
    """Return the source of the install cell, made from ``_config.yml`` and ``pyproject.toml``.

    It is plain Python: jupytext turns ``!pip`` inside an ``if`` into an empty block.  It asks for
    the package itself and for numpy, torch and tensorflow *as they are there*: pip then refuses
    what would replace them, instead of replacing them.  In Colab it says which preset suits the
    machine; elsewhere it prints nothing, so that nbval compares the same everywhere.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f'''\
# Fetches the course package where it is missing, for example in Colab.
import importlib.metadata
import importlib.util
import os
import shutil

if importlib.util.find_spec("fewshot_course") is None:
    repository = "{repository_url(root)}"
    if "/OWNER/" in repository:
        raise RuntimeError(
            f"{{repository}} is a placeholder: this copy of the book has no public address yet. "
            "Install the package by hand (pip install -e . in a clone), then run this cell again."
        )
    from IPython import get_ipython

    wanted = [f"{project["name"]} @ git+{{repository}}@v{project["version"]}"]
    # Named with the versions that are there, so that pip leaves them alone.
    for package in importlib.metadata.distributions():
        if package.name in ("numpy", "tensorflow", "torch"):
            wanted.append(f"{{package.name}}=={{package.version}}")
    quoted = " ".join(f'"{{one}}"' for one in wanted)
    get_ipython().run_line_magic("pip", f"install -q {{quoted}}")

if "COLAB_RELEASE_TAG" in os.environ:
    if shutil.which("nvidia-smi"):
        print("A GPU is here. For the papers' protocols, first run")
        print('os.environ["FEWSHOT_COURSE_PRESET"] = "full"')
    else:
        print("No GPU is here: stay with the preset quick, the default.")
        print("For a GPU: Runtime, Change runtime type.")'''


def install_block(root: Path) -> str:
    """Return the install cell as it stands in a text twin."""
    tags = ":label: install\n:tags: [remove-cell]\n"
    return f"```{{code-cell}} ipython3\n{tags}\n{install_source(root)}\n```"


def sync_install_cell(path: Path, root: Path) -> bool:
    """Write the install cell into one twin, as its first code cell, and into its ``.ipynb``.

    The executed notebook keeps its outputs: outside of Colab the install cell has none.

    Returns:
        Whether a file changed.
    """
    text = path.read_text(encoding="utf-8")
    first = CODE_CELL.search(text)
    if first and re.search(r"^:label: install$", first[1], re.MULTILINE):
        new = text[: first.start()] + install_block(root) + text[first.end() :]
    else:
        at = first.start() if first else len(text)
        new = text[:at] + install_block(root) + "\n\n" + text[at:]
    if new != text:
        path.write_text(new, encoding="utf-8")
    return sync_executed(path.with_suffix(".ipynb"), root) or new != text


def sync_executed(path: Path, root: Path) -> bool:
    """Write the install cell into an executed notebook that has one; tell whether it changed."""
    if not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.metadata.get("label") == "install"]
    if not cells or cells[0].source == install_source(root):
        return False
    cells[0].source = install_source(root)
    write_if_changed(path, nbformat.writes(notebook) + "\n")
    return True


# --- running ----------------------------------------------------------------------------------


def read_twin(path: Path) -> nbformat.NotebookNode:
    """Read a text twin as a notebook without outputs."""
    notebook = jupytext.read(path, fmt="md:myst")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def name_cells(notebook: nbformat.NotebookNode) -> None:
    """Give each cell a stable id: its label, or else its position.

    Raises:
        NotebookError: Two cells share a label, or a label is no valid cell id.
    """
    seen: set[str] = set()
    for position, cell in enumerate(notebook.cells):
        cell["id"] = cell.metadata.get("label", f"cell-{position:02d}")
        if cell["id"] in seen or not re.fullmatch(r"[\w-]{1,64}", cell["id"], re.ASCII):
            raise NotebookError(
                f"cell label {cell['id']!r} is used twice or is more than letters, digits, - and _"
            )
        seen.add(cell["id"])


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Drop in place what changes from run to run or machine to machine but says nothing."""
    name_cells(notebook)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata.get("jupytext", {}).get("text_representation", {}).pop(
        "jupytext_version", None
    )
    widget = "application/vnd.jupyter.widget-view+json"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            cell.outputs = [out for out in cell.outputs if widget not in out.get("data", {})]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])


def smaller(picture: str) -> str:
    """Return a base64 PNG with fewer colours: a page loads every picture of its notebooks."""
    png = compress_png(base64.b64decode(picture))
    return base64.encodebytes(png).decode()


# The last cell of a run, which is not kept: what the kernel has used and loaded.
FACTS_SOURCE = """\
import json, platform, resource, sys
from importlib import metadata
used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
names = [n for n in ("numpy", "torch", "tensorflow") if n in sys.modules]
print(json.dumps({
    "seconds": round(sum(u.ru_utime + u.ru_stime for u in used), 1),
    "peak_mb": round(max(u.ru_maxrss for u in used) * 1024 / 1e6),
    "versions": {"python": platform.python_version(), **{n: metadata.version(n) for n in names}},
}))
"""


def execute(path: Path) -> tuple[nbformat.NotebookNode, dict[str, Any]]:
    """Execute a text twin in a fresh kernel, in its own folder.

    Returns:
        The notebook; and processor seconds, largest memory in 10^6 bytes and versions of packages
        of the kernel.

    Raises:
        NotebookError: A cell raised, or wrote to stderr (which nbval could not compare).
    """
    notebook = read_twin(path)
    notebook.cells.append(nbformat.v4.new_code_cell(FACTS_SOURCE))
    os.environ.update(KERNEL_ENVIRONMENT)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # otherwise the kernel's buffering decides how prints are split
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only, on our own terminal
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise NotebookError(f"{path}: a cell failed\n{COLOUR.sub('', str(error))}") from None
    facts = json.loads(notebook.cells.pop().outputs[0].text)
    for position, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise NotebookError(f"{path}: cell {position} wrote to stderr:\n{output.text}")
    normalise(notebook)
    return notebook, facts


def write_if_changed(path: Path, text: str) -> None:
    """Write ``text`` in one step; leave an equal file, and its time stamp, alone."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def run(path: Path) -> float:
    """Execute a text twin and write its ``.ipynb``; return the seconds it took.

    Running an unchanged twin again writes the same bytes.
    """
    start = time.perf_counter()
    notebook, facts = execute(path)
    seconds = time.perf_counter() - start
    write_if_changed(path.with_suffix(".ipynb"), nbformat.writes(notebook) + "\n")
    if path.resolve().is_relative_to(ROOT):
        cells = sum(cell.cell_type == "code" for cell in notebook.cells)
        remember(path, {"cells": cells, **facts})
    return seconds


def remember(path: Path, facts: dict[str, Any], file: Path = RUNS) -> None:
    """Store when a notebook was run and what that took, for the status page."""
    runs = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    name = path.resolve().relative_to(ROOT).with_suffix("").as_posix()
    runs[name] = {"date": datetime.date.today().isoformat(), **facts}
    kept = {n: facts for n, facts in sorted(runs.items()) if (ROOT / f"{n}.md").exists()}
    write_if_changed(file, json.dumps(kept, indent=1) + "\n")


# --- checking ---------------------------------------------------------------------------------


def content(notebook: nbformat.NotebookNode) -> list[tuple[Any, ...]]:
    """Return what twins must share: kind, text, tags and label of every cell."""
    return [
        (
            cell.cell_type,
            cell.source.rstrip(),
            tuple(cell.metadata.get("tags", [])),
            cell.metadata.get("label"),
        )
        for cell in notebook.cells
    ]


def text_of(output: nbformat.NotebookNode) -> str:
    """Return everything a reader can read in an output; pictures left out."""
    parts = [output.get("text", "")]
    for kind, value in output.get("data", {}).items():
        if not kind.startswith("image/") or kind == "image/svg+xml":
            parts.append("".join(value) if isinstance(value, list) else str(value))
    return "\n".join(parts)


def cell_faults(cell: nbformat.NotebookNode) -> Iterator[str]:
    """Yield what is wrong with one executed code cell."""
    if cell.execution_count is None:
        yield "was never run (nbval would not compare it)"
    skips = SKIP_TAGS & set(cell.metadata.get("tags", []))
    if skips or SKIP_COMMENT.search(cell.source):
        yield "asks nbval to pass over it; print less, or use a named tolerance"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"stores an error: {output.get('ename')}"
        if output.get("name") == "stderr":
            yield "stores stderr"
        shown = text_of(output)
        if match := MACHINE_PATH.search(shown):
            yield f"prints a path of one machine: {shown[match.start() :][:40]!r}"
        if match := MEMORY_ADDRESS.search(shown):
            yield f"prints a memory address: {match[0]!r}"


def check(path: Path, root: Path) -> list[str]:
    """Return the faults of one pair, each a line that names file and cell."""
    name = path.relative_to(root)
    executed = path.with_suffix(".ipynb")
    if not executed.exists():
        return [f"{name}: has no {executed.name}; run book/_tools/notebooks.py run {name}"]
    twin, notebook = read_twin(path), nbformat.read(executed, as_version=4)
    faults = []
    if content(twin) != content(notebook):
        faults.append(f"{name}: out of step with {executed.name}")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        faults.append(f"{name}: {executed.name} must name the kernel python3")

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            label = cell.metadata.get("label", position)
            faults += [f"{name}: cell {label} {fault}" for fault in cell_faults(cell)]
    counts = [cell.execution_count for cell in code]
    if None not in counts and counts != list(range(1, len(code) + 1)):
        faults.append(f"{name}: {executed.name} was not run once from top to bottom")

    if not code or code[0].source != install_source(root):
        faults.append(
            f"{name}: the first code cell is not the install cell; run sync-install-cells"
        )
    # Pages under book/ show what is stored; only chapters have presets.
    if name.parts[0] == "chapters" and (len(code) < 2 or PRESET_LINE not in code[1].source):
        faults.append(f"{name}: the second code cell does not read {PRESET_LINE}")
    return faults


def orphans(root: Path) -> list[str]:
    """Return a fault for each ``.ipynb`` without a text twin."""
    return [
        f"{path.relative_to(root)}: has no text twin {path.stem}.md"
        for path in find(root, ".ipynb")
        if not is_twin(path.with_suffix(".md"))
    ]


# --- ruff -------------------------------------------------------------------------------------


def ruff(arguments: list[str], files: list[Path], folder: str) -> bool:
    """Run ruff on notebooks with the project's rules; tell whether it was content."""
    rules = ["--config", str(ROOT / "pyproject.toml"), "--config", f'src = ["{ROOT}"]']
    if arguments[0] == "check":
        rules += ["--ignore", "D"]  # in a notebook the prose around a function documents it
    else:
        rules += ["--line-length", str(CODE_WIDTH)]
    command = [sys.executable, "-m", "ruff", *arguments, *rules]
    # Named one by one: the project's rules leave out *.ipynb, where outputs are stored.
    names = [str(file.relative_to(folder)) for file in files]
    return subprocess.run([*command, *names], cwd=folder, check=False).returncode == 0


def lint(twins: list[Path], root: Path, fix: bool = False) -> bool:
    """Lint and format-check text twins; with ``fix`` write what ruff repairs back into them.

    Ruff reads the twins as unexecuted notebooks, so it knows cells and names them.
    """
    if not twins:
        return True
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder, twin.relative_to(root)).with_suffix(".ipynb") for twin in twins]
        for twin, copy in zip(twins, copies, strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(read_twin(twin), copy)
        if fix:
            ruff(["check", "-q", "--fix", "--exit-zero"], copies, folder)
            ruff(["format", "-q"], copies, folder)
            for twin, copy in zip(twins, copies, strict=True):
                write_back(twin, nbformat.read(copy, as_version=4))
        clean = ruff(["check"], copies, folder)
        return ruff(["format", "--check"], copies, folder) and clean


def write_back(twin: Path, repaired: nbformat.NotebookNode) -> None:
    """Put repaired code cells into a text twin and leave its prose as it is."""
    text = twin.read_text(encoding="utf-8")
    for old, new in zip(read_twin(twin).cells, repaired.cells, strict=True):
        if old.cell_type == "code":
            text = text.replace(f"\n{old.source}\n```", f"\n{new.source}\n```", 1)
    write_if_changed(twin, text)


# --- command line -----------------------------------------------------------------------------


def select(files: Iterable[Path], root: Path) -> list[Path]:
    """Return the twins that ``files`` name, or all; an ``.ipynb`` names its twin."""
    twins = [file.resolve().with_suffix(".md") for file in files]
    if not twins:
        return find_twins(root)
    for twin in twins:
        if not is_twin(twin):
            raise NotebookError(f"{twin}: no text twin of a notebook (no kernelspec on top)")
    return twins


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Execute, check and label the course's notebooks.")
    parser.add_argument("action", choices=["run", "check", "lint", "sync-install-cells"])
    parser.add_argument("files", nargs="*", type=Path, help="text twins; all when none is named")
    parser.add_argument("--root", type=Path, default=root, help=argparse.SUPPRESS)
    parser.add_argument("--fix", action="store_true", help="lint: repair what ruff can")
    options = parser.parse_intermixed_args(arguments)
    root = options.root.resolve()
    try:
        twins = select(options.files, root)
        if options.action == "run":
            return run_all(twins, root)
        if options.action == "check":
            faults = [fault for twin in twins for fault in check(twin, root)]
            faults += [] if options.files else orphans(root)
            print("\n".join(faults) or f"{len(twins)} notebook pairs are in step")
            return int(bool(faults))
        if options.action == "lint":
            return int(not lint(twins, root, options.fix))
        for twin in twins:
            if sync_install_cell(twin, root):
                print(f"{twin.relative_to(root)}: install cell written")
        return 0
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1


def run_all(twins: list[Path], root: Path) -> int:
    """Execute each twin, go on after a failure, and return the exit status."""
    failed = False
    for twin in twins:
        try:
            seconds = run(twin)
        except NotebookError as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        slow = f"  (more than the {SECONDS_ALLOWED} s allowed)" if seconds > SECONDS_ALLOWED else ""
        print(f"{twin.relative_to(root)}: {seconds:.1f} s{slow}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
