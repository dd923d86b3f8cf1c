"""Each guard of the notebook checks, shown a notebook with the fault that it must catch."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbval_tolerance import agree, tolerance_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

TIMEOUT = 120


def printed(text, source=None, tags=(), count=1):
    """A code cell that prints ``source`` (a Python expression) and has ``text`` stored."""
    source = f"print({text!r})" if source is None else source
    outputs = [new_output("stream", name="stdout", text=f"{text}\n")]
    return new_code_cell(
        source, execution_count=count, outputs=outputs, metadata={"tags": list(tags)}
    )


def write(path, *cells):
    notebook = new_notebook(cells=[new_markdown_cell("# A page"), *cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)
    return path


def nbval(notebook, *, plugin=True):
    """Run nbval on one notebook in a process of its own; return status and output."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-ra"]
    command += ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(notebook.parent)]
    command += ["-p", "nbval_tolerance"] if plugin else []
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [*command, str(notebook)],
        cwd=notebook.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


# --- comparing texts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "new", "tolerance"),
    [
        ("kl 1.0000000", "kl 1.0000005", "tol-exact"),
        ("kl 1234567.0", "kl 1234567.9", "tol-exact"),
        ("loss 0.500", "loss 0.510", "tol-loss"),
        ("accuracy 0.84", "accuracy 0.86", "tol-accuracy"),
        ("84.2 % [83.1, 85.3], n = 10", "86.2 % [85.1, 83.3], n = 10", "tol-accuracy"),
        ("84.2 ± 1.0 %", "82.4 ± 2.9 %", "tol-accuracy"),
        ("gain +3.1 points [1.0, 5.2]", "gain +1.2 points [-0.9, 3.3]", "tol-accuracy"),
        ("  9.98 and\n 0.1", "10.02  and 0.1", "tol-loss"),
        ("[ 9.98  10.02]", "[10.02 9.98]", "tol-loss"),
        ("[1.   0.98]", "[0.99 1.  ]", "tol-accuracy"),
        ("difference −0.010", "difference 0.005", "tol-accuracy"),
        ("torch 2.13.0, conv4, 5,000", "torch 2.13.0, conv4, 5,000", "tol-loss"),
        ("step 1e-3", "step 1.01e-3", "tol-loss"),
    ],
)
def test_texts_that_agree(stored, new, tolerance):
    assert agree(stored, new, tolerance)


@pytest.mark.parametrize(
    ("stored", "new", "tolerance"),
    [
        ("kl 1.000000", "kl 1.000002", "tol-exact"),
        ("loss 0.500", "loss 0.511", "tol-loss"),
        ("loss 0.500", "loss -0.500", "tol-loss"),
        ("accuracy 0.84", "accuracy 0.87", "tol-accuracy"),
        ("accuracy 0.84", "accuracy 0.80", "tol-accuracy"),
        ("84.2 %", "86.3 %", "tol-accuracy"),
        ("84.2 % [83.1, 85.3]", "84.2 % [83.1, 87.4]", "tol-accuracy"),
        ("84.2 seconds", "85.2 seconds", "tol-accuracy"),  # only percent gets two points
        ("0.50 % 12.0", "0.50 % 12.1", "tol-accuracy"),
        ("n = 1000", "n = 1001", "tol-loss"),  # a count
        ("n = 1000.", "n = 1001.", "tol-loss"),  # a count at the end of a sentence
        ("accuracy 1.0", "accuracy 1", "tol-accuracy"),  # printed in another way
        ("torch 2.13.0", "torch 2.13.1", "tol-loss"),
        ("conv4 0.5", "conv5 0.5", "tol-loss"),
        ("loss 0.5", "Loss 0.5", "tol-loss"),
        ("loss 0.5", "loss 0.5 0.5", "tol-loss"),
        ("loss 0.5", "loss nan", "tol-loss"),
        ("0.5 0.6", "0.6 0.5", "tol-loss"),
    ],
)
def test_texts_that_differ(stored, new, tolerance):
    assert not agree(stored, new, tolerance)


def test_untagged_cells_are_strict():
    assert tolerance_of(["remove-input", "tolerant-reader"]) is None


@pytest.mark.parametrize(
    "tags",
    [["tol-50"], ["rtol-10"], ["atol-0.5"], ["rtol"], ["atol=1"], ["tol-Loss"], ["TOL-LOSS"],
     ["tol-loss", "tol-accuracy"]],
)  # fmt: skip
def test_only_three_tolerances_exist(tags):
    with pytest.raises(ValueError, match="tol-exact, tol-loss, tol-accuracy"):
        tolerance_of(tags)


# --- whole notebooks --------------------------------------------------------------------------


def table(number):
    return f"<table><tr><td>loss</td><td>{number}</td></tr></table>"


def shown(kind, stored, now, tags):
    """A cell that displays ``now`` as a MIME kind and has ``stored`` stored."""
    source = f"from IPython.display import display\ndisplay({{{kind!r}: {now!r}}}, raw=True)"
    return new_code_cell(
        source,
        execution_count=1,
        outputs=[new_output("display_data", data={kind: stored})],
        metadata={"tags": tags},
    )


def result(stored, now, tags):
    """A cell whose last expression is ``now`` and has ``stored`` stored."""
    outputs = [new_output("execute_result", data={"text/plain": stored}, execution_count=1)]
    return new_code_cell(now, execution_count=1, outputs=outputs, metadata={"tags": tags})


