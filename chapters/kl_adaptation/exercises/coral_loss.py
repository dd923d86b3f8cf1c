# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""The CORAL loss, with its right scale

CORAL aligns two domains by the covariances of their features {cite:p}`sun2016coral`. With the
covariances $C_S$ and $C_T$ of the source and target batch and $d$ features, the loss is

$$
\frac{1}{4 d^2} \, \lVert C_S - C_T \rVert_F^2 ,
$$

where $\lVert A \rVert_F^2$ is the sum of all squared entries. Covariances are unbiased: they divide
by the number of rows minus one. Mind the scale: a loss that is four times too large trains as
well, only with another weight than you think.

You get `source` of shape `(n, d)` and `target` of shape `(m, d)`. Return one number.

Hint: Subtract each batch's own mean first. If `centred` has shape `(n, d)`, the covariance is the
transpose of `centred` times `centred`, divided by `n - 1`.

Check: kl.coral_loss
"""

# %% torch
import torch


def covariance(x):
    """Return the unbiased covariance of rows; (n, d) -> (d, d)."""
    # --- your code: centre the rows, multiply, divide
    centred = x - x.mean(dim=0)
    return torch.matmul(centred.T, centred) / (x.shape[0] - 1)
    # --- end


def coral_loss(source, target):
    """Return the CORAL loss of two batches; (n, d), (m, d) -> ()."""
    # --- your code: the squared Frobenius norm of the difference, scaled
    gap = covariance(source) - covariance(target)
    return (gap**2).sum() / (4 * source.shape[1] ** 2)
    # --- end


# %% tensorflow
import tensorflow as tf


def covariance(x):
    """Return the unbiased covariance of rows; (n, d) -> (d, d)."""
    # --- your code: centre the rows, multiply, divide
    centred = x - tf.reduce_mean(x, axis=0)
    return tf.matmul(centred, centred, transpose_a=True) / (x.shape[0] - 1)
    # --- end


def coral_loss(source, target):
    """Return the CORAL loss of two batches; (n, d), (m, d) -> ()."""
    # --- your code: the squared Frobenius norm of the difference, scaled
    gap = covariance(source) - covariance(target)
    return tf.reduce_sum(gap**2) / (4 * source.shape[1] ** 2)
    # --- end
