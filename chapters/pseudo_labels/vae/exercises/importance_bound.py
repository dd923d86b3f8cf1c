# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""Several samples, one bound

With samples $z_1, \dots, z_k$ of $q(z \mid x)$ and weights $w_s = p(x \mid z_s) \, p(z_s) / q(z_s
\mid x)$, the importance-weighted bound is $\log \frac{1}{k} \sum_s w_s$.

You get `log_weights` of shape `(k, n)`: $\log w_s$ of $n$ examples. Return the bound, shape `(n,)`.
It must be right for images, where every $w_s$ is 0 in floating point.

Hint: The logarithm of a sum of exponentials has a function of its own in both frameworks.

Check: generative.importance_bound
"""

# %% torch
import torch


def importance_bound(log_weights):
    """Return log of the mean weight; (k, n) -> (n,)."""
    # --- your code: the logarithm of the mean, safely
    k = torch.tensor(float(log_weights.shape[0]))
    return torch.logsumexp(log_weights, dim=0) - torch.log(k)
    # --- end


# %% tensorflow
import tensorflow as tf


def importance_bound(log_weights):
    """Return log of the mean weight; (k, n) -> (n,)."""
    # --- your code: the logarithm of the mean, safely
    k = float(log_weights.shape[0])
    return tf.reduce_logsumexp(log_weights, axis=0) - tf.math.log(k)
    # --- end
