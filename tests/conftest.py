"""What every test may rely on: one thread, repeatable examples, and skips that say why."""

from __future__ import annotations

import contextlib
import importlib
import os

# Before NumPy or a framework is imported: one thread a process, so that sums have one order and
# test processes do not fight over the cores.
for name in (
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
):
    os.environ[name] = "1"
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# As fewshot_course.tf does (its _start module says why); tests import TensorFlow themselves.
with contextlib.suppress(ImportError):
    importlib.import_module("triton")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# The same examples in every run; no deadline, since the first call of a framework is slow.
settings.register_profile("course", derandomize=True, deadline=None)
settings.load_profile("course")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of the full data sets where no folder with them is named."""
    if os.environ.get("FEWSHOT_COURSE_DATA"):
        return
    skip = pytest.mark.skip(reason="full data sets: set FEWSHOT_COURSE_DATA to a folder with them")
    for item in items:
        if item.get_closest_marker("real_data"):
            item.add_marker(skip)
