"""Learning-rate schedules, as plain numbers: both frameworks use these very functions."""

from __future__ import annotations

from typing import Any

from fewshot_course._checks import check_number


def warmup_linear(step: int, steps: int, warmup: float) -> float:
    """Rise linearly from 0 to 1, then fall linearly to 0.

    Args:
        step: the current step, counted from 0.
        steps: number of steps in all.
        warmup: part of the steps that rises, in [0, 1].

    Returns:
        The factor on the learning rate, in (0, 1].
    """
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return (steps - step) / max(steps - rising, 1)


def ramp(step: int, steps: int, part: float) -> float:
    """Rise linearly from 0 to 1 over the first ``part`` of the steps, then stay at 1."""
    rising = part * steps
    return 1.0 if step >= rising else step / rising


SMALLEST_CHANGE = 1e-8
"""A smaller reduction of the learning rate is not made, as in torch."""


class ReduceLROnPlateau:
    """Divide the learning rate when a loss stops falling, as torch's class of that name does.

    Args:
        lr: the learning rate to start with, > 0.
        factor: what the rate is multiplied by, in (0, 1).
        patience: evaluations without improvement that are allowed.
        threshold: relative improvement that counts.
        min_lr: lower bound of the rate.
    """

    def __init__(
        self,
        lr: float,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
    ) -> None:
        self.lr = check_number("lr", lr, low=0, low_open=True)
        self.factor = check_number("factor", factor, low=0, low_open=True)
        if factor >= 1:
            raise ValueError(f"factor must lie in (0, 1), got {factor!r}.")
        self.patience = check_number("patience", patience, low=0, integer=True)
        self.threshold = check_number("threshold", threshold, low=0)
        self.min_lr = check_number("min_lr", min_lr, low=0)
        self.best = float("inf")
        self.bad = 0

    def step(self, loss: float) -> float:
        """Take the newest loss; return the learning rate to go on with."""
        if loss < self.best * (1.0 - self.threshold):
            self.best, self.bad = loss, 0
        else:
            self.bad += 1
        if self.bad > self.patience:
            lower, self.bad = max(self.lr * self.factor, self.min_lr), 0
            if self.lr - lower > SMALLEST_CHANGE:
                self.lr = lower
        return self.lr

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs, ready for JSON."""
        return {"lr": self.lr, "best": self.best, "bad": self.bad}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.lr, self.best, self.bad = state["lr"], state["best"], state["bad"]
