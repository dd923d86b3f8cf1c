"""Compare the coverage of a test run with what the status page shows, or store it for the page.

    python book/_tools/covered.py check MEASURED
    python book/_tools/covered.py store MEASURED

``MEASURED`` is the JSON report of coverage.  The page's numbers stand in ``book/coverage.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

STORED = Path(__file__).parents[1] / "coverage.json"
MAX_FALL = 0.5
"""Points of the whole that a run may lie below the stored one: machines skip other tests."""


def by_part(report: dict[str, Any]) -> dict[str, list[int]]:
    """Return subpackage → [lines that ran, lines]; files of the root are "fewshot_course"."""
    parts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, file in report["files"].items():
        folders = Path(name).parts[:-1]
        part = parts["/".join(folders[folders.index("fewshot_course") :][:2])]
        part[0] += file["summary"]["covered_lines"]
        part[1] += file["summary"]["num_statements"]
    return dict(sorted(parts.items()))


def share(parts: dict[str, list[int]]) -> float:
    """Return the percentage of all lines that ran."""
    ran, lines = (sum(part[i] for part in parts.values()) for i in (0, 1))
    return 100 * ran / lines


def check(parts: dict[str, list[int]], stored: dict[str, list[int]]) -> str | None:
    """Return what is wrong with a run beside the stored one."""
    now, then = share(parts), share(stored)
    if now >= then - MAX_FALL:
        return None
    fallen = [
        f"{name} {share({name: part}):.1f} % (was {share({name: stored[name]}):.1f} %)"
        for name, part in parts.items()
        if name in stored and share({name: part}) < share({name: stored[name]})
    ]
    return (
        f"The tests ran {now:.1f} % of the package's lines, the status page says {then:.1f} %. "
        f"Fallen: {', '.join(fallen)}. Test the new lines, or store the number with its reason: "
        f"make coverage"
    )


def main() -> None:
    """Check or store, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("check", "store"))
    parser.add_argument("measured", type=Path)
    arguments = parser.parse_args()
    report = json.loads(arguments.measured.read_text(encoding="utf-8"))
    parts = by_part(report)
    if arguments.what == "store":
        facts = {
            "date": report["meta"]["timestamp"][:10],
            "python": ".".join(map(str, sys.version_info[:2])),
            "parts": parts,
        }
        STORED.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    stored = json.loads(STORED.read_text(encoding="utf-8"))["parts"] if STORED.is_file() else parts
    wrong = check(parts, stored)
    print(wrong or f"{share(parts):.1f} % of the package's lines ran", file=sys.stderr)
    sys.exit(wrong is not None)


if __name__ == "__main__":
    main()
