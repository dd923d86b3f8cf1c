"""Try the course in Colab's Python: `make check-colab` there, `make colab-image` with Docker.

The package is installed as the first cell of the notebooks does it, but from this checkout: numpy,
torch and tensorflow are named with the versions that are there, so that pip refuses to replace
them.  Then every notebook runs.  Its numbers are not compared, since Colab has other versions than
constraints.txt; what counts is that each cell runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELD = ("numpy", "tensorflow", "torch")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def held() -> dict[str, str]:
    """Return the versions of what must stay."""
    return {one.name: one.version for one in distributions() if one.name in HELD}


def install(root: Path, there: dict[str, str]) -> None:
    """Install the package of ``root`` beside what is there.

    Raises:
        subprocess.CalledProcessError: pip failed, for example because it had to replace something.
    """
    pins = [f"{name}=={version}" for name, version in there.items()]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", str(root), *pins], check=True)


def replaced(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return a line for each version that is not what it was."""
    return [
        f"{name} was {before.get(name)}, is {after.get(name)}"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]


def run_notebook(path: Path) -> str:
    """Run a notebook in a fresh kernel; return what went wrong, nothing if all is well."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    try:
        NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute()
    except CellExecutionError as error:
        return COLOUR.sub("", str(error))
    return ""


def main(root: Path = ROOT) -> int:
    """Install, then run all notebooks; return the exit status."""
    before = held()
    print("there:", *(f"{name} {version}" for name, version in before.items()), flush=True)
    try:
        install(root, before)
    except subprocess.CalledProcessError:
        print("pip could not install the package beside them", file=sys.stderr)
        return 1
    if changed := replaced(before, held()):
        print("replaced:", "; ".join(changed), file=sys.stderr)
        return 1
    os.environ.setdefault("FEWSHOT_COURSE_PRESET", "quick")
    failed = []
    for path in sorted(
        path for folder in ("chapters", "book") for path in (root / folder).rglob("*.ipynb")
    ):
        name, start = path.relative_to(root), time.perf_counter()
        problem = run_notebook(path)
        verdict = "failed" if problem else "ran"
        print(f"{name}: {verdict}, {time.perf_counter() - start:.0f} s", flush=True)
        if problem:
            failed.append(str(name))
            print(problem, file=sys.stderr)
    print(f"{len(failed)} failed: {', '.join(failed)}" if failed else "all notebooks ran")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
