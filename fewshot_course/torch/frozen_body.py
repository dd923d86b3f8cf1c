"""A linear head on a frozen body in PyTorch (Chen et al. 2019; Tian et al. 2020).

One network learns to tell all base classes apart, as in any classification.  Its body then makes
the features of every new task; only a linear head is fitted to the support set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot_course._arguments import checked
from fewshot_course._streams import Streams
from fewshot_course.both import frozen_body as settings
from fewshot_course.both.frozen_body import base_batch, base_classes, fit_head, head_logits
from fewshot_course.both.maml import Predictor
from fewshot_course.both.training import Run, fingerprint_of
from fewshot_course.data.episodes import Episodes
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import to_tensor, train
from fewshot_course.torch.maml import MetaLearner

__all__ = ["FrozenBody", "base_loss"]

_BLOCK = 1000  # examples that pass the body at a time, outside of training


@checked
def base_loss(network: Any, head: Any, X: Tensor, y: Tensor) -> Tensor:
    """Return the loss that an update lowers: the cross-entropy over all base classes.

    Args:
        network: with ``features``; its batch norm takes the statistics of these examples.
        head: features → one logit a base class.
        X: examples of any classes, ``(n, ...)``.
        y: their numbers among the base classes, ``(n,)``.

    Returns:
        A scalar, ≥ 0.
    """
    return F.cross_entropy(head(network.features(X)), y)


class FrozenBody(MetaLearner, settings.FrozenBody):
    __doc__ = settings.FrozenBody.__doc__
    network_: Any  # a network with ``features``, which no common type declares

    def _learn(
        self, sampler: Any, probe: Episodes, streams: Streams, run: Run
    ) -> dict[str, np.ndarray]:
        classes = base_classes(sampler)
        base_batch(probe, classes)
        network, width = self.network_, self.network_.head.in_features
        # Linear, one output a base class; as wide as they are many, so it is not stored.
        linear = networks.MLP((width,), len(classes), ()).to(getattr(torch, self.dtype))
        head = networks.initialise(linear, streams.init).to(run.device)
        body = [p for name, p in network.named_parameters() if not name.startswith("head.")]
        parameters = [*body, *head.parameters()]
        optimizer = optim.adam(parameters, lr=self.lr)

        def step(number: int) -> Mapping[str, Tensor]:
            if self.lr_schedule == "linear":
                factor = optim.warmup_linear(number, self.iterations, 0.0)
                optim.set_learning_rate(optimizer, self.lr * factor)
            X, y = base_batch(sampler.sample(streams.batches, self.n_tasks), classes)
            tensors = to_tensor(X, run.device, self.dtype), to_tensor(y, run.device)
            loss = base_loss(network, head, *tensors)
            gradients = list(torch.autograd.grad(loss, parameters))
            if self.clip is not None:
                gradients = optim.clip_gradients(gradients, self.clip)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            return {"loss": loss.detach()}

        return train(
            step,
            run,
            steps=self.iterations,
            modules={"network": network, "head": head},
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams},
            fingerprint=fingerprint_of(self, probe.X_support, probe.X_query, classes),
        )

    def _features(self, X: np.ndarray) -> np.ndarray:
        """Return the body's features of ``(n, ...)``, by the running averages."""
        was_training = self.network_.training
        self.network_.eval()
        try:
            return self._in_blocks(self.network_.features, X, _BLOCK)
        finally:
            self.network_.train(was_training)

    def _apply(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        support, query = (
            self._features(X.reshape(-1, *X.shape[2:])).reshape(*X.shape[:2], -1)
            for X in (episodes.X_support, episodes.X_query)
        )
        tasks = zip(support, episodes.y_support, query, strict=True)
        return np.stack([head_logits(*task, self.C) for task in tasks])

    def _predictor(
        self, X: np.ndarray, y: np.ndarray, steps: int, lr: float
    ) -> tuple[Predictor, dict[str, np.ndarray]]:
        support, C = self._features(X), self.C

        def predict(X: np.ndarray) -> np.ndarray:
            return head_logits(support, y, self._features(X), C)

        return predict, fit_head(support, y, C)
