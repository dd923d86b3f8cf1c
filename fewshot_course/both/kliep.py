"""Importance weights by KLIEP (Sugiyama et al. 2008): what is asked and what is answered."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import check_choice, check_features, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.kl_adaptation import check_domains
from fewshot_course.both.training import Progress, Run

WIDTH_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Kernel widths that are tried, as multiples of the median distance of source and centres."""


class KLIEP(CourseClassifier):
    """Weight the source by KLIEP, then train on it (Sugiyama et al. 2008).

    The loss of a step is the weighted cross-entropy of a source batch
    (``weighted_cross_entropy``) plus target_weight · CE(labelled target).  Weights can only
    choose among source examples: where the target has none, nothing is gained, and few examples
    carry all the weight.  Their number is about (Σ w)²/Σ w².

    Args:
        network: classifier, "mlp", "conv4", a zero-argument factory of a network that returns one
            output a class, or ``None`` (chosen by the shape of X).
        width: of the kernel, > 0, in the units of X; ``None``: the best of ``WIDTH_FACTORS`` times
            the median distance by ``cross_validated_likelihood``.
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
    _arrays = ("classes_", "weights_")
    width_scores_: dict[float, float]

    def __init__(
        self,
        network: str | Callable[[], Any] | None = None,
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
        progress: Progress = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Weight the source, then train on it; see ``KLAdapter``.

        Args:
            X_source: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
            y_source: labels ≥ 0, ``(n,)``.
            X_target: ``(m, ...)``, shaped like the source.
            y_target: labels ``(m,)``, -1 where unknown; ``None``: all unknown.
            device: "auto", "cpu", "cuda", ...; the weights are computed on the CPU.
            progress: whether to show a progress bar, or a function that is told of each update:
                it gets how many are done, and name → value of the last one's losses.
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
        run = Run(self._resolve(device), progress, log_dir, checkpoint_dir)
        self._device = run.device
        self._build(streams.init, run.device)
        self.history_ = self._learn(domains, streams, run)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, n_classes)``."""
        check_is_fitted(self)
        return self._apply(check_features("X", X, like=self.input_shape_))

    def _centres(self, n_target: int) -> tuple[np.ndarray, np.ndarray]:
        """Choose centres among the target points, ``(m,)``, and each point's fold, ``(n_target,)``.

        The seed is fixed: a run without a random_state that is resumed has the same weights.
        """
        order = np.random.default_rng(0).permutation(n_target)
        folds = np.empty(n_target, dtype=np.int64)
        folds[order] = np.arange(n_target) % self.n_folds  # centres in every fold
        return order[: self.n_centres], folds

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


def candidate_widths(distances: np.ndarray) -> list[float]:
    """Return WIDTH_FACTORS times the median of the distances ``(n, m)`` of source and centres."""
    if distances.shape[1] < 2:
        raise ValueError(
            "X_target has one example, which leaves none to fit the width on; give KLIEP a width."
        )
    median = float(np.median(distances))
    if median == 0:
        raise ValueError(
            "more than half of the distances between X_source and X_target are 0, so no kernel "
            "width can be chosen; give KLIEP a width."
        )
    return [factor * median for factor in WIDTH_FACTORS]
