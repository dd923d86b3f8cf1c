r"""Set the smallest weights to 0

Magnitude pruning removes the weights that are nearest to 0. With the sparsity $s$, exactly
$\operatorname{round}(s \cdot n)$ of the $n$ weights of a matrix become 0, and the others stay as
they are.

You get `weights` of shape `(a, b)` and the number `sparsity` between 0 and 1. Return the pruned
weights, shape `(a, b)`.

Hint: Sort the flat array by magnitude, and take the first places of that order.

Check: compression.prune_smallest
"""

import numpy as np


def prune_smallest(weights, sparsity):
    """Return the pruned weights; (a, b), () -> (a, b)."""
    weights = np.asarray(weights)
    # --- your code: which places go, and the weights without them
    n_zeros = round(float(sparsity) * weights.size)
    pruned = weights.ravel().copy()
    pruned[np.argsort(np.abs(pruned))[:n_zeros]] = 0
    return pruned.reshape(weights.shape)
    # --- end
