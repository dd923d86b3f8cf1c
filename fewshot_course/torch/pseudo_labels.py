"""Self-training in PyTorch: a network learns from its own predictions (Lee 2013).

In each step the network's class for an unlabelled example is taken as if it were its label.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_course._arguments import NOT_NEGATIVE, SHARE, checked
from fewshot_course._checks import UNLABELLED
from fewshot_course._streams import Streams
from fewshot_course.both import pseudo_labels as settings
from fewshot_course.both.pseudo_labels import lee_weight, select_confident
from fewshot_course.both.training import Run, fingerprint_of
from fewshot_course.data import BatchStream
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import Networks, to_tensor, train

__all__ = [
    "SelfTraining",
    "lee_weight",
    "pseudo_label_loss",
    "select_confident",
    "self_training_loss",
    "weighted_loss",
]


@checked
def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over a batch of weight · cross-entropy, a scalar.

    Args:
        logits: ``(n, C)``.
        labels: class indices ``(n,)`` int64.
        weights: ``(n,)``, ≥ 0.
    """
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


@checked(threshold=SHARE)
def pseudo_label_loss(logits: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy against the network's own classes (Lee 2013, equation 15).

    Args:
        logits: of unlabelled examples, ``(n, C)``.
        threshold: examples whose largest probability is lower add nothing, in [0, 1].

    Returns:
        The sum over the confident examples divided by n, and their share: two scalars.  No
        gradient passes through the choice of a class.
    """
    with torch.no_grad():
        confidence, labels = F.softmax(logits, dim=1).max(dim=1)
        chosen = (confidence >= threshold).to(logits.dtype)
    return weighted_loss(logits, labels, chosen), chosen.mean()


@checked(alpha=NOT_NEGATIVE, threshold=SHARE)
def self_training_loss(
    network: nn.Module,
    labelled: tuple[Tensor, ...],
    unlabelled: Tensor | None = None,
    alpha: float = 1.0,
    threshold: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of a step: CE(labelled) + α · CE(unlabelled, its own classes).

    Args:
        network: the classifier.
        labelled: x ``(n, ...)``, class indices ``(n,)`` and weights ``(n,)``, ≥ 0.
        unlabelled: x ``(m, ...)``, or ``None`` while α is 0.
        alpha: α, what the pseudo-labels count, ≥ 0.
        threshold: confidence below which a pseudo-label is not used, in [0, 1].

    Returns:
        Three scalars: the loss, ≥ 0; the pseudo-labels' part of it before α; and the share of
        the unlabelled examples above the threshold.
    """
    x, y, weights = labelled
    loss = weighted_loss(network(x), y, weights)
    if unlabelled is None:
        nothing = torch.zeros_like(loss.detach())
        return loss, nothing, nothing
    pseudo_loss, coverage = pseudo_label_loss(network(unlabelled), threshold)
    return loss + alpha * pseudo_loss, pseudo_loss, coverage


class SelfTraining(Networks, settings.SelfTraining):
    __doc__ = settings.SelfTraining.__doc__

    def _build(self, rng: np.random.Generator, device: str) -> None:
        network = networks.build(
            self.network, self.input_shape_, len(self.classes_), rng, self.dtype
        )
        self.network_ = network.to(device)

    def _learn(
        self, X: np.ndarray, labels: np.ndarray, weights: np.ndarray, streams: Streams, run: Run
    ) -> dict[str, np.ndarray]:
        known = labels != UNLABELLED
        xl, yl = to_tensor(X[known], run.device, self.dtype), to_tensor(labels[known], run.device)
        wl = to_tensor(weights[known], run.device, self.dtype)
        xu = to_tensor(X[~known], run.device, self.dtype)
        batches = {"labelled": BatchStream(len(xl), self.batch_size, streams.batches)}
        if len(xu) and self.weight:
            batches["unlabelled"] = BatchStream(
                len(xu), self.unlabelled_batch_size, streams.batches
            )

        def draw(name: str) -> Tensor:
            return to_tensor(batches[name].next(), run.device)

        optimizer = optim.adam(self.network_.parameters(), lr=self.lr)

        def step(number: int) -> Mapping[str, Tensor]:
            i, alpha, unlabelled = draw("labelled"), self._alpha(number), None
            if alpha and "unlabelled" in batches:
                unlabelled = xu[draw("unlabelled")]
            loss, pseudo_loss, coverage = self_training_loss(
                self.network_, (xl[i], yl[i], wl[i]), unlabelled, alpha, self.threshold
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            parts = {"pseudo_loss": pseudo_loss.detach(), "coverage": coverage}
            return {"loss": loss.detach(), **parts}

        return train(
            step,
            run,
            steps=self.steps,
            modules={"network": self.network_},
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
            fingerprint=fingerprint_of(self, X, labels, weights),
        )

    def _apply(self, X: np.ndarray) -> np.ndarray:
        return self._in_blocks(lambda x: F.softmax(self.network_(x), dim=1), X)
