# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""The E-step

A mixture has weights $\pi_k$ and round Gaussians of variance $\sigma_k^2$ around means $\mu_k$. The
E-step asks of each point how probable each component is:

$$
r_{ik} = \frac{\pi_k \, N(x_i;\, \mu_k, \sigma_k^2 I)}
  {\sum_j \pi_j \, N(x_i;\, \mu_j, \sigma_j^2 I)} .
$$

You get `x` of shape `(n, d)`, `weights` of shape `(k,)`, `means` of shape `(k, d)` and
`variances` of shape `(k,)`. Return the responsibilities, shape `(n, k)`. They must be right for
points that lie far from all means too, where every density is 0 in floating point.

Hint: Work with logarithms. The log density is $-\frac{1}{2} (d \log \sigma_k^2 + |x_i - \mu_k|^2
/ \sigma_k^2)$ plus a constant that cancels. Add $\log \pi_k$, and take the softmax over the
components.

Check: pseudo_labels.responsibilities
"""

# %% torch
import torch


def responsibilities(x, weights, means, variances):
    """Return p(k | x) under round Gaussians; (n, d), (k,), (k, d), (k,) -> (n, k)."""
    distance = ((x[:, None] - means) ** 2).sum(dim=2)  # (n, k)
    # --- your code: log weight + log density of each component, then normalise each row
    d = x.shape[1]
    log_joint = torch.log(weights) - 0.5 * (d * torch.log(variances) + distance / variances)
    return torch.softmax(log_joint, dim=1)
    # --- end


# %% tensorflow
import tensorflow as tf


def responsibilities(x, weights, means, variances):
    """Return p(k | x) under round Gaussians; (n, d), (k,), (k, d), (k,) -> (n, k)."""
    distance = tf.reduce_sum((x[:, None] - means) ** 2, axis=2)  # (n, k)
    # --- your code: log weight + log density of each component, then normalise each row
    d = x.shape[1]
    log_joint = tf.math.log(weights) - 0.5 * (d * tf.math.log(variances) + distance / variances)
    return tf.nn.softmax(log_joint, axis=1)
    # --- end
