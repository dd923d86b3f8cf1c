"""Every estimator that can resume, killed at random moments: it ends as if nothing had happened.

``make kills`` does it more often: FEWSHOT_COURSE_KILLS is the number of kills of each estimator.
"""

import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import every_estimator
import killed_estimators
import numpy as np
import own_data
import pytest
import tiny_bert
from frameworks import FRAMEWORKS

from fewshot_course.report import load_model

ROOT = Path(__file__).parents[1]
KILLS = int(os.environ.get("FEWSHOT_COURSE_KILLS", "1"))


def resumable(framework, bert):
    """Return the names of the estimators whose fit takes a folder of checkpoints."""
    fits = every_estimator.fits(framework, bert)
    return [
        name
        for name, (fit, _) in fits.items()
        if "checkpoint_dir" in inspect.signature(_class(framework, name).fit).parameters
    ]


def _class(framework, name):
    from fewshot_course.frameworks import framework_module

    return getattr(framework_module(framework), name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_killed_training_ends_as_an_undisturbed_one(framework, tmp_path):
    (tmp_path / "bert").mkdir()
    names = resumable(framework, tiny_bert.make(tmp_path / "bert"))
    assert len(names) >= 17
    folder = tmp_path / "runs"
    folder.mkdir()
    script = Path(killed_estimators.__file__)
    done = subprocess.run(
        [sys.executable, script, framework, folder, str(KILLS), "0", *names],
        capture_output=True, text=True, timeout=600 + 300 * KILLS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _, same in lines if same == "True"] == names
    # A fast machine may end a training before its signal; most must have met one.
    assert sum(int(killed) for _, killed, _ in lines) >= KILLS * len(names) / 2


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_many_fits_leave_neither_files_nor_memory_behind(framework, tmp_path):
    """A fit with everything on: log, checkpoints, saving; then the same again and again."""
    more = 20 if KILLS == 1 else 200
    code = f"""
import os, resource, sys, threading
sys.path.insert(0, {str(Path(every_estimator.__file__).parent)!r})
import every_estimator as every
from fewshot_course.frameworks import framework_module
fit = lambda i: framework_module({framework!r}).KLAdapter(**every.DOMAINS).fit(
    every.X, every.Y, every.X + 1, device="cpu", log_dir=f"{tmp_path}/log{{i}}",
    checkpoint_dir=f"{tmp_path}/points{{i}}").save("{tmp_path}/model")
for i in range(5):
    fit(i)
def held():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return len(os.listdir("/proc/self/fd")), threading.active_count(), peak
before = held()
for i in range(5, 5 + {more}):
    fit(i)
print(*before, *held())
"""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("counts descriptors in /proc")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=True
    )
    files, threads, peak, more_files, more_threads, more_peak = map(float, done.stdout.split())
    assert more_files <= files + 1
    assert more_threads <= threads
    assert more_peak - peak <= 2.0 * more  # MB; a network of 100 kB, its graph and optimiser


@pytest.mark.parametrize("command", ["report", "labs"])
def test_a_killed_command_leaves_whole_files_or_none(command, tmp_path):
    """What a page or a notebook is written over stays as it was, until the new one is whole."""
    out = tmp_path / "out"
    out.mkdir()
    if command == "report":
        source = own_data.vector_csv(tmp_path)
        arguments = ["report", source, "--out", out / "r.html", "--draws", "3"]
    else:
        arguments = ["labs", "build", "--out", out]
    call = [sys.executable, "-c", "from fewshot_course.cli import main; main()", *arguments]
    subprocess.run(call, check=True, capture_output=True, cwd=ROOT)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert before
    started = time.monotonic()
    subprocess.run(call, check=True, capture_output=True, cwd=ROOT)
    lasts = time.monotonic() - started
    rng = np.random.default_rng(0)
    for _ in range(KILLS + 2):
        child = subprocess.Popen(
            call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        time.sleep(rng.uniform(0.5, 1.0) * lasts)
        child.kill()
        child.wait()
        for path, content in before.items():
            now = path.read_bytes()
            if path.suffix == ".html":  # it shows seconds, which differ
                assert now.startswith(content[:200])
                assert now.rstrip().endswith(b"</html>")
            elif path.suffix == ".safetensors":
                load_model(path)
            else:
                assert now == content
    subprocess.run(call, check=True, capture_output=True, cwd=ROOT)
