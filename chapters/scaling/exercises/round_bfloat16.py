# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""Round to bfloat16

A bfloat16 has the exponents of a float32 but only eight significant bits. Between $2^e$ and
$2^{e+1}$ its numbers lie $2^{e-7}$ apart.

You get `x` of shape `(n,)` in float32. Return each number rounded to the nearest bfloat16, still in
float32. Do it with arithmetic, without a cast.

Hint: Find $e$ by the logarithm to base 2 of $|x|$. Divide by the step, round to a whole number,
multiply by the step. Zero has no logarithm: put 1 in its place there.

Check: scaling.round_bfloat16
"""

# %% torch
import torch


def round_bfloat16(x):
    """Return x rounded to eight significant bits; (n,) -> (n,)."""
    # --- your code: the exponent of each number, and the step between its neighbours
    size = torch.where(x == 0, 1.0, torch.abs(x))
    step = 2 ** (torch.floor(torch.log2(size)) - 7)
    # --- end
    # --- your code: a whole number of steps
    return torch.round(x / step) * step
    # --- end


# %% tensorflow
import tensorflow as tf


def round_bfloat16(x):
    """Return x rounded to eight significant bits; (n,) -> (n,)."""
    # --- your code: the exponent of each number, and the step between its neighbours
    size = tf.where(x == 0, 1.0, tf.abs(x))
    step = 2 ** (tf.floor(tf.math.log(size) / tf.math.log(2.0)) - 7)
    # --- end
    # --- your code: a whole number of steps
    return tf.round(x / step) * step
    # --- end
