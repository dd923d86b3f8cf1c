"""Gaussian mixtures by EM in PyTorch, with labels for some of the examples.

p(x) = Σ_k π_k N(x; μ_k, Σ_k).  One step of EM (Dempster, Laird & Rubin 1977) is one pass over
blocks of rows: of each block only the sums that the M-step needs are kept.  All in float64: in
float32 the log-likelihood drifts in the third decimal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot_course._arguments import COUNT, NOT_NEGATIVE, checked
from fewshot_course.both import gmm as settings
from fewshot_course.both.gmm import COVARIANCE_TYPES, Start, match_components, n_parameters
from fewshot_course.both.training import Run
from fewshot_course.torch._training import resolve_device, to_array, to_tensor

__all__ = [
    "GMMPseudoLabeler",
    "Mixture",
    "Statistics",
    "e_step",
    "em",
    "em_step",
    "log_density",
    "m_step",
    "match_components",
    "n_parameters",
    "statistics",
]

BLOCK = 2**18
"""Numbers that a block of rows makes: few enough for the processor's cache, many enough that
calls cost little."""

ROWS = 4096
"""Rows whose density is computed at a time, outside of EM."""


class Mixture(NamedTuple):
    """The parameters of a mixture.

    Attributes:
        weights: π, ``(K,)``, positive, with sum 1.
        means: μ, ``(K, d)``.
        covariances: ``(K, d, d)`` full, ``(d, d)`` tied, ``(K, d)`` diag, ``(K,)`` spherical.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor


class Statistics(NamedTuple):
    """The sums that the M-step needs, with responsibilities r_ik.

    Attributes:
        counts: Σ_i r_ik, ``(K,)``.
        sums: Σ_i r_ik x_i, ``(K, d)``.
        squares: Σ_i r_ik x_i x_iᵀ, ``(K, d, d)``; tied: summed over k, ``(d, d)``; diag and
            spherical: its diagonal, ``(K, d)``.
    """

    counts: Tensor
    sums: Tensor
    squares: Tensor


@checked(covariance_type=COVARIANCE_TYPES)
def log_density(mixture: Mixture, covariance_type: str) -> Callable[[Tensor], Tensor]:
    """Return the function x ``(n, d)`` → log π_k + log N(x; μ_k, Σ_k) ``(n, K)``.

    Covariances are factorised once, here; then all components take one matrix product.

    Raises:
        ValueError: if a covariance is not positive definite.
    """
    weights, means, covariances = mixture
    k, d = means.shape
    constant = weights.log() - 0.5 * d * math.log(2 * math.pi)
    if covariance_type in ("diag", "spherical"):
        precision = (1 / covariances).reshape(k, -1).expand(k, d)
        constant = constant + 0.5 * (precision.log() - means.square() * precision).sum(1)
        scaled = means * precision
        return lambda x: constant + x @ scaled.T - 0.5 * (x.square() @ precision.T)
    lower = torch.linalg.cholesky(covariances)
    identity = torch.eye(d, dtype=means.dtype, device=means.device)
    # Σ⁻¹ = W Wᵀ, so the distance of x is |xW - μW|².
    whiten = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False).mT
    constant = constant + torch.diagonal(whiten, dim1=-2, dim2=-1).log().sum(-1)
    centres = (means[:, None] @ whiten).squeeze(1)
    if covariance_type == "tied":
        constant = constant - 0.5 * centres.square().sum(1)

        def shared(x: Tensor) -> Tensor:
            y = x @ whiten
            return constant + y @ centres.T - 0.5 * y.square().sum(1, keepdim=True)

        return shared
    side_by_side = whiten.permute(1, 0, 2).reshape(d, k * d)
    shift = -centres.reshape(-1)

    def own(x: Tensor) -> Tensor:
        distance = torch.addmm(shift, x, side_by_side).view(-1, k, d).square_().sum(2)
        return constant - 0.5 * distance

    return own


