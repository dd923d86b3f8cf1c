"""Prototypical networks in TensorFlow (Snell et al. 2017).

A network embeds the examples.  A class is the mean of its support embeddings, its prototype;
a query belongs to the class with the nearest prototype.  Nothing is adapted by gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import COUNT, POSITIVE, checked
from fewshot_course._streams import Streams
from fewshot_course.both import protonet as settings
from fewshot_course.both.maml import Predictor
from fewshot_course.both.protonet import DISTANCES
from fewshot_course.data.episodes import Episodes
from fewshot_course.tf import meta_networks
from fewshot_course.tf._training import to_array, to_tensor
from fewshot_course.tf.maml import MetaLearner, _mean, _slice, task_loss

__all__ = [
    "ProtoNet",
    "class_distances",
    "cosine_distances",
    "embed",
    "linear_classifier",
    "mahalanobis_distances",
    "prototype_loss",
    "prototypes",
    "shrunk_covariances",
    "squared_distances",
    "unit",
]

_BLOCK = 1000  # examples that pass a network at a time when tasks are scored


@checked(ways=COUNT)
def prototypes(embeddings: tf.Tensor, y: tf.Tensor, ways: int) -> tf.Tensor:
    """Return the mean embedding of each class.

    Args:
        embeddings: of the support sets, ``(T, n, d)``.
        y: labels 0 to ways - 1, ``(T, n)``; every class occurs.
        ways: number of classes.

    Returns:
        ``(T, ways, d)``.
    """
    member = _membership(embeddings, y, ways)
    return member @ embeddings / tf.reduce_sum(member, 2, keepdims=True)


def _membership(embeddings: tf.Tensor, y: tf.Tensor, ways: int) -> tf.Tensor:
    """1 where an example belongs to a class, else 0: ``(T, ways, n)``."""
    return tf.transpose(tf.one_hot(y, ways, dtype=embeddings.dtype), (0, 2, 1))


@checked
def squared_distances(queries: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
    """Return squared Euclidean distances ``(T, q, k)`` of ``(T, q, d)`` to ``(T, k, d)``."""
    return tf.reduce_sum(tf.square(queries[:, :, None] - centres[:, None]), -1)


@checked
def linear_classifier(centres: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Write the softmax of negative squared distances as a linear classifier.

    -‖z - c‖² = 2 c·z - ‖c‖² - ‖z‖², and the last term is the same for all classes, so that no
    softmax sees it (Snell et al. 2017, equation 8).

    Args:
        centres: of the classes, ``(T, k, d)``.

    Returns:
        Weights 2 c, ``(T, k, d)``, and biases -‖c‖², ``(T, k)``.
    """
    return 2 * centres, -tf.reduce_sum(tf.square(centres), -1)


@checked
def unit(x: tf.Tensor) -> tf.Tensor:
    """Give the vectors ``(..., d)`` the length 1; one shorter than 1e-3 counts as that long."""
    squares = tf.reduce_sum(tf.square(x), -1, keepdims=True)
    return x * tf.math.rsqrt(tf.maximum(squares, tf.constant(1e-6, x.dtype)))


