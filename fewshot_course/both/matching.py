"""Matching networks (Vinyals et al. 2016): what is asked and what is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fewshot_course.both.protonet import MetricEstimator


class MatchingNet(MetricEstimator):
    """Matching network: attention over the support examples by cosines (Vinyals et al. 2016).

    A query's class probabilities are the labels of the support set, weighted by the softmax of
    its cosines to them.  The embedding of an example does not depend on the other examples (no
    "full context embeddings").  A new task may have any number of classes.

    Args:
        network: as in ``ProtoNet``.
        scale: what the cosines are multiplied by before the softmax, > 0; 1 as published.
        iterations: updates.
        n_tasks: tasks in an update.
        lr: learning rate (Adam).
        lr_schedule: "constant" or "linear" (falls to 0).
        clip: largest norm of the gradient, or ``None``.
        statistics: what batch norm sees of a query set, as in ``MAML``.
        hidden: widths of the layers of "mlp".
        channels: width of the convolutions.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the trained network.
        input_shape_: shape of one example.
        n_outputs_: classes of a training task.
        history_: "loss" → ``(iterations,)``.
    """

    def __init__(
        self,
        network: str | Callable[[], Any] | None = None,
        scale: float = 10.0,
        iterations: int = 1000,
        n_tasks: int = 4,
        lr: float = 1e-3,
        lr_schedule: str = "constant",
        clip: float | None = None,
        statistics: str = "inductive",
        hidden: tuple[int, ...] = (64, 64),
        channels: int = 64,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.scale = scale
        self.iterations = iterations
        self.n_tasks = n_tasks
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.clip = clip
        self.statistics = statistics
        self.hidden = hidden
        self.channels = channels
        self.dtype = dtype
        self.random_state = random_state
