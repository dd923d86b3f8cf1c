"""The Sphinx extensions' folder on the path: exercise files are read by the same code."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
