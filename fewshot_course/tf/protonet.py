"""Prototypical networks in TensorFlow (Snell et al. 2017).

A network embeds the examples.  A class is the mean of its support embeddings, its prototype;
a query belongs to the class with the nearest prototype.  Nothing is adapted by gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import COUNT, checked
from fewshot_course._streams import Streams
from fewshot_course.both import protonet as settings
from fewshot_course.both.maml import Predictor
from fewshot_course.data.episodes import Episodes
from fewshot_course.tf import meta_networks, networks
from fewshot_course.tf._training import to_array, to_tensor
from fewshot_course.tf.maml import MetaLearner, _mean, task_loss

__all__ = ["ProtoNet", "embed", "prototype_loss", "prototypes", "squared_distances"]


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
    member = tf.transpose(tf.one_hot(y, ways, dtype=embeddings.dtype), (0, 2, 1))
    return member @ embeddings / tf.reduce_sum(member, 2, keepdims=True)


@checked
def squared_distances(queries: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
    """Return squared Euclidean distances ``(T, q, k)`` of ``(T, q, d)`` to ``(T, k, d)``."""
    return tf.reduce_sum(tf.square(queries[:, :, None] - centres[:, None]), -1)


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
        network: whose layers are run; "mlp" and "conv4" without their heads.
        theta: name → weights without a task axis.
        X_support: ``(T, n, ...)``.
        X_query: ``(T, m, ...)``.
        statistics: what batch norm sees, the support set ("inductive") or the query set
            ("transductive").
    """
    named = type(network) in (networks.MLP, networks.Conv4)
    run = meta_networks.apply_features if named else meta_networks.apply
    weights = meta_networks.expand(theta, X_support.shape[0])
    n = X_support.shape[1]
    if statistics == "transductive" and meta_networks.has_batch_norm(network):
        return run(network, weights, X_support), run(network, weights, X_query)
    both = run(network, weights, tf.concat([X_support, X_query], 1), n_reference=n)
    return both[:, :n], both[:, n:]


@checked(ways=COUNT, statistics=("inductive", "transductive"))
def prototype_loss(
    network: keras.Model,
    theta: Mapping[str, tf.Tensor],
    episode: tuple[tf.Tensor, ...],
    ways: int,
    statistics: str = "inductive",
) -> tf.Tensor:
    """Return the loss that an update lowers: the cross-entropy of the query sets' distances.

    Args:
        network: whose layers are run.
        theta: name → weights without a task axis.
        episode: X_support ``(T, n, ...)``, y_support, X_query ``(T, m, ...)``, y_query.
        ways: classes of a task.
        statistics: as in :func:`embed`.

    Returns:
        A scalar, ≥ 0 (Snell et al. 2017, algorithm 1).
    """
    Xs, ys, Xq, yq = episode
    support, query = embed(network, theta, Xs, Xq, statistics)
    logits = -squared_distances(query, prototypes(support, ys, ways))
    return task_loss(logits, yq) / Xs.shape[0]


class ProtoNet(MetaLearner, settings.ProtoNet):
    __doc__ = settings.ProtoNet.__doc__

    def _trained(self) -> dict[str, tf.Tensor]:
        weights = meta_networks.parameters_of(self.network_)
        named = type(self.network_) in (networks.MLP, networks.Conv4)
        return {k: v for k, v in weights.items() if not (named and k.startswith("head."))}

    def _meta_gradient(
        self, theta: Mapping[str, tf.Tensor], episode: tuple[tf.Tensor, ...], streams: Streams
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        def run(*tasks: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                loss = prototype_loss(self.network_, theta, tasks, self.n_outputs_, self.statistics)
            return loss, tape.gradient(loss, list(theta.values()))

        return _mean(self._in_chunks("meta", run, episode))

    def _logits(
        self, theta: Mapping[str, tf.Tensor], Xs: tf.Tensor, ys: tf.Tensor, Xq: tf.Tensor, ways: int
    ) -> tf.Tensor:
        support, query = embed(self.network_, theta, Xs, Xq, self.statistics)
        return -squared_distances(query, prototypes(support, ys, ways))

    def _apply(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        theta, ways = self._trained(), int(episodes.y_support.max()) + 1

        # Settings are arguments: what is compiled would keep those of the first call.
        def run(
            Xs: tf.Tensor, ys: tf.Tensor, Xq: tf.Tensor, ways: int, statistics: str
        ) -> tf.Tensor:
            support, query = embed(self.network_, theta, Xs, Xq, statistics)
            return -squared_distances(query, prototypes(support, ys, ways))

        compiled = self._compiled.setdefault("query", tf.function(run, autograph=False))
        done = []
        for index in range(len(episodes)):
            Xs, ys, Xq, _ = self._tensors(Episodes(*(part[None] for part in episodes.task(index))))
            done.append(to_array(compiled(Xs, ys, Xq, ways, self.statistics))[0])
        return np.stack(done)

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
            tensors = [to_tensor(block, self._device, self.dtype) for block in blocks]
            return np.concatenate(
                [to_array(self._logits(theta, Xs, ys, x, ways)[0]) for x in tensors]
            )

        centres = prototypes(
            embed(self.network_, theta, Xs, Xs[:, :1], self.statistics)[0], ys, ways
        )
        return predict, {"prototypes": to_array(centres[0])}
