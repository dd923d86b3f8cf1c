"""Three other ways to align domains in TensorFlow, to compare the KL divergence with.

CORAL matches the covariances of the codes (Sun & Saenko 2016, "Deep CORAL"), MMD the means of
their kernel features (Gretton et al. 2012; Long et al. 2015); a domain-adversarial network trains
the encoder against a discriminator of the domains (Ganin et al. 2016).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import checked
from fewshot_course._checks import check_number
from fewshot_course.both import alignment as settings
from fewshot_course.both.alignment import MMD_WIDTHS
from fewshot_course.tf import networks
from fewshot_course.tf.kl_adaptation import AdapterNetworks, Codes

__all__ = [
    "CORALAdapter",
    "DANNAdapter",
    "MMDAdapter",
    "coral_loss",
    "domain_loss",
    "mmd_loss",
    "reverse_gradient",
]


@checked
def coral_loss(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Distance of two covariances, ‖C_S - C_T‖²_F / (4 d²) (Sun & Saenko 2016, eq. 1).

    C is the unbiased covariance, 1/(n - 1) Σ_i (z_i - z̄)(z_i - z̄)ᵀ.  The means do not enter:
    a mere shift of the codes costs nothing.

    Args:
        source: ``(n, d)``, n ≥ 2.
        target: ``(m, d)``, m ≥ 2.

    Returns:
        A scalar, ≥ 0.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: for another shape, fewer than two rows, or two widths.
    """
    _check_codes(source, target)
    difference = _covariance(source) - _covariance(target)
    return tf.reduce_sum(tf.square(difference)) / (4 * source.shape[1] ** 2)


