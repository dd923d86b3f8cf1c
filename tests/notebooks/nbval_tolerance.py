"""What the course adds to nbval: three named tolerances, and no cell that goes unchecked.

Load it with ``-p nbval_tolerance``; pytest does not read this folder's conftest for notebooks
that lie elsewhere.

* An untagged cell must print exactly what is stored.
* A cell tagged ``tol-exact``, ``tol-loss`` or ``tol-accuracy`` must print the same text around
  its numbers (white space collapsed), the same counts (numbers without a decimal point), and
  measured numbers within the tolerance.
* Any other tag that looks like a tolerance, a stored cell that was never run, stderr, and a cell
  that asks nbval to pass over it are failures.
* Pictures are not compared.  A notebook prints what its figure shows.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from nbval import plugin as nbval

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_tools"))
import notebooks  # noqa: E402

# A number stands alone: not "conv4", not the version "2.13.0".  NumPy prints 1.0 in an array as
# "1."; before "]", "," or another number that point belongs to the number, elsewhere it ends a
# sentence.
DIGITS = r"\d+(?:\.\d+|\.(?=\s*[\],]|\s+[-+]?\d))?(?:[eE][-+]?\d+)?"
NUMBER = re.compile(rf"(?<![\w.])[-+]?{DIGITS}(?![\w]|\.\d)")
# "84.2 %", "84.2 ± 1.1 %", "84.2 % [83.1, 85.3]", "+3.1 points [1.0, 5.2]"
PERCENT = re.compile(
    rf"[-+]?{DIGITS}(?:\s*(?:±|\+/-)\s*{DIGITS})?\s*(?:%|points?\b)"
    rf"(?:\s*\[\s*[-+]?{DIGITS}\s*,\s*[-+]?{DIGITS}\s*\])?"
)

# From the stored number, and whether it is printed in percent, the difference that is allowed.
TOLERANCES: dict[str, Callable[[Decimal, bool], Decimal]] = {
    "tol-exact": lambda stored, percent: Decimal("1e-6") * max(Decimal(1), abs(stored)),
    "tol-loss": lambda stored, percent: Decimal("0.02") * abs(stored),
    "tol-accuracy": lambda stored, percent: Decimal("2") if percent else Decimal("0.02"),
}
LOOKS_LIKE_TOLERANCE = re.compile(r"(tol|rtol|atol)([-_=:].*)?", re.IGNORECASE)


def tolerance_of(tags: list[str]) -> str | None:
    """Return the cell's tolerance, or None for a strict cell.

    Raises:
        ValueError: A tag looks like a tolerance but is none of the three, or there are two.
    """
    asked = [tag for tag in tags if LOOKS_LIKE_TOLERANCE.fullmatch(tag)]
    unknown = [tag for tag in asked if tag not in TOLERANCES]
    if unknown or len(asked) > 1:
        known = ", ".join(TOLERANCES)
        raise ValueError(f"a cell may carry one tolerance out of {known}; this one has {asked}")
    return asked[0] if asked else None


def frame(text: str) -> str:
    """Return the text around the numbers, with white space collapsed."""
    return " ".join(NUMBER.sub(" # ", text).split())


def agree(stored: str, new: str, tolerance: str) -> bool:
    """Tell whether two printed texts agree within a named tolerance.

    Args:
        stored: The text in the committed notebook.
        new: The text printed now.
        tolerance: A key of ``TOLERANCES``.
    """
    stored, new = stored.replace("−", "-"), new.replace("−", "-")
    if frame(stored) != frame(new):
        return False
    percents = [match.span() for match in PERCENT.finditer(stored)]
    for old, now in zip(NUMBER.finditer(stored), NUMBER.finditer(new), strict=True):
        if re.fullmatch(r"[-+]?\d+", old[0]) or re.fullmatch(r"[-+]?\d+", now[0]):
            if old[0] != now[0]:  # a count
                return False
            continue
        percent = any(start <= old.start() < end for start, end in percents)
        a, b = Decimal(old[0]), Decimal(now[0])
        if abs(a - b) > TOLERANCES[tolerance](a, percent):
            return False
    return True


def settle(stored: Any, new: Any, tolerance: str) -> Any:
    """Return output ``new`` with each text that agrees replaced by the stored one."""
    new = copy.deepcopy(new)
    streams = stored.output_type == new.output_type == "stream" and stored.name == new.name
    if streams and agree(stored.text, new.text, tolerance):
        new.text = stored.text
    for kind, text in stored.get("data", {}).items():
        other = new.get("data", {}).get(kind)
        if kind.startswith("text/") and other is not None and agree(text, other, tolerance):
            new.data[kind] = text
    return new


# nbval's own methods, which ours wrap.  (A subclass does not work: nbval's constructor looks its
# own class up by name.)
nbval_runtest = nbval.IPyNbCell.runtest
nbval_compare_outputs = nbval.IPyNbCell.compare_outputs


def runtest(self: nbval.IPyNbCell) -> None:
    """Run and compare a cell that must have been run, be compared, and stay silent on stderr."""
    try:
        tolerance_of(self.cell.metadata.get("tags", []))
    except ValueError as error:
        self.raise_cell_error(str(error))
    for fault in notebooks.cell_faults(self.cell):
        self.raise_cell_error(f"The stored cell {fault}")
    nbval_runtest(self)
    for output in self.test_outputs:
        if output.get("name") == "stderr":
            self.raise_cell_error(f"The cell wrote to stderr: {output.text}")


def compare_outputs(
    self: nbval.IPyNbCell, test: list[Any], ref: list[Any], skip_compare: Any = None
) -> bool:
    """Compare new outputs (``test``) with stored ones (``ref``)."""
    tolerance = tolerance_of(self.cell.metadata.get("tags", []))
    if tolerance and len(test) == len(ref):
        test = [settle(old, new, tolerance) for old, new in zip(ref, test, strict=True)]
    skip = skip_compare or (*self.parent.skip_compare, "image/svg+xml")
    return nbval_compare_outputs(self, test, ref, skip)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put our checks around nbval's, and run kernels as ``notebooks.py run`` does."""
    if config.getoption("nbval"):
        nbval.IPyNbCell.runtest = runtest
        nbval.IPyNbCell.compare_outputs = compare_outputs
        os.environ.update(notebooks.KERNEL_ENVIRONMENT)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say in the log that the guards are active."""
    return "nbval_tolerance: active" if config.getoption("nbval") else None
