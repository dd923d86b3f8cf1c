r"""Copies that share the weight of their original

Some texts have many copies, others none. Row $j$ of the extended data comes from original
$o_j$; an original itself is a row too. Nothing is known about a text that has more copies, so each
original shall count as much as any other:

$$
\sum_{j : o_j = i} w_j = 1 \quad \text{for each original } i .
$$

All rows of one original get the same weight. You get `origin` of shape `(N,)`, the numbers $o_j$.
Return the weights, shape `(N,)`.

Hint: Count how many rows each original has, and look the count up for each row. `np.unique` with
`return_inverse` and `return_counts` does both.

Check: augmentation.shared_weights
"""

import numpy as np


def shared_weights(origin):
    """Return a weight for each row; (N,) -> (N,)."""
    origin = np.asarray(origin)
    # --- your code: how many rows has the original of each row?
    _, number, counts = np.unique(origin, return_inverse=True, return_counts=True)
    return 1 / counts[number]
    # --- end