@checked
def cosine_distances(queries: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
    """Return 1 - cosine, in [0, 2]: ``(T, q, k)`` of ``(T, q, d)`` to ``(T, k, d)``."""
    return 1 - tf.matmul(unit(queries), unit(centres), transpose_b=True)


@checked(ways=COUNT)
def shrunk_covariances(embeddings: tf.Tensor, y: tf.Tensor, ways: int) -> tf.Tensor:
    """Return each class's covariance, shrunk towards the task's and the identity.

    Q_k = λ_k Σ_k + (1 - λ_k) Σ + I with λ_k = n_k / (n_k + 1): the covariance Σ_k of the n_k
    examples of a class, which is 0 of a single one, and Σ of all examples of the task
    (Bateni et al. 2020, equation 2).

    Args:
        embeddings: of the support sets, ``(T, n, d)``.
        y: labels 0 to ways - 1, ``(T, n)``; every class occurs.
        ways: number of classes.

    Returns:
        ``(T, ways, d, d)``, symmetric and positive definite.
    """
    member = _membership(embeddings, y, ways)
    count = tf.reduce_sum(member, 2)[..., None, None]
    apart = embeddings[:, None] - prototypes(embeddings, y, ways)[:, :, None]
    apart = apart * member[..., None]  # (T, ways, n, d), 0 for the examples of other classes
    of_class = tf.matmul(apart, apart, transpose_a=True) / tf.maximum(
        count - 1, tf.ones_like(count)
    )
    apart = embeddings - tf.reduce_mean(embeddings, 1, keepdims=True)
    of_task = (tf.matmul(apart, apart, transpose_a=True) / max(apart.shape[1] - 1, 1))[:, None]
    share = count / (count + 1)
    identity = tf.eye(apart.shape[2], dtype=apart.dtype)
    return share * of_class + (1 - share) * of_task + identity


@checked
def mahalanobis_distances(
    queries: tf.Tensor, centres: tf.Tensor, covariances: tf.Tensor
) -> tf.Tensor:
    """Return squared Mahalanobis distances (z - c)ᵀ Q⁻¹ (z - c).

    Args:
        queries: ``(T, q, d)``.
        centres: of the classes, ``(T, k, d)``.
        covariances: Q of each class, ``(T, k, d, d)``, positive definite.

    Returns:
        ``(T, q, k)``, ≥ 0; with the identity for Q those of :func:`squared_distances`.
    """
    apart = tf.linalg.matrix_transpose(queries[:, None] - centres[:, :, None])  # (T, k, d, q)
    factor = tf.linalg.cholesky(covariances)
    whitened = tf.linalg.triangular_solve(factor, apart, lower=True)
    return tf.linalg.matrix_transpose(tf.reduce_sum(tf.square(whitened), 2))


@checked(ways=COUNT, distance=DISTANCES)
def class_distances(
    queries: tf.Tensor, support: tf.Tensor, y: tf.Tensor, ways: int, distance: str = "euclidean"
) -> tf.Tensor:
    """Return the distances ``(T, q, ways)`` of queries to the classes of a support set.

    Args:
        queries: embeddings, ``(T, q, d)``.
        support: embeddings, ``(T, n, d)``.
        y: labels of the support set, 0 to ways - 1, ``(T, n)``; every class occurs.
        ways: number of classes.
        distance: "euclidean" (squared), "cosine" or "mahalanobis" (squared).
    """
    centres = prototypes(support, y, ways)
    if distance == "cosine":
        return cosine_distances(queries, centres)
    if distance == "mahalanobis":
        return mahalanobis_distances(queries, centres, shrunk_covariances(support, y, ways))
    return squared_distances(queries, centres)


@checked(statistics=("inductive", "transductive"))
def embed(
    network: keras.Model,
    theta: Mapping[str, tf.Tensor],
    X_support: tf.Tensor,
    X_query: tf.Tensor,
    statistics: str = "inductive",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the embeddings ``(T, n, d)`` and ``(T, m, d)`` of support and query sets.

    Args:
        network: whose layers are run; the named ones without their heads.
        theta: name → weights without a task axis.
        X_support: ``(T, n, ...)``.
        X_query: ``(T, m, ...)``.
        statistics: what batch norm sees, the support set ("inductive") or the query set
            ("transductive").
    """
    named = type(network) in meta_networks.NAMED
    run = meta_networks.shared_features if named else meta_networks.apply
    weights = theta if named else meta_networks.expand(theta, X_support.shape[0])
    n = X_support.shape[1]
    if statistics == "transductive" and meta_networks.has_batch_norm(network):
        return run(network, weights, X_support), run(network, weights, X_query)
    both = run(network, weights, tf.concat([X_support, X_query], 1), n_reference=n)
    return both[:, :n], both[:, n:]


@checked(ways=COUNT, statistics=("inductive", "transductive"), distance=DISTANCES, scale=POSITIVE)
def prototype_loss(
    network: keras.Model,
    theta: Mapping[str, tf.Tensor],
    episode: tuple[tf.Tensor, ...],
    ways: int,
    statistics: str = "inductive",
    distance: str = "euclidean",
    scale: float = 1.0,
) -> tf.Tensor:
    """Return the loss that an update lowers: the cross-entropy of the query sets' distances.

    Args:
        network: whose layers are run.
        theta: name → weights without a task axis.
        episode: X_support ``(T, n, ...)``, y_support, X_query ``(T, m, ...)``, y_query.
        ways: classes of a task.
        statistics: as in :func:`embed`.
        distance: as in :func:`class_distances`.
        scale: what the distances are multiplied by.

    Returns:
        A scalar, ≥ 0 (Snell et al. 2017, algorithm 1).
    """
    Xs, ys, Xq, yq = episode
    support, query = embed(network, theta, Xs, Xq, statistics)
    logits = -scale * class_distances(query, support, ys, ways, distance)
    return task_loss(logits, yq) / Xs.shape[0]


class MetricLearner(MetaLearner):
    """What learners have in common that compare embeddings; each one gives ``_logits``."""

    def _task_by_task(self) -> bool:
        return super()._task_by_task() and type(self.network_) not in meta_networks.NAMED

    def _trained(self) -> dict[str, tf.Tensor]:
        weights = meta_networks.parameters_of(self.network_)
        named = type(self.network_) in meta_networks.NAMED
        return {k: v for k, v in weights.items() if not (named and k.startswith("head."))}

    def _logits(self, support: tf.Tensor, ys: tf.Tensor, query: tf.Tensor, ways: int) -> tf.Tensor:
        raise NotImplementedError  # what tells the methods apart

    def _parts(self, support: tf.Tensor, ys: tf.Tensor, ways: int) -> dict[str, tf.Tensor]:
        """Return what a new task's model consists of."""
        raise NotImplementedError  # prototypes or examples: the method knows

    def _apply(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        theta, ways = self._trained(), int(episodes.y_support.max()) + 1
        statistics = self.statistics

        def run(Xs: tf.Tensor, Xq: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return embed(self.network_, theta, Xs, Xq, statistics)

        # Of a named network, a block of tasks takes longer than the calls of its operations.
        # ``vectorized_map``, which runs other ones, is compiled, once for each of the statistics.
        ask: Any = run
        if type(self.network_) not in meta_networks.NAMED:
            kind = ("embed", statistics)
            ask = self._compiled.setdefault(kind, tf.function(run, autograph=False))
        examples = episodes.X_support.shape[1] + episodes.X_query.shape[1]
        size = 1 if self._task_by_task() else max(1, _BLOCK // examples)
        done = []
        for start in range(0, len(episodes), size):
            Xs, ys, Xq, _ = self._tensors(_slice(episodes, start, start + size))
            support, query = ask(Xs, Xq)
            done.append(to_array(self._logits(support, ys, query, ways)))
        return np.concatenate(done)

    def _predictor(
        self, X: np.ndarray, y: np.ndarray, steps: int, lr: float
    ) -> tuple[Predictor, dict[str, np.ndarray]]:
        Xs, ys, _, _ = self._tensors(Episodes(X[None], y[None], X[None], y[None]))
        theta = {name: tf.identity(value) for name, value in self._trained().items()}
        ways = int(y.max()) + 1
        whole = self.statistics == "transductive" and meta_networks.has_batch_norm(self.network_)

        def predict(X: np.ndarray) -> np.ndarray:
            size = len(X) if whole else 1024
            blocks = [X[None, start : start + size] for start in range(0, len(X), size)]
            outputs = []
            for block in blocks:
                x = to_tensor(block, self._device, self.dtype)
                support, query = embed(self.network_, theta, Xs, x, self.statistics)
                outputs.append(to_array(self._logits(support, ys, query, ways)[0]))
            return np.concatenate(outputs)

        support, _ = embed(self.network_, theta, Xs, Xs[:, :1], self.statistics)
        parts = self._parts(support, ys, ways)
        return predict, {name: to_array(value[0]) for name, value in parts.items()}


class ProtoNet(MetricLearner, settings.ProtoNet):
    __doc__ = settings.ProtoNet.__doc__

    def _meta_gradient(
        self, theta: Mapping[str, tf.Tensor], episode: tuple[tf.Tensor, ...], streams: Streams
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        def run(*tasks: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                loss = prototype_loss(
                    self.network_, theta, tasks, self.n_outputs_, self.statistics, self.distance,
                    self.scale,
                )  # fmt: skip
            return loss, tape.gradient(loss, list(theta.values()))

        return _mean(self._in_chunks("meta", run, episode))

    def _logits(self, support: tf.Tensor, ys: tf.Tensor, query: tf.Tensor, ways: int) -> tf.Tensor:
        return -self.scale * class_distances(query, support, ys, ways, self.distance)

    def _parts(self, support: tf.Tensor, ys: tf.Tensor, ways: int) -> dict[str, tf.Tensor]:
        return {"prototypes": prototypes(support, ys, ways)}
