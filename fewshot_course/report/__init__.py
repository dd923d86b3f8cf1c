"""A report on examples of your own: which method, and how good is it?

``fewshot report DATA --out report.html`` on the command line, or :func:`write_report`.  The page
stands alone: no network, no script, no other file.  Beside it lies the recommended model, which
:func:`load_model` reads.
"""

from __future__ import annotations

from fewshot_course.report._compare import Cell, Choice, Comparison, Draw, Stage
from fewshot_course.report._copies import Copies
from fewshot_course.report._findings import Finding
from fewshot_course.report._label_next import label_next
from fewshot_course.report._methods import Method
from fewshot_course.report._model import Model, load_model
from fewshot_course.report._predict import predict_file
from fewshot_course.report._read import Examples, read_examples, read_images, read_table
from fewshot_course.report._write import Report, write_report

__all__ = [
    "Cell",
    "Choice",
    "Comparison",
    "Copies",
    "Draw",
    "Examples",
    "Finding",
    "Method",
    "Model",
    "Report",
    "Stage",
    "label_next",
    "load_model",
    "predict_file",
    "read_examples",
    "read_images",
    "read_table",
    "write_report",
]
