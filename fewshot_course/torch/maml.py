"""Meta-learning by gradient descent in PyTorch: MAML, FOMAML, ANIL and Reptile.

MAML (Finn et al. 2017) looks for initial weights θ from which a few gradient steps on a task's
support set give a low loss on its query set:

    min_θ  Σ_tasks  L_query(θ'),    θ' = θ - α ∇ L_support(θ)     (one inner step)

The gradient of the outer sum goes through the inner step, so it holds second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
from fewshot_course.torch import fast_weights, meta_networks, networks, optim
from fewshot_course.torch._training import Networks, to_array, to_tensor, train

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

Parameters = Mapping[str, Tensor]
Loss = Callable[[Parameters], Tensor]
Outputs = Callable[[Parameters], Tensor]

_CONVOLUTIONAL: dict[str, Callable[..., nn.Module]] = {
    "conv4": networks.Conv4,
    "conv4-strided": networks.Conv4Strided,
}


@checked(lr=NOT_NEGATIVE)
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


@checked(lr=NOT_NEGATIVE, steps=NOT_NEGATIVE)
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


@checked(lr=NOT_NEGATIVE, steps=NOT_NEGATIVE)
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


@checked(task=("classification", "regression"))
def task_loss(outputs: Tensor, y: Tensor, task: str = "classification") -> Tensor:
    """Mean over a task's examples, summed over the tasks.

    Args:
        outputs: ``(T, n, k)``.
        y: class indices ``(T, n)``, or targets ``(T, n, k)``.
        task: "classification" (cross-entropy) or "regression" (mean squared error).

    Returns:
        A scalar, ≥ 0.
    """
    if task == "regression":
        return F.mse_loss(outputs, y, reduction="sum") / y[0].numel()
    summed = F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="sum")
    return summed / y.shape[1]


@checked(statistics=("inductive", "transductive"))
def query_outputs(
    network: nn.Module,
    parameters: Parameters,
    X_support: Tensor,
    X_query: Tensor,
    statistics: str = "inductive",
) -> Tensor:
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
    both = torch.cat([X_support, X_query], 1)
    return meta_networks.apply(network, parameters, both, n_reference=n)[:, n:]


@checked(
    inner_lr=NOT_NEGATIVE,
    inner_steps=NOT_NEGATIVE,
    task=("classification", "regression"),
    statistics=("inductive", "transductive"),
)
def episode_loss(
    network: nn.Module,
    theta: Parameters,
    episode: tuple[Tensor, ...],
    inner_lr: float,
    inner_steps: int,
    *,
    task: str = "classification",
    first_order: bool = False,
    adapted: Collection[str] | None = None,
    statistics: str = "inductive",
) -> Tensor:
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

        def support(current: Parameters) -> Tensor:
            return meta_networks.apply(network, current, Xs)

        def query(current: Parameters) -> Tensor:
            return query_outputs(network, current, Xs, Xq, statistics)

    loss = meta_loss(
        lambda current: task_loss(support(current), ys, task),
        lambda current: task_loss(query(current), yq, task),
        weights, inner_lr, inner_steps, first_order, adapted,
    )  # fmt: skip
    return loss / Xs.shape[0]


@checked(n_support=COUNT, inner_steps=NOT_NEGATIVE)
def shares_weights(
    network: nn.Module,
    theta: Parameters,
    n_support: int,
    inner_steps: int,
    adapted: Collection[str] | None = None,
) -> bool:
    """Tell whether tasks can do without weights of their own; see ``fast_weights``."""
    hidden = [v.shape[0] for k, v in theta.items() if k.startswith("body.") and k.endswith("bias")]
    whole_mlp = type(network) is networks.MLP and adapted is None
    return whole_mlp and one_step_saves_work(hidden, n_support, inner_steps)


def _keeps_body(network: nn.Module, adapted: Collection[str] | None) -> bool:
    named = type(network) in meta_networks.NAMED
    return named and adapted is not None and all(name.startswith("head.") for name in adapted)


def _after_body(
    network: nn.Module, theta: Parameters, Xs: Tensor, Xq: Tensor, statistics: str
) -> tuple[dict[str, Tensor], Outputs, Outputs]:
    """Run the body once; returns the head's weights, and its outputs for both sets."""
    n = Xs.shape[1]
    if statistics == "inductive":
        both = torch.cat([Xs, Xq], 1)
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
    network: nn.Module,
    theta: Parameters,
    X: Tensor,
    y: Tensor,
    batches: Tensor,
    inner_lr: float,
    task: str = "classification",
) -> tuple[Tensor, list[Tensor]]:
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
    rows = torch.arange(len(X), device=X.device)[:, None]
    start = meta_networks.expand({k: v.detach() for k, v in theta.items()}, len(X))
    weights = {name: value.requires_grad_() for name, value in start.items()}
    losses = []
    for number in range(batches.shape[1]):
        index = batches[:, number]

        def loss(current: Parameters, index: Tensor = index) -> Tensor:
            outputs = meta_networks.apply(network, current, X[rows, index])
            losses.append(task_loss(outputs, y[rows, index], task))
            return losses[-1]

        weights = adapt(loss, weights, inner_lr, 1, True)
        weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
    moved = [theta[name].detach() - weights[name].detach().mean(0) for name in theta]
    return torch.stack(losses).mean() / len(X), moved


