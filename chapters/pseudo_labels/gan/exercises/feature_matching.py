# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""Match the means

Instead of fooling the discriminator, the generator can match what it looks at
{cite:p}`salimans2016gan`: the squared distance between the mean features of real and generated
examples.

You get features `real` of shape `(m, d)` and `made` of shape `(g, d)`. Return one number.

Hint: Two means over the batch, one difference, one sum of squares.

Check: generative.feature_matching
"""

# %% torch
import torch


def feature_matching(real, made):
    """Return the squared distance of the means; (m, d), (g, d) -> ()."""
    # --- your code: means, difference, sum of squares
    difference = torch.mean(real, dim=0) - torch.mean(made, dim=0)
    return (difference**2).sum()
    # --- end


# %% tensorflow
import tensorflow as tf


def feature_matching(real, made):
    """Return the squared distance of the means; (m, d), (g, d) -> ()."""
    # --- your code: means, difference, sum of squares
    difference = tf.reduce_mean(real, axis=0) - tf.reduce_mean(made, axis=0)
    return tf.reduce_sum(difference**2)
    # --- end
