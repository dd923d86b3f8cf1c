"""Learning-rate schedules, as plain numbers: both frameworks use these very functions."""

from __future__ import annotations

from collections.abc import Callable
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


class Schedule:
    """The learning rate of each step, and when to stop.

    Args:
        kind: after the warm-up the rate falls to 0 ("linear"), stays ("constant"), or falls when
            a loss stops falling ("plateau").
        steps: number of steps in all.
        steps_per_epoch: steps between two looks at the validation part.
        warmup: part of the steps in which the rate rises from 0, in [0, 1].
        plateau_factor: what a plateau multiplies the rate by.
        plateau_patience: epochs without improvement that a plateau needs.
        patience: epochs without improvement on the validation part that end the training.

    Attributes:
        best_epoch: epoch of the lowest validation loss, counted from 1; 0: none yet.
        stopped: whether the training has ended early.
    """

    def __init__(
        self, kind: str, steps: int, steps_per_epoch: int, warmup: float,
        plateau_factor: float, plateau_patience: int, patience: int,
    ) -> None:  # fmt: skip
        self.kind, self.steps, self.warmup = kind, steps, warmup
        self.steps_per_epoch, self.patience = steps_per_epoch, patience
        self.plateau = ReduceLROnPlateau(1.0, plateau_factor, plateau_patience)
        self.best, self.best_epoch, self.bad, self.total = float("inf"), 0, 0, 0.0

    @property
    def stopped(self) -> bool:
        """Whether the training has ended early."""
        return self.bad >= self.patience

    def factor(self, step: int) -> float:
        """Return what the learning rate is multiplied by in a step, counted from 0."""
        rising = self.warmup * self.steps
        if self.kind == "linear" or step < rising:
            return warmup_linear(step, self.steps, self.warmup)
        return self.plateau.lr if self.kind == "plateau" else 1.0

    def after(
        self,
        step: int,
        loss: Any,
        validate: Callable[[], float] | None,
        keep: Callable[[], None],
    ) -> dict[str, float]:
        """Note a step; at the end of an epoch, look at the validation part.

        Args:
            step: its number, counted from 0.
            loss: its loss; watched for a plateau where there is no validation part.
            validate: computes the validation loss.
            keep: called when that is the lowest so far.

        Returns:
            "validation_loss" at the end of an epoch.
        """
        watch_training = self.kind == "plateau" and validate is None
        if watch_training:
            self.total += float(loss)
        if (step + 1) % self.steps_per_epoch:
            return {}
        seen: dict[str, float] = {}
        if validate is not None:
            seen["validation_loss"] = validate()
            if seen["validation_loss"] < self.best:
                self.best, self.bad = seen["validation_loss"], 0
                self.best_epoch = (step + 1) // self.steps_per_epoch
                keep()
            else:
                self.bad += 1
        if self.kind == "plateau":
            mean = self.total / self.steps_per_epoch
            self.plateau.step(mean if watch_training else seen["validation_loss"])
            self.total = 0.0
        return seen

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs, ready for JSON."""
        names = ("best", "best_epoch", "bad", "total")
        return {name: getattr(self, name) for name in names} | {"plateau": self.plateau.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        for name in ("best", "best_epoch", "bad", "total"):
            setattr(self, name, state[name])
        self.plateau.restore(state["plateau"])
