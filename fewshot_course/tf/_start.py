"""Import TensorFlow quietly and make sure that Keras runs on it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

strategy: Any = None
"""The strategy of the group of workers that this process belongs to, if it does."""


def group() -> tuple[int, int]:
    """Return this worker's number and the size of its group, by ``TF_CONFIG``; or (0, 1).

    Raises:
        ValueError: if ``TF_CONFIG`` is no JSON of the form that TensorFlow documents.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0, 1
    try:
        config = json.loads(text)
        return int(config["task"]["index"]), len(config["cluster"]["worker"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"TF_CONFIG={text!r} does not name a cluster of workers and a task ({error!r})."
        ) from None


@contextmanager
def _native_stderr_aside() -> Iterator[None]:
    """Point file descriptor 2 elsewhere; what was written is shown again if the body fails.

    TensorFlow's native start-up messages carry process ids and times and ignore
    TF_CPP_MIN_LOG_LEVEL; nothing but the descriptor stops them.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            aside.seek(0)
            os.write(2, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _triton_first() -> None:
    """Load triton, which PyTorch's wheels bring, before TensorFlow: the other order kills Python.

    TensorFlow 2.20 and later makes its LLVM visible to the whole process, triton 3.7 then calls
    that one in place of its own, and the first optimizer of PyTorch, which loads triton, ends in a
    segmentation fault (https://github.com/tensorflow/tensorflow/issues/124205).
    """
    if "tensorflow" not in sys.modules and importlib.util.find_spec("triton"):
        # One that cannot be loaded here is not loaded later either.
        with suppress(Exception):
            importlib.import_module("triton")


def start() -> None:
    """Import TensorFlow and Keras.

    Raises:
        ImportError: if TensorFlow is not installed, or Keras runs on another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    _triton_first()
    try:
        with _native_stderr_aside():
            tensorflow = importlib.import_module("tensorflow")
            keras = importlib.import_module("keras")
            if group()[1] > 1:
                # Possible only before the first operation; waits until all workers are there.
                global strategy
                strategy = tensorflow.distribute.MultiWorkerMirroredStrategy()
            # The first operation prints start-up messages of its own.
            tensorflow.constant(0)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"fewshot_course.tf needs TensorFlow ({error}); "
            "install it with: pip install 'fewshot-course[tf]'"
        ) from error
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"Keras runs on {backend!r}, expected 'tensorflow'. Set the environment variable "
            "KERAS_BACKEND=tensorflow before keras is first imported."
        )
