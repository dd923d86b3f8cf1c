"""Meta-learning by gradient descent in PyTorch: MAML, FOMAML, ANIL and Reptile.

MAML (Finn et al. 2017) looks for initial weights θ from which a few gradient steps on a task's
support set give a low loss on its query set:

    min_θ  Σ_tasks  L_query(θ'),    θ' = θ - α ∇ L_support(θ)     (one inner step)

The gradient of the outer sum goes through the inner step, so it holds second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
from fewshot_course.torch import fast_weights, meta_networks, networks, optim
from fewshot_course.torch._training import resolve_device, to_array, to_tensor, train

__all__ = ["ANIL", "FOMAML", "MAML", "Reptile", "adapt", "inner_update", "meta_loss"]

Parameters = Mapping[str, Tensor]
Loss = Callable[[Parameters], Tensor]


def inner_update(parameters: Parameters, gradients: Parameters, lr: float) -> dict[str, Tensor]:
    """One step of gradient descent, as a pure function: θ' = θ - α·g.

    Args:
        parameters: name → tensor.
        gradients: name → tensor; a parameter without one stays as it is.
        lr: the inner rate α.

    Returns:
        New parameters; nothing is changed in place.
    """
    return {
        name: torch.add(value, gradients[name], alpha=-lr) if name in gradients else value
        for name, value in parameters.items()
    }


def adapt(
    loss: Loss,
    parameters: Parameters,
    lr: float,
    steps: int,
    first_order: bool = False,
    adapted: Collection[str] | None = None,
) -> dict[str, Tensor]:
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
        gradients = torch.autograd.grad(loss(current), values, create_graph=not first_order)
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
) -> Tensor:
    """The outer objective: the query loss of the weights that :func:`adapt` returns.

    Its gradient with respect to ``parameters`` is MAML's, with second derivatives; with
    ``first_order`` it is FOMAML's.

    Args:
        support_loss: parameters → scalar, what the inner updates lower.
        query_loss: parameters → scalar, what is scored.
        parameters: θ, name → tensor that requires a gradient.
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

    network: str | Callable[[], nn.Module] | None
    hidden: tuple[int, ...]
    channels: int

    def _build(self, rng: np.random.Generator, device: str) -> None:
        shape, outputs, dtype = self.input_shape_, self.n_outputs_, getattr(torch, self.dtype)
        name = self.network or ("conv4" if len(shape) >= 2 else "mlp")
        if name == "mlp":
            network = networks.initialise(networks.MLP(shape, outputs, self.hidden).to(dtype), rng)
        elif name == "conv4" and len(shape) >= 2:
            network = networks.initialise(
                networks.Conv4(shape, outputs, self.channels).to(dtype), rng
            )
        else:
            network = networks.build(name, shape, outputs, rng, self.dtype)
        meta_networks.check_layers(network)
        self.network_ = network.to(device)
        self._device = device

    def _train(
        self, sampler: Any, streams: Streams, fingerprint: Mapping[str, Any], **options: Any
    ) -> dict[str, np.ndarray]:
        device = resolve_device(options.pop("device"))
        self._build(streams.init, device)
        theta = self._trained()
        optimizer = self._optimizer(theta.values())

        def step(number: int) -> Mapping[str, Tensor]:
            if self.lr_schedule == "linear":
                factor = optim.warmup_linear(number, self.iterations, 0.0)
                optim.set_learning_rate(optimizer, self.lr * factor)
            episodes = sampler.sample(streams.batches, self.n_tasks)
            loss, gradients = self._meta_gradient(theta, self._tensors(episodes), streams)
            if self.clip is not None:
                gradients = optim.clip_gradients(gradients, self.clip)
            for parameter, gradient in zip(theta.values(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            return {"loss": loss.detach()}

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

    def _trained(self) -> dict[str, Tensor]:
        """Return the weights that the outer loop trains."""
        return meta_networks.parameters_of(self.network_)

    def _optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        return optim.adam(parameters, lr=self.lr)

    def _meta_gradient(
        self, theta: Parameters, episode: tuple[Tensor, ...], streams: Streams
    ) -> tuple[Tensor, list[Tensor]]:
        raise NotImplementedError  # what tells the methods apart

    def _tensors(self, episodes: Episodes) -> tuple[Tensor, ...]:
        arrays = []
        for X, y in (
            (episodes.X_support, episodes.y_support),
            (episodes.X_query, episodes.y_query),
        ):
            y = as_targets(y, self.task)
            dtype = self.dtype if self.task == "regression" else None
            arrays += [to_tensor(X, self._device, self.dtype), to_tensor(y, self._device, dtype)]
        return tuple(arrays)

    def _loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean over a task's examples, summed over the tasks."""
        if self.task == "regression":
            return F.mse_loss(outputs, y, reduction="sum") / y[0].numel()
        summed = F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="sum")
        return summed / y.shape[1]

    def _query(self, parameters: Parameters, X_support: Tensor, X_query: Tensor) -> Tensor:
        """Outputs for the query sets: batch norm sees the support set, or the query set."""
        network = self.network_
        if self.statistics == "transductive" or not meta_networks.has_batch_norm(network):
            return meta_networks.apply(network, parameters, X_query)
        n = X_support.shape[1]
        both = torch.cat([X_support, X_query], 1)
        return meta_networks.apply(network, parameters, both, n_reference=n)[:, n:]

    def _adapted_names(self) -> list[str] | None:
        """Return the names of the weights that the inner loop adapts; ``None``: all."""
        return None

    def _adapt(self, X: Tensor, y: Tensor, steps: int, lr: float) -> dict[str, Tensor]:
        """Adapt to stacked tasks, without a graph for the outer gradient."""
        theta = {k: v.detach() for k, v in meta_networks.parameters_of(self.network_).items()}
        weights = meta_networks.expand(theta, len(X))
        weights = {name: value.requires_grad_() for name, value in weights.items()}

        def loss(current: Parameters) -> Tensor:
            return self._loss(meta_networks.apply(self.network_, current, X), y)

        adapted = adapt(loss, weights, lr, steps, True, self._adapted_names())
        adapted = {name: value.detach() for name, value in adapted.items()}
        return adapted

    def _predictor(
        self, X: np.ndarray, y: np.ndarray, steps: int, lr: float
    ) -> tuple[Predictor, dict[str, np.ndarray]]:
        task = Episodes(X[None], y[None], X[None], y[None])
        X_support, y_support, _, _ = self._tensors(task)
        weights = self._adapt(X_support, y_support, steps, lr)
        if not all(torch.isfinite(value).all() for value in weights.values()):
            raise ValueError(f"lr={lr:g}: the adaptation diverged within {steps} steps; lower it.")
        # Without batch norm, or by the support set's statistics, examples are independent.
        whole = self.statistics == "transductive" and meta_networks.has_batch_norm(self.network_)

        @torch.no_grad()
        def predict(X: np.ndarray) -> np.ndarray:
            size = len(X) if whole else 1024
            blocks = [X[None, start : start + size] for start in range(0, len(X), size)]
            tensors = [to_tensor(block, self._device, self.dtype) for block in blocks]
            return np.concatenate(
                [to_array(self._query(weights, X_support, x)[0]) for x in tensors]
            )

        return predict, {name: to_array(value[0]) for name, value in weights.items()}

    def _query_outputs(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        size = 16 if isinstance(self.network_, networks.Conv4) else 200
        done = []
        for start in range(0, len(episodes), size):
            Xs, ys, Xq, _ = self._tensors(_slice(episodes, start, start + size))
            weights = self._adapt(Xs, ys, steps, lr)
            with torch.no_grad():
                done.append(to_array(self._query(weights, Xs, Xq)))
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
        network: str | Callable[[], nn.Module] | None = None,
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
        self, theta: Parameters, episode: tuple[Tensor, ...], streams: Streams
    ) -> tuple[Tensor, list[Tensor]]:
        Xs, ys, Xq, yq = episode
        if self._shares_weights(Xs.shape[1]):
            outputs = fast_weights.outputs_after_step(
                theta, Xs, lambda o: self._loss(o, ys), Xq, self.inner_lr, self._first_order
            )
            loss = self._loss(outputs, yq)
        else:
            loss = meta_loss(
                lambda weights: self._loss(meta_networks.apply(self.network_, weights, Xs), ys),
                lambda weights: self._loss(self._query(weights, Xs, Xq), yq),
                meta_networks.expand(theta, len(Xs)),
                self.inner_lr,
                self.inner_steps,
                self._first_order,
                self._adapted_names(),
            )
        loss = loss / len(Xs)
        return loss, list(torch.autograd.grad(loss, list(theta.values())))

    def _shares_weights(self, n_support: int) -> bool:
        """Tell whether the tasks can do without weights of their own; see ``fast_weights``."""
        whole_mlp = type(self.network_) is networks.MLP and self._adapted_names() is None
        return whole_mlp and one_step_saves_work(self.hidden, n_support, self.inner_steps)


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

    def _meta_gradient(
        self, theta: Parameters, episode: tuple[Tensor, ...], streams: Streams
    ) -> tuple[Tensor, list[Tensor]]:
        network = self.network_
        if type(network) not in (networks.MLP, networks.Conv4):
            return super()._meta_gradient(theta, episode, streams)
        # The body stays as it is within a task, so it runs once, outside of the inner loop.
        Xs, ys, Xq, yq = episode
        weights = meta_networks.expand(theta, len(Xs))
        n = Xs.shape[1]
        if self.statistics == "inductive":
            both = torch.cat([Xs, Xq], 1)
            features = meta_networks.apply_features(network, weights, both, n_reference=n)
            support, query = features[:, :n], features[:, n:]
        else:
            support = meta_networks.apply_features(network, weights, Xs)
            query = meta_networks.apply_features(network, weights, Xq)
        head = {name: weights[name] for name in self._adapted_names()}
        loss = meta_loss(
            lambda head: self._loss(meta_networks.apply_head(network, head, support), ys),
            lambda head: self._loss(meta_networks.apply_head(network, head, query), yq),
            head,
            self.inner_lr,
            self.inner_steps,
        )
        loss = loss / len(Xs)
        return loss, list(torch.autograd.grad(loss, list(theta.values())))


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
        network: str | Callable[[], nn.Module] | None = None,
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

    def _optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        return optim.sgd(parameters, lr=self.lr)

    def _meta_gradient(
        self, theta: Parameters, episode: tuple[Tensor, ...], streams: Streams
    ) -> tuple[Tensor, list[Tensor]]:
        Xs, ys, Xq, yq = episode
        X, y = torch.cat([Xs, Xq], 1), torch.cat([ys, yq], 1)
        size = min(self.batch_size or Xs.shape[1], X.shape[1])
        drawn = reptile_batches(streams.batches, len(X), X.shape[1], size, self.inner_steps)
        rows = torch.arange(len(X), device=X.device)[:, None]
        start = meta_networks.expand({k: v.detach() for k, v in theta.items()}, len(X))
        weights = {name: value.requires_grad_() for name, value in start.items()}
        losses = []
        for indices in drawn:
            index = to_tensor(indices, self._device)

            def loss(current: Parameters, index: Tensor = index) -> Tensor:
                outputs = meta_networks.apply(self.network_, current, X[rows, index])
                losses.append(self._loss(outputs, y[rows, index]))
                return losses[-1]

            weights = adapt(loss, weights, self.inner_lr, 1, True)
            weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
        mean_loss = torch.stack(losses).mean() / len(X)
        return mean_loss, [theta[name].detach() - weights[name].detach().mean(0) for name in theta]

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
