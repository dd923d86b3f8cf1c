"""Say where the built book lies, and show it where there is a screen.

python book/_tools/open_book.py _build/html/index.html
"""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def has_screen(platform: str, environment: Mapping[str, str]) -> bool:
    """Tell whether a browser window could be seen: a desktop, and not a CI machine."""
    if environment.get("CI"):
        return False
    return platform == "darwin" or bool(
        environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    )


def main(page: str) -> None:
    """Print the address of ``page`` and open it."""
    address = Path(page).resolve().as_uri()
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    repository = config["repository"]["url"]
    if "/OWNER/" in repository:
        print(
            f"Note: the repository's address in _config.yml is a placeholder ({repository}).\n"
            "      Until it is set, Colab links and the notebooks' install cells lead nowhere."
        )
    print(f"The book is at {address}")
    if has_screen(sys.platform, os.environ):
        webbrowser.open(address)


if __name__ == "__main__":
    main(sys.argv[1])
