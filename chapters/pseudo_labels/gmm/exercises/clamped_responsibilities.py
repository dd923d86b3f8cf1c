# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""Labels inside the E-step

Component $k$ belongs to the class `component_class[k]`. A labelled point may belong to the
components of its own class only; an unlabelled point, whose label is $-1$, to all of them.

You get `log_joint` of shape `(n, k)`, which holds $\log \pi_k + \log N(x_i; \mu_k, \Sigma_k)$,
and `y` of shape `(n,)` and `component_class` of shape `(k,)`. Return the responsibilities, shape
`(n, k)`: each row sums to 1, and forbidden components get exactly 0.

Hint: A component that is forbidden has probability 0, so its logarithm is $-\infty$. Put that into
`log_joint` before the softmax. Setting responsibilities to 0 afterwards is right only if you
normalise again.

Check: pseudo_labels.clamped_responsibilities
"""

# %% torch
import math

import torch


def clamped_responsibilities(log_joint, y, component_class):
    """Return p(k | x, label); (n, k), (n,), (k,) -> (n, k)."""
    # --- your code: where may a point not be? then normalise over what is left
    other = (y[:, None] != -1) & (y[:, None] != component_class)
    allowed = log_joint.masked_fill(other, -math.inf)
    return torch.softmax(allowed, dim=1)
    # --- end


# %% tensorflow
import math

import tensorflow as tf


def clamped_responsibilities(log_joint, y, component_class):
    """Return p(k | x, label); (n, k), (n,), (k,) -> (n, k)."""
    # --- your code: where may a point not be? then normalise over what is left
    other = (y[:, None] != -1) & (y[:, None] != component_class)
    allowed = tf.where(other, -math.inf, log_joint)
    return tf.nn.softmax(allowed, axis=1)
    # --- end