def test_a_sound_notebook_passes(tmp_path):
    page = write(
        tmp_path / "page.ipynb",
        printed("shape (3, 4), n = 12"),
        printed("loss  9.98", "print('loss 10.02')", ["tol-loss"]),
        printed("84.2 % [83.1, 85.3], n = 10", "print('85.2 % [84.1, 86.3], n = 10')",
                ["tol-accuracy"]),
        result("0.5000", "0.5049", ["tol-loss"]),
        shown("text/html", table("0.500"), table("0.509"), ["tol-loss"]),
        shown("image/svg+xml", "<svg>a</svg>", "<svg>b</svg>", []),
        shown("image/png", "aGVsbG8=", "d29ybGQ=", []),
    )  # fmt: skip
    status, output = nbval(page)
    assert status == 0, output
    assert "7 passed" in output


NEVER_RUN = printed("a", count=None)
NEVER_RUN.outputs = []
STDERR = new_code_cell(
    "import sys; print('careful', file=sys.stderr)",
    execution_count=1,
    outputs=[new_output("stream", name="stderr", text="careful\n")],
)
ERROR = new_code_cell(
    "1 / 0",
    execution_count=1,
    outputs=[new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])],
    metadata={"tags": ["raises-exception"]},
)

FAULTS = {
    "never run": (NEVER_RUN, "never run"),
    "stored stderr": (STDERR, "stderr"),
    "stored error": (ERROR, "ZeroDivisionError|pass over"),
    "new stderr": (printed("a", "import sys; print('a'); print('b', file=sys.stderr)"), "stderr"),
    "strict number": (printed("0.50", "print('0.51')"), "differ"),
    "strict white space": (printed("a  b", "print('a b')"), "differ"),
    "number": (printed("loss 0.500", "print('loss 0.511')", ["tol-loss"]), "differ"),
    "count": (printed("n = 10, 0.5", "print('n = 11, 0.5')", ["tol-loss"]), "differ"),
    "text": (printed("loss 0.5", "print('gain 0.5')", ["tol-loss"]), "differ"),
    "more": (printed("loss 0.5", "print('loss 0.5', 1)", ["tol-loss"]), "differ"),
    "nothing": (printed("loss 0.5", "pass", ["tol-loss"]), "Missing output|differ"),
    "result": (result("0.50", "0.52", ["tol-loss"]), "differ"),
    "html": (shown("text/html", table("0.50"), table("0.52"), ["tol-loss"]), "differ"),
    "unknown tolerance": (printed("0.5", tags=["rtol-10"]), "one tolerance"),
    "ignored by tag": (printed("0.5", "print(7)", ["nbval-ignore-output"]), "pass over"),
    "ignored by comment": (printed("0.5", "# NBVAL_IGNORE_OUTPUT\nprint(7)"), "pass over"),
    "skipped": (printed("0.5", "print(7)", ["nbval-skip"]), "pass over"),
    "machine path": (printed("saved to /home/ada/model.json"), "path of one machine"),
    "raises": (printed("0.5", "1 / 0"), "ZeroDivisionError|exception"),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """One notebook with every fault, a cell each, run once: the failures by cell number."""
    folder = tmp_path_factory.mktemp("faulty")
    page = write(folder / "page.ipynb", *(cell for cell, _ in FAULTS.values()))
    status, output = nbval(page)
    assert status == 1, output
    return output


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails(faulty, fault):
    position = list(FAULTS).index(fault)
    part = re.search(rf"^_+ .*Cell {position}\s_+$(.*?)(?=^(_+ |=+ ))", faulty, re.M | re.S)
    assert part, f"cell {position} did not fail:\n{faulty}"
    assert re.search(FAULTS[fault][1], part[1]), part[1]


def test_plain_nbval_would_not_notice(tmp_path):
    """These guards are ours: without the plugin the same cells do not fail."""
    silent = ["never run", "skipped", "ignored by tag", "ignored by comment", "machine path"]
    page = write(tmp_path / "page.ipynb", *(FAULTS[fault][0] for fault in silent))
    status, output = nbval(page, plugin=False)
    assert status == 0, output


def test_without_the_plugin_tolerances_do_nothing(tmp_path):
    page = write(tmp_path / "page.ipynb", printed("loss 0.50", "print('loss 0.505')", ["tol-loss"]))
    assert nbval(page, plugin=True)[0] == 0
    assert nbval(page, plugin=False)[0] == 1


def test_the_make_target_loads_the_plugin(tmp_path):
    """The very command of ``make nbval`` fails on a cell that only the plugin refuses."""
    page = write(tmp_path / "page.ipynb", FAULTS["never run"][0])
    dry = ["make", "--no-print-directory", "-n", "nbval", f"NOTEBOOKS={page}", "JOBS=1"]
    # Called from make itself, that make's own options must not come in.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    lines = subprocess.run(
        dry, cwd=ROOT, env=clean, capture_output=True, text=True, check=True
    ).stdout
    (command,) = [line for line in lines.splitlines() if "--nbval" in line]
    words = shlex.split(command)
    assert words[words.index("nbval_tolerance") - 1] == "-p"
    done = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 1
    assert "never run" in done.stdout
