"""Build a book as `make book` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build_strictly(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the book of ``root`` as `make book` does."""
    command = [sys.executable, str(ROOT / "book/_tools/build.py"), "--root", str(root)]
    command += ["--out", str(out), "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=False)
