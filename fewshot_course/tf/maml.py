"""Meta-learning by gradient descent in TensorFlow: MAML, FOMAML, ANIL and Reptile.

MAML (Finn et al. 2017) looks for initial weights θ from which a few gradient steps on a task's
support set give a low loss on its query set:

    min_θ  Σ_tasks  L_query(θ'),    θ' = θ - α ∇ L_support(θ)     (one inner step)

The gradient of the outer sum goes through the inner step, so it holds second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._checks import check_number
from fewshot_course._streams import Streams
from fewshot_course.both.maml import (
    MetaEstimator,
    Predictor,
    as_targets,
    one_step_saves_work,
    reptile_batches,
)
from fewshot_course.data.episodes import Episodes
from fewshot_course.tf import fast_weights, meta_networks, networks, optim
from fewshot_course.tf._training import resolve_device, to_array, to_tensor, train

__all__ = ["ANIL", "FOMAML", "MAML", "Reptile", "adapt", "inner_update", "meta_loss"]

Parameters = Mapping[str, tf.Tensor]
Loss = Callable[[Parameters], tf.Tensor]


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


class MetaLearner(MetaEstimator):
    """What the meta-learners of this module share: network, training loop and adaptation.

    A subclass gives ``_meta_gradient``.
    """

    network: str | Callable[[], keras.Model] | None
    hidden: tuple[int, ...]
    channels: int

    def _build(self, rng: np.random.Generator, device: str) -> None:
        shape, outputs = self.input_shape_, self.n_outputs_
        name = self.network or ("conv4" if len(shape) >= 2 else "mlp")
        with tf.device(device), networks.layer_dtype(self.dtype):
            if name == "mlp":
                network = networks.initialise(networks.MLP(shape, outputs, self.hidden), rng)
            elif name == "conv4" and len(shape) >= 2:
                network = networks.initialise(networks.Conv4(shape, outputs, self.channels), rng)
            else:
                network = networks.build(name, shape, outputs, rng, self.dtype)
        meta_networks.check_layers(network)
        self.network_ = network
        self._device = device
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def _train(
        self, sampler: Any, streams: Streams, fingerprint: Mapping[str, Any], **options: Any
    ) -> dict[str, np.ndarray]:
        device = resolve_device(options.pop("device"))
        self._build(streams.init, device)
        theta = self._trained()
        optimizer = self._optimizer(theta.values())

        @tf.function(autograph=False)
        def apply(gradients: list[tf.Tensor]) -> None:
            if self.clip is not None:
                gradients = optim.clip_gradients(gradients, self.clip)
            optimizer.apply(gradients)

        def update(*tensors: tf.Tensor) -> tf.Tensor:
            loss, gradients = self._meta_gradient(theta, tensors, streams)
            apply(gradients)
            return loss

        graphs: dict[Any, Callable[..., tf.Tensor]] = {}

        def run(*tensors: tf.Tensor) -> tf.Tensor:
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
            if self.lr_schedule == "linear":
                factor = optim.warmup_linear(number, self.iterations, 0.0)
                optim.set_learning_rate(optimizer, self.lr * factor)
            episodes = sampler.sample(streams.batches, self.n_tasks)
            return {"loss": run(*self._tensors(episodes))}

        return train(
            step,
            steps=self.iterations,
            modules={"network": self.network_},
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams},
            fingerprint=fingerprint,
            device=device,
            **options,
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

    def _is_one_graph(self) -> bool:
        """Tell whether a whole update may be compiled: convolutions run task by task."""
        return not _is_convolutional(self.network_)

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
        """Mean over a task's examples, summed over the tasks."""
        if self.task == "regression":
            return tf.reduce_sum(tf.reduce_mean(tf.square(outputs - y), (1, 2)))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs)
        return tf.reduce_sum(losses) / y.shape[1]

    def _query(self, parameters: Parameters, X_support: tf.Tensor, X_query: tf.Tensor) -> tf.Tensor:
        """Outputs for the query sets: batch norm sees the support set, or the query set."""
        network = self.network_
        if self.statistics == "transductive" or not meta_networks.has_batch_norm(network):
            return meta_networks.apply(network, parameters, X_query)
        n = X_support.shape[1]
        both = tf.concat([X_support, X_query], 1)
        return meta_networks.apply(network, parameters, both, n_reference=n)[:, n:]

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
        if not _is_convolutional(self.network_):
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

    def _query_outputs(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        def run(Xs: tf.Tensor, Xq: tf.Tensor, weights: dict[str, tf.Tensor]) -> tf.Tensor:
            return self._query(weights, Xs, Xq)

        size = 1 if _is_convolutional(self.network_) else 200
        compiled = self._compiled.setdefault("query", tf.function(run, autograph=False))
        done = []
        for start in range(0, len(episodes), size):
            Xs, ys, Xq, _ = self._tensors(_slice(episodes, start, start + size))
            done.append(to_array(compiled(Xs, Xq, self._adapt(Xs, ys, steps, lr, compiled=True))))
        return np.concatenate(done)

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        return networks.to_numpy(self.network_)

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._build(np.random.default_rng(0), "cpu")
        networks.from_numpy(self.network_, arrays)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for index, width in enumerate(self.hidden):
            check_number(f"hidden[{index}]", width, low=1, integer=True)
        check_number("channels", self.channels, low=1, integer=True)


class MAML(MetaLearner):
    """Model-agnostic meta-learning with exact second-order gradients (Finn et al. 2017).

    Args:
        network: "mlp", "conv4", a zero-argument factory, or ``None`` (chosen by the shape of X).
            A factory's module must have none of the layers whose second derivative is wrong.
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
        channels: width of "conv4".
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
        network: str | Callable[[], keras.Model] | None = None,
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

    def _meta_gradient(
        self, theta: Parameters, episode: tuple[tf.Tensor, ...], streams: Streams
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        def run(*tasks: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            Xs, ys, Xq, yq = tasks
            n_tasks = Xs.shape[0]
            with tf.GradientTape() as tape:
                if self._shares_weights(Xs.shape[1]):
                    outputs = fast_weights.outputs_after_step(
                        theta, Xs, lambda o: self._loss(o, ys), Xq, self.inner_lr, self._first_order
                    )
                    loss = self._loss(outputs, yq) / n_tasks
                else:
                    loss = self._task_loss(meta_networks.expand(theta, n_tasks), *tasks) / n_tasks
            return loss, tape.gradient(loss, list(theta.values()))

        parts = self._in_chunks("meta", run, episode)
        return _mean(parts)

    def _shares_weights(self, n_support: int) -> bool:
        """Tell whether the tasks can do without weights of their own; see ``fast_weights``."""
        whole_mlp = type(self.network_) is networks.MLP and self._adapted_names() is None
        return whole_mlp and one_step_saves_work(self.hidden, n_support, self.inner_steps)

    def _task_loss(
        self, weights: Parameters, Xs: tf.Tensor, ys: tf.Tensor, Xq: tf.Tensor, yq: tf.Tensor
    ) -> tf.Tensor:
        """The meta-loss of some tasks, summed."""
        return meta_loss(
            lambda weights: self._loss(meta_networks.apply(self.network_, weights, Xs), ys),
            lambda weights: self._loss(self._query(weights, Xs, Xq), yq),
            weights,
            self.inner_lr,
            self.inner_steps,
            self._first_order,
            self._adapted_names(),
        )


class FOMAML(MAML):
    """First-order MAML: the inner gradients count as constants (Finn et al. 2017, section 5.2).

    Its meta-gradient is that of the query loss at the adapted weights.  Parameters and
    attributes are those of :class:`MAML`.
    """

    _first_order = True


class ANIL(MAML):
    """Almost no inner loop: only the head is adapted (Raghu et al. 2020).

    It is MAML with an inner rate of 0 for the body.  A module that you bring needs a layer
    called ``head``.  Parameters and attributes are those of :class:`MAML`.
    """

    def _build(self, rng: np.random.Generator, device: str) -> None:
        super()._build(rng, device)
        if not self._adapted_names():
            raise ValueError("ANIL needs a network with a layer called 'head'; it has none.")

    def _adapted_names(self) -> list[str]:
        names = meta_networks.parameters_of(self.network_)
        return [name for name in names if name.startswith("head.")]

    def _task_loss(
        self, weights: Parameters, Xs: tf.Tensor, ys: tf.Tensor, Xq: tf.Tensor, yq: tf.Tensor
    ) -> tf.Tensor:
        network = self.network_
        if type(network) not in (networks.MLP, networks.Conv4):
            return super()._task_loss(weights, Xs, ys, Xq, yq)
        # The body stays as it is within a task, so it runs once, outside of the inner loop.
        n = Xs.shape[1]
        if self.statistics == "inductive":
            both = tf.concat([Xs, Xq], 1)
            features = meta_networks.apply_features(network, weights, both, n_reference=n)
            support, query = features[:, :n], features[:, n:]
        else:
            support = meta_networks.apply_features(network, weights, Xs)
            query = meta_networks.apply_features(network, weights, Xq)
        head = {name: weights[name] for name in self._adapted_names()}
        return meta_loss(
            lambda head: self._loss(meta_networks.apply_head(network, head, support), ys),
            lambda head: self._loss(meta_networks.apply_head(network, head, query), yq),
            head,
            self.inner_lr,
            self.inner_steps,
        )


class Reptile(MetaLearner):
    """Move the weights towards those that plain training on a task ends with (Nichol et al. 2018).

    For each task: ``inner_steps`` minibatch steps from θ to W, on support and query examples
    together (Reptile needs no split).  Then θ ← θ + lr · mean(W - θ).  Inner steps are plain
    gradient descent; the paper uses Adam there.

    Args:
        network: as in :class:`MAML`.
        task: as in :class:`MAML`.
        inner_lr: rate of the inner steps, >= 0.
        inner_steps: inner steps in training; more than one, or this is joint training.
        adapt_steps: inner updates on a new task; ``None``: ``inner_steps``.
        batch_size: examples of a task in an inner step; ``None``: as many as its support set has.
        iterations: outer updates.
        n_tasks: tasks in an outer update.
        lr: ε, in (0, 1] for the plain rule.
        lr_schedule: "constant" or "linear" (falls to 0, as in the paper).
        clip: largest norm of mean(θ - W), or ``None``.
        statistics: as in :class:`MAML`.
        hidden: as in :class:`MAML`.
        channels: as in :class:`MAML`.
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
        network: str | Callable[[], keras.Model] | None = None,
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
        indices = to_tensor(drawn.transpose(1, 0, 2), self._device)

        def run(
            X: tf.Tensor, y: tf.Tensor, indices: tf.Tensor
        ) -> tuple[tf.Tensor, list[tf.Tensor]]:
            weights = meta_networks.expand(theta, X.shape[0])
            losses = []
            for number in range(self.inner_steps):
                Xb = tf.gather(X, indices[:, number], axis=1, batch_dims=1)
                yb = tf.gather(y, indices[:, number], axis=1, batch_dims=1)

                def loss(current: Parameters, Xb: tf.Tensor = Xb, yb: tf.Tensor = yb) -> tf.Tensor:
                    losses.append(self._loss(meta_networks.apply(self.network_, current, Xb), yb))
                    return losses[-1]

                weights = adapt(loss, weights, self.inner_lr, 1, True)
            moved = [p - tf.reduce_mean(weights[name], 0) for name, p in theta.items()]
            return tf.reduce_mean(tf.stack(losses)) / X.shape[0], moved

        parts = self._in_chunks("meta", run, (X, y, indices))
        return _mean(parts)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("inner_steps", self.inner_steps, low=1, integer=True)
        if self.batch_size is not None:
            check_number("batch_size", self.batch_size, low=1, integer=True)


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
    """Tell whether tasks run one by one: ``vectorized_map`` makes convolutions slow."""
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    return any(isinstance(layer, kinds) for layer in network._flatten_layers())
