"""What mixed precision and gradient accumulation need beside a framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fewshot_course._checks import check_choice, check_number

PRECISIONS = ("float32", "bfloat16", "float16")
"""What matrix products may be computed in; "float32" stands for the dtype of the weights."""


def check_precision(precision: Any, dtype: str) -> str:
    """Return ``precision`` if it is known and the weights can be its master copy.

    Raises:
        ValueError: for an unknown name, or a low precision beside weights that are not float32.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision != "float32" and dtype != "float32":
        raise ValueError(
            f"precision={precision!r} keeps its master weights in float32, got dtype={dtype!r}."
        )
    return precision


def check_supported(precision: str, device: str, supported: tuple[str, ...]) -> None:
    """Raise if a device cannot compute in this precision.

    Raises:
        ValueError: naming the precision, the device and what it supports.
    """
    if precision not in supported:
        raise ValueError(
            f"precision={precision!r} is not supported on device={device!r}, which has "
            f"{', '.join(supported)}."
        )


def split_batch(n: int, parts: int) -> Iterator[tuple[slice, float]]:
    """Cut a batch into consecutive parts of like size.

    The mean over the batch is the sum of share · (mean over the part): with these shares the
    gradient of the parts adds up to that of the batch, also where the parts differ in size.

    Args:
        n: examples in the batch, ≥ 1.
        parts: how many; no more than there are examples are made.

    Yields:
        Which examples, and their share of the batch, in (0, 1].
    """
    check_number("n", n, low=1, integer=True)
    parts = min(check_number("parts", parts, low=1, integer=True), n)
    for k in range(parts):
        start, stop = k * n // parts, (k + 1) * n // parts
        yield slice(start, stop), (stop - start) / n


class LossScale:
    """The factor that keeps small gradients from vanishing in float16 (Micikevicius et al. 2018).

    The loss is multiplied by it before the gradient is taken, the gradient divided by it
    afterwards.  A gradient that is infinite or NaN means that the factor is too large: it is
    halved and the update left out.  After ``patience`` good updates it is doubled.

    Args:
        value: to start from; 1 with ``patience=None`` never changes.
        patience: good updates before it is doubled; ``None``: the factor stays.

    Attributes:
        value: the present factor.
        skipped: updates left out so far.
    """

    def __init__(self, value: float = 2.0**16, patience: int | None = 2000) -> None:
        self.value, self.patience = check_number("value", value, low=0, low_open=True), patience
        self.good = self.skipped = 0

    def update(self, finite: bool) -> bool:
        """Note whether a gradient was finite; returns whether the weights may be updated."""
        if self.patience is None:
            return True  # a bad loss is reported by the training loop
        if not finite:
            self.value, self.good, self.skipped = self.value / 2, 0, self.skipped + 1
            return False
        self.good += 1
        if self.good == self.patience:
            self.value, self.good = self.value * 2, 0
        return True

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs, ready for JSON."""
        return {"value": self.value, "good": self.good, "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.value, self.good, self.skipped = state["value"], state["good"], state["skipped"]


def loss_scale(precision: str) -> LossScale:
    """Return the scale that a precision needs: only float16 has too few small numbers."""
    return LossScale() if precision == "float16" else LossScale(1.0, None)
