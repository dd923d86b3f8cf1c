"""Prototypical networks in TensorFlow (Snell et al. 2017).

A network embeds the examples.  A class is the mean of its support embeddings, its prototype;
a query belongs to the class with the nearest prototype.  Nothing is adapted by gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._streams import Streams
from fewshot_course.both.maml import Predictor
from fewshot_course.data.episodes import Episodes
from fewshot_course.tf import meta_networks, networks
from fewshot_course.tf._training import to_array, to_tensor
from fewshot_course.tf.maml import MetaLearner, _mean

__all__ = ["ProtoNet", "prototypes", "squared_distances"]


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


def squared_distances(queries: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
    """Return squared Euclidean distances ``(T, q, k)`` of ``(T, q, d)`` to ``(T, k, d)``."""
    return tf.reduce_sum(tf.square(queries[:, :, None] - centres[:, None]), -1)


class ProtoNet(MetaLearner):
    """Prototypical network with squared Euclidean distances (Snell et al. 2017).

    The class probabilities of a query are the softmax of the negative distances; training
    lowers the cross-entropy of the query sets.  A new task may have any number of classes.

    Args:
        network: "mlp", "conv4" (both without their heads), a zero-argument factory of a module
            that returns one output a class of the training tasks, taken as the embedding, or
            ``None`` (chosen by the shape of X).
        iterations: updates.
        n_tasks: tasks in an update.
        lr: learning rate (Adam).
        lr_schedule: "constant" or "linear" (falls to 0).
        clip: largest norm of the gradient, or ``None``.
        statistics: what batch norm sees of a query set, as in
            :class:`~fewshot_course.tf.MAML`.
        hidden: widths of the layers of "mlp".
        channels: width of "conv4".
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the trained network.
        input_shape_: shape of one example.
        n_outputs_: classes of a training task.
        history_: "loss" → ``(iterations,)``.
    """

    def __init__(
        self,
        network: str | Callable[[], keras.Model] | None = None,
        iterations: int = 1000,
        n_tasks: int = 4,
        lr: float = 1e-3,
        lr_schedule: str = "constant",
        clip: float | None = None,
        statistics: str = "inductive",
        hidden: tuple[int, ...] = (64, 64),
        channels: int = 64,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
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

    def _trained(self) -> dict[str, tf.Tensor]:
        weights = meta_networks.parameters_of(self.network_)
        named = type(self.network_) in (networks.MLP, networks.Conv4)
        return {k: v for k, v in weights.items() if not (named and k.startswith("head."))}

    def _check_ways(self, ways: int) -> None:
        """Any number of classes will do."""

    def _embed(
        self, theta: Mapping[str, tf.Tensor], Xs: tf.Tensor, Xq: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Embed support and query sets."""
        network = self.network_
        named = type(network) in (networks.MLP, networks.Conv4)
        run = meta_networks.apply_features if named else meta_networks.apply
        weights = meta_networks.expand(theta, Xs.shape[0])
        n = Xs.shape[1]
        if self.statistics == "transductive" and meta_networks.has_batch_norm(network):
            return run(network, weights, Xs), run(network, weights, Xq)
        both = run(network, weights, tf.concat([Xs, Xq], 1), n_reference=n)
        return both[:, :n], both[:, n:]

    def _logits(
        self, theta: Mapping[str, tf.Tensor], Xs: tf.Tensor, ys: tf.Tensor, Xq: tf.Tensor, ways: int
    ) -> tf.Tensor:
        support, query = self._embed(theta, Xs, Xq)
        return -squared_distances(query, prototypes(support, ys, ways))

    def _meta_gradient(
        self, theta: Mapping[str, tf.Tensor], episode: tuple[tf.Tensor, ...], streams: Streams
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        def run(
            Xs: tf.Tensor, ys: tf.Tensor, Xq: tf.Tensor, yq: tf.Tensor
        ) -> tuple[tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                logits = self._logits(theta, Xs, ys, Xq, self.n_outputs_)
                loss = self._loss(logits, yq) / Xs.shape[0]
            return loss, tape.gradient(loss, list(theta.values()))

        return _mean(self._in_chunks("meta", run, episode))

    def _query_outputs(self, episodes: Episodes, steps: int, lr: float) -> np.ndarray:
        theta, ways = self._trained(), int(episodes.y_support.max()) + 1

        def run(Xs: tf.Tensor, ys: tf.Tensor, Xq: tf.Tensor) -> tf.Tensor:
            return self._logits(theta, Xs, ys, Xq, ways)

        compiled = self._compiled.setdefault(f"query.{ways}", tf.function(run, autograph=False))
        done = []
        for index in range(len(episodes)):
            Xs, ys, Xq, _ = self._tensors(Episodes(*(part[None] for part in episodes.task(index))))
            done.append(to_array(compiled(Xs, ys, Xq))[0])
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

        centres = prototypes(self._embed(theta, Xs, Xs[:, :1])[0], ys, ways)
        return predict, {"prototypes": to_array(centres[0])}
