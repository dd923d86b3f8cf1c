"""Meta-learning by gradient descent: what is asked and what is answered.

Settings, checks of episodes and labels, ``fit`` / ``adapt`` / ``evaluate``, the adapted models.
The maths (inner updates, meta-gradients) stands in ``torch/maml.py`` and ``tf/maml.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import check_choice, check_features, check_labels, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import Storable, check_answer
from fewshot_course.both.training import Progress, Run, TrainingDiverged
from fewshot_course.data.episodes import Episodes

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
        logits = check_answer(self.predictor(check_features("X", X, like=self.input_shape)))
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
        outputs = check_answer(self.predictor(check_features("X", X, like=self.input_shape)))
        return outputs[:, 0] if self.flat else outputs


class MetaEstimator(Storable):
    """A meta-learner by scikit-learn's conventions.

    A framework gives the three doors; ``_apply`` returns the outputs for stacked query sets, and
    ``_predictor`` the model of one task.
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
    hidden: tuple[int, ...]
    channels: int
    network: str | Callable[[], Any] | None
    random_state: int | None
    _facts: tuple[str, ...] = ("input_shape_", "n_outputs_")
    _predictor: Callable[..., tuple[Predictor, dict[str, np.ndarray]]]

    def fit(
        self,
        sampler: Any,
        *,
        device: str = "auto",
        progress: Progress = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Meta-train on tasks.

        Args:
            sampler: anything with ``sample(rng, n_tasks) -> Episodes``, such as
                :class:`~fewshot_course.data.EpisodeSampler`.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar, or a function that is told of each update:
                it gets how many are done, and name → value of the last one's losses.
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
        streams = Streams.from_seed(self.random_state)
        run = Run(self._resolve(device), progress, log_dir, checkpoint_dir)
        self._device = run.device
        self._build(streams.init, run.device)
        try:
            self.history_ = self._learn(sampler, probe, streams, run)
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
        outputs = self._apply(episodes, *self._inner(steps, lr))
        diverged = ~np.isfinite(outputs).all((1, 2))
        if self.task == "regression":
            targets = episodes.y_query.reshape(*outputs.shape)
            errors = np.square(outputs.astype(np.float64) - targets).mean((1, 2))
            return np.where(diverged, np.inf, errors)
        return np.where(diverged, 0.0, (outputs.argmax(-1) == episodes.y_query).mean(1))

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
        if not isinstance(self.hidden, Sequence) or isinstance(self.hidden, str):
            raise TypeError(f"hidden must be a tuple of widths, got {self.hidden!r:.60}.")
        for index, width in enumerate(self.hidden):
            check_number(f"hidden[{index}]", width, low=1, integer=True)
        check_number("channels", self.channels, low=1, integer=True)


class MAML(MetaEstimator):
    """Model-agnostic meta-learning with exact second-order gradients (Finn et al. 2017).

    Args:
        network: "mlp", "conv4", "conv4-strided" (the one of MAML's authors, without pooling), a
            zero-argument factory, or ``None`` (chosen by the shape of X).  A factory's network
            must have none of the layers whose second derivative is wrong.
        task: "classification" (cross-entropy) or "regression" (mean squared error).
        inner_lr: α, >= 0.  It belongs to the mean loss of a support set; code that divides the
            summed cross-entropy by the shots has a rate that is ``ways`` times smaller.
        inner_steps: inner updates in training, >= 0.
        adapt_steps: inner updates on a new task; ``None``: ``inner_steps``.
        iterations: outer updates.
        n_tasks: tasks in an outer update.
        lr: outer learning rate (Adam).
        lr_schedule: "constant" or "linear" (falls to 0).
        clip: largest norm of the meta-gradient, or ``None``.
        statistics: what batch norm sees of a query set.  "inductive": the statistics of the
            task's support set, in training and in prediction, so that no query changes another
            query's prediction (the "MetaBN" of Bronskill et al. 2020).  "transductive": those of
            the query set itself, as in the original MAML.  Without batch norm they are equal.
        hidden: widths of the hidden layers of "mlp".
        channels: width of the convolutions.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the meta-trained network, θ.
        input_shape_: shape of one example.
        n_outputs_: classes of a task, or targets of a regression.
        history_: "loss" → ``(iterations,)``, the mean query loss after adaptation.
    """

    _first_order = False

    def __init__(
        self,
        network: str | Callable[[], Any] | None = None,
        task: str = "classification",
        inner_lr: float = 0.01,
        inner_steps: int = 1,
        adapt_steps: int | None = None,
        iterations: int = 1000,
        n_tasks: int = 4,
        lr: float = 1e-3,
        lr_schedule: str = "constant",
        clip: float | None = None,
        statistics: str = "inductive",
        hidden: tuple[int, ...] = (40, 40),
        channels: int = 64,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.task = task
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.adapt_steps = adapt_steps
        self.iterations = iterations
        self.n_tasks = n_tasks
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.clip = clip
        self.statistics = statistics
        self.hidden = hidden
        self.channels = channels
        self.dtype = dtype
        self.random_state = random_state


class FOMAML(MAML):
    """First-order MAML: the inner gradients count as constants (Finn et al. 2017, section 5.2).

    Its meta-gradient is that of the query loss at the adapted weights.  Parameters and
    attributes are those of ``MAML``.
    """

    _first_order = True


class ANIL(MAML):
    """Almost no inner loop: only the head is adapted (Raghu et al. 2020).

    It is MAML with an inner rate of 0 for the body.  A network that you bring needs a layer
    called ``head``.  Parameters and attributes are those of ``MAML``.
    """


class Reptile(MetaEstimator):
    """Move the weights towards those that plain training on a task ends with (Nichol et al. 2018).

    For each task: ``inner_steps`` minibatch steps from θ to W, on support and query examples
    together (Reptile needs no split).  Then θ ← θ + lr · mean(W - θ).  Inner steps are plain
    gradient descent; the paper uses Adam there.

    Args:
        network: as in ``MAML``.
        task: as in ``MAML``.
        inner_lr: rate of the inner steps, >= 0.
        inner_steps: inner steps in training; more than one, or this is joint training.
        adapt_steps: inner updates on a new task; ``None``: ``inner_steps``.
        batch_size: examples of a task in an inner step; ``None``: as many as its support set has.
        iterations: outer updates.
        n_tasks: tasks in an outer update.
        lr: ε, in (0, 1] for the plain rule.
        lr_schedule: "constant" or "linear" (falls to 0, as in the paper).
        clip: largest norm of mean(θ - W), or ``None``.
        statistics: as in ``MAML``.
        hidden: as in ``MAML``.
        channels: as in ``MAML``.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the meta-trained network, θ.
        input_shape_: shape of one example.
        n_outputs_: classes of a task, or targets of a regression.
        history_: "loss" → ``(iterations,)``, the mean loss of the inner steps.
    """

    def __init__(
        self,
        network: str | Callable[[], Any] | None = None,
        task: str = "classification",
        inner_lr: float = 0.02,
        inner_steps: int = 8,
        adapt_steps: int | None = None,
        batch_size: int | None = None,
        iterations: int = 1000,
        n_tasks: int = 4,
        lr: float = 0.5,
        lr_schedule: str = "linear",
        clip: float | None = None,
        statistics: str = "inductive",
        hidden: tuple[int, ...] = (40, 40),
        channels: int = 64,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.task = task
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.adapt_steps = adapt_steps
        self.batch_size = batch_size
        self.iterations = iterations
        self.n_tasks = n_tasks
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.clip = clip
        self.statistics = statistics
        self.hidden = hidden
        self.channels = channels
        self.dtype = dtype
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("inner_steps", self.inner_steps, low=1, integer=True)
        if self.batch_size is not None:
            check_number("batch_size", self.batch_size, low=1, integer=True)


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


def one_step_saves_work(hidden: Iterable[int], n_support: int, inner_steps: int) -> bool:
    """Tell whether ``fast_weights`` is less work than an MLP's weights for each task.

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
