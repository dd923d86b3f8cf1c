"""Fine-tuning a small pretrained BERT on few labelled texts, in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import NOT_NEGATIVE, checked
from fewshot_course._streams import Streams
from fewshot_course.both import fine_tuning as settings
from fewshot_course.both.bert import BertConfig
from fewshot_course.both.fine_tuning import LSTM_UNITS, TextData, in_batches
from fewshot_course.both.probe import cross_entropy_of
from fewshot_course.both.texts import Tokens
from fewshot_course.both.training import Run
from fewshot_course.tf import networks, optim
from fewshot_course.tf._training import Updater, resolve_device, to_array, to_tensor, train
from fewshot_course.tf.encoder import (
    Encoder,
    compiled,
    dropout_masks,
    encode,
    keep_mask,
    linear,
    mean_pool,
)

__all__ = [
    "TextClassifier",
    "TextNetwork",
    "contrastive_pair_loss",
    "l2_sp_penalty",
    "softmax_cross_entropy",
    "softmax_gradient",
    "tuning_loss",
]


@checked
def softmax_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """Return the mean over a batch of weight · (log Σ_c exp z_c - z_y), a scalar.

    Minus the log-likelihood of the labels under p = softmax(z), so its minimum is the maximum of
    the likelihood.

    Args:
        logits: z, ``(n, C)``.
        labels: y, class indices ``(n,)`` int64.
        weights: ``(n,)``; ``None``: all 1.
    """
    losses = tf.reduce_logsumexp(logits, axis=1) - tf.gather(logits, labels, batch_dims=1)
    return tf.reduce_mean(losses if weights is None else weights * losses)


@checked
def softmax_gradient(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the gradient of :func:`softmax_cross_entropy` by the logits: (p - y) / n.

    Args:
        logits: ``(n, C)``.
        labels: class indices ``(n,)`` int64; y is their one-hot form.
    """
    one_hot = tf.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return (tf.nn.softmax(logits) - one_hot) / tf.cast(tf.shape(logits)[0], logits.dtype)


