"""Self-training in TensorFlow: a network learns from its own predictions (Lee 2013).

In each step the network's class for an unlabelled example is taken as if it were its label.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import UNLABELLED, check_features, check_labels, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.pseudo_labels import (
    check_classes,
    class_index,
    lee_weight,
    select_confident,
    warn_without_unlabelled,
)
from fewshot_course.both.training import hash_arrays
from fewshot_course.data import BatchStream
from fewshot_course.tf import networks, optim
from fewshot_course.tf._training import resolve_device, to_array, to_tensor, train
from fewshot_course.weights import part_of

__all__ = ["SelfTraining", "lee_weight", "pseudo_label_loss", "select_confident", "weighted_loss"]


def weighted_loss(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the mean over a batch of weight · cross-entropy, a scalar.

    Args:
        logits: ``(n, C)``.
        labels: class indices ``(n,)`` int64.
        weights: ``(n,)``, ≥ 0.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_mean(weights * losses)


def pseudo_label_loss(logits: tf.Tensor, threshold: float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the cross-entropy against the network's own classes (Lee 2013, equation 15).

    Args:
        logits: of unlabelled examples, ``(n, C)``.
        threshold: examples whose largest probability is lower add nothing, in [0, 1].

    Returns:
        The sum over the confident examples divided by n, and their share: two scalars.  No
        gradient passes through the choice of a class.
    """
    confidence = tf.stop_gradient(tf.reduce_max(tf.nn.softmax(logits), axis=1))
    labels = tf.argmax(logits, axis=1)
    chosen = tf.cast(confidence >= threshold, logits.dtype)
    return weighted_loss(logits, labels, chosen), tf.reduce_mean(chosen)


