"""Both frameworks in one process, TensorFlow first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

ROOT = Path(__file__).parents[2]
FIT = """
import numpy as np
import fewshot_course.tf
from fewshot_course.torch import KLAdapter

X, y = np.random.default_rng(0).normal(size=(8, 2)), np.arange(8) % 2
KLAdapter(network="mlp", steps=1).fit(X, y, X)
"""


def run(code, *paths):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_pytorch_trains_after_tensorflow_has_started():
    """With PyTorch's own wheels for Linux it was a segmentation fault."""
    done = run(FIT)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("fault", ["", "raise OSError('a library is missing')"])
def test_triton_is_loaded_before_tensorflow(tmp_path, fault):
    (tmp_path / "triton.py").write_text(
        f"import sys\nprint('triton', 'tensorflow' in sys.modules)\n{fault}\n"
    )
    done = run("import fewshot_course.tf", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "triton False\n"
