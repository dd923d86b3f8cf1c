# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""The M-step of a variance

The M-step takes the responsibilities $r_{ik}$ as weights. With $N_k = \sum_i r_{ik}$ the means are
$\mu_k = \frac{1}{N_k} \sum_i r_{ik} x_i$, and each coordinate $j$ of a component has the variance

$$
\sigma_{kj}^2 = \frac{1}{N_k} \sum_i r_{ik} (x_{ij} - \mu_{kj})^2 .
$$

You get `x` of shape `(n, d)` and `r` of shape `(n, k)`. Return the variances, shape `(k, d)`.

Hint: Weighted sums over the points are matrix products: the transpose of `r` times `x` has shape
`(k, d)`. Divide by the counts of the components, not by $n$. The differences have shape `(n, k,
d)`.

Check: pseudo_labels.m_step_variances
"""

# %% torch
import torch


def m_step_variances(x, r):
    """Return each component's variances; (n, d), (n, k) -> (k, d)."""
    # --- your code: counts and means of the components
    counts = torch.sum(r, dim=0)
    means = torch.matmul(r.T, x) / counts[:, None]
    # --- end
    # --- your code: the weighted mean of the squared differences
    squares = (x[:, None] - means) ** 2
    return (r[:, :, None] * squares).sum(dim=0) / counts[:, None]
    # --- end


# %% tensorflow
import tensorflow as tf


def m_step_variances(x, r):
    """Return each component's variances; (n, d), (n, k) -> (k, d)."""
    # --- your code: counts and means of the components
    counts = tf.reduce_sum(r, axis=0)
    means = tf.matmul(r, x, transpose_a=True) / counts[:, None]
    # --- end
    # --- your code: the weighted mean of the squared differences
    squares = (x[:, None] - means) ** 2
    return tf.reduce_sum(r[:, :, None] * squares, axis=0) / counts[:, None]
    # --- end
