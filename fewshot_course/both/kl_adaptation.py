"""Domain adaptation by KL divergence (Nguyen et al. 2022): what is asked and what is answered.

A stochastic encoder maps an example to a Gaussian over codes, p(z|x) = N(μ(x), σ(x)²).  Training
lowers the source's cross-entropy and, at the same time, the KL divergence between the codes of
the two domains.  The mathematics, the network and the step stand in ``torch`` and ``tf``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import (
    UNLABELLED,
    check_choice,
    check_features,
    check_labels,
    check_number,
    check_pair,
)
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.training import Progress, Run, check_precision


@dataclass(frozen=True)
class Domains:
    """Checked data of two domains; labels are positions in ``classes``.

    Attributes:
        X_source: ``(n, ...)``.
        y_source: ``(n,)``.
        X_target: all target examples, ``(m, ...)``.
        X_labelled: those of them that have a label, ``(l, ...)``; l may be 0.
        y_labelled: their labels, ``(l,)``.
        classes: the labels as the user wrote them, ``(k,)``, ascending.
    """

    X_source: np.ndarray
    y_source: np.ndarray
    X_target: np.ndarray
    X_labelled: np.ndarray
    y_labelled: np.ndarray
    classes: np.ndarray


def check_domains(X_source: Any, y_source: Any, X_target: Any, y_target: Any = None) -> Domains:
    """Check the data of an adaptation method and encode its labels.

    Args:
        X_source: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
        y_source: labels ≥ 0, ``(n,)``.
        X_target: ``(m, ...)``, shaped like the source.
        y_target: labels ``(m,)``, -1 where unknown; ``None``: all unknown.

    Raises:
        ValueError: for arrays that do not fit together, a single class, or a target label that
            the source does not have.
        TypeError: for arrays of another kind.
    """
    X_source = check_features("X_source", X_source)
    y_source = check_labels("y_source", y_source, n=len(X_source))
    X_target = check_features("X_target", X_target, like=X_source.shape[1:])
    if y_target is None:
        y_target = np.full(len(X_target), UNLABELLED, dtype=np.int64)
    y_target = check_labels("y_target", y_target, n=len(X_target), allow_unlabelled=True)
    classes = np.unique(y_source)
    if len(classes) < 2:
        raise ValueError(f"y_source has the single class {classes[0]}; expected two.")
    known = np.flatnonzero(y_target != UNLABELLED)
    unknown = sorted(set(y_target[known].tolist()) - set(classes.tolist()))
    if unknown:
        raise ValueError(
            f"y_target has the labels {unknown}, which y_source does not have "
            f"(it has {classes.tolist()})."
        )
    return Domains(
        X_source=X_source,
        y_source=np.searchsorted(classes, y_source),
        X_target=X_target,
        X_labelled=X_target[known],
        y_labelled=np.searchsorted(classes, y_target[known]),
        classes=classes,
    )


@contextmanager
def computing_in(network: Any, precision: str) -> Iterator[None]:
    """Make a ``StochasticClassifier`` compute in ``precision`` while the body runs."""
    network.precision = precision
    try:
        yield
    finally:
        network.precision = "float32"


class Adapter(CourseClassifier):
    """What the adapters of this course share: everything but the networks and the alignment.

    A framework gives the three doors ``_build``, ``_learn`` and ``_apply``.
    """

    network: str | Callable[[], Any] | None
    latent_dim: int
    scale_bounds: tuple[float, float]
    warmup: float
    target_weight: float
    steps: int
    batch_size: int
    lr: float
    prediction_samples: int
    dtype: str
    random_state: int | None
    precision: str

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
        """Train on a labelled source and a mostly unlabelled target.

        Args:
            X_source: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
            y_source: labels ≥ 0, ``(n,)``.
            X_target: ``(m, ...)``, shaped like the source.
            y_target: labels ``(m,)``, -1 where unknown; ``None``: all unknown.
            device: "auto", "cpu", "cuda", ...
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
        """Return class probabilities ``(n, n_classes)``.

        They are averaged over ``prediction_samples`` codes (0: the mean code alone).  The noise
        is fixed, so a prediction does not change from call to call.
        """
        check_is_fitted(self, "network_")
        noise = np.zeros((1, 1, self.latent_dim))
        if self.prediction_samples:
            shape = (self.prediction_samples, 1, self.latent_dim)
            noise = np.random.default_rng(0).standard_normal(shape)
        return self._apply("probabilities", check_features("X", X, like=self.input_shape_), noise)

    def encode(self, X: Any) -> np.ndarray:
        """Return the mean codes μ(x), ``(n, latent_dim)``."""
        check_is_fitted(self, "network_")
        noise = np.zeros((1, 1, self.latent_dim))
        return self._apply("codes", check_features("X", X, like=self.input_shape_), noise)

    def _aligns(self) -> bool:
        """Whether the loss looks at the target's codes at all."""
        return True

    def _check_parameters(self) -> None:
        check_number("latent_dim", self.latent_dim, low=1, integer=True)
        check_number("batch_size", self.batch_size, low=2, integer=True)
        check_number("steps", self.steps, low=1, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)
        check_choice("dtype", self.dtype, ["float32", "float64"])
        check_choice("precision", self.precision, ["float32", "bfloat16"])
        check_precision(self.precision, self.dtype)
        check_number("warmup", self.warmup, low=0, high=1)
        check_number("target_weight", self.target_weight, low=0)
        check_number(
            "prediction_samples", self.prediction_samples, low=0, high=100_000, integer=True
        )
        low, high = check_pair("scale_bounds", self.scale_bounds)
        check_number("scale_bounds[0]", low, low=0, low_open=True)
        check_number("scale_bounds[1]", high, low=low)


