"""Meta-learning by gradient descent in TensorFlow: MAML, FOMAML, ANIL and Reptile.

MAML (Finn et al. 2017) looks for initial weights θ from which a few gradient steps on a task's
support set give a low loss on its query set:

    min_θ  Σ_tasks  L_query(θ'),    θ' = θ - α ∇ L_support(θ)     (one inner step)

The gradient of the outer sum goes through the inner step, so it holds second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import COUNT, NOT_NEGATIVE, checked
from fewshot_course._streams import Streams
from fewshot_course.both import maml as settings
from fewshot_course.both.maml import (
    MetaEstimator,
    Predictor,
    as_targets,
    one_step_saves_work,
    reptile_batches,
)
from fewshot_course.both.training import Run, fingerprint_of
from fewshot_course.data.episodes import Episodes
from fewshot_course.tf import fast_weights, meta_networks, networks, optim
from fewshot_course.tf._training import Networks, to_array, to_tensor, train

__all__ = [
    "ANIL",
    "FOMAML",
    "MAML",
    "Reptile",
    "adapt",
    "episode_loss",
    "inner_update",
    "meta_loss",
    "query_outputs",
    "reptile_direction",
    "shares_weights",
    "task_loss",
]

Parameters = Mapping[str, tf.Tensor]
Loss = Callable[[Parameters], tf.Tensor]
Outputs = Callable[[Parameters], tf.Tensor]

_CONVOLUTIONAL: dict[str, Callable[..., keras.Model]] = {
    "conv4": networks.Conv4,
    "conv4-strided": networks.Conv4Strided,
}


@checked(lr=NOT_NEGATIVE)
def inner_update(parameters: Parameters, gradients: Parameters, lr: float) -> dict[str, tf.Tensor]:
    """One step of gradient descent, as a pure function: θ' = θ - α·g.

    Args:
        parameters: name → tensor.
        gradients: name → tensor; a parameter without one stays as it is.
        lr: the inner rate α.

    Returns:
        New parameters; nothing is changed in place.
    """
    return {
        name: value - lr * gradients[name] if name in gradients else value
        for name, value in parameters.items()
    }


@checked(lr=NOT_NEGATIVE, steps=NOT_NEGATIVE)
def adapt(
    loss: Loss,
    parameters: Parameters,
    lr: float,
    steps: int,
    first_order: bool = False,
    adapted: Collection[str] | None = None,
) -> dict[str, tf.Tensor]:
    """Do ``steps`` inner updates; the result can be differentiated with respect to θ.

    Args:
        loss: parameters → scalar.  With a task axis it is the sum over tasks, so that the
            gradient of each task's weights is that of its own loss.
        parameters: θ, name → tensor.
        lr: the inner rate α.
        steps: number of updates, >= 0.
        first_order: take the inner gradients as constants (FOMAML).
        adapted: names that are adapted; ``None``: all.

    Returns:
        θ', name → tensor.
    """
    names = [name for name in parameters if adapted is None or name in adapted]
    current = dict(parameters)
    for _ in range(steps):
        values = [current[name] for name in names]
        with tf.GradientTape() as tape:
            tape.watch(values)
            value = loss(current)
        gradients = tape.gradient(value, values)
        if first_order:
            gradients = [tf.stop_gradient(gradient) for gradient in gradients]
        current = inner_update(current, dict(zip(names, gradients, strict=True)), lr)
    return current


@checked(lr=NOT_NEGATIVE, steps=NOT_NEGATIVE)
def meta_loss(
    support_loss: Loss,
    query_loss: Loss,
    parameters: Parameters,
    lr: float,
    steps: int,
    first_order: bool = False,
    adapted: Collection[str] | None = None,
) -> tf.Tensor:
    """The outer objective: the query loss of the weights that :func:`adapt` returns.

    Its gradient with respect to ``parameters`` is MAML's, with second derivatives; with
    ``first_order`` it is FOMAML's.

    Args:
        support_loss: parameters → scalar, what the inner updates lower.
        query_loss: parameters → scalar, what is scored.
        parameters: θ, name → tensor that an outer tape watches.
        lr: the inner rate α.
        steps: number of inner updates.
        first_order: take the inner gradients as constants.
        adapted: names that are adapted; ``None``: all.

    Returns:
        A scalar.
    """
    return query_loss(adapt(support_loss, parameters, lr, steps, first_order, adapted))


@checked(task=("classification", "regression"))
def task_loss(outputs: tf.Tensor, y: tf.Tensor, task: str = "classification") -> tf.Tensor:
    """Mean over a task's examples, summed over the tasks.

    Args:
        outputs: ``(T, n, k)``.
        y: class indices ``(T, n)``, or targets ``(T, n, k)``.
        task: "classification" (cross-entropy) or "regression" (mean squared error).

    Returns:
        A scalar, ≥ 0.
    """
    if task == "regression":
        return tf.reduce_sum(tf.reduce_mean(tf.square(outputs - y), (1, 2)))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs)
    return tf.reduce_sum(losses) / y.shape[1]


@checked(statistics=("inductive", "transductive"))
def query_outputs(
    network: keras.Model,
    parameters: Parameters,
    X_support: tf.Tensor,
    X_query: tf.Tensor,
    statistics: str = "inductive",
) -> tf.Tensor:
    """Return the outputs for query sets, ``(T, m, k)``.

    Args:
        network: whose layers are run.
        parameters: name → weights with a task axis.
        X_support: ``(T, n, ...)``.
        X_query: ``(T, m, ...)``.
        statistics: what batch norm sees, the support set ("inductive") or the query set
            ("transductive").
    """
    if statistics == "transductive" or not meta_networks.has_batch_norm(network):
        return meta_networks.apply(network, parameters, X_query)
    n = X_support.shape[1]
    both = tf.concat([X_support, X_query], 1)
    return meta_networks.apply(network, parameters, both, n_reference=n)[:, n:]


@checked(
    inner_lr=NOT_NEGATIVE,
    inner_steps=NOT_NEGATIVE,
    task=("classification", "regression"),
    statistics=("inductive", "transductive"),
)
def episode_loss(
    network: keras.Model,
    theta: Parameters,
    episode: tuple[tf.Tensor, ...],
    inner_lr: float,
    inner_steps: int,
    *,
    task: str = "classification",
    first_order: bool = False,
    adapted: Collection[str] | None = None,
    statistics: str = "inductive",
) -> tf.Tensor:
    """Return the loss that an update of MAML lowers: the mean :func:`meta_loss` of some tasks.

    Two shortcuts give the same number with less work: an MLP's only step on few examples
    (``fast_weights``), and a body that no inner step changes (ANIL), which runs once.

    Args:
        network: whose layers are run.
        theta: θ, name → weights without a task axis.
        episode: X_support ``(T, n, ...)``, y_support, X_query ``(T, m, ...)``, y_query.
        inner_lr: the inner rate α, of the mean loss of a support set.
        inner_steps: number of inner updates.
        task: "classification" or "regression".
        first_order: take the inner gradients as constants.
        adapted: names that are adapted; ``None``: all.
        statistics: as in :func:`query_outputs`.

    Returns:
        A scalar, ≥ 0.
    """
    Xs, ys, Xq, yq = episode
    if shares_weights(network, theta, Xs.shape[1], inner_steps, adapted):
        outputs = fast_weights.outputs_after_step(
            theta, Xs, lambda o: task_loss(o, ys, task), Xq, inner_lr, first_order
        )
        return task_loss(outputs, yq, task) / Xs.shape[0]
    weights = meta_networks.expand(theta, Xs.shape[0])
    if _keeps_body(network, adapted):
        weights, support, query = _after_body(network, theta, Xs, Xq, statistics)
    else:

        def support(current: Parameters) -> tf.Tensor:
            return meta_networks.apply(network, current, Xs)

        def query(current: Parameters) -> tf.Tensor:
            return query_outputs(network, current, Xs, Xq, statistics)

    loss = meta_loss(
        lambda current: task_loss(support(current), ys, task),
        lambda current: task_loss(query(current), yq, task),
        weights, inner_lr, inner_steps, first_order, adapted,
    )  # fmt: skip
    return loss / Xs.shape[0]


@checked(n_support=COUNT, inner_steps=NOT_NEGATIVE)
def shares_weights(
    network: keras.Model,
    theta: Parameters,
    n_support: int,
    inner_steps: int,
    adapted: Collection[str] | None = None,
) -> bool:
    """Tell whether tasks can do without weights of their own; see ``fast_weights``."""
    hidden = [v.shape[0] for k, v in theta.items() if k.startswith("body.") and k.endswith("bias")]
    whole_mlp = type(network) is networks.MLP and adapted is None
    return whole_mlp and one_step_saves_work(hidden, n_support, inner_steps)


def _keeps_body(network: keras.Model, adapted: Collection[str] | None) -> bool:
    named = type(network) in meta_networks.NAMED
    return named and adapted is not None and all(name.startswith("head.") for name in adapted)


def _after_body(
    network: keras.Model, theta: Parameters, Xs: tf.Tensor, Xq: tf.Tensor, statistics: str
) -> tuple[dict[str, tf.Tensor], Outputs, Outputs]:
    """Run the body once; returns the head's weights, and its outputs for both sets."""
    n = Xs.shape[1]
    if statistics == "inductive":
        both = tf.concat([Xs, Xq], 1)
        features = meta_networks.shared_features(network, theta, both, n_reference=n)
        support, query = features[:, :n], features[:, n:]
    else:
        support = meta_networks.shared_features(network, theta, Xs)
        query = meta_networks.shared_features(network, theta, Xq)
    head = {name: value for name, value in theta.items() if name.startswith("head.")}
    head = meta_networks.expand(head, Xs.shape[0])
    run = partial(meta_networks.apply_head, network)
    return head, lambda current: run(current, support), lambda current: run(current, query)


