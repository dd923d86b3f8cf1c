r"""The sparsity on the way

Gradual pruning raises the sparsity from $s_i$ to $s_f$ over $n$ steps, beginning at the step
$t_0$:

$$
s_t = s_f + (s_i - s_f) \Bigl( 1 - \frac{t - t_0}{n} \Bigr)^3 .
$$

Before $t_0$ it is $s_i$, and after $t_0 + n$ it is $s_f$.

You get the array `t` of step numbers and the numbers `t0`, `n`, `s_i` and `s_f`. Return the
sparsity of each step, an array like `t`.

Hint: Cut the part that is done, $(t - t_0)/n$, to the range from 0 to 1.

Check: compression.cubic_sparsity
"""

import numpy as np


def cubic_sparsity(t, t0, n, s_i, s_f):
    """Return the sparsity of each step; (k,), (), (), (), () -> (k,)."""
    t = np.asarray(t)
    # --- your code: the part that is done, and the cubic
    done = np.clip((t - t0) / n, 0, 1)
    return s_f + (s_i - s_f) * (1 - done) ** 3
    # --- end
