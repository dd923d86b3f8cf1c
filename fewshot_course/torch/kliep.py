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
import os
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from fewshot_course._checks import check_choice, check_features, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.kl_adaptation import Domains, check_domains
from fewshot_course.both.training import describe, hash_arrays
from fewshot_course.data import BatchStream
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import resolve_device, to_array, to_tensor, train

__all__ = [
    "KLIEP",
    "cross_validated_likelihood",
    "density_ratio",
    "gaussian_kernel",
    "importance_weights",
    "kliep_em_step",
    "kliep_proportions",
    "weighted_cross_entropy",
]

WIDTH_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Kernel widths that are tried, as multiples of the median distance of source and centres."""


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
    proportions = torch.full((m,), 1 / m, dtype=components.dtype)
    for _ in range(max_steps):
        proportions, bound = kliep_em_step(proportions, components)
        if bound <= tolerance:
            break
    return proportions


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


class KLIEP(CourseClassifier):
    """Weight the source by KLIEP, then train on it (Sugiyama et al. 2008).

    The loss of a step is the weighted cross-entropy of a source batch
    (:func:`weighted_cross_entropy`) plus target_weight · CE(labelled target).  Weights can only
    choose among source examples: where the target has none, nothing is gained, and few examples
    carry all the weight.  Their number is about (Σ w)²/Σ w².

    Args:
        network: classifier, "mlp", "conv4", a zero-argument factory of a module that returns one
            output a class, or ``None`` (chosen by the shape of X).
        width: of the kernel, > 0, in the units of X; ``None``: the best of ``WIDTH_FACTORS`` times
            the median distance by :func:`cross_validated_likelihood`.
        n_centres: target points that are kernel centres, at most, ≥ 2.
        n_folds: of the cross-validation, ≥ 2.
        target_weight: of the cross-entropy of labelled target examples, ≥ 0.
        steps: number of updates.
        batch_size: examples of each domain in a step.
        lr: Adam's learning rate.
        dtype: of the network, "float32" or "float64"; weights are computed in float64.
        random_state: seed; the same seed gives the same run in both frameworks.  Centres and
            folds do not depend on it.

    Attributes:
        weights_: importance weights of the source, ``(n_source,)`` float64, mean 1.
        width_: width of the kernel that was used.
        width_scores_: width → its likelihood; empty where ``width`` was given.
        network_: the trained classifier.
        classes_: labels, ``(k,)`` int64.
        input_shape_: shape of one example.
        history_: name → array ``(steps,)``: "loss".
    """

    _facts = ("input_shape_", "width_")

    def __init__(
        self,
        network: str | Callable[[], nn.Module] | None = None,
        width: float | None = None,
        n_centres: int = 100,
        n_folds: int = 5,
        target_weight: float = 1.0,
        steps: int = 1000,
        batch_size: int = 128,
        lr: float = 1e-3,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.width = width
        self.n_centres = n_centres
        self.n_folds = n_folds
        self.target_weight = target_weight
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.dtype = dtype
        self.random_state = random_state

    def fit(
        self,
        X_source: Any,
        y_source: Any,
        X_target: Any,
        y_target: Any = None,
        *,
        device: str = "auto",
        progress: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Weight the source, then train on it; see :class:`~fewshot_course.torch.KLAdapter`.

        Args:
            X_source: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
            y_source: labels ≥ 0, ``(n,)``.
            X_target: ``(m, ...)``, shaped like the source.
            y_target: labels ``(m,)``, -1 where unknown; ``None``: all unknown.
            device: "auto", "cpu", "cuda", ...; the weights are computed on the CPU.
            progress: whether to show a progress bar.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for arrays that do not fit together, a single class, a target label that
                the source does not have, or a hyper-parameter out of range.
        """
        self._check_parameters()
        domains = check_domains(X_source, y_source, X_target, y_target)
        self.classes_ = domains.classes
        self.input_shape_ = tuple(domains.X_source.shape[1:])
        streams = Streams.from_seed(self.random_state)
        device = resolve_device(device)
        self._build(streams.init, device)
        self._weight(domains.X_source, domains.X_target)
        self.history_ = self._train(
            domains, streams,
            device=device, progress=progress, log_dir=log_dir, checkpoint_dir=checkpoint_dir,
        )  # fmt: skip
        return self

    def _build(self, rng: np.random.Generator, device: str) -> None:
        network = networks.build(
            self.network, self.input_shape_, len(self.classes_), rng, self.dtype
        )
        self.network_ = network.to(device)

    def _weight(self, X_source: np.ndarray, X_target: np.ndarray) -> None:
        """Choose centres and width, and compute the weights."""
        source = to_tensor(X_source.reshape(len(X_source), -1), "cpu", "float64")
        target = to_tensor(X_target.reshape(len(X_target), -1), "cpu", "float64")
        # A fixed seed: a run without a random_state that is resumed has the same weights.
        order = np.random.default_rng(0).permutation(len(X_target))
        index = order[: self.n_centres]
        centres = target[index]
        self.width_scores_: dict[float, float] = {}
        if self.width is None:
            folds = np.empty(len(order), dtype=np.int64)
            folds[order] = np.arange(len(order)) % self.n_folds  # centres in every fold
            for width in _candidate_widths(source, centres):
                self.width_scores_[width] = cross_validated_likelihood(
                    source, target, index, width, folds
                )
            self.width_ = max(self.width_scores_, key=self.width_scores_.__getitem__)
        else:
            self.width_ = float(self.width)
        self.weights_ = to_array(importance_weights(source, target, centres, self.width_))

    def _train(
        self,
        data: Domains,
        streams: Streams,
        *,
        device: str,
        progress: bool,
        log_dir: str | os.PathLike[str] | None,
        checkpoint_dir: str | os.PathLike[str] | None,
    ) -> dict[str, np.ndarray]:
        network = self.network_
        xs, ys = to_tensor(data.X_source, device, self.dtype), to_tensor(data.y_source, device)
        ws = to_tensor(self.weights_, device, self.dtype)
        xl = to_tensor(data.X_labelled, device, self.dtype)
        yl = to_tensor(data.y_labelled, device)
        batches = {
            name: BatchStream(len(x), min(self.batch_size, len(x)), streams.batches)
            for name, x in (("source", xs), ("labelled", xl))
            if len(x)
        }
        optimizer = optim.adam(network.parameters(), lr=self.lr)

        def step(number: int) -> Mapping[str, Tensor]:
            i = to_tensor(batches["source"].next(), device)
            loss = weighted_cross_entropy(network(xs[i]), ys[i], ws[i])
            if "labelled" in batches:
                k = to_tensor(batches["labelled"].next(), device)
                loss = loss + self.target_weight * F.cross_entropy(network(xl[k]), yl[k])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach()}

        network.train()
        history = train(
            step,
            steps=self.steps,
            modules={"network": network},
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
            fingerprint={
                "method": type(self).__name__,
                "params": describe(self.get_params(deep=False)),
                "data": hash_arrays(
                    data.X_source, data.y_source, data.X_target, data.X_labelled, data.y_labelled
                ),
            },
            device=device,
            progress=progress,
            log_dir=log_dir,
            checkpoint_dir=checkpoint_dir,
        )
        network.eval()
        return history

    @torch.no_grad()
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, n_classes)``."""
        check_is_fitted(self)
        X = check_features("X", X, like=self.input_shape_)
        device = str(next(self.network_.parameters()).device)
        blocks = [X[start : start + 1024] for start in range(0, len(X), 1024)]
        logits = [self.network_(to_tensor(block, device, self.dtype)) for block in blocks]
        return np.concatenate([to_array(F.softmax(block, dim=1)) for block in logits])

    def _check_parameters(self) -> None:
        if self.width is not None:
            check_number("width", self.width, low=0, low_open=True)
        check_number("n_centres", self.n_centres, low=2, integer=True)
        check_number("n_folds", self.n_folds, low=2, integer=True)
        check_number("target_weight", self.target_weight, low=0)
        check_number("steps", self.steps, low=1, integer=True)
        check_number("batch_size", self.batch_size, low=2, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)
        check_choice("dtype", self.dtype, ["float32", "float64"])

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        return {"weights_": self.weights_, **networks.to_numpy(self.network_)}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.weights_ = arrays["weights_"]
        self._build(np.random.default_rng(0), "cpu")
        rest = {name: array for name, array in arrays.items() if name != "weights_"}
        networks.from_numpy(self.network_, rest)
        self.network_.eval()


def _candidate_widths(source: Tensor, centres: Tensor) -> list[float]:
    """WIDTH_FACTORS times the median distance of source and centres."""
    if len(centres) < 2:
        raise ValueError(
            "X_target has one example, which leaves none to fit the width on; give KLIEP a width."
        )
    distances = np.sqrt(-2 * to_array(_log_kernel(source, centres, 1.0)))
    median = float(np.median(distances))
    if median == 0:
        raise ValueError(
            "more than half of the distances between X_source and X_target are 0, so no kernel "
            "width can be chosen; give KLIEP a width."
        )
    return [factor * median for factor in WIDTH_FACTORS]


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