class SelfTraining(CourseClassifier):
    """A network trained on its own pseudo-labels too (Lee 2013).

    The loss of a step is CE(labelled batch) + α(t) · CE(unlabelled batch, its own classes);
    α(t) is :func:`lee_weight`.  Lee's network also had dropout, the named networks have none.

    Args:
        network: "mlp", "conv4", a zero-argument factory, or ``None`` (by the shape of X).
        weight: final weight of the pseudo-labels, ≥ 0; 0 trains on the labels alone.
        ramp_start: part of the steps before which α is 0, in [0, 1].
        ramp_end: part of the steps from which α is ``weight``, in [ramp_start, 1].
        threshold: confidence below which a pseudo-label is not used, in [0, 1]; 0 takes all, as
            Lee does.
        steps: number of updates.
        batch_size: labelled examples in a step.
        unlabelled_batch_size: unlabelled examples in a step.
        lr: Adam's learning rate.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the trained network.
        classes_: labels, ``(C,)`` int64.
        input_shape_: shape of one example.
        pseudo_labels_: class of each example given to ``fit``, ``(n,)``; known labels as given.
        confidence_: probability of that class, ``(n,)`` in [0, 1]; 1 where the label is known.
        history_: name → array ``(steps,)``: "loss", "pseudo_loss", "coverage" (share of the
            unlabelled batch that is above the threshold; 0 where the weight is 0).
    """

    _facts = ("input_shape_",)

    def __init__(
        self,
        network: str | Callable[[], keras.Model] | None = None,
        weight: float = 3.0,
        ramp_start: float = 0.1,
        ramp_end: float = 0.6,
        threshold: float = 0.0,
        steps: int = 1000,
        batch_size: int = 32,
        unlabelled_batch_size: int = 256,
        lr: float = 1e-3,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.weight = weight
        self.ramp_start = ramp_start
        self.ramp_end = ramp_end
        self.threshold = threshold
        self.steps = steps
        self.batch_size = batch_size
        self.unlabelled_batch_size = unlabelled_batch_size
        self.lr = lr
        self.dtype = dtype
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        classes: Any = None,
        device: str = "auto",
        progress: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on labelled and unlabelled examples together.

        Args:
            X: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
            y: labels ≥ 0, and -1 where unknown, ``(n,)``.
            sample_weight: weight of each labelled example's loss, ``(n,)`` ≥ 0; ``None``: 1.
            classes: all the labels there are; the classes found in ``y`` if not given.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for NaN, no labelled example at all or of a class, a single class, arrays
                that do not fit together, or a hyper-parameter out of range.
        """
        self._check_parameters()
        X = check_features("X", X)
        y = check_labels("y", y, n=len(X), allow_unlabelled=True)
        self.classes_ = check_classes(y, classes)
        if self.weight:
            warn_without_unlabelled(y)
        weights = _check_weights(sample_weight, len(X))
        self.input_shape_ = tuple(X.shape[1:])
        labels = class_index(y, self.classes_)
        streams = Streams.from_seed(self.random_state)
        device = resolve_device(device)
        self._build(streams.init, device)
        self.history_ = self._train(
            X, labels, weights, streams,
            device=device, progress=progress, log_dir=log_dir, checkpoint_dir=checkpoint_dir,
        )  # fmt: skip
        known = labels != UNLABELLED
        proba = self.predict_proba(X)
        self.pseudo_labels_ = np.where(known, y, self.classes_[proba.argmax(axis=1)])
        self.confidence_ = np.where(known, 1.0, proba.max(axis=1)).astype(np.float64)
        return self

    def _build(self, rng: np.random.Generator, device: str) -> None:
        with tf.device(device), networks.layer_dtype(self.dtype):
            self.network_ = networks.build(
                self.network, self.input_shape_, len(self.classes_), rng, self.dtype
            )
        self._device = device

    def _train(
        self,
        X: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        streams: Streams,
        *,
        device: str,
        progress: bool,
        log_dir: str | os.PathLike[str] | None,
        checkpoint_dir: str | os.PathLike[str] | None,
    ) -> dict[str, np.ndarray]:
        network = self.network_
        known = labels != UNLABELLED
        xl, yl = to_tensor(X[known], device, self.dtype), to_tensor(labels[known], device)
        wl = to_tensor(weights[known], device, self.dtype)
        xu = to_tensor(X[~known], device, self.dtype)
        batches = {"labelled": BatchStream(len(xl), self.batch_size, streams.batches)}
        if len(xu) and self.weight:
            batches["unlabelled"] = BatchStream(
                len(xu), self.unlabelled_batch_size, streams.batches
            )
        parameters = network.trainable_variables
        optimizer = optim.adam(parameters, lr=self.lr)

        @tf.function(reduce_retracing=True, autograph=False)
        def update(i: tf.Tensor, j: tf.Tensor | None, alpha: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                logits = network(tf.gather(xl, i), training=True)
                loss = weighted_loss(logits, tf.gather(yl, i), tf.gather(wl, i))
                pseudo_loss = coverage = tf.zeros((), loss.dtype)
                if j is not None:
                    logits = network(tf.gather(xu, j), training=True)
                    pseudo_loss, coverage = pseudo_label_loss(logits, self.threshold)
                    loss += alpha * pseudo_loss
            optimizer.apply(tape.gradient(loss, parameters))
            return {"loss": loss, "pseudo_loss": pseudo_loss, "coverage": coverage}

        def step(number: int) -> Mapping[str, tf.Tensor]:
            i = to_tensor(batches["labelled"].next(), device)
            alpha, j = self._alpha(number), None
            if alpha and "unlabelled" in batches:
                j = to_tensor(batches["unlabelled"].next(), device)
            return update(i, j, tf.constant(alpha, self.dtype))

        return train(
            step,
            steps=self.steps,
            modules={"network": network},
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
            fingerprint={
                "method": type(self).__name__,
                "params": {k: repr(v) for k, v in self.get_params(deep=False).items()},
                "data": hash_arrays(X, labels, weights),
            },
            device=device,
            progress=progress,
            log_dir=log_dir,
            checkpoint_dir=checkpoint_dir,
        )

    def _alpha(self, step: int) -> float:
        return lee_weight(step, self.steps, self.ramp_start, self.ramp_end, self.weight)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)``, in the order of ``classes_``."""
        check_is_fitted(self)
        X = check_features("X", X, like=self.input_shape_)
        blocks = [X[start : start + 1024] for start in range(0, len(X), 1024)]
        tensors = (to_tensor(block, self._device, self.dtype) for block in blocks)
        return np.concatenate([to_array(tf.nn.softmax(self.network_(x))) for x in tensors])

    def _check_parameters(self) -> None:
        check_number("weight", self.weight, low=0)
        check_number("ramp_start", self.ramp_start, low=0, high=1)
        check_number("ramp_end", self.ramp_end, low=self.ramp_start, high=1)
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("steps", self.steps, low=1, integer=True)
        check_number("batch_size", self.batch_size, low=1, integer=True)
        check_number("unlabelled_batch_size", self.unlabelled_batch_size, low=1, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        labels = {"pseudo_labels_": self.pseudo_labels_, "confidence_": self.confidence_}
        return labels | {f"network.{k}": v for k, v in networks.to_numpy(self.network_).items()}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.pseudo_labels_, self.confidence_ = arrays["pseudo_labels_"], arrays["confidence_"]
        self._build(np.random.default_rng(0), "cpu")
        networks.from_numpy(self.network_, part_of(arrays, "network"))


def _check_weights(sample_weight: Any, n: int) -> np.ndarray:
    if sample_weight is None:
        return np.ones(n)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"sample_weight must hold {n} finite numbers >= 0, got shape {weights.shape}."
        )
    return weights
