"""Importance weights by KLIEP in PyTorch (Sugiyama et al. 2008): transfer by samples.

Source examples are weighted by an estimate of w(x) = p_T(x) / p_S(x), so that the weighted source
looks like the target.  KLIEP picks the w whose w·p_S has the smallest KL(p_T‖w·p_S): since
KL(p_T‖w·p_S) = KL(p_T‖p_S) - E_T[log w], it maximises the mean of log w over the target, while
w·p_S stays a density: the mean of w over the source is 1.

The model is w(x) = Σ_l a_l K(x, c_l) with a_l ≥ 0 and Gaussian kernels at target points c_l.  Put
m_l = mean_S K(x, c_l), φ_l = K(·, c_l)/m_l and π_l = a_l m_l.  The constraint becomes Σ_l π_l = 1,
and the objective the mean over the target of log Σ_l π_l φ_l(x): the likelihood of a mixture with
fixed components φ_l and unknown proportions π.  EM maximises it, without a step size and without
ever falling (the paper climbs the same concave objective by projected gradients).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_course._arguments import COUNT, NOT_NEGATIVE, POSITIVE, checked
from fewshot_course._checks import check_number
from fewshot_course._streams import Streams
from fewshot_course.both import kliep as settings
from fewshot_course.both.kl_adaptation import Domains
from fewshot_course.both.kliep import candidate_widths
from fewshot_course.both.training import Run, fingerprint_of
from fewshot_course.data import BatchStream
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import Networks, to_array, to_tensor, train

__all__ = [
    "KLIEP",
    "cross_validated_likelihood",
    "density_ratio",
    "gaussian_kernel",
    "importance_loss",
    "importance_weights",
    "kliep_em_step",
    "kliep_proportions",
    "weighted_cross_entropy",
]


@checked(width=POSITIVE)
def gaussian_kernel(X: Tensor, centres: Tensor, width: float) -> Tensor:
    """K(x, c) = exp(-‖x - c‖² / (2 width²)).

    Args:
        X: ``(n, d)``.
        centres: ``(m, d)``.
        width: standard deviation of the kernel, > 0.

    Returns:
        ``(n, m)``, in [0, 1].

    Raises:
        TypeError: if an argument is no tensor, or ``width`` no number.
        ValueError: for another shape, two values of d, no rows, or a width that is not positive.
    """
    return torch.exp(_log_kernel(X, centres, width))


@checked
def kliep_em_step(proportions: Tensor, components: Tensor) -> tuple[Tensor, Tensor]:
    """One EM step for the proportions π of a mixture with fixed components.

    E: r_tl = π_l φ_l(x_t) / Σ_k π_k φ_k(x_t).  M: π_l ← mean_t r_tl.  Together π_l ← π_l g_l with
    the gain g_l = mean_t φ_l(x_t)/w(x_t), which is the objective's gradient.  Because the
    objective J is concave and Σ_l π_l g_l = 1, max J - J(π) ≤ max_l g_l - 1: the step says how
    far from the best it started.

    Args:
        proportions: π, ``(m,)``, ≥ 0, with sum 1.
        components: φ_l(x_t) at the target points, ``(n, m)``, ≥ 0; a factor on a row cancels.

    Returns:
        The new proportions ``(m,)``, and the bound on what the objective can still rise, a scalar.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if components.ndim != 2 or components.shape[1:] != proportions.shape:
        raise ValueError(
            f"components must have shape (n, m) and proportions (m,), got "
            f"{tuple(components.shape)} and {tuple(proportions.shape)}."
        )
    w = components @ proportions
    gain = (1 / w) @ components / components.shape[0]
    return proportions * gain, gain.max() - 1


@checked(width=POSITIVE, tolerance=NOT_NEGATIVE, max_steps=COUNT)
def kliep_proportions(
    X_source: Tensor,
    X_target: Tensor,
    centres: Tensor,
    width: float,
    tolerance: float = 1e-4,
    max_steps: int = 10_000,
) -> Tensor:
    """Maximise the mean of log w over the target by EM.

    Args:
        X_source: ``(n, d)`` float64.
        X_target: ``(t, d)`` float64.
        centres: ``(m, d)`` float64.
        width: of the kernel, > 0.
        tolerance: stop when the objective lies at most this far below its maximum, in nats.
        max_steps: stop at the latest after so many steps.

    Returns:
        π, ``(m,)``.
    """
    check_number("tolerance", tolerance, low=0)
    check_number("max_steps", max_steps, low=1, integer=True)
    log_components = _log_components(X_target, X_source, centres, width)
    # A factor on a row cancels; taking the largest entry out keeps exp from overflowing.
    components = torch.exp(log_components - log_components.max(1, keepdim=True).values)
    return _iterate(components, tolerance, max_steps)


