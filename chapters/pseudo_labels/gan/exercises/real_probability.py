# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""Real, of whatever class

The discriminator gives $K$ logits $l_k(x)$; that of the class "generated" is held at 0. With
$Z(x) = \sum_k \exp l_k(x)$ the probability that $x$ is real is

$$
D(x) = \frac{Z(x)}{Z(x) + 1} .
$$

You get `logits` of shape `(n, k)`. Return $D(x_i)$, shape `(n,)`. It must be right for logits of
800, too.

Hint: Divide numerator and denominator by $Z$: what is left is a sigmoid of $\log Z$.

Check: generative.real_probability
"""

# %% torch
import torch


def real_probability(logits):
    """Return D(x); (n, k) -> (n,)."""
    # --- your code: log Z, then D
    log_z = torch.logsumexp(logits, dim=1)
    return torch.sigmoid(log_z)
    # --- end


# %% tensorflow
import tensorflow as tf


def real_probability(logits):
    """Return D(x); (n, k) -> (n,)."""
    # --- your code: log Z, then D
    log_z = tf.reduce_logsumexp(logits, axis=1)
    return tf.sigmoid(log_z)
    # --- end