@checked(covariance_type=COVARIANCE_TYPES)
def e_step(
    X: Tensor, mixture: Mixture, covariance_type: str, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what each example makes of the mixture.

    Args:
        X: ``(n, d)``.
        mixture: the present parameters.
        covariance_type: "full", "tied", "diag" or "spherical".
        mask: ``(n, K)``, 0 where an example may belong to a component and -∞ where its label
            forbids it; ``None``: everywhere allowed.

    Returns:
        Log-likelihoods log Σ_k π_k N(x; μ_k, Σ_k) over the allowed k, ``(n,)``, and
        responsibilities r_ik = p(k | x_i, label), ``(n, K)``, whose rows sum to 1.
    """
    joint = log_density(mixture, covariance_type)(X)
    return _normalise(joint if mask is None else joint + mask)


def _normalise(joint: Tensor) -> tuple[Tensor, Tensor]:
    by_component = joint.T.contiguous()  # adding up rows is faster than adding up a few columns
    log_likelihood = torch.logsumexp(by_component, dim=0)
    return log_likelihood, torch.exp(by_component - log_likelihood).T


@checked(covariance_type=COVARIANCE_TYPES)
def statistics(
    X: Tensor, responsibilities: Tensor, covariance_type: str, squares: Tensor | None = None
) -> Statistics:
    """Return the sums over the examples.

    Args:
        X: ``(n, d)``.
        responsibilities: ``(n, K)``, ≥ 0.
        covariance_type: "full", "tied", "diag" or "spherical".
        squares: the sum of that name, if it is known already.
    """
    if squares is not None:
        pass
    elif covariance_type == "full":
        squares = _second_moments(X, responsibilities)
    elif covariance_type == "tied":
        squares = (responsibilities.sum(1, keepdim=True) * X).T @ X
    else:
        squares = responsibilities.T @ X.square()
    return Statistics(responsibilities.sum(0), responsibilities.T @ X, squares)


def _second_moments(X: Tensor, responsibilities: Tensor) -> Tensor:
    """Return Σ_i r_ik x_i x_iᵀ, ``(K, d, d)``, by one matrix product."""
    (n, d), k = X.shape, responsibilities.shape[1]
    weighted = (responsibilities[:, :, None] * X[:, None]).reshape(n, k * d)
    return (weighted.T @ X).view(k, d, d)


@checked(covariance_type=COVARIANCE_TYPES, floor=NOT_NEGATIVE)
def m_step(sums: Statistics, covariance_type: str, floor: float = 0.0) -> Mixture:
    """Return the most likely mixture whose covariances have eigenvalues of at least ``floor``.

    π_k = N_k / N,  μ_k = Σ_i r_ik x_i / N_k,  Σ_k = Σ_i r_ik x_i x_iᵀ / N_k - μ_k μ_kᵀ, the
    latter with small eigenvalues raised to the floor.  X should have mean 0: the difference
    loses digits where means are far larger than spreads.
    """
    counts = sums.counts + 10 * torch.finfo(sums.counts.dtype).eps  # an empty component
    means = sums.sums / counts[:, None]
    if covariance_type == "full":
        covariances = sums.squares / counts[:, None, None] - means[:, :, None] * means[:, None]
    elif covariance_type == "tied":
        covariances = (sums.squares - (counts[:, None] * means).T @ means) / counts.sum()
    else:
        covariances = sums.squares / counts[:, None] - means.square()
        covariances = covariances.mean(1) if covariance_type == "spherical" else covariances
    return Mixture(counts / counts.sum(), means, _raise(covariances, covariance_type, floor))


def _raise(covariances: Tensor, covariance_type: str, floor: float) -> Tensor:
    """Raise eigenvalues below the floor to it."""
    if covariance_type in ("diag", "spherical"):
        return covariances.clamp(min=floor)
    identity = torch.eye(covariances.shape[-1], dtype=covariances.dtype, device=covariances.device)
    _, failed = torch.linalg.cholesky_ex(covariances - floor * identity)
    if not failed.any():
        return covariances  # the usual case, without the dearer eigenvalues
    values, vectors = torch.linalg.eigh(covariances)
    return (vectors * values.clamp(min=floor)[..., None, :]) @ vectors.mT


@checked(covariance_type=COVARIANCE_TYPES, floor=NOT_NEGATIVE)
def em_step(
    X: Tensor,
    mixture: Mixture,
    covariance_type: str,
    *,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    floor: float = 0.0,
    squares: Tensor | None = None,
) -> tuple[Tensor, Mixture]:
    """Do one E-step and one M-step.

    Args:
        X: ``(n, d)``, with mean 0.
        mixture: the present parameters.
        covariance_type: "full", "tied", "diag" or "spherical".
        mask: as in :func:`e_step`.
        sample_weight: what each example counts, ``(n,)``; ``None``: 1.
        floor: smallest eigenvalue of a covariance, ≥ 0.
        squares: Σ_i w_i x_i x_iᵀ, ``(d, d)``, if known: it is the same in every step.  "tied" needs
            no other; "full" saves one component's sum, since those of all components add up to it.

    Returns:
        The (weighted) mean log-likelihood of the parameters that came, a scalar, and the next
        parameters, whose log-likelihood is not lower.
    """
    # The largest component takes what the others leave: there the difference loses no digits.
    whole = squares if covariance_type == "full" else None
    largest = int(mixture.weights.argmax())
    others = [k for k in range(len(mixture.weights)) if k != largest]
    score = log_density(mixture, covariance_type)
    log_likelihood = torch.zeros((), dtype=X.dtype, device=X.device)
    total: Statistics | None = None
    size = _block_rows(mixture.means, covariance_type)
    for start in range(0, len(X), size):
        rows = slice(start, start + size)
        joint = score(X[rows])
        if mask is not None:
            joint += mask[rows]
        row_likelihood, responsibilities = _normalise(joint)
        if sample_weight is not None:
            row_likelihood = row_likelihood * sample_weight[rows]
            responsibilities = responsibilities * sample_weight[rows, None]
        log_likelihood += row_likelihood.sum()
        known = (
            _second_moments(X[rows], responsibilities[:, others]) if whole is not None else squares
        )
        block = statistics(X[rows], responsibilities, covariance_type, known)
        total = block if total is None else Statistics(*map(torch.add, total, block))
    assert total is not None
    if whole is not None:
        part, rest = total.squares, whole - total.squares.sum(0, keepdim=True)
        total = total._replace(squares=torch.cat([part[:largest], rest, part[largest:]]))
    elif squares is not None:
        total = total._replace(squares=squares)
    return log_likelihood / total.counts.sum(), m_step(total, covariance_type, floor)


def _block_rows(means: Tensor, covariance_type: str) -> int:
    """Return how many rows make ``BLOCK`` numbers: K·d a row if full, else K or d."""
    k, d = means.shape
    return max(64, BLOCK // (k * d if covariance_type == "full" else max(k, d)))


@checked(covariance_type=COVARIANCE_TYPES, floor=NOT_NEGATIVE, max_iter=COUNT)
def em(
    X: Tensor,
    mixture: Mixture,
    covariance_type: str,
    *,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    floor: float = 0.0,
    max_iter: int = 100,
    tol: float = 1e-4,
) -> tuple[Mixture, list[float], bool]:
    """Repeat :func:`em_step` until the mean log-likelihood rises by less than ``tol``.

    Args and shapes: as :func:`em_step`.

    Returns:
        The mixture, the mean log-likelihood before each step, and whether EM has converged.
    """
    squares = None
    if covariance_type in ("full", "tied"):
        weighted = X if sample_weight is None else X * sample_weight[:, None]
        squares = weighted.T @ X
    history: list[float] = []
    for _ in range(max_iter):
        log_likelihood, following = em_step(
            X, mixture, covariance_type,
            mask=mask, sample_weight=sample_weight, floor=floor, squares=squares,
        )  # fmt: skip
        history.append(float(log_likelihood))
        mixture = following
        if len(history) > 1 and history[-1] - history[-2] < tol:
            return mixture, history, True
    return mixture, history, False


class GMMPseudoLabeler(settings.GMMPseudoLabeler):
    __doc__ = settings.GMMPseudoLabeler.__doc__

    _resolve = staticmethod(resolve_device)

    def _build(self, start: Start, device: str) -> None:
        x, responsibilities = _put(start.X, device), _put(start.responsibilities, device)
        sums = statistics(x, responsibilities, self.covariance_type)
        self._keep(m_step(sums, self.covariance_type, start.floor))

    def _learn(self, start: Start, run: Run) -> dict[str, np.ndarray]:
        put = partial(_put, device=run.device)
        mixture, history, self.converged_ = em(
            put(start.X),
            self._mixture(),
            self.covariance_type,
            mask=None if start.mask is None else put(start.mask),
            sample_weight=None if start.sample_weight is None else put(start.sample_weight),
            floor=start.floor,
            max_iter=self.max_iter,
            tol=self.tol,
        )
        self._keep(mixture)
        return {"log_likelihood": np.asarray(history)}

    def _apply(self, X: np.ndarray) -> np.ndarray:
        """Return log π_k + log N(x; μ_k, Σ_k), ``(n, K)``."""
        score = log_density(self._mixture(), self.covariance_type)
        blocks = (X[start : start + ROWS] for start in range(0, len(X), ROWS))
        return np.concatenate([to_array(score(_put(block, self._device))) for block in blocks])

    def _keep(self, mixture: Mixture) -> None:
        self.weights_, self.means_, self.covariances_ = map(to_array, mixture)

    def _mixture(self) -> Mixture:
        arrays = (self.weights_, self.means_, self.covariances_)
        return Mixture(*(_put(array, self._device) for array in arrays))


def _put(array: np.ndarray, device: str) -> Tensor:
    return to_tensor(array, device, "float64")
