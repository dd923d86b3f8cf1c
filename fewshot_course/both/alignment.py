"""Three other ways to align domains, to compare the KL divergence with: what they are asked.

CORAL matches the covariances of the codes (Sun & Saenko 2016, "Deep CORAL"), MMD the means of
their kernel features (Gretton et al. 2012; Long et al. 2015); a domain-adversarial network trains
the encoder against a discriminator of the domains (Ganin et al. 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fewshot_course._checks import check_number
from fewshot_course.both.kl_adaptation import Adapter

MMD_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Widths of MMD's kernels, in units of the mean squared distance of two codes."""


class _Aligner(Adapter):
    """An adapter whose alignment has one weight and no network of its own."""

    def __init__(
        self,
        network: str | Callable[[], Any] | None = None,
        latent_dim: int = 32,
        weight: float = 1.0,
        warmup: float = 0.5,
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
        self.weight = weight
        self.warmup = warmup
        self.target_weight = target_weight
        self.scale_bounds = scale_bounds
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.prediction_samples = prediction_samples
        self.dtype = dtype
        self.random_state = random_state
        self.precision = precision

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("weight", self.weight, low=0)

    def _aligns(self) -> bool:
        return self.weight > 0


class CORALAdapter(_Aligner):
    """Align the covariances of the codes of two domains (Sun & Saenko 2016).

    The loss of a step is

        CE(source) + target_weight · CE(labelled target) + r · weight · CORAL(z_S, z_T),

    with ``coral_loss`` on the sampled codes z, and r as in ``KLAdapter``.

    Args:
        network: encoder, "mlp", "conv4", a zero-argument factory of a network that returns
            ``2·latent_dim`` outputs, or ``None`` (chosen by the shape of X).
        latent_dim: size of a code.
        weight: of the alignment, ≥ 0; 0 trains on the source only.
        warmup: part of the steps over which the weight rises, in [0, 1].
        target_weight: of the cross-entropy of labelled target examples, ≥ 0.
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
        network_: the trained ``StochasticClassifier``.
        classes_: labels, ``(k,)`` int64.
        input_shape_: shape of one example.
        history_: name → array ``(steps,)``: "loss", "alignment".
    """


class MMDAdapter(_Aligner):
    """Align the codes of two domains by maximum mean discrepancy (Long et al. 2015).

    The loss of a step is

        CE(source) + target_weight · CE(labelled target) + r · weight · MMD²(z_S, z_T),

    with ``mmd_loss`` on the sampled codes z, and r as in ``KLAdapter``.

    Args:
        network: encoder, "mlp", "conv4", a zero-argument factory of a network that returns
            ``2·latent_dim`` outputs, or ``None`` (chosen by the shape of X).
        latent_dim: size of a code.
        weight: of the alignment, ≥ 0; 0 trains on the source only.
        warmup: part of the steps over which the weight rises, in [0, 1].
        target_weight: of the cross-entropy of labelled target examples, ≥ 0.
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
        network_: the trained ``StochasticClassifier``.
        classes_: labels, ``(k,)`` int64.
        input_shape_: shape of one example.
        history_: name → array ``(steps,)``: "loss", "alignment".
    """


class DANNAdapter(Adapter):
    """Train the encoder against a discriminator of the domains (Ganin et al. 2016).

    The loss of a step is

        CE(source) + target_weight · CE(labelled target) + domain loss(D(z_S), D(z_T)),

    where the gradient of the domain loss is multiplied by -r · weight between discriminator and
    encoder: the discriminator always learns, the encoder is turned against it more and more.  r
    rises linearly from 0 to 1 over the first part ``warmup`` of the steps; Ganin et al. take
    2/(1 + exp(-10 p)) - 1 at the part p of the training, which rises over about its first half.

    Args:
        network: encoder, "mlp", "conv4", a zero-argument factory of a network that returns
            ``2·latent_dim`` outputs, or ``None`` (chosen by the shape of X).
        latent_dim: size of a code.
        weight: of the reversed gradient, ≥ 0; 0 trains on the source only.
        discriminator_width: units in the discriminator's one hidden layer.
        warmup: part of the steps over which the weight rises, in [0, 1].
        target_weight: of the cross-entropy of labelled target examples, ≥ 0.
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
        network_: the trained ``StochasticClassifier``.
        classes_: labels, ``(k,)`` int64.
        input_shape_: shape of one example.
        history_: name → array ``(steps,)``: "loss", "alignment" (the domain loss: log 2 where
            the discriminator cannot tell the domains apart).
    """

    def __init__(
        self,
        network: str | Callable[[], Any] | None = None,
        latent_dim: int = 32,
        weight: float = 1.0,
        discriminator_width: int = 64,
        warmup: float = 0.5,
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
        self.weight = weight
        self.discriminator_width = discriminator_width
        self.warmup = warmup
        self.target_weight = target_weight
        self.scale_bounds = scale_bounds
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.prediction_samples = prediction_samples
        self.dtype = dtype
        self.random_state = random_state
        self.precision = precision

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("weight", self.weight, low=0)
        check_number("discriminator_width", self.discriminator_width, low=1, integer=True)

    def _aligns(self) -> bool:
        return self.weight > 0
