# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""One vector a text: the mean over its tokens

A batch of texts is padded to the longest one. BERT gives a vector for padding too, and it means
nothing.

You get the token `sequence` of shape `(n, L, d)` and a `mask` of shape `(n, L)`, 1 for a token and
0 for padding. Return the mean over the tokens of each text, padding left out, shape `(n, d)`.

Hint: `mask[..., None]` has the shape `(n, L, 1)` and multiplies each vector. Divide by the number
of tokens, not by `L`.

Check: fine_tuning.mean_pool
"""

# %% torch
import torch


def mean_pool(sequence, mask):
    """Return the mean of each text's token vectors; (n, L, d), (n, L) -> (n, d)."""
    weight = torch.as_tensor(mask)[..., None]
    # --- your code: the sum over the tokens, and their number
    total = (sequence * weight).sum(1)
    return total / weight.sum(1)
    # --- end


# %% tensorflow
import tensorflow as tf


def mean_pool(sequence, mask):
    """Return the mean of each text's token vectors; (n, L, d), (n, L) -> (n, d)."""
    weight = tf.convert_to_tensor(mask)[..., None]
    # --- your code: the sum over the tokens, and their number
    total = tf.reduce_sum(sequence * weight, 1)
    return total / tf.reduce_sum(weight, 1)
    # --- end
