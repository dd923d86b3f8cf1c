"""Variational autoencoders that learn from few labels, in TensorFlow (Kingma et al. 2014).

The generative story of M1 is p(z) p(x|z); a classifier then learns from z.  That of M2 is
p(y) p(z) p(x|y, z), so that a label is a latent variable that you sometimes see.  M1+M2 puts
M2 on top of the codes of M1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import NOT_NEGATIVE, SHARE, checked
from fewshot_course._checks import UNLABELLED
from fewshot_course._streams import Streams
from fewshot_course.both import vae as settings
from fewshot_course.both.generative import check_widths
from fewshot_course.both.training import Run, fingerprint_of
from fewshot_course.data import BatchStream
from fewshot_course.tf import networks, optim
from fewshot_course.tf._training import Networks, cross_entropy, normal, to_tensor, train
from fewshot_course.tf.divergences import gaussian_log_prob

__all__ = [
    "VAE",
    "LabelledMLP",
    "VAEPseudoLabeler",
    "bernoulli_log_prob",
    "elbo",
    "importance_bound",
    "kl_to_prior",
    "m1_loss",
    "m2_loss",
    "sample_codes",
    "unlabelled_bound",
]


@checked
def kl_to_prior(mean: tf.Tensor, log_var: tf.Tensor) -> tf.Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = -½ Σ_j (1 + log σ_j² - μ_j² - σ_j²), summed over dimensions.

    Args:
        mean: μ, ``(..., d)``.
        log_var: log σ², ``(..., d)``.

    Returns:
        ``(...)``, ≥ 0, in nats (Kingma & Welling 2014, appendix B).
    """
    return -0.5 * tf.reduce_sum(1 + log_var - tf.square(mean) - tf.exp(log_var), -1)