@checked
def l2_sp_penalty(weights: Sequence[tf.Tensor], start: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return ½ Σ ‖w - w⁰‖²: the distance from the pretrained weights (L2-SP, Li et al. 2018).

    Args:
        weights: tensors of any shapes.
        start: the same tensors before fine-tuning.
    """
    distances = [tf.reduce_sum(tf.square(w - w0)) for w, w0 in zip(weights, start, strict=True)]
    return 0.5 * tf.add_n(distances)


@checked
def contrastive_pair_loss(features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the squared error of cosine similarities: 1 within a class, 0 between classes.

    The loss of SetFit's first stage (Tunstall et al. 2022), over all pairs i < j of the batch;
    pairs within and between classes count one half each, as if as many were drawn of both.

    Args:
        features: ``(n, d)``, of any length.
        labels: ``(n,)`` int64.

    Returns:
        A scalar.  A kind of pair that does not occur adds 0.
    """
    directions = features / tf.norm(features, axis=1, keepdims=True)
    cosine = tf.matmul(directions, directions, transpose_b=True)
    ones = tf.ones_like(cosine)
    pairs = ones - tf.linalg.band_part(ones, -1, 0)
    within = pairs * tf.cast(labels[:, None] == labels, cosine.dtype)
    between = pairs - within
    pull = tf.reduce_sum(within * tf.square(1 - cosine)) / tf.maximum(tf.reduce_sum(within), 1)
    push = tf.reduce_sum(between * tf.square(cosine)) / tf.maximum(tf.reduce_sum(between), 1)
    return 0.5 * (pull + push)


class TextNetwork(keras.Model):
    """BERT and a head: the mean over the tokens, or an LSTM over them, then a linear layer.

    Args:
        config: the encoder's architecture.
        n_outputs: width of the head.
        head: "linear" or "lstm".
        lora_rank: see :class:`~fewshot_course.tf.encoder.Encoder`.
        lora_alpha: likewise.
        normalize: whether features get the length 1 before the linear layer.
    """

    def __init__(
        self,
        config: BertConfig,
        n_outputs: int,
        head: str = "linear",
        lora_rank: int = 0,
        lora_alpha: float = 16.0,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.bert = Encoder(config, lora_rank, lora_alpha)
        self.width = config.hidden_size
        self.lstm: _LSTM | None = None
        if head == "lstm":
            self.lstm = _LSTM(config.hidden_size, LSTM_UNITS, name="lstm")
            self.width = LSTM_UNITS
        self.head = linear(self.width, n_outputs, name="head")
        self.built = True

    def pool(self, sequence: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Map the token sequence ``(n, L, d)`` to one vector a text, ``(n, width)``."""
        if self.lstm is None:
            return mean_pool(sequence, mask)
        outputs = self.lstm(sequence)
        last = tf.reduce_sum(mask, 1) - 1  # padding comes after the text and cannot reach it
        return tf.gather(outputs, last, batch_dims=1)

    def classify(
        self, sequence: tf.Tensor, mask: tf.Tensor, dropout: Sequence[tf.Tensor] = ()
    ) -> tf.Tensor:
        """Map the token sequence to logits ``(n, n_outputs)``; the last factor drops features."""
        features = self.pool(sequence, mask)
        if self.normalize:
            features /= tf.norm(features, axis=1, keepdims=True)
        return self.head(features * dropout[-1] if dropout else features)

    def features(
        self, ids: tf.Tensor, mask: tf.Tensor, dropout: Sequence[tf.Tensor] = ()
    ) -> tf.Tensor:
        """Map token numbers ``(n, L)`` to one vector a text, ``(n, width)``."""
        return self.pool(self.bert(ids, mask, dropout=dropout or None), mask)

    def call(self, ids: tf.Tensor, mask: tf.Tensor, dropout: Sequence[tf.Tensor] = ()) -> tf.Tensor:
        """Map token numbers ``(n, L)`` to logits ``(n, n_outputs)``."""
        return self.classify(self.bert(ids, mask, dropout=dropout[:-1] or None), mask, dropout)


class _LSTM(keras.layers.Layer):
    """One LSTM layer with torch's weights: gates in the order input, forget, cell, output.

    Args:
        n_in: width of a token.
        units: width of the state.
    """

    def __init__(self, n_in: int, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.weight_ih_l0 = self._new("weight_ih_l0", (4 * units, n_in))
        self.weight_hh_l0 = self._new("weight_hh_l0", (4 * units, units))
        self.bias_ih_l0 = self._new("bias_ih_l0", (4 * units,))
        self.bias_hh_l0 = self._new("bias_hh_l0", (4 * units,))  # stays 0, see draw_weights
        self.built = True

    def _new(self, name: str, shape: tuple[int, ...]) -> Any:
        return self.add_weight(shape=shape, initializer="zeros", name=name)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Map ``(n, L, n_in)`` to the states after each token, ``(n, L, units)``."""
        recurrent = tf.convert_to_tensor(self.weight_hh_l0)
        inputs = tf.einsum("nld,gd->lng", x, tf.convert_to_tensor(self.weight_ih_l0))
        inputs += self.bias_ih_l0 + self.bias_hh_l0

        def advance(state: tuple[tf.Tensor, tf.Tensor], gates: tf.Tensor) -> Any:
            hidden, cell = state
            gates += tf.matmul(hidden, recurrent, transpose_b=True)
            enter, forget, new, leave = tf.split(gates, 4, axis=1)
            cell = tf.sigmoid(forget) * cell + tf.sigmoid(enter) * tf.tanh(new)
            return tf.sigmoid(leave) * tf.tanh(cell), cell

        zeros = tf.zeros((tf.shape(x)[0], self.units), x.dtype)
        hidden, _ = tf.scan(advance, inputs, (zeros, zeros))
        return tf.transpose(hidden, (1, 0, 2))


@checked(objective=("cross_entropy", "contrastive"), l2_sp=NOT_NEGATIVE)
def tuning_loss(
    network: TextNetwork,
    x: tf.Tensor,
    mask: tf.Tensor,
    labels: tf.Tensor,
    weights: tf.Tensor,
    dropout: Sequence[tf.Tensor] = (),
    *,
    objective: str = "cross_entropy",
    frozen: bool = False,
    held: Sequence[tf.Tensor] = (),
    anchors: Sequence[tf.Tensor] = (),
    l2_sp: float = 0.0,
) -> tf.Tensor:
    """Return the loss of a step: of the texts, and of the distance from the pretrained weights.

        cross-entropy (or the loss of pairs) + l2_sp · ½ ‖w - w⁰‖²

    Args:
        network: encoder and head.
        x: token numbers ``(n, L)``, or, of a frozen encoder, its outputs ``(n, L, d)``.
        mask: 1 for a token, 0 for padding, ``(n, L)``.
        labels: class indices ``(n,)``.
        weights: of each text, ``(n,)``.
        dropout: factors, see ``encoder.dropout_masks``; the last one is the head's.
        objective: "cross_entropy" or "contrastive".
        frozen: whether the encoder has been run already.
        held: weights that L2-SP holds.
        anchors: where they started.
        l2_sp: strength of the pull, ≥ 0.

    Returns:
        A scalar, ≥ 0, in the dtype of ``weights``.
    """
    if objective == "contrastive":
        features = tf.cast(network.features(x, mask, dropout), weights.dtype)
        loss = contrastive_pair_loss(features, labels)
    else:
        forward = network.classify if frozen else network
        logits = tf.cast(forward(x, mask, dropout=dropout), weights.dtype)
        loss = softmax_cross_entropy(logits, labels, weights)
    return loss + l2_sp * l2_sp_penalty(held, anchors) if held else loss


class TextClassifier(settings.TextClassifier):
    __doc__ = settings.TextClassifier.__doc__

    _resolve = staticmethod(resolve_device)

    def _build(self, config: BertConfig, arrays: Mapping[str, np.ndarray]) -> None:
        self.network_ = self._network(config)
        networks.from_numpy(self.network_, arrays)
        network = self.network_
        functions = {"logits": network, "features": network.features, "sequence": network.bert}
        self._functions = {what: compiled(function) for what, function in functions.items()}

    def _network(self, config: BertConfig) -> TextNetwork:
        with tf.device(self._device), networks.layer_dtype(self.dtype):
            return TextNetwork(
                config, len(self.classes_), self.head, self._rank, self.lora_alpha,
                normalize=self.objective == "contrastive",
            )  # fmt: skip

    def _learn(
        self, data: TextData, streams: Streams, fingerprint: Mapping[str, Any], run: Run
    ) -> dict[str, np.ndarray]:
        network, device = self.network_, run.device
        config, named = network.bert.config, _variables(network)
        frozen = data.sequences is not None
        data, aside = self._split(data, streams)
        batches = self._batches(data, streams)
        schedule = self._schedule(batches.batches_per_epoch)
        trained = self._trained(config)
        body = [named[name] for name in trained if name.startswith("bert.")]
        top = [named[name] for name in trained if not name.startswith("bert.")]
        if self.objective == "contrastive":
            top = []
        held = [named[name] for name in self._anchored(config)]
        anchors = [tf.Variable(weight, trainable=False) for weight in held]
        rates = {"bert": self._lr(), "head": self.head_lr}
        optimizers = {
            name: optim.adamw(weights, lr=rates[name], weight_decay=self.weight_decay)
            for name, weights in {"bert": body, "head": top}.items()
            if weights
        }
        forward: Callable[..., tf.Tensor] = network.classify if frozen else network

        def loss_of(*tensors: tf.Tensor) -> tf.Tensor:
            x, mask, labels, weights, *dropout = tensors
            return tuning_loss(
                network, x, mask, labels, weights, dropout, objective=self.objective,
                frozen=frozen, held=held, anchors=anchors, l2_sp=self.l2_sp,
            )  # fmt: skip

        update = Updater(
            loss_of, list(optimizers.values()),
            device=device, precision=self.precision, accumulate=self.accumulate,
            network=network, signature=self._signature(config, frozen),
        )  # fmt: skip

        def step(number: int) -> Mapping[str, Any]:
            for name, optimizer in optimizers.items():
                optim.set_learning_rate(optimizer, rates[name] * schedule.factor(number))
            index = batches.next()
            x, mask = (to_tensor(array, device) for array in data.inputs(index))
            dropout = self._dropout_factors(mask.shape, streams.dropout, frozen)
            labels = to_tensor(data.labels[index], device)
            weights = to_tensor(data.weights[index], device, self.dtype)
            loss = update(x, mask, labels, weights, *dropout)
            return {"loss": loss} | schedule.after(number, loss, validate if aside else None, keep)

        best = self._network(config) if aside else None
        kept = _variables(best) if best is not None else {}

        def keep() -> None:
            for name, variable in kept.items():
                variable.assign(named[name])

        logits_of = forward if frozen else self._functions["logits"]

        def validate() -> float:
            assert aside is not None
            inputs = [[to_tensor(a, device) for a in aside.inputs(i)] for i in aside.parts()]
            logits = np.concatenate([to_array(logits_of(*pair)) for pair in inputs])
            return cross_entropy_of(logits, aside.labels, aside.weights)

        history = train(
            step,
            run,
            steps=schedule.steps,
            modules={"network": network} | ({"best": best} if best is not None else {}),
            optimizers=optimizers,
            resumables={
                "streams": streams,
                "batches": batches,
                "schedule": schedule,
                "scale": update.scale,
            },
            fingerprint=fingerprint,
            stop=lambda: schedule.stopped,
        )
        if best is not None:
            for name, variable in kept.items():
                named[name].assign(variable)
            self.best_epoch_ = schedule.best_epoch
        return history

    def _apply(self, output: str, tokens: Tokens) -> list[np.ndarray]:
        function = self._functions[output]

        def one(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return to_array(function(to_tensor(ids, self._device), to_tensor(mask, self._device)))

        return in_batches(tokens, one)

    def _weights(self, arrays: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        every = networks.to_numpy(self.network_)
        if arrays is not None:
            every |= arrays
            networks.from_numpy(self.network_, every)
        return every

    def _encode(self, texts: list[str]) -> np.ndarray:
        return encode(
            texts, self.model, normalize=True, max_length=self.max_length, dtype=self.dtype,
            cache=self.cache, device=self._device,
        )  # fmt: skip

    def _signature(self, config: BertConfig, frozen: bool) -> list[tf.TensorSpec]:
        """Shapes of a step's inputs: with lengths left open, the step is traced once."""
        ints, floats = tf.TensorSpec((None, None), tf.int64), tf.as_dtype(self.dtype)
        wide = tf.TensorSpec((None, None, config.hidden_size), floats)
        attention = tf.TensorSpec((None, config.num_attention_heads, None, None), floats)
        labels, weights = tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None,), floats)
        factors: list[tf.TensorSpec] = []
        if self.dropout and not frozen:
            factors = [wide, *[attention, wide, wide] * config.num_hidden_layers]
        if self.dropout and self.objective != "contrastive":
            factors.append(tf.TensorSpec((None, self.network_.width), floats))
        return [wide if frozen else ints, ints, labels, weights, *factors]

    def _dropout_factors(
        self, shape: Sequence[int], rng: np.random.Generator, frozen: bool
    ) -> list[tf.Tensor]:
        """Draw the factors of one step: the encoder's, unless it is frozen, then the head's."""
        if not self.dropout:
            return []
        network, place = self.network_, (self._device, self.dtype)
        factors = [] if frozen else dropout_masks(
            network.bert.config, (shape[0], shape[1]), self.dropout, rng, *place
        )  # fmt: skip
        if self.objective == "contrastive":
            return factors
        return [*factors, keep_mask((shape[0], network.width), self.dropout, rng, *place)]


def _variables(network: TextNetwork) -> dict[str, tf.Variable]:
    """Canonical name → variable."""
    return {name: variable.value for name, (variable, _) in networks._state(network).items()}