def _iterate(components: Tensor, tolerance: float, max_steps: int) -> Tensor:
    m = components.shape[1]
    proportions = components.new_full((m,), 1 / m)
    for _ in range(max_steps):
        proportions, bound = kliep_em_step(proportions, components)
        if bound <= tolerance:
            break
    return proportions


@checked(width=POSITIVE)
def density_ratio(
    X: Tensor, X_source: Tensor, centres: Tensor, width: float, proportions: Tensor
) -> Tensor:
    """w(x) = Σ_l π_l φ_l(x) at any point.

    Args:
        X: where, ``(k, d)``.
        X_source: the source that the components are normalised over, ``(n, d)``.
        centres: ``(m, d)``.
        width: of the kernel, > 0.
        proportions: π of :func:`kliep_proportions`, ``(m,)``.

    Returns:
        ``(k,)``, ≥ 0; over ``X_source`` itself the mean is 1.
    """
    return torch.exp(_log_ratio(X, X_source, centres, width, proportions))


@checked(width=POSITIVE, tolerance=NOT_NEGATIVE, max_steps=COUNT)
def importance_weights(
    X_source: Tensor,
    X_target: Tensor,
    centres: Tensor,
    width: float,
    tolerance: float = 1e-4,
    max_steps: int = 10_000,
) -> Tensor:
    """KLIEP's weights of the source examples.

    Args:
        X_source: ``(n, d)`` float64.
        X_target: ``(t, d)`` float64.
        centres: ``(m, d)`` float64, mostly some of the target points.
        width: of the kernel, > 0.
        tolerance: see :func:`kliep_proportions`.
        max_steps: see :func:`kliep_proportions`.

    Returns:
        ``(n,)``, ≥ 0, with mean 1.
    """
    proportions = kliep_proportions(X_source, X_target, centres, width, tolerance, max_steps)
    return density_ratio(X_source, X_source, centres, width, proportions)


@checked(width=POSITIVE)
def cross_validated_likelihood(
    X_source: Tensor, X_target: Tensor, centres: np.ndarray, width: float, folds: np.ndarray
) -> float:
    """Mean log w of target points that took no part in the fit (LCV, Sugiyama et al. 2008).

    The larger, the better the width.  A fold's own points are no centres while it is held out:
    a kernel on top of a point would make every narrow width look good.

    Args:
        X_source: ``(n, d)`` float64.
        X_target: ``(t, d)`` float64.
        centres: which target points are centres, ``(m,)`` int.
        width: of the kernel, > 0.
        folds: the fold of each target point, ``(t,)`` int; at least two folds hold centres.

    Returns:
        The mean over all target points, in nats.
    """
    total = 0.0
    for fold in np.unique(folds):
        held_out, fitted = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        kept = X_target[centres[folds[centres] != fold]]
        proportions = kliep_proportions(X_source, X_target[fitted], kept, width, tolerance=1e-3)
        total += float(_log_ratio(X_target[held_out], X_source, kept, width, proportions).sum())
    return total / len(folds)


