r"""Inner updates that change nothing in place

MAML needs the adapted weights as a *function* of the old ones. So an update takes weights and
returns new ones; it never changes what it got.

Write the inner loop of one task for linear regression. The support loss is the mean of
$(x_j^\top w - y_j)^2$ over $n$ examples. Its gradient is

$$
g(w) = \frac{2}{n} X^\top (X w - y) .
$$

You get `w` of shape `(d,)`, `X` of shape `(n, d)`, `y` of shape `(n,)`, the rate `lr` and a whole
number of `steps`. Return the adapted weights, shape `(d,)`.

Hint: The gradient changes with the weights: compute it anew in each step. Write
`w = w - lr * g`; `w -= lr * g` would change the caller's array.

Check: maml.inner_update
"""

import numpy as np


def inner_update(w, X, y, lr, steps):
    """Return the weights after some gradient steps; (d,), (n, d), (n,) -> (d,)."""
    w, X, y = (np.asarray(value) for value in (w, X, y))
    # --- your code: in each step, the gradient of the mean loss and new weights
    for _ in range(steps):
        gradient = 2 * X.T @ (X @ w - y) / len(y)
        w = w - lr * gradient
    # --- end
    return w
