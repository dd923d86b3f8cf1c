# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""A label that nobody gave

M2 has a bound $L(x, y) \le \log p(x, y)$ for each class $y$. Without a label it averages over the
classes with the classifier's $q(y \mid x)$:

$$
U(x) = \sum_y q(y \mid x) \, \bigl( L(x, y) - \log q(y \mid x) \bigr) \le \log p(x) .
$$

You get `bounds`, which holds $L(x_i, y)$, and the classifier's `logits`, both of shape `(n, c)`.
Return $U(x_i)$, shape `(n,)`.

Hint: Take the log-softmax of the logits, not the logarithm of the softmax. The second term is the
entropy of $q(y \mid x)$: with two equally likely classes it is worth $\log 2$.

Check: generative.unlabelled_bound
"""

# %% torch
import torch


def unlabelled_bound(bounds, logits):
    """Return the bound without labels; (n, c), (n, c) -> (n,)."""
    # --- your code: log q(y | x), then the average
    log_q = torch.log_softmax(logits, dim=1)
    return (torch.exp(log_q) * (bounds - log_q)).sum(dim=1)
    # --- end


# %% tensorflow
import tensorflow as tf


def unlabelled_bound(bounds, logits):
    """Return the bound without labels; (n, c), (n, c) -> (n,)."""
    # --- your code: log q(y | x), then the average
    log_q = tf.nn.log_softmax(logits, axis=1)
    return tf.reduce_sum(tf.exp(log_q) * (bounds - log_q), axis=1)
    # --- end
