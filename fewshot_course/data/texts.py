"""The two data sets of short English texts that were written for the course.

They lie beside this module, in ``texts/``: ``tickets.csv`` (messages to the support desk of an
invented online shop) and ``reviews.csv`` (opinions on kitchen things and on films).  The
column ``split`` fixes which rows are for training, for validation and for the test.
"""

from __future__ import annotations

import csv
import io
from importlib import resources

import numpy as np

from fewshot_course.data._types import Loaded

SPLITS = ("train", "validation", "test")
DOMAINS = ("kitchen", "films")
SENTIMENTS = ("negative", "positive")
INTENTS = (
    "account_hacked",
    "cancel_order",
    "card_declined",
    "change_address",
    "damaged_item",
    "delete_account",
    "device_fault",
    "invoice_request",
    "late_delivery",
    "missing_parcel",
    "overcharged",
    "password_reset",
    "refund_status",
    "return_request",
    "wrong_item",
)


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of this package, each a column's name to its value."""
    # The folder has the name of this module, so it is no package and is reached from outside.
    file = resources.files("fewshot_course") / "data" / "texts" / name
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))


def load_tickets(split: str) -> Loaded:
    """Return the messages; "all" is training, validation and test part in this order."""
    wanted = SPLITS if split == "all" else (split,)
    rows = [row for part in wanted for row in read_rows("tickets.csv") if row["split"] == part]
    return _loaded(rows, INTENTS)


def load_reviews(split: str) -> Loaded:
    """Return the reviews of both domains, in each split the kitchen first."""
    return _reviews(split, DOMAINS)


def load_reviews_kitchen(split: str) -> Loaded:
    """Return the reviews of kitchen things; "all" is the three splits in order."""
    return _reviews(split, ("kitchen",))


def load_reviews_films(split: str) -> Loaded:
    """Return the reviews of films; "all" is the three splits in order."""
    return _reviews(split, ("films",))


def _reviews(split: str, domains: tuple[str, ...]) -> Loaded:
    """Return the reviews of some domains, ordered by split, then by domain."""
    wanted = SPLITS if split == "all" else (split,)
    every = read_rows("reviews.csv")
    rows = [
        row
        for part in wanted
        for domain in domains
        for row in every
        if (row["split"], row["domain"]) == (part, domain)
    ]
    return _loaded(rows, SENTIMENTS)


def _loaded(rows: list[dict[str, str]], names: tuple[str, ...]) -> Loaded:
    """Number the labels of the rows in the order of the names."""
    labels = np.array([names.index(row["label"]) for row in rows], dtype=np.int64)
    return Loaded([row["text"] for row in rows], labels, names)
