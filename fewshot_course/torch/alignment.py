"""Three other ways to align domains in PyTorch, to compare the KL divergence with.

CORAL matches the covariances of the codes (Sun & Saenko 2016, "Deep CORAL"), MMD the means of
their kernel features (Gretton et al. 2012; Long et al. 2015); a domain-adversarial network trains
the encoder against a discriminator of the domains (Ganin et al. 2016).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_course._arguments import checked
from fewshot_course._checks import check_number
from fewshot_course.both import alignment as settings
from fewshot_course.both.alignment import MMD_WIDTHS
from fewshot_course.torch import networks
from fewshot_course.torch.kl_adaptation import AdapterNetworks, Codes

__all__ = [
    "CORALAdapter",
    "DANNAdapter",
    "MMDAdapter",
    "coral_loss",
    "domain_loss",
    "mmd_loss",
    "reverse_gradient",
]


@checked
def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """Distance of two covariances, ‖C_S - C_T‖²_F / (4 d²) (Sun & Saenko 2016, eq. 1).

    C is the unbiased covariance, 1/(n - 1) Σ_i (z_i - z̄)(z_i - z̄)ᵀ.  The means do not enter:
    a mere shift of the codes costs nothing.

    Args:
        source: ``(n, d)``, n ≥ 2.
        target: ``(m, d)``, m ≥ 2.

    Returns:
        A scalar, ≥ 0.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: for another shape, fewer than two rows, or two widths.
    """
    _check_codes(source, target)
    difference = _covariance(source) - _covariance(target)
    return difference.square().sum() / (4 * source.shape[1] ** 2)


@checked
def mmd_loss(source: Tensor, target: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two batches (Gretton et al. 2012, eq. 5).

    mean k(z_S, z_S') - 2 · mean k(z_S, z_T) + mean k(z_T, z_T'), every pair counted, with a mean
    of five Gaussian kernels, exp(-‖a - b‖² / (c · m)) for c in 1/4, 1/2, 1, 2, 4, as deep
    adaptation networks have it (Long et al. 2015); m is the mean squared distance of two codes
    of both batches together, taken as a constant.  Unlike CORAL it sees all of the two
    distributions, and unlike a likelihood ratio it can neither fall below 0 nor exceed 2.

    Args:
        source: ``(n, d)``, n ≥ 2.
        target: ``(m, d)``, m ≥ 2.

    Returns:
        A scalar in [0, 2]; 0 for equal batches.  Two batches of one population have more than 0
        too: about (1/n + 1/m) times the mean of 1 - k.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: for another shape, fewer than two rows, or two widths.
    """
    _check_codes(source, target)
    both = torch.cat([source, target])
    squares = both.square().sum(1)
    distances = (squares[:, None] + squares - 2 * both @ both.T).clamp(min=0)
    # Equal codes have no scale: then the smallest that a width can be divided by.
    least = torch.finfo(distances.dtype).tiny / min(MMD_WIDTHS)
    scale = distances.detach().mean().clamp(min=least)
    kernel = torch.stack([torch.exp(-distances / (c * scale)) for c in MMD_WIDTHS]).mean(0)
    n = source.shape[0]
    return kernel[:n, :n].mean() - 2 * kernel[:n, n:].mean() + kernel[n:, n:].mean()


@checked
def domain_loss(logits_source: Tensor, logits_target: Tensor) -> Tensor:
    """Binary cross-entropy of a domain discriminator (Ganin et al. 2016, section 4.2).

    With D(z) = sigmoid(logit), the probability that z comes from the target:
    -½ [mean log(1 - D(z_S)) + mean log D(z_T)].  Both domains count the same, however many
    examples each has.

    Args:
        logits_source: ``(n,)`` or ``(n, 1)``.
        logits_target: ``(m,)`` or ``(m, 1)``.

    Returns:
        A scalar, > 0; log 2 = 0.693 for a discriminator that knows nothing.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: for another shape or no examples.
    """
    for name, value in (("logits_source", logits_source), ("logits_target", logits_target)):
        _check_tensor(name, value)
        shape = tuple(value.shape)
        if len(shape) not in (1, 2) or shape[0] == 0 or shape[1:] not in ((), (1,)):
            raise ValueError(f"{name} has shape {shape}, expected (n,) or (n, 1) with n ≥ 1.")
    # log(1 - sigmoid(a)) = log sigmoid(-a), without loss of digits for large a.
    return -0.5 * (F.logsigmoid(-logits_source).mean() + F.logsigmoid(logits_target).mean())


@checked
def reverse_gradient(x: Tensor, factor: float) -> Tensor:
    """Return ``x``; its gradient is multiplied by ``-factor`` on the way back.

    One minimisation then trains what follows to lower a loss, and what comes before to raise it
    (the gradient reversal layer, Ganin et al. 2016, section 4.2).

    Args:
        x: any floating-point tensor.
        factor: ≥ 0; 0 stops the gradient.

    Raises:
        TypeError: if ``x`` is no tensor, or ``factor`` no number.
        ValueError: if ``factor`` is negative.
    """
    _check_tensor("x", x)
    if not isinstance(factor, Tensor):
        check_number("factor", factor, low=0)
    return _ReverseGradient.apply(x, factor)


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * upstream, None


class CORALAdapter(AdapterNetworks, settings.CORALAdapter):
    __doc__ = settings.CORALAdapter.__doc__

    def _alignment(self, source: Codes, target: Codes, ramp: float) -> Tensor:
        return ramp * self.weight * coral_loss(source.z, target.z)


class MMDAdapter(AdapterNetworks, settings.MMDAdapter):
    __doc__ = settings.MMDAdapter.__doc__

    def _alignment(self, source: Codes, target: Codes, ramp: float) -> Tensor:
        return ramp * self.weight * mmd_loss(source.z, target.z)


class DANNAdapter(AdapterNetworks, settings.DANNAdapter):
    __doc__ = settings.DANNAdapter.__doc__
    _extra: nn.Module  # the discriminator

    def _build_extra(self, rng: np.random.Generator) -> nn.Module:
        discriminator = networks.MLP((self.latent_dim,), 1, (self.discriminator_width,))
        return networks.initialise(discriminator.to(getattr(torch, self.dtype)), rng)

    def _alignment(self, source: Codes, target: Codes, ramp: float) -> Tensor:
        factor = ramp * self.weight
        return domain_loss(
            self._extra(reverse_gradient(source.z, factor)),
            self._extra(reverse_gradient(target.z, factor)),
        )


def _check_codes(source: Tensor, target: Tensor) -> None:
    for name, value in (("source", source), ("target", target)):
        _check_tensor(name, value)
        if value.ndim != 2 or value.shape[0] in (0, 1):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, expected (n, d) with at least two rows: "
                f"one example has no spread."
            )
    if source.shape[1] != target.shape[1]:
        raise ValueError(
            f"source and target must have one width, got {source.shape[1]} and {target.shape[1]}."
        )


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}.")


def _covariance(z: Tensor) -> Tensor:
    centred = z - z.mean(0)
    return centred.T @ centred / (z.shape[0] - 1)