class MetaLearner(Networks, MetaEstimator):
    """The three doors of the meta-learners; each one gives ``_meta_gradient``."""

    def _build(self, rng: np.random.Generator, device: str) -> None:
        shape, outputs, dtype = self.input_shape_, self.n_outputs_, getattr(torch, self.dtype)
        name = self.network or ("conv4" if len(shape) >= 2 else "mlp")
        kind = _CONVOLUTIONAL.get(name) if isinstance(name, str) else None
        if name == "mlp":
            network = networks.initialise(networks.MLP(shape, outputs, self.hidden).to(dtype), rng)
        elif kind and len(shape) >= 2:
            network = networks.initialise(kind(shape, outputs, self.channels).to(dtype), rng)
        else:
            network = networks.build(name, shape, outputs, rng, self.dtype)
        meta_networks.check_layers(network)
        self.network_ = network.to(device)

    def _learn(
        self, sampler: Any, probe: Episodes, streams: Streams, run: Run
    ) -> dict[str, np.ndarray]:
        theta = self._trained()
        # Without a weight to train (the raw pixels as embedding) there is nothing to move.
        optimizer = self._optimizer(theta.values()) if theta else None

        def step(number: int) -> Mapping[str, Tensor]:
            if self.lr_schedule == "linear" and optimizer is not None:
                factor = optim.warmup_linear(number, self.iterations, 0.0)
                optim.set_learning_rate(optimizer, self.lr * factor)
            episodes = sampler.sample(streams.batches, self.n_tasks)
            loss, gradients = self._meta_gradient(theta, self._tensors(episodes), streams)
            if optimizer is not None:
                if self.clip is not None:
                    gradients = optim.clip_gradients(gradients, self.clip)
                for parameter, gradient in zip(theta.values(), gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
            return {"loss": loss.detach()}

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
            training=False,
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
        return task_loss(outputs, y, self.task)

    def _query(self, parameters: Parameters, X_support: Tensor, X_query: Tensor) -> Tensor:
        return query_outputs(self.network_, parameters, X_support, X_query, self.statistics)

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

    def _apply(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        size = 200 if isinstance(self.network_, networks.MLP) else 16
        done = []
        for start in range(0, len(episodes), size):
            Xs, ys, Xq, _ = self._tensors(_slice(episodes, start, start + size))
            weights = self._adapt(Xs, ys, steps, lr)
            with torch.no_grad():
                done.append(to_array(self._query(weights, Xs, Xq)))
        return np.concatenate(done)


class MAML(MetaLearner, settings.MAML):
    __doc__ = settings.MAML.__doc__

    def _meta_gradient(
        self, theta: Parameters, episode: tuple[Tensor, ...], streams: Streams
    ) -> tuple[Tensor, list[Tensor]]:
        loss = episode_loss(
            self.network_, theta, episode, self.inner_lr, self.inner_steps, task=self.task,
            first_order=self._first_order, adapted=self._adapted_names(),
            statistics=self.statistics,
        )  # fmt: skip
        return loss, list(torch.autograd.grad(loss, list(theta.values())))


class FOMAML(MAML, settings.FOMAML):
    __doc__ = settings.FOMAML.__doc__


class ANIL(MAML, settings.ANIL):
    __doc__ = settings.ANIL.__doc__

    def _build(self, rng: np.random.Generator, device: str) -> None:
        super()._build(rng, device)
        if not self._adapted_names():
            raise ValueError("ANIL needs a network with a layer called 'head'; it has none.")

    def _adapted_names(self) -> list[str]:
        names = meta_networks.parameters_of(self.network_)
        return [name for name in names if name.startswith("head.")]


class Reptile(MetaLearner, settings.Reptile):
    __doc__ = settings.Reptile.__doc__

    def _optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        return optim.sgd(parameters, lr=self.lr)

    def _meta_gradient(
        self, theta: Parameters, episode: tuple[Tensor, ...], streams: Streams
    ) -> tuple[Tensor, list[Tensor]]:
        Xs, ys, Xq, yq = episode
        X, y = torch.cat([Xs, Xq], 1), torch.cat([ys, yq], 1)
        size = min(self.batch_size or Xs.shape[1], X.shape[1])
        drawn = reptile_batches(streams.batches, len(X), X.shape[1], size, self.inner_steps)
        batches = to_tensor(drawn.transpose(1, 0, 2), self._device)
        return reptile_direction(self.network_, theta, X, y, batches, self.inner_lr, self.task)


def _slice(episodes: Episodes, start: int, end: int) -> Episodes:
    return Episodes(
        episodes.X_support[start:end],
        episodes.y_support[start:end],
        episodes.X_query[start:end],
        episodes.y_query[start:end],
    )
