"""A linear head on a frozen body (Chen et al. 2019): what is asked and what is answered."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot_course._checks import check_number
from fewshot_course.both.maml import MetaEstimator
from fewshot_course.both.probe import fit_probe
from fewshot_course.data.episodes import Episodes


class FrozenBody(MetaEstimator):
    """A body trained to tell all base classes apart, with a new linear head for each task.

    No meta-learning: ordinary cross-entropy over all classes of the training, by examples of the
    tasks that the sampler draws (their classes count by what the sampler calls them).  Then the
    body stays as it is.  On a new task its features, scaled to length 1, are classified by
    logistic regression ("Baseline" of Chen et al. 2019, with the normalisation of Tian et al.
    2020).  A new task may have any number of classes.

    Args:
        network: "mlp", "conv4", "conv4-strided", or ``None`` (chosen by the shape of X).
        C: inverse strength of the head's penalty, > 0.
        iterations: updates.
        n_tasks: tasks whose examples make one batch.
        lr: learning rate (Adam).
        lr_schedule: "constant" or "linear" (falls to 0).
        clip: largest norm of the gradient, or ``None``.
        hidden: widths of the layers of "mlp", one at least.
        channels: width of the convolutions.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the trained body, with running averages of batch norm; its own head is not used.
        input_shape_: shape of one example.
        n_outputs_: classes of a training task.
        history_: "loss" → ``(iterations,)``.
    """

    def __init__(
        self,
        network: str | None = None,
        C: float = 10.0,
        iterations: int = 1000,
        n_tasks: int = 1,
        lr: float = 1e-3,
        lr_schedule: str = "constant",
        clip: float | None = None,
        hidden: tuple[int, ...] = (64, 64),
        channels: int = 64,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.C = C
        self.iterations = iterations
        self.n_tasks = n_tasks
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.clip = clip
        self.hidden = hidden
        self.channels = channels
        self.dtype = dtype
        self.random_state = random_state

    # The body takes running averages, which no example of a task changes.
    statistics = "inductive"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("C", self.C, low=0, low_open=True)
        if not (self.network is None or isinstance(self.network, str)):
            raise TypeError(
                f"network must be the name of a network, got {self.network!r:.60}; for a network "
                f"of your own take ImageClassifier."
            )
        if not self.hidden:
            raise ValueError("hidden=() leaves no body; give one width at least.")

    def _check_ways(self, ways: int) -> None:
        """Any number of classes will do."""

    def _inner(self, steps: int | None, lr: float | None) -> tuple[int, float]:
        for name, value in (("steps", steps), ("lr", lr)):
            if value is not None:
                raise ValueError(
                    f"{name}={value!r}: a FrozenBody finds the optimum of its head, without steps; "
                    f"leave {name} out, and set C."
                )
        return 0, 0.0


def base_classes(sampler: Any) -> np.ndarray:
    """Return all classes of a sampler, sorted.

    Raises:
        TypeError: for a sampler that does not tell.
    """
    classes = getattr(sampler, "classes", None)
    if classes is None:
        raise TypeError(
            f"sampler must tell all its classes in an attribute 'classes', as EpisodeSampler does; "
            f"{type(sampler).__name__} has none."
        )
    return np.unique(classes)


def base_batch(episodes: Episodes, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all examples of tasks, and their classes' numbers among the base classes.

    Args:
        episodes: with ``classes``.
        classes: all base classes, sorted.

    Returns:
        ``(n, ...)`` and ``(n,)`` int64.

    Raises:
        TypeError: if the episodes do not tell their classes.
    """
    if episodes.classes is None:
        raise TypeError("sampler must tell each task's classes in Episodes.classes; it has None.")
    rows = np.arange(len(episodes))[:, None]
    y = np.concatenate([episodes.y_support, episodes.y_query], 1)
    X = np.concatenate([episodes.X_support, episodes.X_query], 1)
    numbers = np.searchsorted(classes, episodes.classes[rows, y])
    return X.reshape(-1, *X.shape[2:]), numbers.ravel()


def head_logits(support: np.ndarray, y: np.ndarray, query: np.ndarray, C: float) -> np.ndarray:
    """Fit a logistic regression to support features and apply it to query features.

    Args:
        support: ``(n, d)``.
        y: labels ``(n,)``, 0 to k - 1, each present.
        query: ``(m, d)``.
        C: inverse strength of the penalty.

    Returns:
        ``(m, k)`` float64.
    """
    head = fit_head(support, y, C)
    return _rows(query) @ head["head.weight"].T + head["head.bias"]


def fit_head(support: np.ndarray, y: np.ndarray, C: float) -> dict[str, np.ndarray]:
    """Return the head of a task: "head.weight" ``(k, d)`` and "head.bias" ``(k,)``."""
    return fit_probe(_rows(support), y, np.ones(len(y)), C)


def _rows(features: np.ndarray) -> np.ndarray:
    """Give each row the length 1; a row of zeros, which a body of ReLUs may make, stays."""
    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1.0)
