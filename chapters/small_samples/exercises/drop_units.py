r"""Leave units out

In training, dropout sets each hidden unit to 0 with probability $p$. To keep the mean of a unit,
the others are multiplied by $1 / (1 - p)$.

You get hidden units `H` of shape `(n, h)`, numbers `u` of the same shape, drawn evenly
from $[0, 1)$, and the number `p`. Leave a unit out where its number is smaller than $p$.
Return what the next layer gets, shape `(n, h)`.

Hint: `u >= p` is a mask of the units that stay.

Check: small_samples.drop_units
"""

import numpy as np


def drop_units(H, u, p):
    """Return the units after dropout; (n, h), (n, h), () -> (n, h)."""
    H, u, p = (np.asarray(value, dtype=float) for value in (H, u, p))
    # --- your code: leave out, and keep the mean
    return H * (u >= p) / (1 - p)
    # --- end