@checked
def mmd_loss(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Squared maximum mean discrepancy of two batches (Gretton et al. 2012, eq. 5).

    mean k(z_S, z_S') - 2 · mean k(z_S, z_T) + mean k(z_T, z_T'), every pair counted, with a mean
    of five Gaussian kernels, exp(-‖a - b‖² / (c · m)) for c in 1/4, 1/2, 1, 2, 4, as deep
    adaptation networks have it (Long et al. 2015); m is the mean squared distance of two codes
    of both batches together, taken as a constant.  Unlike CORAL it sees all of the two
    distributions, and unlike a likelihood ratio it can neither fall below 0 nor exceed 2.

    Args:
        source: ``(n, d)``, n ≥ 2.
        target: ``(m, d)``, m ≥ 2.

    Returns:
        A scalar in [0, 2]; 0 for equal batches.  Two batches of one population have more than 0
        too: about (1/n + 1/m) times the mean of 1 - k.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: for another shape, fewer than two rows, or two widths.
    """
    _check_codes(source, target)
    both = tf.concat([source, target], 0)
    squares = tf.reduce_sum(tf.square(both), 1)
    products = tf.matmul(both, both, transpose_b=True)
    distances = tf.maximum(squares[:, None] + squares - 2 * products, 0)
    # Equal codes have no scale: then the smallest that a width can be divided by.
    least = np.finfo(distances.dtype.as_numpy_dtype).tiny / min(MMD_WIDTHS)
    scale = tf.maximum(tf.stop_gradient(tf.reduce_mean(distances)), least)
    kernels = [tf.exp(-distances / (c * scale)) for c in MMD_WIDTHS]
    kernel, n = tf.reduce_mean(tf.stack(kernels), 0), tf.shape(source)[0]
    return (
        tf.reduce_mean(kernel[:n, :n])
        - 2 * tf.reduce_mean(kernel[:n, n:])
        + tf.reduce_mean(kernel[n:, n:])
    )


@checked
def domain_loss(logits_source: tf.Tensor, logits_target: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy of a domain discriminator (Ganin et al. 2016, section 4.2).

    With D(z) = sigmoid(logit), the probability that z comes from the target:
    -½ [mean log(1 - D(z_S)) + mean log D(z_T)].  Both domains count the same, however many
    examples each has.

    Args:
        logits_source: ``(n,)`` or ``(n, 1)``.
        logits_target: ``(m,)`` or ``(m, 1)``.

    Returns:
        A scalar, > 0; log 2 = 0.693 for a discriminator that knows nothing.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: for another shape or no examples.
    """
    for name, value in (("logits_source", logits_source), ("logits_target", logits_target)):
        _check_tensor(name, value)
        shape = tuple(value.shape)
        if len(shape) not in (1, 2) or shape[0] == 0 or shape[1:] not in ((), (1,)):
            raise ValueError(f"{name} has shape {shape}, expected (n,) or (n, 1) with n ≥ 1.")
    # log(1 - sigmoid(a)) = log sigmoid(-a), without loss of digits for large a.
    return -0.5 * (
        tf.reduce_mean(tf.math.log_sigmoid(-logits_source))
        + tf.reduce_mean(tf.math.log_sigmoid(logits_target))
    )


@checked
def reverse_gradient(x: tf.Tensor, factor: float) -> tf.Tensor:
    """Return ``x``; its gradient is multiplied by ``-factor`` on the way back.

    One minimisation then trains what follows to lower a loss, and what comes before to raise it
    (the gradient reversal layer, Ganin et al. 2016, section 4.2).

    Args:
        x: any floating-point tensor.
        factor: ≥ 0; 0 stops the gradient.

    Raises:
        TypeError: if ``x`` is no tensor, or ``factor`` no number.
        ValueError: if ``factor`` is negative.
    """
    _check_tensor("x", x)
    if not tf.is_tensor(factor):
        check_number("factor", factor, low=0)

    @tf.custom_gradient
    def reverse(value: tf.Tensor) -> Any:
        return tf.identity(value), lambda upstream: -factor * upstream

    return reverse(x)


class CORALAdapter(AdapterNetworks, settings.CORALAdapter):
    __doc__ = settings.CORALAdapter.__doc__

    def _alignment(self, source: Codes, target: Codes, ramp: float) -> tf.Tensor:
        return ramp * self.weight * coral_loss(source.z, target.z)


class MMDAdapter(AdapterNetworks, settings.MMDAdapter):
    __doc__ = settings.MMDAdapter.__doc__

    def _alignment(self, source: Codes, target: Codes, ramp: float) -> tf.Tensor:
        return ramp * self.weight * mmd_loss(source.z, target.z)


class DANNAdapter(AdapterNetworks, settings.DANNAdapter):
    __doc__ = settings.DANNAdapter.__doc__
    _extra: keras.Model  # the discriminator

    def _build_extra(self, rng: np.random.Generator) -> keras.Model:
        discriminator = networks.MLP((self.latent_dim,), 1, (self.discriminator_width,))
        return networks.initialise(discriminator, rng)

    def _alignment(self, source: Codes, target: Codes, ramp: float) -> tf.Tensor:
        factor = ramp * self.weight
        return domain_loss(
            self._extra(reverse_gradient(source.z, factor)),
            self._extra(reverse_gradient(target.z, factor)),
        )


def _check_codes(source: tf.Tensor, target: tf.Tensor) -> None:
    for name, value in (("source", source), ("target", target)):
        _check_tensor(name, value)
        if value.shape.rank != 2 or value.shape[0] in (0, 1):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, expected (n, d) with at least two rows: "
                f"one example has no spread."
            )
    if source.shape[1] != target.shape[1]:
        raise ValueError(
            f"source and target must have one width, got {source.shape[1]} and {target.shape[1]}."
        )


def _check_tensor(name: str, value: Any) -> None:
    if not tf.is_tensor(value):
        raise TypeError(f"{name} must be a tf.Tensor, got {type(value).__name__}.")


def _covariance(z: tf.Tensor) -> tf.Tensor:
    centred = z - tf.reduce_mean(z, 0)
    return tf.matmul(centred, centred, transpose_a=True) / tf.cast(tf.shape(z)[0] - 1, z.dtype)