class KLAdapter(Adapter):
    """Align the codes of two domains by KL divergence.

    The loss of a step is

        CE(source) + target_weight · CE(labelled target)
        + r · [weight · KL(target‖source) + reverse_weight · KL(source‖target)],

    where r rises from 0 to 1 over the first part ``warmup`` of the steps: codes mean nothing
    before the classifier has begun to learn, and aligning them then can match classes wrongly.

    Args:
        network: encoder, "mlp", "conv4", a zero-argument factory of a network that returns
            ``2·latent_dim`` outputs, or ``None`` (chosen by the shape of X).
        latent_dim: size of a code.
        estimator: of the KL, "moments" or "mixture", see ``two_way_kl``.
        weight: of KL(target‖source), ≥ 0.  0 with ``reverse_weight=0`` trains on the source only.
        reverse_weight: of KL(source‖target), ≥ 0.
        warmup: part of the steps over which both weights rise, in [0, 1].
        target_weight: of the cross-entropy of labelled target examples, ≥ 0.
        scale_bounds: smallest and largest σ of a code.
        steps: number of updates.
        batch_size: examples of each domain in a step.
        lr: Adam's learning rate.
        prediction_samples: codes averaged in a prediction; 0 takes the mean code.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.
        leave_one_out: of "mixture": leave a code's own component out.  Here to be seen failing:
            the loss has no lower bound then, and more steps ruin the classifier.
        precision: what the encoder's matrix products are computed in while training: "float32"
            (that is, ``dtype``) or "bfloat16", for a GPU or a processor with instructions for it.

    Attributes:
        network_: the trained ``StochasticClassifier``.
        classes_: labels, ``(k,)`` int64.
        input_shape_: shape of one example.
        history_: name → array ``(steps,)``: "loss", "alignment".
    """

    def __init__(
        self,
        network: str | Callable[[], Any] | None = None,
        latent_dim: int = 32,
        estimator: str = "moments",
        weight: float = 0.05,
        reverse_weight: float = 0.05,
        warmup: float = 0.5,
        target_weight: float = 1.0,
        scale_bounds: tuple[float, float] = (0.5, 2.0),
        steps: int = 1000,
        batch_size: int = 128,
        lr: float = 1e-3,
        prediction_samples: int = 0,
        dtype: str = "float32",
        random_state: int | None = None,
        leave_one_out: bool = False,
        precision: str = "float32",
    ) -> None:
        self.network = network
        self.latent_dim = latent_dim
        self.estimator = estimator
        self.weight = weight
        self.reverse_weight = reverse_weight
        self.warmup = warmup
        self.target_weight = target_weight
        self.scale_bounds = scale_bounds
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.prediction_samples = prediction_samples
        self.dtype = dtype
        self.random_state = random_state
        self.leave_one_out = leave_one_out
        self.precision = precision

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("estimator", self.estimator, ["moments", "mixture"])
        if not isinstance(self.leave_one_out, bool):
            raise TypeError(f"leave_one_out must be a bool, got {self.leave_one_out!r:.60}.")
        check_number("weight", self.weight, low=0)
        check_number("reverse_weight", self.reverse_weight, low=0)

    def _aligns(self) -> bool:
        return self.weight > 0 or self.reverse_weight > 0
