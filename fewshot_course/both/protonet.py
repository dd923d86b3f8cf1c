"""Prototypical networks (Snell et al. 2017): what is asked and what is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fewshot_course._checks import check_choice, check_number
from fewshot_course.both.maml import MetaEstimator

DISTANCES = ("euclidean", "cosine", "mahalanobis")


class MetricEstimator(MetaEstimator):
    """A learner that compares embeddings and takes no gradient step on a new task."""

    scale: float

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("scale", self.scale, low=0, low_open=True)

    def _check_ways(self, ways: int) -> None:
        """Any number of classes will do."""

    def _inner(self, steps: int | None, lr: float | None) -> tuple[int, float]:
        for name, value in (("steps", steps), ("lr", lr)):
            if value is not None:
                raise ValueError(
                    f"{name}={value!r}: a {type(self).__name__} takes no gradient steps on a new "
                    f"task; leave {name} out, or use MAML."
                )
        return 0, 0.0


class ProtoNet(MetricEstimator):
    """Prototypical network: the nearest class mean in a learned embedding (Snell et al. 2017).

    The class probabilities of a query are the softmax of the negative distances; training
    lowers the cross-entropy of the query sets.  A new task may have any number of classes.

    With ``network="mlp"`` and ``hidden=()`` the embedding is the input itself: nothing is trained,
    and what is left is the nearest class mean of the raw pixels.

    Args:
        network: "mlp", "conv4", "conv4-strided" (all without their heads), a zero-argument factory
            of a network that returns one output a class of the training tasks, taken as the
            embedding, or ``None`` (chosen by the shape of X).
        distance: "euclidean" (its square, as published), "cosine" (1 minus the cosine), or
            "mahalanobis" (its square, by each class's own covariance, shrunk towards that of the
            task and the identity; Bateni et al. 2020).
        scale: what the distances are multiplied by before the softmax, > 0.  Cosines lie between
            -1 and 1, and need 10 or more before a softmax of them can be sure of anything.
        iterations: updates.
        n_tasks: tasks in an update.
        lr: learning rate (Adam).
        lr_schedule: "constant" or "linear" (falls to 0).
        clip: largest norm of the gradient, or ``None``.
        statistics: what batch norm sees of a query set, as in
            ``MAML``.
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
        distance: str = "euclidean",
        scale: float = 1.0,
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
        self.distance = distance
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

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("distance", self.distance, DISTANCES)