@checked
def sample_codes(mean: tf.Tensor, log_var: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Return z = μ + σ·ε, the reparametrised sample of N(μ, σ²).

    Args:
        mean: μ, ``(..., d)``.
        log_var: log σ², ``(..., d)``.
        noise: standard normal ε, ``(samples, ..., d)``.

    Returns:
        ``(samples, ..., d)``.
    """
    return mean + tf.exp(0.5 * log_var) * noise


@checked
def bernoulli_log_prob(x: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Log-probability of independent Bernoulli variables, summed over dimensions.

    x·log s(l) + (1 - x)·log(1 - s(l)) = x·l - log(1 + eˡ), with the sigmoid s.

    Args:
        x: in [0, 1], ``(..., d)``.  Grey values count as probabilities of a white pixel.
        logits: l, ``(..., d)``, unbounded.

    Returns:
        ``(...)``, in nats.
    """
    return tf.reduce_sum(x * logits - tf.math.softplus(logits), -1)


@checked(kl_weight=NOT_NEGATIVE)
def elbo(
    log_px: tf.Tensor, mean: tf.Tensor, log_var: tf.Tensor, kl_weight: float = 1.0
) -> tf.Tensor:
    """Evidence lower bound E_q[log p(x|z)] - KL(q(z|x) ‖ p(z)) ≤ log p(x), per example.

    Args:
        log_px: log p(x|z) of samples z ~ q(z|x), ``(samples, ...)``.
        mean: of q(z|x), ``(..., d)``.
        log_var: of q(z|x), ``(..., d)``.
        kl_weight: of the KL; only 1 gives a bound on log p(x).

    Returns:
        ``(...)``, in nats (Kingma & Welling 2014, equation 7).
    """
    return tf.reduce_mean(log_px, 0) - kl_weight * kl_to_prior(mean, log_var)


@checked
def importance_bound(
    log_px: tf.Tensor, z: tf.Tensor, mean: tf.Tensor, log_var: tf.Tensor
) -> tf.Tensor:
    """Importance-weighted bound log 1/k Σ_s p(x|z_s) p(z_s) / q(z_s|x) (Burda et al. 2016).

    Its mean rises with the number k of samples, from the ELBO (k = 1) towards log p(x).

    Args:
        log_px: log p(x|z_s), ``(k, ...)``.
        z: samples of q(z|x), ``(k, ..., d)``.
        mean: of q(z|x), ``(..., d)``.
        log_var: of q(z|x), ``(..., d)``.

    Returns:
        ``(...)``, in nats.
    """
    nothing = tf.zeros_like(z)
    log_ratio = log_px + gaussian_log_prob(z, nothing, nothing)
    log_ratio = log_ratio - gaussian_log_prob(z, mean, log_var)
    return tf.reduce_logsumexp(log_ratio, 0) - math.log(z.shape[0])


@checked
def unlabelled_bound(bounds: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """M2's bound on log p(x): Σ_y q(y|x) [L(x, y) - log q(y|x)] (Kingma et al. 2014, eq. 7).

    Args:
        bounds: L(x, y), a lower bound on log p(x, y), for every class, ``(..., C)``.
        log_q: log q(y|x), ``(..., C)``, normalised.

    Returns:
        ``(...)``, in nats.  At most log Σ_y exp L(x, y), and equal to it where q(y|x) is
        proportional to exp L(x, y).
    """
    return tf.reduce_sum(tf.exp(log_q) * (bounds - log_q), -1)


class LabelledMLP(keras.Model):
    """A fully connected network of x and, where there are classes, of a label: MLP([x, y]).

    The first layer's product is taken apart, W [x, y] = W_x x + W_y y.  So x with each of C
    labels costs one product with W_x, not C, and nobody writes [x, y] out.

    Args:
        n_inputs: size of x.
        n_classes: C, size of a one-hot y; 0: no label.
        n_outputs: width of the head.
        hidden: widths of the hidden layers, one at least.
    """

    def __init__(
        self, n_inputs: int, n_classes: int, n_outputs: int, hidden: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.n_inputs = n_inputs
        self.net = networks.MLP((n_inputs + n_classes,), n_outputs, hidden)
        self.net.name = "net"
        self.built = True

    def call(self, x: tf.Tensor, y: tf.Tensor | None = None) -> tf.Tensor:
        """Map x ``(..., n, d)`` and one-hot y, which broadcasts to it, to ``(..., n, out)``.

        With y of shape ``(C, 1, C)`` the result has every class: ``(C, n, out)``.
        """
        first, *others = self.net.body
        if y is None:
            hidden = _product(x, first.kernel) + first.bias
        else:
            hidden = _product(x, first.kernel[: self.n_inputs]) + first.bias
            hidden += _product(y, first.kernel[self.n_inputs :])
        # One large matrix product for all classes and samples, not a batch of small ones.
        leading = tf.shape(hidden)[:-1]
        hidden = tf.nn.relu(tf.reshape(hidden, (-1, hidden.shape[-1])))
        for layer in others:
            hidden = layer(hidden)
        out = self.net.head(hidden)
        return tf.reshape(out, tf.concat([leading, [out.shape[-1]]], 0))


def _product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    flat = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel)
    return tf.reshape(flat, tf.concat([tf.shape(x)[:-1], [flat.shape[-1]]], 0))


class VAE(keras.Model):
    """Encoder q(z|x[, y]) and decoder p(x|z[, y]), with p(z) = N(0, I).

    Args:
        n_features: d, size of x.
        latent_dim: size of z.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        decoder: "bernoulli" (x in [0, 1]) or "gaussian" (mean and variance of each feature).
        n_classes: of y; 0: no label.
        noise_bounds: smallest and largest standard deviation of a Gaussian decoder.  Without a
            bound, a feature that hardly varies lets the likelihood grow without end.
    """

    def __init__(
        self,
        n_features: int,
        latent_dim: int,
        hidden: tuple[int, ...],
        decoder: str,
        n_classes: int = 0,
        noise_bounds: tuple[float, float] = (0.1, 2.0),
    ) -> None:
        super().__init__()
        self.kind = decoder
        self.log_var_bounds = [2 * math.log(bound) for bound in noise_bounds]
        outputs = n_features if decoder == "bernoulli" else 2 * n_features
        self.encoder = LabelledMLP(n_features, n_classes, 2 * latent_dim, hidden)
        self.decoder = LabelledMLP(latent_dim, n_classes, outputs, hidden[::-1])
        self.encoder.name, self.decoder.name = "encoder", "decoder"
        self.built = True

    def encode(self, x: tf.Tensor, y: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mean and log-variance of q(z|x, y), each ``(..., n, latent_dim)``."""
        mean, log_var = tf.split(self.encoder(x, y), 2, axis=-1)
        return mean, log_var

    def decode(self, z: tf.Tensor, y: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the parameters of p(x|z, y): logits twice, or mean and log-variance."""
        out = self.decoder(z, y)
        if self.kind == "bernoulli":
            return out, out
        mean, raw = tf.split(out, 2, axis=-1)
        low, high = self.log_var_bounds
        return mean, low + (high - low) * tf.sigmoid(raw)

    def log_likelihood(self, x: tf.Tensor, z: tf.Tensor, y: tf.Tensor | None = None) -> tf.Tensor:
        """Return log p(x|z, y), summed over features; x broadcasts to the shape of z."""
        first, second = self.decode(z, y)
        if self.kind == "bernoulli":
            return bernoulli_log_prob(x, first)
        return gaussian_log_prob(x, first, second)

    def mean_of(self, z: tf.Tensor, y: tf.Tensor | None = None) -> tf.Tensor:
        """Return the mean of p(x|z, y)."""
        first, _ = self.decode(z, y)
        return tf.sigmoid(first) if self.kind == "bernoulli" else first

    def bound(
        self, x: tf.Tensor, noise: tf.Tensor, y: tf.Tensor | None = None, kl_weight: float = 1.0
    ) -> tf.Tensor:
        """Return the ELBO of log p(x|y), ``(..., n)``; noise is ``(samples, ..., n, d)``."""
        mean, log_var = self.encode(x, y)
        z = sample_codes(mean, log_var, noise)
        return elbo(self.log_likelihood(x, z, y), mean, log_var, kl_weight)

    def bounds(
        self, x: tf.Tensor, noise: tf.Tensor, n_classes: int, kl_weight: float = 1.0
    ) -> tf.Tensor:
        """Return the bound on log p(x, y) of every class in one pass, ``(n, C)``.

        The prior p(y) is 1/C.  Noise is ``(samples, C, n, latent_dim)``.
        """
        every = tf.eye(n_classes, dtype=x.dtype)[:, None]
        return tf.transpose(self.bound(x, noise, every, kl_weight)) - math.log(n_classes)


@checked(kl_weight=NOT_NEGATIVE)
def m1_loss(
    vae: VAE, x: tf.Tensor, noise: tf.Tensor, kl_weight: float = 1.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the loss of a step of M1's VAE: minus the mean bound on log p(x).

    Args:
        vae: without a label.
        x: ``(n, d)``.
        noise: standard normal, ``(samples, n, latent_dim)``.
        kl_weight: of the KL, ≥ 0; 1 gives the bound.

    Returns:
        The loss and the mean KL, two scalars in nats.  The loss is bounded below: by 0 with a
        Bernoulli decoder, as long as x lies in [0, 1]; by d · log(σ √(2π)) with a Gaussian one,
        σ being the smaller of its ``noise_bounds``.
    """
    mean, log_var = vae.encode(x)
    log_px = vae.log_likelihood(x, sample_codes(mean, log_var, noise))
    loss = -tf.reduce_mean(elbo(log_px, mean, log_var, kl_weight))
    return loss, tf.reduce_mean(kl_to_prior(mean, log_var))


@checked(share=SHARE, classifier_weight=NOT_NEGATIVE, kl_weight=NOT_NEGATIVE)
def m2_loss(
    vae: VAE,
    classifier: keras.Model,
    labelled: tuple[tf.Tensor, ...],
    unlabelled: tuple[tf.Tensor, ...] | None = None,
    *,
    n_classes: int,
    share: float,
    classifier_weight: float = 1.0,
    kl_weight: float = 1.0,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Return the loss of a step of M2 (Kingma et al. 2014, equation 9), and its parts.

        α · CE(labelled) - s · mean L(x, y) - (1 - s) · mean U(x)

    Args:
        vae: with a label.
        classifier: q(y|x).
        labelled: x ``(n, d)``, class indices ``(n,)``, noise ``(1, n, latent_dim)``.
        unlabelled: x ``(m, d)`` and noise ``(1, C, m, latent_dim)``, or ``None``.
        n_classes: C.
        share: s, the labelled examples' share of all, in [0, 1].
        classifier_weight: α, ≥ 0.
        kl_weight: of the KL in both bounds, ≥ 0.

    Returns:
        A scalar, and its parts by name.  It is bounded below by what bounds :func:`m1_loss`:
        neither L(x, y) nor U(x) exceeds the largest log p(x|z, y) that the decoder can reach,
        for the entropy of q(y|x) is at most the log C that p(y) costs.
    """
    x, y, noise = labelled
    classified = cross_entropy(classifier(x), y)
    ones = tf.one_hot(y, n_classes, dtype=x.dtype)
    bound = tf.reduce_mean(vae.bound(x, noise, ones, kl_weight)) - math.log(n_classes)
    loss = classifier_weight * classified - share * bound
    parts = {"classifier_loss": classified, "labelled_bound": bound}
    if unlabelled is not None:
        x, noise = unlabelled
        bounds = vae.bounds(x, noise, n_classes, kl_weight)
        log_q = tf.nn.log_softmax(classifier(x), axis=1)
        bound = tf.reduce_mean(unlabelled_bound(bounds, log_q))
        loss -= (1 - share) * bound
        parts["unlabelled_bound"] = bound
    return loss, parts


class VAEPseudoLabeler(Networks, settings.VAEPseudoLabeler):
    __doc__ = settings.VAEPseudoLabeler.__doc__
    _networks = ("features", "vae", "classifier")

    def _build(self, rng: np.random.Generator, device: str) -> None:
        n_features, latent = math.prod(self.input_shape_), int(self.latent_dim)
        n_classes, hidden = len(self.classes_), check_widths("hidden", self.hidden)
        first, second = self.model != "m2", self.model != "m1"
        below = latent if first else n_features  # what M2 and the classifier look at
        kind = "gaussian" if first else self._decoder()

        bounds = self.noise_bounds
        self.features_ = self.vae_ = None
        with tf.device(device), networks.layer_dtype(self.dtype):
            if first:
                self.features_ = networks.initialise(
                    VAE(n_features, latent, hidden, self._decoder(), noise_bounds=bounds), rng
                )
            if second:
                self.vae_ = networks.initialise(
                    VAE(below, latent, hidden, kind, n_classes, bounds), rng
                )
            self.classifier_ = networks.initialise(networks.MLP((below,), n_classes, hidden), rng)

    def _learn(
        self, X: np.ndarray, labels: np.ndarray, streams: Streams, run: Run
    ) -> dict[str, np.ndarray]:
        if self.features_ is not None:
            self.feature_history_ = self._learn_features(X, streams, run.stage("features"))
        return self._learn_labels(X, labels, streams, run.stage("labels"))

    def _learn_features(self, X: np.ndarray, streams: Streams, run: Run) -> dict[str, np.ndarray]:
        """Train M1's VAE on all examples, labelled or not."""
        vae = self.features_
        xs = to_tensor(X, run.device, self.dtype)
        batches = {"all": BatchStream(len(xs), self.unlabelled_batch_size, streams.batches)}
        weights = vae.trainable_variables
        optimizer = optim.adam(weights, lr=self.lr)

        @tf.function(reduce_retracing=True, autograph=False)
        def update(i: tf.Tensor, noise: tf.Tensor, kl_weight: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                loss, kl = m1_loss(vae, tf.gather(xs, i), noise, kl_weight)
            optimizer.apply(tape.gradient(loss, weights))
            return {"loss": loss, "kl": kl}

        def step(number: int) -> Mapping[str, tf.Tensor | float]:
            i = to_tensor(batches["all"].next(), run.device)
            noise = normal(streams.noise, (1, len(i), self.latent_dim), run.device, self.dtype)
            weight = self._kl_weight(number, self.feature_steps)
            return {**update(i, noise, tf.constant(weight, self.dtype)), "kl_weight": weight}

        return train(
            step,
            run,
            steps=self.feature_steps,
            modules={"features": vae},
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams, "batches.all": batches["all"]},
            fingerprint=fingerprint_of(self, X, stage="features"),
        )

    def _learn_labels(
        self, X: np.ndarray, labels: np.ndarray, streams: Streams, run: Run
    ) -> dict[str, np.ndarray]:
        """Train the classifier, and M2 along with it."""
        vae, classifier, n_classes = self.vae_, self.classifier_, len(self.classes_)
        known = labels != UNLABELLED
        look = self._lookup(X, run.device)
        places = {
            "labelled": to_tensor(np.flatnonzero(known), run.device),
            "unlabelled": to_tensor(np.flatnonzero(~known), run.device),
        }
        ys = to_tensor(np.where(known, labels, 0), run.device)
        sizes = {"labelled": self.batch_size, "unlabelled": self.unlabelled_batch_size}
        batches = {
            name: BatchStream(len(places[name]), sizes[name], streams.batches)
            for name in (("labelled", "unlabelled") if vae is not None else ("labelled",))
            if len(places[name])
        }
        modules = {"classifier": classifier} | ({"vae": vae} if vae is not None else {})
        share = float(known.mean())
        weights = [w for module in modules.values() for w in module.trainable_variables]
        optimizer = optim.adam(weights, lr=self.lr)

        def draw(name: str) -> tuple[tf.Tensor, ...]:
            i = tf.gather(places[name], to_tensor(batches[name].next(), run.device))
            around = (len(i), self.latent_dim)
            shapes: list[tuple[int, ...]] = [around]
            if vae is not None:
                shapes.append((1, *around) if name == "labelled" else (1, n_classes, *around))
            return (i, *(normal(streams.noise, shape, run.device, self.dtype) for shape in shapes))

        def seen(name: str, drawn: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            i, for_codes, *for_vae = drawn
            truth = (tf.gather(ys, i),) if name == "labelled" else ()
            return (look(i, for_codes), *truth, *for_vae)

        @tf.function(reduce_retracing=True, autograph=False)
        def update(drawn: dict[str, tuple[tf.Tensor, ...]], kl_weight: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                batch = {name: seen(name, part) for name, part in drawn.items()}
                if vae is None:
                    x, y = batch["labelled"]
                    loss = cross_entropy(classifier(x), y)
                    parts = {"classifier_loss": loss}
                else:
                    loss, parts = m2_loss(
                        vae, classifier, batch["labelled"], batch.get("unlabelled"),
                        n_classes=n_classes, share=share,
                        classifier_weight=self.classifier_weight, kl_weight=kl_weight,
                    )  # fmt: skip
            optimizer.apply(tape.gradient(loss, weights))
            return {"loss": loss, **parts}

        def step(number: int) -> Mapping[str, tf.Tensor]:
            drawn = {name: draw(name) for name in batches}
            weight = self._kl_weight(number, self.steps)
            return update(drawn, tf.constant(weight, self.dtype))

        return train(
            step,
            run,
            steps=self.steps,
            modules=modules,
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
            fingerprint=fingerprint_of(self, X, labels, stage="labels"),
        )

    def _lookup(self, X: np.ndarray, device: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """Return what M2 and the classifier see of examples: x itself, or a code of M1."""
        if self.features_ is None:
            xs = to_tensor(X, device, self.dtype)
            return lambda index, noise: tf.gather(xs, index)
        mean, log_var = (
            to_tensor(part, device) for part in np.split(self._apply("moments", X), 2, axis=1)
        )

        def look(index: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
            z = sample_codes(tf.gather(mean, index), tf.gather(log_var, index), noise)
            return tf.ensure_shape(z, (None, self.latent_dim))

        return look

    def _apply(self, output: str, X: np.ndarray, samples: int = 1) -> np.ndarray:
        rng = np.random.default_rng(0)  # the noise of a bound is fixed
        first: VAE = self.vae_ if self.features_ is None else self.features_  # it looks at x

        def means(x: tf.Tensor) -> tf.Tensor:
            z, y = self._codes(x)
            return first.mean_of(z, y)

        def bound(x: tf.Tensor) -> tf.Tensor:
            around, n_classes = (len(x), self.latent_dim), len(self.classes_)
            if self.features_ is not None:
                noise = normal(rng, (samples, *around), self._device, self.dtype)
                return first.bound(x, noise)
            noise = normal(rng, (samples, n_classes, *around), self._device, self.dtype)
            log_q = tf.nn.log_softmax(self.classifier_(x), axis=1)
            return unlabelled_bound(self.vae_.bounds(x, noise, n_classes), log_q)

        def make(codes_and_classes: tf.Tensor) -> tf.Tensor:
            sizes = [int(self.latent_dim), len(self.classes_)]
            z, y = tf.split(codes_and_classes, sizes, axis=1)
            below: tf.Tensor = z if self.vae_ is None else self.vae_.mean_of(z, y)
            return below if self.features_ is None else first.mean_of(below)

        outputs: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
            "probabilities": lambda x: tf.nn.softmax(self._logits(x)),
            "codes": lambda x: self._codes(x)[0],
            "moments": lambda x: tf.concat(self.features_.encode(x), 1),
            "means": means,
            "bound": bound,
            "samples": make,
            "logits_of_codes": self.classifier_,
        }
        return self._in_blocks(outputs[output], X)

    def _logits(self, x: tf.Tensor) -> tf.Tensor:
        below = x if self.features_ is None else self.features_.encode(x)[0]
        logits: tf.Tensor = self.classifier_(below)
        return logits

    def _codes(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the mean codes of the VAE that looks at x, and the one-hot class it is told."""
        if self.features_ is not None:
            return self.features_.encode(x)[0], None
        y = tf.one_hot(tf.argmax(self.classifier_(x), axis=1), len(self.classes_), dtype=x.dtype)
        return self.vae_.encode(x, y)[0], y
