# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""Accumulate gradients: a mean, not a sum

A batch was too large for the memory, so you went through it in $k$ parts. Part $j$ holds $n_j$
examples, and you have the gradient of its *mean* loss.

You get `means` of shape `(k, d)` and `sizes` of shape `(k,)`, the $n_j$. Return the gradient of the
mean loss over the whole batch, shape `(d,)`. The last part is often smaller than the others.

Hint: The mean over the batch is the sum of $n_j / n$ times the mean over part $j$, with
$n = \sum_j n_j$.

Check: scaling.accumulated_gradient
"""

# %% torch
import torch


def accumulated_gradient(means, sizes):
    """Return the gradient of the mean over all examples; (k, d), (k,) -> (d,)."""
    # --- your code: the share of each part, then the weighted sum over the parts
    shares = sizes / torch.sum(sizes)
    return torch.sum(shares[:, None] * means, dim=0)
    # --- end


# %% tensorflow
import tensorflow as tf


def accumulated_gradient(means, sizes):
    """Return the gradient of the mean over all examples; (k, d), (k,) -> (d,)."""
    # --- your code: the share of each part, then the weighted sum over the parts
    shares = sizes / tf.reduce_sum(sizes)
    return tf.reduce_sum(shares[:, None] * means, axis=0)
    # --- end
