"""Batch norm's statistics taken from the target (Li et al. 2016): what is asked and answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fewshot_course.both.kl_adaptation import Adapter


class AdaBNAdapter(Adapter):
    """Train on the source, then take batch norm's statistics from the target (Li et al. 2016).

    The cheapest adaptation there is: no weight, no further training.  The loss of a step is

        CE(source) + target_weight · CE(labelled target),

    and at the end mean and variance of every batch-norm layer become those of its inputs over
    *all* target examples, exactly, layer by layer: a layer's inputs are those that it has when
    the layers before it have the target's statistics already.  Weights stay as they are.

    What it needs is batch norm ("conv4" has it, "mlp" has none).  What it takes for granted is
    that the classes have like shares in both domains: channel means move with the classes too.
    The fitted network is one for the target; on the source it is mostly worse than before.

    The other adapters do something else.  An alignment needs the codes of both domains, so they
    pass the network together, and each step normalises both with the statistics of the *mixed*
    batch; so do the running averages that predictions take.  What shifts all channels of one
    domain stays visible to them, for the alignment to remove, while here it is gone at once.
    Without an alignment (weight 0) the statistics are those of the source.

    Args:
        network: encoder, "conv4" or a zero-argument factory of a network with batch norm that
            returns ``2·latent_dim`` outputs, or ``None`` (chosen by the shape of X).
        latent_dim: size of a code.
        target_weight: of the cross-entropy of labelled target examples, ≥ 0; they pass the
            network in a batch of their own, so with statistics of the target.
        scale_bounds: smallest and largest σ of a code.
        steps: number of updates.
        batch_size: examples of each domain in a step.
        lr: Adam's learning rate.
        prediction_samples: codes averaged in a prediction; 0 takes the mean code.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.
        precision: what the encoder's matrix products are computed in while training: "float32"
            (that is, ``dtype``) or "bfloat16", for a GPU or a processor with instructions for it.

    Attributes:
        network_: the trained ``StochasticClassifier``, with the target's statistics.
        classes_: labels, ``(k,)`` int64.
        input_shape_: shape of one example.
        history_: name → array ``(steps,)``: "loss", "alignment" (0).
    """

    warmup = 0.0  # there is no alignment whose weight could rise

    def __init__(
        self,
        network: str | Callable[[], Any] | None = None,
        latent_dim: int = 32,
        target_weight: float = 1.0,
        scale_bounds: tuple[float, float] = (0.5, 2.0),
        steps: int = 1000,
        batch_size: int = 128,
        lr: float = 1e-3,
        prediction_samples: int = 0,
        dtype: str = "float32",
        random_state: int | None = None,
        precision: str = "float32",
    ) -> None:
        self.network = network
        self.latent_dim = latent_dim
        self.target_weight = target_weight
        self.scale_bounds = scale_bounds
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.prediction_samples = prediction_samples
        self.dtype = dtype
        self.random_state = random_state
        self.precision = precision

    def _aligns(self) -> bool:
        return False

    def _check_has_layers(self, number: int) -> None:
        """Raise ``ValueError`` where there is nothing to take from the target."""
        if number == 0:
            raise ValueError(
                f"network={self.network!r} has no batch norm with running statistics, so there is "
                f"nothing to take from the target; take network='conv4' (for images) or a factory "
                f"of a network with batch norm, or another adapter."
            )


class Moments:
    """Mean and variance of channels, gathered block by block in float64 (Chan et al. 1979).

    Attributes:
        n: rows so far.
        mean: of each channel, ``(c,)``.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = np.zeros(())
        self._squares = np.zeros(())  # Σ (x - mean)²

    def add(self, rows: np.ndarray) -> None:
        """Take rows ``(n, c)`` in."""
        rows = rows.astype(np.float64)
        n, mean = len(rows), rows.mean(axis=0)
        total, apart = self.n + n, mean - self.mean
        self._squares = (
            self._squares
            + np.square(rows - mean).sum(axis=0)
            + np.square(apart) * (self.n * n / total)
        )
        self.mean = self.mean + apart * (n / total)
        self.n = total

    @property
    def variance(self) -> np.ndarray:
        """The unbiased variance, ``(c,)``; 0 for a single row."""
        return self._squares / max(self.n - 1, 1)