@checked(inner_lr=NOT_NEGATIVE, task=("classification", "regression"))
def reptile_direction(
    network: keras.Model,
    theta: Parameters,
    X: tf.Tensor,
    y: tf.Tensor,
    batches: tf.Tensor,
    inner_lr: float,
    task: str = "classification",
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Train on each task from θ to W; returns the direction θ - mean(W) of an update of Reptile.

    Args:
        network: whose layers are run.
        theta: θ, name → weights without a task axis.
        X: all examples of the tasks, ``(T, n, ...)``.
        y: their labels.
        batches: which examples each inner step sees, ``(T, steps, b)``.
        inner_lr: rate of the inner steps.
        task: "classification" or "regression".

    Returns:
        The mean loss of the inner steps, a scalar, and one tensor for each of θ.
    """
    weights = meta_networks.expand(theta, X.shape[0])
    losses = []
    for number in range(batches.shape[1]):
        Xb = tf.gather(X, batches[:, number], axis=1, batch_dims=1)
        yb = tf.gather(y, batches[:, number], axis=1, batch_dims=1)

        def loss(current: Parameters, Xb: tf.Tensor = Xb, yb: tf.Tensor = yb) -> tf.Tensor:
            losses.append(task_loss(meta_networks.apply(network, current, Xb), yb, task))
            return losses[-1]

        weights = adapt(loss, weights, inner_lr, 1, True)
    moved = [p - tf.reduce_mean(weights[name], 0) for name, p in theta.items()]
    return tf.reduce_mean(tf.stack(losses)) / X.shape[0], moved


class MetaLearner(Networks, MetaEstimator):
    """The three doors of the meta-learners; each one gives ``_meta_gradient``."""

    def _build(self, rng: np.random.Generator, device: str) -> None:
        shape, outputs = self.input_shape_, self.n_outputs_
        name = self.network or ("conv4" if len(shape) >= 2 else "mlp")
        kind = _CONVOLUTIONAL.get(name) if isinstance(name, str) else None
        with tf.device(device), networks.layer_dtype(self.dtype):
            if name == "mlp":
                network = networks.initialise(networks.MLP(shape, outputs, self.hidden), rng)
            elif kind and len(shape) >= 2:
                network = networks.initialise(kind(shape, outputs, self.channels), rng)
            else:
                network = networks.build(name, shape, outputs, rng, self.dtype)
        meta_networks.check_layers(network)
        self.network_ = network
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def _learn(
        self, sampler: Any, probe: Episodes, streams: Streams, run: Run
    ) -> dict[str, np.ndarray]:
        theta = self._trained()
        # Without a weight to train (the raw pixels as embedding) there is nothing to move.
        optimizer = self._optimizer(theta.values()) if theta else None

        @tf.function(autograph=False)
        def apply(gradients: list[tf.Tensor]) -> None:
            if optimizer is None:
                return
            if self.clip is not None:
                gradients = optim.clip_gradients(gradients, self.clip)
            optimizer.apply(gradients)

        def update(*tensors: tf.Tensor) -> tf.Tensor:
            loss, gradients = self._meta_gradient(theta, tensors, streams)
            apply(gradients)
            return loss

        graphs: dict[Any, Callable[..., tf.Tensor]] = {}

        def update_once(*tensors: tf.Tensor) -> tf.Tensor:
            if not self._is_one_graph():
                return update(*tensors)
            # One call of one graph, without tf.function's search for the right one: a small step
            # takes no longer than that.
            kind = tuple((t.shape, t.dtype) for t in tensors)
            if kind not in graphs:
                compiled = tf.function(update, autograph=False)
                graphs[kind] = compiled.get_concrete_function(*tensors)
            return graphs[kind](*tensors)

        def step(number: int) -> Mapping[str, tf.Tensor]:
            if self.lr_schedule == "linear" and optimizer is not None:
                factor = optim.warmup_linear(number, self.iterations, 0.0)
                optim.set_learning_rate(optimizer, self.lr * factor)
            episodes = sampler.sample(streams.batches, self.n_tasks)
            return {"loss": update_once(*self._tensors(episodes))}

        return train(
            step,
            run,
            steps=self.iterations,
            modules={"network": self.network_},
            optimizers={"optimizer": optimizer} if optimizer is not None else {},
            resumables={"streams": streams},
            fingerprint=fingerprint_of(
                self, probe.X_support, probe.y_support, probe.X_query, probe.y_query
            ),
        )

    def _trained(self) -> dict[str, tf.Tensor]:
        """Return the weights that the outer loop trains."""
        return meta_networks.parameters_of(self.network_)

    def _optimizer(self, parameters: Any) -> optim.Optimizer:
        return optim.adam(parameters, lr=self.lr)

    def _meta_gradient(
        self, theta: Parameters, episode: tuple[tf.Tensor, ...], streams: Streams
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        raise NotImplementedError  # what tells the methods apart

    def _task_by_task(self) -> bool:
        """Tell whether tasks run one by one: ``vectorized_map`` makes convolutions slow."""
        return _is_convolutional(self.network_)

    def _is_one_graph(self) -> bool:
        """Tell whether a whole update may be compiled."""
        return not self._task_by_task()

    def _tensors(self, episodes: Episodes) -> tuple[tf.Tensor, ...]:
        arrays = []
        for X, y in (
            (episodes.X_support, episodes.y_support),
            (episodes.X_query, episodes.y_query),
        ):
            y = as_targets(y, self.task)
            dtype = self.dtype if self.task == "regression" else None
            arrays += [to_tensor(X, self._device, self.dtype), to_tensor(y, self._device, dtype)]
        return tuple(arrays)

    def _loss(self, outputs: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return task_loss(outputs, y, self.task)

    def _query(self, parameters: Parameters, X_support: tf.Tensor, X_query: tf.Tensor) -> tf.Tensor:
        return query_outputs(self.network_, parameters, X_support, X_query, self.statistics)

    def _adapted_names(self) -> list[str] | None:
        """Return the names of the weights that the inner loop adapts; ``None``: all."""
        return None

    def _in_chunks(
        self, name: str, function: Callable[..., Any], tensors: tuple[tf.Tensor, ...]
    ) -> list[Any]:
        """Compile ``function`` once and call it on all tasks, or on one task after the other."""
        if name not in self._compiled:
            self._compiled[name] = tf.function(function, autograph=False)
        compiled = self._compiled[name]
        if not self._task_by_task():
            return [compiled(*tensors)]
        return [compiled(*(t[i : i + 1] for t in tensors)) for i in range(len(tensors[0]))]

    def _adapt(
        self, X: tf.Tensor, y: tf.Tensor, steps: int, lr: float, compiled: bool = False
    ) -> dict[str, tf.Tensor]:
        """Adapt to stacked tasks, without a graph for the outer gradient."""
        theta = meta_networks.parameters_of(self.network_)
        weights = meta_networks.expand(theta, len(X))
        rate = tf.constant(lr, self.dtype)

        def run(
            X: tf.Tensor, y: tf.Tensor, rate: tf.Tensor, weights: Parameters
        ) -> dict[str, tf.Tensor]:
            def loss(current: Parameters) -> tf.Tensor:
                return self._loss(meta_networks.apply(self.network_, current, X), y)

            return adapt(loss, weights, rate, 1, True, self._adapted_names())

        # Worth while where many tasks come; one alone is done before the function is compiled.
        update = run
        if compiled:
            update = self._compiled.setdefault("adapt", tf.function(run, autograph=False))
        for _ in range(steps):
            weights = update(X, y, rate, weights)
        return weights

    def _predictor(
        self, X: np.ndarray, y: np.ndarray, steps: int, lr: float
    ) -> tuple[Predictor, dict[str, np.ndarray]]:
        task = Episodes(X[None], y[None], X[None], y[None])
        X_support, y_support, _, _ = self._tensors(task)
        weights = self._adapt(X_support, y_support, steps, lr)
        if not all(np.isfinite(value.numpy()).all() for value in weights.values()):
            raise ValueError(f"lr={lr:g}: the adaptation diverged within {steps} steps; lower it.")
        axes = {name: axes for name, (_, axes) in networks._state(self.network_).items()}
        # Without batch norm, or by the support set's statistics, examples are independent.
        whole = self.statistics == "transductive" and meta_networks.has_batch_norm(self.network_)

        def predict(X: np.ndarray) -> np.ndarray:
            size = len(X) if whole else 1024
            blocks = [X[None, start : start + size] for start in range(0, len(X), size)]
            tensors = [to_tensor(block, self._device, self.dtype) for block in blocks]
            return np.concatenate(
                [to_array(self._query(weights, X_support, x)[0]) for x in tensors]
            )

        canonical = {
            name: np.transpose(to_array(value[0]), axes[name]) for name, value in weights.items()
        }
        return predict, canonical

    def _apply(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        statistics = self.statistics

        def run(Xs: tf.Tensor, Xq: tf.Tensor, weights: dict[str, tf.Tensor]) -> tf.Tensor:
            return query_outputs(self.network_, weights, Xs, Xq, statistics)

        size = 1 if _is_convolutional(self.network_) else 200
        # The statistics may be set anew after a fit: each kind is compiled for itself.
        kind = ("query", statistics)
        compiled = self._compiled.setdefault(kind, tf.function(run, autograph=False))
        done = []
        for start in range(0, len(episodes), size):
            Xs, ys, Xq, _ = self._tensors(_slice(episodes, start, start + size))
            weights = self._adapt(Xs, ys, steps, lr, compiled=True)
            done.append(to_array(compiled(Xs, Xq, weights)))
        return np.concatenate(done)


class MAML(MetaLearner, settings.MAML):
    __doc__ = settings.MAML.__doc__

    def _meta_gradient(
        self, theta: Parameters, episode: tuple[tf.Tensor, ...], streams: Streams
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        def run(*tasks: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                loss = episode_loss(
                    self.network_, theta, tasks, self.inner_lr, self.inner_steps, task=self.task,
                    first_order=self._first_order, adapted=self._adapted_names(),
                    statistics=self.statistics,
                )  # fmt: skip
            return loss, tape.gradient(loss, list(theta.values()))

        return _mean(self._in_chunks("meta", run, episode))


class FOMAML(MAML, settings.FOMAML):
    __doc__ = settings.FOMAML.__doc__


class ANIL(MAML, settings.ANIL):
    __doc__ = settings.ANIL.__doc__

    def _task_by_task(self) -> bool:
        return super()._task_by_task() and type(self.network_) not in meta_networks.NAMED

    def _build(self, rng: np.random.Generator, device: str) -> None:
        super()._build(rng, device)
        if not self._adapted_names():
            raise ValueError("ANIL needs a network with a layer called 'head'; it has none.")

    def _adapted_names(self) -> list[str]:
        names = meta_networks.parameters_of(self.network_)
        return [name for name in names if name.startswith("head.")]


class Reptile(MetaLearner, settings.Reptile):
    __doc__ = settings.Reptile.__doc__

    def _is_one_graph(self) -> bool:
        return False  # it draws batches with NumPy, which a graph would draw only once

    def _optimizer(self, parameters: Any) -> optim.Optimizer:
        return optim.sgd(parameters, lr=self.lr)

    def _meta_gradient(
        self, theta: Parameters, episode: tuple[tf.Tensor, ...], streams: Streams
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        Xs, ys, Xq, yq = episode
        X, y = tf.concat([Xs, Xq], 1), tf.concat([ys, yq], 1)
        size = min(self.batch_size or Xs.shape[1], X.shape[1])
        drawn = reptile_batches(streams.batches, len(X), X.shape[1], size, self.inner_steps)
        batches = to_tensor(drawn.transpose(1, 0, 2), self._device)

        def run(
            X: tf.Tensor, y: tf.Tensor, batches: tf.Tensor
        ) -> tuple[tf.Tensor, list[tf.Tensor]]:
            return reptile_direction(self.network_, theta, X, y, batches, self.inner_lr, self.task)

        return _mean(self._in_chunks("meta", run, (X, y, batches)))


def _slice(episodes: Episodes, start: int, end: int) -> Episodes:
    return Episodes(
        episodes.X_support[start:end],
        episodes.y_support[start:end],
        episodes.X_query[start:end],
        episodes.y_query[start:end],
    )


def _mean(parts: list[tuple[tf.Tensor, list[tf.Tensor]]]) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Mean loss and mean gradients of equally large chunks of tasks."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(gradients for _, gradients in parts), strict=True)
    loss = tf.add_n([loss for loss, _ in parts]) / len(parts)
    return loss, [tf.add_n(column) / len(parts) for column in columns]


def _is_convolutional(network: keras.Model) -> bool:
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    return any(isinstance(layer, kinds) for layer in network._flatten_layers())
