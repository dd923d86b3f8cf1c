# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""Loss scaling: undo it, and know when to wait

In float16 small gradients become 0. So the loss was multiplied by `scale` before the gradient was
taken {cite:p}`micikevicius2018mixed`. Sometimes `scale` is too large, and entries overflow to
infinity or NaN.

You get `weights` and the scaled gradient `scaled`, both of shape `(d,)`, and the numbers `scale`
and `lr`. If every entry of the gradient is finite, return the weights after one step of gradient
descent with the *unscaled* gradient. Otherwise return the weights as they were.

Hint: The gradient of the loss is `scaled / scale`. One entry that is not finite spoils the whole
step.

Check: scaling.unscaled_update
"""

# %% torch
import torch


def unscaled_update(weights, scaled, scale, lr):
    """Return the weights after a step, or as they were; (d,), (d,), numbers -> (d,)."""
    # --- your code: leave the step out if anything overflowed, else undo the scale
    if not torch.isfinite(scaled).all():
        return weights
    return weights - lr * scaled / scale
    # --- end


# %% tensorflow
import tensorflow as tf


def unscaled_update(weights, scaled, scale, lr):
    """Return the weights after a step, or as they were; (d,), (d,), numbers -> (d,)."""
    # --- your code: leave the step out if anything overflowed, else undo the scale
    if not tf.reduce_all(tf.math.is_finite(scaled)):
        return weights
    return weights - lr * scaled / scale
    # --- end
