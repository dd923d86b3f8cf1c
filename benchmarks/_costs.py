"""Time and memory of one point, each measured in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Measure = Callable[..., dict[str, float]]


def reset_peak() -> float:
    """Forget the peak so far (Linux); return what the process uses now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def peak_mb() -> float:
    """Return the largest memory of this process since the last reset, in MB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found, "this system does not tell a process's largest memory"
    return int(found[1]) / 1e3


def main(
    file: str,
    title: str,
    measure: Measure,
    axes: Mapping[str, Sequence[int]],
    default: Mapping[str, int],
) -> None:
    """Measure both frameworks along each axis, print the points and store them.

    Args:
        file: the program itself, which is started again for each point.
        title: what ``--help`` says.
        measure: (framework, rounds, one value for each axis) → "ms" and "mb".
        axes: name → values; one moves at a time.
        default: name → value of an axis while another one moves.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--out", help="JSON file for the points")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    points = []
    print(f"{'framework':10} {'axis':10} {'value':>7} {'ms':>9} {'MB':>7}")
    for axis, values in axes.items():
        for value in values:
            for framework in ("torch", "tf"):
                what = {**default, axis: value, "framework": framework, "rounds": options.rounds}
                command = [sys.executable, file, "--one", json.dumps(what)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                point = {"framework": framework, "axis": axis, "value": value}
                point |= json.loads(done.stdout.splitlines()[-1])
                points.append(point)
                print(f"{framework:10} {axis:10} {value:7} {point['ms']:9.1f} {point['mb']:7.0f}")
    if options.out:
        facts = {"python": platform.python_version(), "machine": platform.machine(), "threads": 1}
        temporary = f"{options.out}.part"
        with open(temporary, "w", encoding="utf-8") as out:
            json.dump({"default": dict(default), **facts, "points": points}, out, indent=1)
            out.write("\n")
        os.replace(temporary, options.out)
