"""Semi-supervised generative adversarial networks in TensorFlow (Salimans et al. 2016).

The discriminator tells K classes and "generated" apart.  Its last logit is held at 0, so K logits
are left: those of a classifier.  The generator's task is to make what the discriminator cannot
tell from unlabelled examples.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import UNLABELLED, check_choice, check_features, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.generative import (
    GenerativeLabeler,
    check_training,
    check_widths,
    final_decay,
    one_hot,
)
from fewshot_course.both.training import describe, hash_arrays
from fewshot_course.data import BatchStream
from fewshot_course.tf import networks, optim
from fewshot_course.tf._training import normal, resolve_device, to_array, to_tensor, train
from fewshot_course.weights import part_of

__all__ = [
    "ConvDiscriminator",
    "ConvGenerator",
    "Discriminator",
    "GANPseudoLabeler",
    "Generator",
    "discriminator_loss",
    "feature_matching_loss",
    "log_partition",
    "plain_generator_loss",
    "real_probability",
]


def log_partition(logits: tf.Tensor) -> tf.Tensor:
    """Logarithm of Z(x) = Σ_k exp l_k(x) of K class logits.

    Args:
        logits: ``(..., K)``.

    Returns:
        ``(...)``.
    """
    return tf.reduce_logsumexp(logits, -1)


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
    return DiscriminatorLoss(_cross_entropy(labelled, labels), 0.5 * (real + fake))


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


class GANPseudoLabeler(GenerativeLabeler):
    """A K+1-class discriminator that learns classes from few labels (Salimans et al. 2016).

    A step makes one batch of samples, lowers ``supervised + weight · unsupervised`` of
    :func:`discriminator_loss` for the discriminator, and then for the generator

        generator_loss + class_weight · CE(logits of G(z, y), y).

    Args:
        network: "mlp" (fully connected) or "conv" (small convolutions, for images).
        latent_dim: size of the generator's noise, ≥ 1.
        hidden: widths of the discriminator's hidden layers; ``None``: (500, 250, 250) for "mlp",
            (32, 64) channels for "conv".
        generator_hidden: the same of the generator; ``None``: (500, 500), or (64, 32) channels.
        generator_loss: "feature_matching" or "plain", see :func:`feature_matching_loss` and
            :func:`plain_generator_loss`.
        class_weight: > 0 makes the generator class-conditional; 0: it knows no class.
        weight: of the unsupervised loss, ≥ 0.
        input_noise: standard deviation of Gaussian noise on the discriminator's input.
        hidden_noise: the same on its hidden layers.
        steps: number of updates of both networks.
        batch_size: labelled examples in a step.
        unlabelled_batch_size: unlabelled, and generated, examples in a step, ≥ 2.
        lr: Adam's learning rate, of both networks; its first decay is 0.5.
        decay: part of the steps, the last, over which the rate falls to 0, in [0, 1].
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the discriminator.
        generator_: the generator.
        classes_: labels, ``(K,)`` int64.
        input_shape_: shape of one example.
        pseudo_labels_: class of each example given to ``fit``, ``(n,)``; known labels as given.
        confidence_: probability of that class, ``(n,)`` in [0, 1]; 1 where the label is known.
        history_: name → array ``(steps,)``: "loss" (of both networks, added up), "supervised",
            "unsupervised", "generator".
    """

    network_: Any  # the networks take a batch and noise, and return tensors
    generator_: Any

    def __init__(
        self,
        network: str = "mlp",
        latent_dim: int = 100,
        hidden: tuple[int, ...] | None = None,
        generator_hidden: tuple[int, ...] | None = None,
        generator_loss: str = "feature_matching",
        class_weight: float = 0.0,
        weight: float = 1.0,
        input_noise: float = 0.3,
        hidden_noise: float = 0.5,
        steps: int = 1000,
        batch_size: int = 50,
        unlabelled_batch_size: int = 100,
        lr: float = 1e-3,
        decay: float = 0.5,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.generator_hidden = generator_hidden
        self.generator_loss = generator_loss
        self.class_weight = class_weight
        self.weight = weight
        self.input_noise = input_noise
        self.hidden_noise = hidden_noise
        self.steps = steps
        self.batch_size = batch_size
        self.unlabelled_batch_size = unlabelled_batch_size
        self.lr = lr
        self.decay = decay
        self.dtype = dtype
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        classes: Any = None,
        device: str = "auto",
        progress: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train discriminator and generator in turns.

        Args:
            X: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
            y: labels ≥ 0, and -1 where unknown, ``(n,)``.
            classes: all the labels there are; the classes found in ``y`` if not given.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for NaN, integer images, no labelled example at all or of a class, a
                single class, no unlabelled example, arrays that do not fit together, or a
                hyper-parameter out of range.
            FloatingPointError: if the loss of one of the networks becomes NaN or infinite.
        """
        flat, y, labels = self._prepare(X, y, classes)
        streams = Streams.from_seed(self.random_state)
        device = resolve_device(device)
        self._build(streams.init, device)
        self.history_ = self._train(
            flat, labels, streams,
            device=device, progress=progress, log_dir=log_dir, checkpoint_dir=checkpoint_dir,
        )  # fmt: skip
        self._note_pseudo_labels(X, y)
        return self

    def _build(self, rng: np.random.Generator, device: str) -> None:
        if self.network == "conv" and len(self.input_shape_) < 2:
            raise ValueError(
                f"network='conv' needs images, got examples of shape {self.input_shape_}."
            )
        default = {"mlp": ((500, 250, 250), (500, 500)), "conv": ((32, 64), (64, 32))}
        hidden, generator_hidden = (
            check_widths(name, given if given is not None else usual)
            for name, given, usual in zip(
                ("hidden", "generator_hidden"),
                (self.hidden, self.generator_hidden),
                default[self.network],
                strict=True,
            )
        )
        discriminator, generator = NETWORKS[self.network]
        self._n_told = len(self.classes_) if self.class_weight else 0

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
                    self._n_told,
                    self.input_shape_,
                    generator_hidden,
                    bounded=len(self.input_shape_) > 1,
                ),
                rng,
            )
        self._device = device

    def _train(
        self, X: np.ndarray, labels: np.ndarray, streams: Streams, *, device: str, **options: Any
    ) -> dict[str, np.ndarray]:
        discriminator, generator = self.network_, self.generator_
        known, n_classes = labels != UNLABELLED, len(self.classes_)
        if known.all():
            raise ValueError("y has no unlabelled example (-1); a GAN needs some.")
        xl, yl = to_tensor(X[known], device, self.dtype), to_tensor(labels[known], device)
        xu = to_tensor(X[~known], device, self.dtype)
        batches = {
            "labelled": BatchStream(len(xl), self.batch_size, streams.batches),
            "unlabelled": BatchStream(len(xu), self.unlabelled_batch_size, streams.batches),
        }
        n_l, n_u = batches["labelled"].batch_size, batches["unlabelled"].batch_size
        betas = (0.5, 0.999)
        parameters_d, parameters_g = (
            discriminator.trainable_variables,
            generator.trainable_variables,
        )
        optimizer_d = optim.adam(parameters_d, lr=self.lr, betas=betas)
        optimizer_g = optim.adam(parameters_g, lr=self.lr, betas=betas)
        classes = np.arange(n_u) % n_classes
        told = to_tensor(classes, device)
        ones = to_tensor(one_hot(classes, n_classes), device, self.dtype) if self._n_told else None

        def noise(n: int) -> list[tf.Tensor]:
            shapes = discriminator.noise_shapes(n)
            return [normal(streams.noise, shape, device, self.dtype) for shape in shapes]

        @tf.function(reduce_retracing=True, autograph=False)
        def update(i: tf.Tensor, j: tf.Tensor, z: tf.Tensor, noises: list[tf.Tensor]) -> Any:
            with tf.GradientTape() as tape_g:
                made = generator(z, ones, training=True)
                with tape_g.stop_recording():
                    with tf.GradientTape() as tape_d:
                        x = tf.concat([tf.gather(xl, i), tf.gather(xu, j), made], 0)
                        _, logits = discriminator(x, noises)
                        ll, lu, lg = tf.split(logits, [n_l, n_u, n_u])
                        parts = discriminator_loss(ll, tf.gather(yl, i), lu, lg)
                        loss_d = parts.supervised + self.weight * parts.unsupervised
                    optimizer_d.apply(tape_d.gradient(loss_d, parameters_d))
                features, logits = discriminator(made)
                if self.generator_loss == "plain":
                    loss_g = plain_generator_loss(logits)
                else:
                    real, _ = discriminator(tf.gather(xu, j))
                    loss_g = feature_matching_loss(real, features)
                if ones is not None:
                    loss_g += self.class_weight * _cross_entropy(logits, told)
            optimizer_g.apply(tape_g.gradient(loss_g, parameters_g))
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
            i = to_tensor(batches["labelled"].next(), device)
            j = to_tensor(batches["unlabelled"].next(), device)
            z = normal(streams.noise, (n_u, self.latent_dim), device, self.dtype)
            return update(i, j, z, noise(n_l + 2 * n_u))

        return train(
            step,
            steps=self.steps,
            modules={"discriminator": discriminator, "generator": generator},
            optimizers={"discriminator_adam": optimizer_d, "generator_adam": optimizer_g},
            resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
            fingerprint={
                "method": type(self).__name__,
                "params": describe(self.get_params(deep=False)),
                "data": hash_arrays(X, labels),
            },
            device=device,
            **options,
        )

    # ------------------------------------------------------------------ what a fitted one can do

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, K)`` given that an example is real."""
        return self._in_blocks(X, tf.nn.softmax)

    def real_probability(self, X: Any) -> np.ndarray:
        """Return D(x), how probably the discriminator takes an example for real, ``(n,)``."""
        return self._in_blocks(X, real_probability)

    def sample(
        self, n: int, y: Any = None, random_state: int | None = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make new examples with their classes.

        Args:
            n: how many.
            y: a class, or one for each, ``(n,)``; ``None``: equally many of each.  A generator
                that was trained with ``class_weight=0`` cannot choose: its samples have the
                class that the discriminator sees in them.
            random_state: seed of the noise.

        Returns:
            Examples ``(n, *input_shape)``, and classes ``(n,)``.

        Raises:
            ValueError: for an unknown class, or any class where the generator knows none.
        """
        check_is_fitted(self, "generator_")
        rng = np.random.default_rng(random_state)
        if not self._n_told and y is not None:
            raise ValueError("y cannot be chosen: with class_weight=0 the generator knows no class")
        index = self._wanted_classes(n, y, rng)
        z = normal(rng, (n, self.latent_dim), self._device, self.dtype)
        ones = to_tensor(one_hot(index, len(self.classes_)), self._device, self.dtype)
        made = to_array(self.generator_(z, ones if self._n_told else None))
        made = made.reshape(n, *self.input_shape_)
        return made, self.classes_[index] if self._n_told else self.predict(made)

    def _in_blocks(self, X: Any, apply: Callable[[tf.Tensor], tf.Tensor]) -> np.ndarray:
        check_is_fitted(self, "generator_")
        X = check_features("X", X, like=self.input_shape_)
        blocks = [X[start : start + 1024] for start in range(0, len(X), 1024)]
        tensors = (to_tensor(block, self._device, self.dtype) for block in blocks)
        return np.concatenate([to_array(apply(self.network_(x)[1])) for x in tensors])

    def _check_parameters(self) -> None:
        check_choice("network", self.network, list(NETWORKS))
        check_choice("generator_loss", self.generator_loss, ["feature_matching", "plain"])
        check_training(self)
        check_number("class_weight", self.class_weight, low=0)
        check_number("weight", self.weight, low=0)
        check_number("input_noise", self.input_noise, low=0)
        check_number("hidden_noise", self.hidden_noise, low=0)
        check_number("decay", self.decay, low=0, high=1)

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        arrays = {"pseudo_labels_": self.pseudo_labels_, "confidence_": self.confidence_}
        for name, module in (("network", self.network_), ("generator", self.generator_)):
            arrays |= {f"{name}.{k}": v for k, v in networks.to_numpy(module).items()}
        return arrays

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.pseudo_labels_, self.confidence_ = arrays["pseudo_labels_"], arrays["confidence_"]
        self._build(np.random.default_rng(0), "cpu")
        networks.from_numpy(self.network_, part_of(arrays, "network"))
        networks.from_numpy(self.generator_, part_of(arrays, "generator"))


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


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
