"""What every meta-learner of the course shares, whatever its framework.

Checks of episodes and labels, ``fit`` / ``adapt`` / ``evaluate``, the adapted models, and files.
The maths (inner updates, meta-gradients) stands in ``torch/maml.py`` and ``tf/maml.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from fewshot_course import __version__
from fewshot_course._checks import check_choice, check_features, check_labels, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import FORMAT
from fewshot_course.both.training import TrainingDiverged, hash_arrays
from fewshot_course.data.episodes import Episodes
from fewshot_course.weights import load_arrays, save_arrays

Predictor = Callable[[np.ndarray], np.ndarray]
"""Examples ``(n, ...)`` → outputs ``(n, k)`` of an adapted network."""


class AdaptedClassifier(ClassifierMixin, BaseEstimator):
    """The classifier that a meta-learner has built for one task.

    Args:
        predictor: examples → logits ``(n, k)``, in the order of ``order``.
        order: the label of each logit, ``(k,)``.
        input_shape: shape of one example.
        weights: the adapted weights, canonical name → array.

    Attributes:
        classes_: the task's labels, sorted.
        weights_: as given.
    """

    def __init__(
        self,
        predictor: Predictor,
        order: np.ndarray,
        input_shape: tuple[int, ...],
        weights: Mapping[str, np.ndarray],
    ) -> None:
        self.predictor, self.order, self.input_shape = predictor, order, input_shape
        self.weights = weights
        self.classes_ = np.sort(order)
        self.weights_ = dict(weights)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, k)``, in the order of ``classes_``."""
        logits = self.predictor(check_features("X", X, like=self.input_shape))
        logits = logits[:, np.argsort(self.order)].astype(np.float64)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each example, ``(n,)`` int64."""
        return self.classes_[self.predict_proba(X).argmax(1)]


class AdaptedRegressor(RegressorMixin, BaseEstimator):
    """The regressor that a meta-learner has built for one task; ``score`` is R².

    Args:
        predictor: examples → outputs ``(n, k)``.
        flat: whether targets came as ``(n,)``; predictions then have that shape too.
        input_shape: shape of one example.
        weights: the adapted weights, canonical name → array.

    Attributes:
        weights_: as given.
    """

    def __init__(
        self,
        predictor: Predictor,
        flat: bool,
        input_shape: tuple[int, ...],
        weights: Mapping[str, np.ndarray],
    ) -> None:
        self.predictor, self.flat, self.input_shape = predictor, flat, input_shape
        self.weights = weights
        self.weights_ = dict(weights)

    def predict(self, X: Any) -> np.ndarray:
        """Return the outputs, ``(n,)`` or ``(n, k)`` as the support targets came."""
        outputs = self.predictor(check_features("X", X, like=self.input_shape))
        return outputs[:, 0] if self.flat else outputs


class MetaEstimator(BaseEstimator):
    """A meta-learner by scikit-learn's conventions; a subclass holds networks and gradients.

    A subclass gives ``_train``, ``_predictor``, ``_query_outputs``, ``_fitted_arrays`` and
    ``_restore``.
    """

    task: str = "classification"
    inner_lr: float = 0.0
    inner_steps: int = 0
    adapt_steps: int | None = None
    iterations: int
    n_tasks: int
    lr: float
    lr_schedule: str
    clip: float | None
    statistics: str
    dtype: str
    random_state: int | None
    _facts = ("input_shape_", "n_outputs_")

    def fit(
        self,
        sampler: Any,
        *,
        device: str = "auto",
        progress: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Meta-train on tasks.

        Args:
            sampler: anything with ``sample(rng, n_tasks) -> Episodes``, such as
                :class:`~fewshot_course.data.EpisodeSampler`.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            TypeError: for a sampler without ``sample``, or one that returns no ``Episodes``.
            ValueError: for episodes or hyper-parameters that cannot be used.
            TrainingDiverged: if the meta-loss is NaN or infinite.
        """
        self._check_parameters()
        probe = _draw_probe(sampler)
        check_episodes(probe, self.task)
        self.input_shape_ = tuple(probe.X_support.shape[2:])
        self.n_outputs_ = _n_outputs(probe, self.task)
        fingerprint = {
            "method": type(self).__name__,
            "params": {k: repr(v) for k, v in self.get_params(deep=False).items()},
            "data": hash_arrays(probe.X_support, probe.y_support, probe.X_query, probe.y_query),
        }
        try:
            self.history_ = self._train(
                sampler, Streams.from_seed(self.random_state), fingerprint, device=device,
                progress=progress, log_dir=log_dir, checkpoint_dir=checkpoint_dir,
            )  # fmt: skip
        except TrainingDiverged as error:
            if not self.inner_steps:
                raise
            raise TrainingDiverged(
                f"{error} This rate is the outer one; the inner one is inner_lr="
                f"{self.inner_lr:g} with inner_steps={self.inner_steps}: lower it, or set clip."
            ) from None
        return self

    def adapt(
        self, X_support: Any, y_support: Any, *, steps: int | None = None, lr: float | None = None
    ) -> AdaptedClassifier | AdaptedRegressor:
        """Build the model of one new task.

        The classes of the task take the network's outputs in the order in which they first
        occur in ``y_support``, so renaming the classes changes nothing.

        Args:
            X_support: examples ``(n, ...)``, shaped like those of the training.
            y_support: labels ``(n,)``, or the targets of a regression, ``(n,)`` or ``(n, k)``.
            steps: inner updates; default ``adapt_steps``.
            lr: inner rate; default ``inner_lr``.

        Returns:
            A fitted classifier or regressor.

        Raises:
            ValueError: for a wrong width, NaN, another number of classes than the network has
                outputs, or an inner rate with which the update diverges.
        """
        check_is_fitted(self)
        X = check_features("X_support", X_support, like=self.input_shape_)
        steps, lr = self._inner(steps, lr)
        if self.task == "regression":
            y = _targets("y_support", y_support, len(X))
            flat = y.ndim == 1
            y = y.reshape(len(y), -1)
            if y.shape[1] != self.n_outputs_:
                raise ValueError(
                    f"y_support has {y.shape[1]} targets an example, expected {self.n_outputs_}."
                )
            predictor, weights = self._predictor(X, y, steps, lr)
            return AdaptedRegressor(predictor, flat, self.input_shape_, weights)
        labels = check_labels("y_support", y_support, n=len(X))
        values, first = np.unique(labels, return_index=True)
        order = values[np.argsort(first)]
        self._check_ways(len(order))
        y = np.argmax(labels[:, None] == order, axis=1)
        predictor, weights = self._predictor(X, y, steps, lr)
        return AdaptedClassifier(predictor, order, self.input_shape_, weights)

    def evaluate(
        self, episodes: Episodes, *, steps: int | None = None, lr: float | None = None
    ) -> np.ndarray:
        """Adapt to each task and score its query set.

        Args:
            episodes: T tasks.
            steps: inner updates; default ``adapt_steps``.
            lr: inner rate; default ``inner_lr``.

        Returns:
            ``(T,)``: accuracy in [0, 1], or the mean squared error of a regression.  A task on
            which the adaptation diverged has the accuracy 0, or an infinite error.

        Raises:
            ValueError: for episodes that do not fit.
        """
        check_is_fitted(self)
        check_episodes(episodes, self.task)
        if episodes.X_support.shape[2:] != self.input_shape_:
            raise ValueError(
                f"episodes have examples of shape {episodes.X_support.shape[2:]}, "
                f"expected {self.input_shape_}."
            )
        if self.task == "classification":
            self._check_ways(_n_outputs(episodes, self.task))
        outputs = self._query_outputs(episodes, *self._inner(steps, lr))
        diverged = ~np.isfinite(outputs).all((1, 2))
        if self.task == "regression":
            targets = episodes.y_query.reshape(*outputs.shape)
            errors = np.square(outputs.astype(np.float64) - targets).mean((1, 2))
            return np.where(diverged, np.inf, errors)
        return np.where(diverged, 0.0, (outputs.argmax(-1) == episodes.y_query).mean(1))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the meta-trained network into one safetensors file with a JSON header.

        Raises:
            NotFittedError: if ``fit`` has not been called.
            TypeError: if ``network`` is the user's own factory, which no file can hold.
        """
        check_is_fitted(self)
        params = self.get_params(deep=False)
        for name, value in params.items():
            if callable(value):
                raise TypeError(f"{name}={value!r} is code, which a weights file cannot hold.")
        header = {
            "format": FORMAT,
            "version": __version__,
            "class": type(self).__name__,
            "params": params,
            "facts": {name: getattr(self, name) for name in self._facts},
        }
        return save_arrays(path, self._fitted_arrays(), header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what this class, or its twin in the other framework, has saved.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged, or holds another class.
        """
        arrays, header = load_arrays(path)
        if header.get("format") != FORMAT or header["class"] != cls.__name__:
            found = header.get("class", header.get("format"))
            raise ValueError(f"{path} holds a {found}, expected a {cls.__name__}.")
        params = {k: tuple(v) if isinstance(v, list) else v for k, v in header["params"].items()}
        estimator = cls(**params)
        for name, value in header["facts"].items():
            setattr(estimator, name, tuple(value) if isinstance(value, list) else value)
        estimator._restore(arrays)
        return estimator

    def _inner(self, steps: int | None, lr: float | None) -> tuple[int, float]:
        default = self.inner_steps if self.adapt_steps is None else self.adapt_steps
        steps = check_number("steps", default if steps is None else steps, low=0, integer=True)
        return steps, check_number("lr", self.inner_lr if lr is None else lr, low=0)

    def _check_ways(self, ways: int) -> None:
        if ways != self.n_outputs_:
            raise ValueError(
                f"the task has {ways} classes; the network was trained for {self.n_outputs_}."
            )

    def _check_parameters(self) -> None:
        check_choice("task", self.task, ["classification", "regression"])
        check_choice("statistics", self.statistics, ["inductive", "transductive"])
        check_choice("lr_schedule", self.lr_schedule, ["constant", "linear"])
        check_choice("dtype", self.dtype, ["float32", "float64"])
        check_number("inner_lr", self.inner_lr, low=0)
        check_number("inner_steps", self.inner_steps, low=0, integer=True)
        if self.adapt_steps is not None:
            check_number("adapt_steps", self.adapt_steps, low=0, integer=True)
        check_number("iterations", self.iterations, low=1, integer=True)
        check_number("n_tasks", self.n_tasks, low=1, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)
        if self.clip is not None:
            check_number("clip", self.clip, low=0, low_open=True)

    def _train(
        self, sampler: Any, streams: Streams, fingerprint: Mapping[str, Any], **options: Any
    ) -> dict[str, np.ndarray]:
        raise NotImplementedError  # the subclass knows its framework

    def _predictor(
        self, X: np.ndarray, y: np.ndarray, steps: int, lr: float
    ) -> tuple[Predictor, dict[str, np.ndarray]]:
        raise NotImplementedError  # the subclass knows its framework

    def _query_outputs(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        raise NotImplementedError  # the subclass knows its framework

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        raise NotImplementedError  # the subclass knows its network

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        raise NotImplementedError  # the subclass knows its network


def check_episodes(episodes: Any, task: str) -> None:
    """Raise unless ``episodes`` can be learned from.

    Raises:
        TypeError: for anything but :class:`~fewshot_course.data.Episodes`, or for labels of a
            classification that are no whole numbers.
        ValueError: for no examples, NaN, examples of different shapes, or labels that are not
            0 to N-1 in every support set.
    """
    if not isinstance(episodes, Episodes):
        raise TypeError(f"expected Episodes, got {type(episodes).__name__}.")
    for part in ("support", "query"):
        X, y = getattr(episodes, f"X_{part}"), getattr(episodes, f"y_{part}")
        if X.ndim < 3 or 0 in X.shape:
            raise ValueError(f"X_{part} must have shape (T, n, ...) with n >= 1, got {X.shape}.")
        if not (np.isfinite(X).all() and np.isfinite(y).all()):
            raise ValueError(f"X_{part} or y_{part} has NaN or infinite values.")
        if task == "classification" and y.dtype.kind not in "iu":
            raise TypeError(f"y_{part} must hold whole numbers, got dtype {y.dtype}.")
    if episodes.X_support.shape[2:] != episodes.X_query.shape[2:]:
        raise ValueError(
            f"X_support has examples of shape {episodes.X_support.shape[2:]}, "
            f"X_query of shape {episodes.X_query.shape[2:]}."
        )
    if task == "classification":
        ways = _n_outputs(episodes, task)
        present = {tuple(np.unique(y)) for y in episodes.y_support}
        if present != {tuple(range(ways))}:
            raise ValueError(f"every support set must have the labels 0 to {ways - 1}.")


def one_step_saves_work(hidden: tuple[int, ...], n_support: int, inner_steps: int) -> bool:
    """Tell whether ``fast_weights`` applies, and is less work than weights for each task.

    Args:
        hidden: widths of the MLP's hidden layers.
        n_support: examples in a support set.
        inner_steps: inner updates.
    """
    return inner_steps == 1 and n_support <= max(hidden, default=0)


def reptile_batches(
    rng: np.random.Generator, n_tasks: int, n: int, batch_size: int, steps: int
) -> np.ndarray:
    """Draw minibatches of each task: ``(steps, n_tasks, batch_size)`` indices below ``n``.

    A task's examples come in random order; each comes once before any comes again.
    """
    passes = -(-steps * batch_size // n)
    order = rng.permuted(np.tile(np.arange(n), (n_tasks, passes, 1)), axis=2)
    chosen = order.reshape(n_tasks, -1)[:, : steps * batch_size]
    return chosen.reshape(n_tasks, steps, batch_size).transpose(1, 0, 2)


def as_targets(y: np.ndarray, task: str) -> np.ndarray:
    """Return the labels of stacked tasks as they are, targets as ``(T, n, k)``."""
    return y.reshape(*y.shape[:2], -1) if task == "regression" else y


def _draw_probe(sampler: Any) -> Episodes:
    """Draw two tasks from a seed of their own, to learn their shape."""
    if not callable(getattr(sampler, "sample", None)):
        raise TypeError(
            f"sampler must have a method sample(rng, n_tasks) -> Episodes, got "
            f"{type(sampler).__name__}. For arrays use data.EpisodeSampler(X, y, ways, ...)."
        )
    return sampler.sample(np.random.default_rng(0), 2)


def _n_outputs(episodes: Episodes, task: str) -> int:
    if task == "regression":
        return int(as_targets(episodes.y_support, task).shape[-1])
    labels = np.concatenate([episodes.y_support.ravel(), episodes.y_query.ravel()])
    if labels.min() < 0:
        raise ValueError(f"labels of episodes must be >= 0, got {labels.min()}.")
    return int(labels.max()) + 1


def _targets(name: str, y: Any, n: int) -> np.ndarray:
    array = np.asarray(y)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be numeric, got dtype {array.dtype}.")
    if array.ndim not in (1, 2) or len(array) != n:
        raise ValueError(f"{name} must have shape ({n},) or ({n}, k), got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values.")
    return array
