r"""Eight bits and back

Each row of a weight matrix gets its own scale $s = \max_j |w_j| / 127$. The weights become the
whole numbers $q_j = \operatorname{round}(w_j / s)$, between -127 and 127, and stand for $q_j s$.
No weight moves by more than $s / 2$.

You get `weights` of shape `(a, b)`, no row of which is 0. Return what the whole numbers stand
for, shape `(a, b)`.

Hint: The scale has the shape `(a, 1)`, so that it divides each row.

Check: compression.round_to_int8
"""

import numpy as np


def round_to_int8(weights):
    """Return the rounded weights; (a, b) -> (a, b)."""
    weights = np.asarray(weights)
    # --- your code: the scale of each row, whole numbers, and back
    scale = np.abs(weights).max(axis=1, keepdims=True) / 127
    q = np.round(weights / scale)
    return q * scale
    # --- end
