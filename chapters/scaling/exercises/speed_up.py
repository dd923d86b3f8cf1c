# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""How much faster are k workers?

A step on one worker takes `alone + shared` seconds. With $k$ workers the second part is divided by
$k$; the first is not. As soon as there are two or more, exchanging gradients adds `exchange`
seconds.

You get the three numbers and `workers` of shape `(m,)`, which holds values of $k$. Return the
speed-up for each: the seconds of one worker divided by the seconds of $k$. Without an exchange this
is Amdahl's law {cite:p}`amdahl1967`.

Hint: One worker has nobody to exchange with, so its speed-up is 1.

Check: scaling.speed_up
"""

# %% torch
import torch


def speed_up(alone, shared, exchange, workers):
    """Return how many times faster each number of workers is; numbers, (m,) -> (m,)."""
    # --- your code: the seconds of k workers, with an exchange where k > 1
    extra = torch.where(workers > 1, exchange, 0.0)
    return (alone + shared) / (alone + shared / workers + extra)
    # --- end


# %% tensorflow
import tensorflow as tf


def speed_up(alone, shared, exchange, workers):
    """Return how many times faster each number of workers is; numbers, (m,) -> (m,)."""
    # --- your code: the seconds of k workers, with an exchange where k > 1
    extra = tf.where(workers > 1, exchange, 0.0)
    return (alone + shared) / (alone + shared / workers + extra)
    # --- end
