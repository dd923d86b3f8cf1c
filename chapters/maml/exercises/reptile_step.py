r"""One step of Reptile

Reptile trains on each task for a while, from the common weights $\theta$ to weights $W_i$. Then it
moves $\theta$ a part $\varepsilon$ of the way to their mean:

$$
\theta \leftarrow \theta + \varepsilon \, \frac{1}{T} \sum_{i=1}^{T} (W_i - \theta) .
$$

You get `theta` of shape `(d,)`, `ends` of shape `(T, d)` with one row a task, and `rate`, which is
$\varepsilon$. Return the new weights, shape `(d,)`.

Hint: With a rate of 1 the result is the mean of the rows, with a rate of 0 it is `theta`.

Check: maml.reptile_step
"""

import numpy as np


def reptile_step(theta, ends, rate):
    """Return the moved weights; (d,), (T, d), () -> (d,)."""
    theta, ends = np.asarray(theta), np.asarray(ends)
    # --- your code: the mean way from theta to the ends, and a part of it
    way = np.mean(ends - theta, axis=0)
    return theta + rate * way
    # --- end
