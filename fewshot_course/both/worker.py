"""One worker of a data-parallel training, started by the classifier or by an engine's launcher.

python -m fewshot_course.both.worker torch|tf FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fewshot_course._processes import PARENT, end_with
from fewshot_course.both.scaling import ERROR, do_job
from fewshot_course.frameworks import framework_module


def main(framework: str, folder: Path) -> int:
    """Do the job in the folder; a failure is told in one line."""
    end_with(int(os.environ[PARENT]) if PARENT in os.environ else None)
    try:
        module = framework_module(framework, "scaling")
        do_job(module.DataParallelClassifier, folder)
    except Exception as error:
        message = " ".join(str(error).split())
        print(f"{ERROR}{type(error).__name__}: {message}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