@checked
def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of w_i · CE_i: E_S[w(x) CE] = E_T[CE] where w = p_T/p_S.

    Args:
        logits: ``(n, k)``.
        labels: ``(n,)`` int64 in [0, k).
        weights: ``(n,)``, ≥ 0.

    Returns:
        A scalar.

    Raises:
        ValueError: if there is not one weight for each example.
    """
    if weights.shape != labels.shape:
        raise ValueError(
            f"weights has shape {tuple(weights.shape)}, expected one for each of the labels, "
            f"{tuple(labels.shape)}."
        )
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


@checked(target_weight=NOT_NEGATIVE)
def importance_loss(
    network: nn.Module,
    source: tuple[Tensor, ...],
    labelled: tuple[Tensor, ...] | None = None,
    target_weight: float = 1.0,
) -> Tensor:
    """Return the loss of a step: weighted CE(source) + target_weight · CE(labelled target).

    Args:
        network: the classifier.
        source: x ``(n, ...)``, labels ``(n,)`` and importance weights ``(n,)``, ≥ 0.
        labelled: x and labels of target examples, or ``None``.
        target_weight: of the latter, ≥ 0.

    Returns:
        A scalar, ≥ 0.
    """
    x, y, weights = source
    loss = weighted_cross_entropy(network(x), y, weights)
    if labelled is not None:
        x, y = labelled
        loss = loss + target_weight * F.cross_entropy(network(x), y)
    return loss


class KLIEP(Networks, settings.KLIEP):
    __doc__ = settings.KLIEP.__doc__

    def _build(self, rng: np.random.Generator, device: str) -> None:
        network = networks.build(
            self.network, self.input_shape_, len(self.classes_), rng, self.dtype
        )
        self.network_ = network.to(device)

    def _learn(self, data: Domains, streams: Streams, run: Run) -> dict[str, np.ndarray]:
        self._weight(data.X_source, data.X_target)
        arrays: dict[str, tuple[np.ndarray, ...]] = {
            "source": (data.X_source, data.y_source, self.weights_),
            "labelled": (data.X_labelled, data.y_labelled),
        }
        tensors = {
            name: (
                to_tensor(X, run.device, self.dtype),
                to_tensor(y, run.device),
                *(to_tensor(w, run.device, self.dtype) for w in weights),
            )
            for name, (X, y, *weights) in arrays.items()
            if len(X)
        }
        batches = {
            name: BatchStream(len(X), min(self.batch_size, len(X)), streams.batches)
            for name, (X, *_) in tensors.items()
        }
        optimizer = optim.adam(self.network_.parameters(), lr=self.lr)

        def draw(name: str) -> tuple[Tensor, ...]:
            index = to_tensor(batches[name].next(), run.device)
            return tuple(tensor[index] for tensor in tensors[name])

        def step(number: int) -> Mapping[str, Tensor]:
            drawn = {name: draw(name) for name in batches}
            loss = importance_loss(
                self.network_, drawn["source"], drawn.get("labelled"), self.target_weight
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach()}

        return train(
            step,
            run,
            steps=self.steps,
            modules={"network": self.network_},
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
            fingerprint=fingerprint_of(self, *chain(*arrays.values()), data.X_target),
        )

    def _weight(self, X_source: np.ndarray, X_target: np.ndarray) -> None:
        """Choose centres and width, and compute the weights, on the CPU in float64."""
        source = to_tensor(X_source.reshape(len(X_source), -1), "cpu", "float64")
        target = to_tensor(X_target.reshape(len(X_target), -1), "cpu", "float64")
        index, folds = self._centres(len(X_target))
        centres = target[index]
        self.width_scores_ = {}
        if self.width is None:
            distances = np.sqrt(-2 * to_array(_log_kernel(source, centres, 1.0)))
            self.width_scores_ = {
                width: cross_validated_likelihood(source, target, index, width, folds)
                for width in candidate_widths(distances)
            }
            self.width_ = max(self.width_scores_, key=self.width_scores_.__getitem__)
        else:
            self.width_ = float(self.width)
        self.weights_ = to_array(importance_weights(source, target, centres, self.width_))

    def _apply(self, X: np.ndarray) -> np.ndarray:
        return self._in_blocks(lambda x: F.softmax(self.network_(x), dim=1), X)


def _log_kernel(X: Tensor, centres: Tensor, width: float) -> Tensor:
    """-‖x - c‖² / (2 width²), ``(n, m)``."""
    _check_points(X=X, centres=centres)
    check_number("width", width, low=0, low_open=True)
    # ‖x - c‖² multiplied out, about the centres' mean so that few digits cancel.
    origin = centres.mean(0)
    X, centres = X - origin, centres - origin
    squares = X.square().sum(1)[:, None] + centres.square().sum(1) - 2 * X @ centres.T
    return -squares.clamp(min=0) / (2 * width**2)


def _log_components(X: Tensor, X_source: Tensor, centres: Tensor, width: float) -> Tensor:
    """Logs of the components φ_l(x) = K(x, c_l)/m_l, ``(n, m)``; finite for any width."""
    log_sum = torch.logsumexp(_log_kernel(X_source, centres, width), 0)
    return _log_kernel(X, centres, width) - (log_sum - math.log(X_source.shape[0]))


def _log_ratio(
    X: Tensor, X_source: Tensor, centres: Tensor, width: float, proportions: Tensor
) -> Tensor:
    log_components = _log_components(X, X_source, centres, width)
    return torch.logsumexp(log_components + torch.log(proportions), 1)


def _check_points(**arrays: Tensor) -> None:
    for name, value in arrays.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}.")
        if value.ndim != 2 or 0 in value.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected (n, d), n, d ≥ 1.")
    widths = {name: value.shape[1] for name, value in arrays.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"the last axes must have one size, got {widths}.")
