# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""The loss of a pseudo-label

Lee's self-training takes the network's own class as if it were the label
{cite:p}`lee2013pseudolabel`. Only confident examples count: those whose largest probability is at
least `threshold`. The loss is the sum of their cross-entropies, divided by the number $n$ of
*all* unlabelled examples of the batch, so that a batch with one confident example does not weigh
as much as a full one.

You get `logits` of shape `(n, c)` and the number `threshold`. Return one number.

Hint: If the class with the largest logit is the label, the cross-entropy is minus the largest log
probability of the row. Confidence is the exponential of that.

Check: pseudo_labels.pseudo_label_loss
"""

# %% torch
import torch


def pseudo_label_loss(logits, threshold):
    """Return the loss against the network's own classes; (n, c), number -> ()."""
    log_proba = torch.log_softmax(logits, dim=1)
    # --- your code: the largest log probability of each row, and which rows count
    best = log_proba.amax(dim=1)
    confident = torch.exp(best) >= threshold
    return -(best * confident).sum() / logits.shape[0]
    # --- end


# %% tensorflow
import tensorflow as tf


def pseudo_label_loss(logits, threshold):
    """Return the loss against the network's own classes; (n, c), number -> ()."""
    log_proba = tf.nn.log_softmax(logits, axis=1)
    # --- your code: the largest log probability of each row, and which rows count
    best = tf.reduce_max(log_proba, axis=1)
    confident = tf.cast(tf.exp(best) >= threshold, best.dtype)
    return -tf.reduce_sum(best * confident) / logits.shape[0]
    # --- end
