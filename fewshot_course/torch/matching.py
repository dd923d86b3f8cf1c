"""Matching networks in PyTorch (Vinyals et al. 2016).

A network embeds the examples.  A query looks at all support examples and believes each one's
label as much as it resembles it: attention, with cosines as scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fewshot_course._arguments import COUNT, POSITIVE, checked
from fewshot_course._streams import Streams
from fewshot_course.both import matching as settings
from fewshot_course.torch.maml import task_loss
from fewshot_course.torch.protonet import MetricLearner, cosine_distances, embed

__all__ = ["MatchingNet", "attention_logits", "matching_loss"]


@checked(ways=COUNT, scale=POSITIVE)
def attention_logits(
    queries: Tensor, support: Tensor, y: Tensor, ways: int, scale: float = 1.0
) -> Tensor:
    """Return the logits whose softmax is the attention-weighted mean of the support labels.

    P(class k) = Σ_i a_i [y_i = k], where a is the softmax of the scaled cosines to the support
    examples (Vinyals et al. 2016, equation 1).  Its logarithm is, up to a constant that is the
    same for all classes, the log-sum-exp of the class's scaled cosines.

    Args:
        queries: embeddings, ``(T, q, d)``.
        support: embeddings, ``(T, n, d)``.
        y: labels of the support set, 0 to ways - 1, ``(T, n)``; every class occurs.
        ways: number of classes.
        scale: what the cosines are multiplied by.

    Returns:
        ``(T, q, ways)``.
    """
    scores = scale * (1 - cosine_distances(queries, support))
    other = y[:, None, :] != torch.arange(ways, device=y.device)[:, None]  # (T, ways, n)
    return scores[:, :, None].masked_fill(other[:, None], -torch.inf).logsumexp(-1)


@checked(ways=COUNT, statistics=("inductive", "transductive"), scale=POSITIVE)
def matching_loss(
    network: nn.Module,
    theta: Mapping[str, Tensor],
    episode: tuple[Tensor, ...],
    ways: int,
    statistics: str = "inductive",
    scale: float = 1.0,
) -> Tensor:
    """Return the loss that an update lowers: the cross-entropy of the query sets.

    Args:
        network: whose layers are run.
        theta: name → weights without a task axis.
        episode: X_support ``(T, n, ...)``, y_support, X_query ``(T, m, ...)``, y_query.
        ways: classes of a task.
        statistics: as in :func:`fewshot_course.torch.protonet.embed`.
        scale: what the cosines are multiplied by.

    Returns:
        A scalar, ≥ 0.
    """
    Xs, ys, Xq, yq = episode
    support, query = embed(network, theta, Xs, Xq, statistics)
    return task_loss(attention_logits(query, support, ys, ways, scale), yq) / Xs.shape[0]


class MatchingNet(MetricLearner, settings.MatchingNet):
    __doc__ = settings.MatchingNet.__doc__

    def _meta_gradient(
        self, theta: Mapping[str, Tensor], episode: tuple[Tensor, ...], streams: Streams
    ) -> tuple[Tensor, list[Tensor]]:
        loss = matching_loss(
            self.network_, theta, episode, self.n_outputs_, self.statistics, self.scale
        )
        return loss, list(torch.autograd.grad(loss, list(theta.values()))) if theta else []

    def _logits(self, support: Tensor, ys: Tensor, query: Tensor, ways: int) -> Tensor:
        return attention_logits(query, support, ys, ways, self.scale)

    def _parts(self, support: Tensor, ys: Tensor, ways: int) -> dict[str, Tensor]:
        return {"support": support}
