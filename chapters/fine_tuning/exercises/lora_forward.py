r"""A linear layer with a low-rank update

LoRA leaves a pretrained weight matrix $W$ as it is and learns two thin ones beside it, $A$ and $B$.
The layer then gives

$$
x W^\top + \frac{\alpha}{r} \, x A^\top B^\top ,
$$

where $r$ is the rank.

You get `x` of shape `(n, n_in)`, `W` of shape `(n_out, n_in)`, `A` of shape `(r, n_in)`, `B` of
shape `(n_out, r)` and the number `alpha`. Return the layer's output, shape `(n, n_out)`.

Hint: The rank is the number of rows of `A`. Multiply from the left: `x @ A.T` is only `r` wide.

Check: fine_tuning.lora_forward
"""

import numpy as np


def lora_forward(x, W, A, B, alpha):
    """Return the output; (n, n_in), (n_out, n_in), (r, n_in), (n_out, r), () -> (n, n_out)."""
    x, W, A, B = (np.asarray(value) for value in (x, W, A, B))
    # --- your code: what the pretrained layer gives, and the scaled update
    update = x @ A.T @ B.T
    return x @ W.T + alpha / A.shape[0] * update
    # --- end
