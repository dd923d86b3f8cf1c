"""Processes that this package starts end with the one that started them, however that ended."""

from __future__ import annotations

import os
import threading
import time

PARENT = "FEWSHOT_COURSE_PARENT"
"""Environment variable: the process with whose end a worker ends."""

POLL = 0.5
"""Seconds between two looks."""

_watched: set[int] = set()


def end_with(process: int | None) -> None:
    """End this process within a second after another has ended.

    A kill cannot be caught, so the one that is killed cannot stop its workers: they look for
    themselves.  Windows tells no process that its parent is gone; there nothing happens.

    Args:
        process: number of the other; ``None``: none, and this one's own number is left out.
    """
    if process is None or process in {*_watched, os.getpid()} or os.name != "posix":
        return
    _watched.add(process)
    threading.Thread(target=_watch, args=(process,), daemon=True, name="end_with").start()


def _watch(process: int) -> None:
    while _is_there(process):
        time.sleep(POLL)
    os._exit(1)  # at once: nothing that is computed now has anybody to take it


def _is_there(process: int) -> bool:
    if os.getppid() == process:
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and somebody else's
        return True
    return True
