"""Prototypical networks in PyTorch (Snell et al. 2017).

A network embeds the examples.  A class is the mean of its support embeddings, its prototype;
a query belongs to the class with the nearest prototype.  Nothing is adapted by gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fewshot_course._streams import Streams
from fewshot_course.both.maml import Predictor
from fewshot_course.data.episodes import Episodes
from fewshot_course.torch import meta_networks, networks
from fewshot_course.torch._training import to_array, to_tensor
from fewshot_course.torch.maml import MetaLearner

__all__ = ["ProtoNet", "prototypes", "squared_distances"]


def prototypes(embeddings: Tensor, y: Tensor, ways: int) -> Tensor:
    """Return the mean embedding of each class.

    Args:
        embeddings: of the support sets, ``(T, n, d)``.
        y: labels 0 to ways - 1, ``(T, n)``; every class occurs.
        ways: number of classes.

    Returns:
        ``(T, ways, d)``.
    """
    member = torch.nn.functional.one_hot(y, ways).to(embeddings.dtype).transpose(1, 2)
    return member @ embeddings / member.sum(2, keepdim=True)


def squared_distances(queries: Tensor, centres: Tensor) -> Tensor:
    """Return squared Euclidean distances ``(T, q, k)`` of ``(T, q, d)`` to ``(T, k, d)``."""
    return (queries[:, :, None] - centres[:, None]).square().sum(-1)


class ProtoNet(MetaLearner):
    """Prototypical network with squared Euclidean distances (Snell et al. 2017).

    The class probabilities of a query are the softmax of the negative distances; training
    lowers the cross-entropy of the query sets.  A new task may have any number of classes.

    Args:
        network: "mlp", "conv4" (both without their heads), a zero-argument factory of a module
            that returns one output a class of the training tasks, taken as the embedding, or
            ``None`` (chosen by the shape of X).
        iterations: updates.
        n_tasks: tasks in an update.
        lr: learning rate (Adam).
        lr_schedule: "constant" or "linear" (falls to 0).
        clip: largest norm of the gradient, or ``None``.
        statistics: what batch norm sees of a query set, as in
            :class:`~fewshot_course.torch.MAML`.
        hidden: widths of the layers of "mlp".
        channels: width of "conv4".
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
        network: str | Callable[[], nn.Module] | None = None,
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

    def _trained(self) -> dict[str, Tensor]:
        weights = meta_networks.parameters_of(self.network_)
        named = type(self.network_) in (networks.MLP, networks.Conv4)
        return {k: v for k, v in weights.items() if not (named and k.startswith("head."))}

    def _check_ways(self, ways: int) -> None:
        """Any number of classes will do."""

    def _embed(self, theta: Mapping[str, Tensor], Xs: Tensor, Xq: Tensor) -> tuple[Tensor, Tensor]:
        """Embed support and query sets."""
        network = self.network_
        named = type(network) in (networks.MLP, networks.Conv4)
        run = meta_networks.apply_features if named else meta_networks.apply
        weights = meta_networks.expand(theta, len(Xs))
        n = Xs.shape[1]
        if self.statistics == "transductive" and meta_networks.has_batch_norm(network):
            return run(network, weights, Xs), run(network, weights, Xq)
        both = run(network, weights, torch.cat([Xs, Xq], 1), n_reference=n)
        return both[:, :n], both[:, n:]

    def _logits(self, theta: Mapping[str, Tensor], Xs: Tensor, ys: Tensor, Xq: Tensor) -> Tensor:
        support, query = self._embed(theta, Xs, Xq)
        return -squared_distances(query, prototypes(support, ys, int(ys.max()) + 1))

    def _meta_gradient(
        self, theta: Mapping[str, Tensor], episode: tuple[Tensor, ...], streams: Streams
    ) -> tuple[Tensor, list[Tensor]]:
        Xs, ys, Xq, yq = episode
        loss = self._loss(self._logits(theta, Xs, ys, Xq), yq) / len(Xs)
        return loss, list(torch.autograd.grad(loss, list(theta.values())))

    @torch.no_grad()
    def _query_outputs(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        done = []
        for index in range(len(episodes)):
            Xs, ys, Xq, _ = self._tensors(Episodes(*(part[None] for part in episodes.task(index))))
            done.append(to_array(self._logits(self._trained(), Xs, ys, Xq))[0])
        return np.stack(done)

    def _predictor(
        self, X: np.ndarray, y: np.ndarray, steps: int, lr: float
    ) -> tuple[Predictor, dict[str, np.ndarray]]:
        Xs, ys, _, _ = self._tensors(Episodes(X[None], y[None], X[None], y[None]))
        theta = {name: value.detach().clone() for name, value in self._trained().items()}
        whole = self.statistics == "transductive" and meta_networks.has_batch_norm(self.network_)

        @torch.no_grad()
        def predict(X: np.ndarray) -> np.ndarray:
            size = len(X) if whole else 1024
            blocks = [X[None, start : start + size] for start in range(0, len(X), size)]
            tensors = [to_tensor(block, self._device, self.dtype) for block in blocks]
            return np.concatenate([to_array(self._logits(theta, Xs, ys, x)[0]) for x in tensors])

        centres = prototypes(self._embed(theta, Xs, Xs[:, :1])[0], ys, int(ys.max()) + 1)
        return predict, {"prototypes": to_array(centres[0])}
