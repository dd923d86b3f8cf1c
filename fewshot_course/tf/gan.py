"""Semi-supervised generative adversarial networks in TensorFlow (Salimans et al. 2016).

The discriminator tells K classes and "generated" apart.  Its last logit is held at 0, so K logits
are left: those of a classifier.  The generator's task is to make what the discriminator cannot
tell from unlabelled examples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import NOT_NEGATIVE, checked
from fewshot_course._checks import UNLABELLED
from fewshot_course._streams import Streams
from fewshot_course.both import gan as settings
from fewshot_course.both.generative import final_decay, one_hot
from fewshot_course.both.training import Run, fingerprint_of
from fewshot_course.data import BatchStream
from fewshot_course.tf import networks, optim
from fewshot_course.tf._training import Networks, cross_entropy, normal, to_tensor, train

__all__ = [
    "ConvDiscriminator",
    "ConvGenerator",
    "Discriminator",
    "GANPseudoLabeler",
    "Generator",
    "adversarial_discriminator_loss",
    "adversarial_generator_loss",
    "discriminator_loss",
    "feature_matching_loss",
    "log_partition",
    "plain_generator_loss",
    "real_probability",
]


@checked
def log_partition(logits: tf.Tensor) -> tf.Tensor:
    """Logarithm of Z(x) = Σ_k exp l_k(x) of K class logits.

    Args:
        logits: ``(..., K)``.

    Returns:
        ``(...)``.
    """
    return tf.reduce_logsumexp(logits, -1)


@checked
def real_probability(logits: tf.Tensor) -> tf.Tensor:
    """D(x) = Z(x) / (Z(x) + 1), one minus the probability of class K+1, whose logit is 0.

    Args:
        logits: ``(..., K)``.

    Returns:
        ``(...)`` in (0, 1) (Salimans et al. 2016, section 5).
    """
    return tf.sigmoid(log_partition(logits))


class DiscriminatorLoss(NamedTuple):
    """The two parts of :func:`discriminator_loss`."""

    supervised: tf.Tensor
    unsupervised: tf.Tensor


@checked
def discriminator_loss(
    labelled: tf.Tensor, labels: tf.Tensor, unlabelled: tf.Tensor, generated: tf.Tensor
) -> DiscriminatorLoss:
    """Return the loss of the K+1-class discriminator in two parts.

    Supervised: the mean of -log p(y|x, real), softmax over the K logits.
    Unsupervised: -½ [mean log D(unlabelled) + mean log(1 - D(generated))], with
    log D = log Z - log(1 + Z) and log(1 - D) = -log(1 + Z).

    Args:
        labelled: logits ``(n, K)``.
        labels: class indices ``(n,)`` int64.
        unlabelled: logits ``(m, K)``.
        generated: logits ``(g, K)``.

    Returns:
        Two scalars (Salimans et al. 2016, section 5; the half is that of the authors' code).
    """
    real = tf.reduce_mean(tf.math.softplus(-log_partition(unlabelled)))
    fake = tf.reduce_mean(tf.math.softplus(log_partition(generated)))
    return DiscriminatorLoss(cross_entropy(labelled, labels), 0.5 * (real + fake))


@checked
def feature_matching_loss(real: tf.Tensor, generated: tf.Tensor) -> tf.Tensor:
    """‖mean f(x) - mean f(G(z))‖² for features f of the discriminator.

    Args:
        real: features of unlabelled examples ``(m, d)``.
        generated: features of generated ones ``(g, d)``.

    Returns:
        A scalar (Salimans et al. 2016, section 3.1).
    """
    difference = tf.reduce_mean(real, 0) - tf.reduce_mean(generated, 0)
    return tf.reduce_sum(tf.square(difference))


@checked
def plain_generator_loss(generated: tf.Tensor) -> tf.Tensor:
    """-mean log D(G(z)), the loss of a plain generator (Goodfellow et al. 2014).

    Args:
        generated: logits ``(g, K)``.

    Returns:
        A scalar.
    """
    return tf.reduce_mean(tf.math.softplus(-log_partition(generated)))


def _shaker(noise: Sequence[tf.Tensor]) -> Callable[[tf.Tensor, float], tf.Tensor]:
    """Return what adds the next noise to values; without noise it returns them as they are."""
    left = iter(noise)

    def shake(values: tf.Tensor, scale: float) -> tf.Tensor:
        return values + scale * next(left) if noise and scale else values

    return shake


class Discriminator(keras.Model):
    """A fully connected classifier with Gaussian noise before every layer.

    Args:
        input_shape: shape of one example; it is flattened.
        n_classes: K.
        hidden: widths of the hidden layers.
        input_noise: standard deviation of the noise on x.
        hidden_noise: the same on the hidden layers.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: Sequence[int],
        input_noise: float = 0.3,
        hidden_noise: float = 0.5,
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        self.body = [
            _dense(n_in, n_out, name=f"body.{i}")
            for i, (n_in, n_out) in enumerate(itertools.pairwise(widths))
        ]
        self.head = _dense(widths[-1], n_classes, name="head")
        self.built = True
        self.widths = widths
        self.scales = [input_noise] + [hidden_noise] * len(hidden)

    def noise_shapes(self, n: int) -> list[tuple[int, ...]]:
        """Return the shapes of the noise that n examples need in training."""
        return [(n, w) for w, scale in zip(self.widths, self.scales, strict=True) if scale]

    def call(self, x: tf.Tensor, noise: Sequence[tf.Tensor] = ()) -> tuple[tf.Tensor, tf.Tensor]:
        """Map ``(n, *input_shape)`` to features ``(n, hidden[-1])`` and logits ``(n, K)``.

        Args:
            x: examples.
            noise: standard normal, of the :meth:`noise_shapes`; none at prediction.
        """
        shake = _shaker(noise)
        x = tf.reshape(x, (-1, self.widths[0]))
        for layer, scale in zip(self.body, self.scales, strict=False):
            x = tf.nn.relu(layer(shake(x, scale)))
        return x, self.head(shake(x, self.scales[-1]))


class ConvDiscriminator(keras.Model):
    """A small convolutional classifier: blocks of 3×3 convolution, leaky ReLU, 2×2 mean pooling.

    Without batch norm, which would mix labelled, unlabelled and generated images.

    Args:
        input_shape: ``(h, w)`` or ``(h, w, c)`` of one image.
        n_classes: K.
        hidden: channels of the blocks.
        input_noise: standard deviation of the noise on x.
        hidden_noise: the same on the features.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: Sequence[int],
        input_noise: float = 0.3,
        hidden_noise: float = 0.5,
    ) -> None:
        super().__init__()
        height, width, depth = (*input_shape, 1)[:3]
        self.image_shape = (height, width, depth)
        self.body = []
        for i, channels in enumerate(hidden):
            self.body.append(_conv((height, width, depth), channels, name=f"body.{i}"))
            height, width, depth = max(height // 2, 1), max(width // 2, 1), channels
        self.n_features = height * width * depth
        self.head = _dense(self.n_features, n_classes, name="head")
        self.built = True
        self.scales = [input_noise, hidden_noise]

    def noise_shapes(self, n: int) -> list[tuple[int, ...]]:
        """Return the shapes of the noise that n examples need in training."""
        shapes = [(n, *self.image_shape), (n, self.n_features)]
        return [shape for shape, scale in zip(shapes, self.scales, strict=True) if scale]

    def call(self, x: tf.Tensor, noise: Sequence[tf.Tensor] = ()) -> tuple[tf.Tensor, tf.Tensor]:
        """Map ``(n, *input_shape)`` to flat features and logits ``(n, K)``.

        Args:
            x: images.
            noise: standard normal, of the :meth:`noise_shapes`; none at prediction.
        """
        shake = _shaker(noise)
        x = shake(tf.reshape(x, (-1, *self.image_shape)), self.scales[0])
        for layer in self.body:
            x = layer(x)
            x = tf.maximum(x, 0.2 * x)  # tf.nn.leaky_relu keeps its slope in float32
            if min(x.shape[1:3]) >= 2:
                x = tf.nn.avg_pool2d(x, 2, 2, "VALID")
        features = tf.reshape(x, (-1, self.n_features))
        return features, self.head(shake(features, self.scales[1]))


class Generator(keras.Model):
    """A fully connected generator G(z, y): linear, batch norm and softplus, then a linear layer.

    Args:
        latent_dim: size of the noise z.
        n_classes: size of the one-hot class y; 0: no class.
        output_shape: shape of one example.
        hidden: widths of the hidden layers.
        bounded: whether a sigmoid keeps the output in (0, 1), as images are.
    """

    def __init__(
        self,
        latent_dim: int,
        n_classes: int,
        output_shape: Sequence[int],
        hidden: Sequence[int],
        bounded: bool = True,
    ) -> None:
        super().__init__()
        widths = [latent_dim + n_classes, *hidden]
        self.body = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            self.body.append(_dense(n_in, n_out, name=f"body.{2 * i}", bias=False))
            self.body.append(networks.BatchNorm(n_out, name=f"body.{2 * i + 1}"))
        self.head = _dense(widths[-1], math.prod(output_shape), name="head")
        self.built = True
        self.bounded = bounded

    def call(self, z: tf.Tensor, y: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Map z ``(n, latent_dim)`` and one-hot y ``(n, K)`` to flat examples ``(n, d)``."""
        x = z if y is None else tf.concat([z, y], 1)
        for linear, norm in zip(self.body[::2], self.body[1::2], strict=True):
            x = tf.math.softplus(norm(linear(x), training=training))
        x = self.head(x)
        return tf.sigmoid(x) if self.bounded else x


class ConvGenerator(keras.Model):
    """A small convolutional generator: a linear layer, then twice "double the size, convolve".

    Args:
        latent_dim: size of the noise z.
        n_classes: size of the one-hot class y; 0: no class.
        output_shape: ``(h, w)`` or ``(h, w, c)`` of one image; h and w divisible by 4.
        hidden: channels of the two levels.
        bounded: whether a sigmoid keeps the output in (0, 1).
    """

    def __init__(
        self,
        latent_dim: int,
        n_classes: int,
        output_shape: Sequence[int],
        hidden: Sequence[int],
        bounded: bool = True,
    ) -> None:
        super().__init__()
        height, width, depth = (*output_shape, 1)[:3]
        if height % 4 or width % 4 or len(hidden) != 2:
            raise ValueError(
                f"network='conv' makes images whose sides 4 divides, with two widths; got images "
                f"of {height} x {width} and generator_hidden={tuple(hidden)}."
            )
        wide, narrow = hidden
        self.start = (height // 4, width // 4, wide)
        flat, middle = math.prod(self.start), (height // 2, width // 2, wide)
        self.body = [
            _dense(latent_dim + n_classes, flat, name="body.0", bias=False),
            networks.BatchNorm(flat, name="body.1"),
            _conv(middle, narrow, name="body.2", bias=False),
            networks.BatchNorm(narrow, name="body.3"),
        ]
        self.head = _conv((height, width, narrow), depth, name="head")
        self.built = True
        self.bounded = bounded

    def call(self, z: tf.Tensor, y: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Map z ``(n, latent_dim)`` and one-hot y ``(n, K)`` to flat images ``(n, h·w·c)``."""
        x = z if y is None else tf.concat([z, y], 1)
        linear, first_norm, conv, norm = self.body
        x = tf.nn.relu(first_norm(linear(x), training=training))
        x = _twice(tf.reshape(x, (-1, *self.start)))
        x = _twice(tf.nn.relu(norm(conv(x), training=training)))
        x = self.head(x)
        x = tf.reshape(x, (-1, math.prod(x.shape[1:])))
        return tf.sigmoid(x) if self.bounded else x


NETWORKS: dict[str, tuple[type[keras.Model], type[keras.Model]]] = {
    "mlp": (Discriminator, Generator),
    "conv": (ConvDiscriminator, ConvGenerator),
}


@checked(weight=NOT_NEGATIVE)
def adversarial_discriminator_loss(
    discriminator: keras.Model,
    labelled: tuple[tf.Tensor, ...],
    unlabelled: tf.Tensor,
    made: tf.Tensor,
    noise: Sequence[tf.Tensor],
    weight: float = 1.0,
) -> tuple[tf.Tensor, DiscriminatorLoss]:
    """Return the loss of the discriminator's half of a step, and its two parts.

        supervised + weight · unsupervised, see :func:`discriminator_loss`

    Args:
        discriminator: takes examples and noise, returns features and logits.
        labelled: x ``(n, ...)`` and class indices ``(n,)``.
        unlabelled: x ``(m, ...)``.
        made: what the generator made, ``(g, ...)``; no gradient goes into it.
        noise: of ``discriminator.noise_shapes(n + m + g)``.
        weight: of the unsupervised part, ≥ 0.

    Returns:
        A scalar, and its parts.  All are ≥ 0, whatever the logits.
    """
    x, y = labelled
    sizes = [part.shape[0] for part in (x, unlabelled, made)]
    _, logits = discriminator(tf.concat([x, unlabelled, tf.stop_gradient(made)], 0), noise)
    of_labelled, of_unlabelled, of_made = tf.split(logits, sizes)
    parts = discriminator_loss(of_labelled, y, of_unlabelled, of_made)
    return parts.supervised + weight * parts.unsupervised, parts


@checked(generator_loss=("feature_matching", "plain"), class_weight=NOT_NEGATIVE)
def adversarial_generator_loss(
    discriminator: keras.Model,
    unlabelled: tf.Tensor,
    made: tf.Tensor,
    told: tf.Tensor | None = None,
    generator_loss: str = "feature_matching",
    class_weight: float = 0.0,
) -> tf.Tensor:
    """Return the loss of the generator's half of a step.

        generator_loss + class_weight · CE(logits of G(z, y), y)

    Args:
        discriminator: takes examples, returns features and logits; it stays as it is.
        unlabelled: x ``(m, ...)``.
        made: what the generator made, ``(g, ...)``.
        told: the classes it was told, ``(g,)``, or ``None``.
        generator_loss: "feature_matching" or "plain".
        class_weight: of the cross-entropy, ≥ 0.

    Returns:
        A scalar, ≥ 0, whatever the features and logits.
    """
    features, logits = discriminator(made)
    if generator_loss == "plain":
        loss = plain_generator_loss(logits)
    else:
        loss = feature_matching_loss(discriminator(unlabelled)[0], features)
    if told is not None:
        loss += class_weight * cross_entropy(logits, told)
    return loss


class GANPseudoLabeler(Networks, settings.GANPseudoLabeler):
    __doc__ = settings.GANPseudoLabeler.__doc__
    _networks = ("network", "generator")

    def _build(self, rng: np.random.Generator, device: str) -> None:
        if self.network == "conv" and len(self.input_shape_) < 2:
            raise ValueError(
                f"network='conv' needs images, got examples of shape {self.input_shape_}."
            )
        hidden, generator_hidden = self._widths()
        discriminator, generator = NETWORKS[self.network]
        n_told = len(self.classes_) if self.class_weight else 0

        with tf.device(device), networks.layer_dtype(self.dtype):
            self.network_ = networks.initialise(
                discriminator(
                    self.input_shape_,
                    len(self.classes_),
                    hidden,
                    self.input_noise,
                    self.hidden_noise,
                ),
                rng,
            )
            self.generator_ = networks.initialise(
                generator(
                    int(self.latent_dim),
                    n_told,
                    self.input_shape_,
                    generator_hidden,
                    bounded=len(self.input_shape_) > 1,
                ),
                rng,
            )

    def _learn(
        self, X: np.ndarray, labels: np.ndarray, streams: Streams, run: Run
    ) -> dict[str, np.ndarray]:
        discriminator, generator = self.network_, self.generator_
        known, n_classes = labels != UNLABELLED, len(self.classes_)
        xl, yl = to_tensor(X[known], run.device, self.dtype), to_tensor(labels[known], run.device)
        xu = to_tensor(X[~known], run.device, self.dtype)
        batches = {
            "labelled": BatchStream(len(xl), self.batch_size, streams.batches),
            "unlabelled": BatchStream(len(xu), self.unlabelled_batch_size, streams.batches),
        }
        n_l, n_u = batches["labelled"].batch_size, batches["unlabelled"].batch_size
        betas = (0.5, 0.999)
        told = ones = None
        if self.class_weight:
            classes = np.arange(n_u) % n_classes
            told = to_tensor(classes, run.device)
            ones = to_tensor(one_hot(classes, n_classes), run.device, self.dtype)

        def draw() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            i, j = (to_tensor(b.next(), run.device) for b in batches.values())
            z = normal(streams.noise, (n_u, self.latent_dim), run.device, self.dtype)
            shapes = discriminator.noise_shapes(n_l + 2 * n_u)
            return i, j, z, [normal(streams.noise, s, run.device, self.dtype) for s in shapes]

        weights_d, weights_g = discriminator.trainable_variables, generator.trainable_variables
        optimizer_d = optim.adam(weights_d, lr=self.lr, betas=betas)
        optimizer_g = optim.adam(weights_g, lr=self.lr, betas=betas)

        @tf.function(reduce_retracing=True, autograph=False)
        def update(i: tf.Tensor, j: tf.Tensor, z: tf.Tensor, noise: list[tf.Tensor]) -> Any:
            labelled, unlabelled = (tf.gather(xl, i), tf.gather(yl, i)), tf.gather(xu, j)
            with tf.GradientTape() as tape_g:
                made = generator(z, ones, training=True)
                with tape_g.stop_recording():
                    with tf.GradientTape() as tape_d:
                        loss_d, parts = adversarial_discriminator_loss(
                            discriminator, labelled, unlabelled, made, noise, self.weight
                        )
                    optimizer_d.apply(tape_d.gradient(loss_d, weights_d))
                loss_g = adversarial_generator_loss(
                    discriminator, unlabelled, made, told, self.generator_loss, self.class_weight
                )
            optimizer_g.apply(tape_g.gradient(loss_g, weights_g))
            return {
                "loss": loss_d + loss_g,
                "supervised": parts.supervised,
                "unsupervised": parts.unsupervised,
                "generator": loss_g,
            }

        def step(number: int) -> Mapping[str, tf.Tensor]:
            rate = self.lr * final_decay(number, self.steps, self.decay)
            optim.set_learning_rate(optimizer_d, rate)
            optim.set_learning_rate(optimizer_g, rate)
            return update(*draw())

        return train(
            step,
            run,
            steps=self.steps,
            modules={"discriminator": discriminator, "generator": generator},
            optimizers={"discriminator_adam": optimizer_d, "generator_adam": optimizer_g},
            resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
            fingerprint=fingerprint_of(self, X, labels),
        )

    def _apply(self, output: str, X: np.ndarray) -> np.ndarray:
        outputs: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
            "probabilities": lambda x: tf.nn.softmax(self.network_(x)[1]),
            "real": lambda x: real_probability(self.network_(x)[1]),
            "samples": self.generator_,  # it reads [z, y] side by side
        }
        return self._in_blocks(outputs[output], X)


def _dense(n_in: int, n_out: int, name: str, bias: bool = True) -> keras.layers.Dense:
    layer = keras.layers.Dense(n_out, use_bias=bias, name=name)
    layer.build((None, n_in))
    return layer


def _conv(
    shape: tuple[int, int, int], channels: int, name: str, bias: bool = True
) -> keras.layers.Conv2D:
    layer = keras.layers.Conv2D(channels, 3, padding="same", use_bias=bias, name=name)
    layer.build((None, *shape))
    return layer


def _twice(x: tf.Tensor) -> tf.Tensor:
    """Double height and width by repeating pixels."""
    return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
