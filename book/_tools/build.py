"""Build the book strictly: every warning, and every reference that leads nowhere, is an error.

``python book/_tools/build.py [--out FOLDER] [--root FOLDER]`` builds anew (so that no page is
left from an older state), prints the first page and ends with 1 where anything was warned of.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def build(root: Path, out: Path, quiet: bool = False) -> int:
    """Build the book of ``root`` into ``out/_build/html`` and return the exit code."""
    shutil.rmtree(out / "_build" / "html", ignore_errors=True)
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(root), "--path-output", str(out)]
    command += ["--all", "-W", "-n", "--keep-going", *(["-q"] if quiet else [])]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Build the book strictly.")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of _config.yml")
    parser.add_argument("--out", type=Path, default=None, help="_build is made in here")
    parser.add_argument("--quiet", action="store_true", help="show warnings and errors only")
    options = parser.parse_args()
    root = options.root.resolve()
    out = (options.out or root).resolve()
    if build(root, out, options.quiet):
        print("The book was not built: mend the warnings above.", file=sys.stderr)
        return 1
    address = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"][
        "url"
    ]
    if "/OWNER/" in address:
        print(f"The repository's address is a placeholder ({address}): set it in _config.yml.")
    print(f"The book: {out / '_build' / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
