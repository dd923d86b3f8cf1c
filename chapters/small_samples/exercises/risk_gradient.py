r"""The gradient of a regularised risk

Logistic regression with two classes $y_i \in \{-1, 1\}$ minimises

$$
F(w) = \frac{1}{n} \sum_{i=1}^{n} \log\bigl(1 + e^{-y_i w^\top x_i}\bigr)
  + \lambda \lVert w \rVert^2 .
$$

You get `X` of shape `(n, d)`, `y` of shape `(n,)` with entries -1 and 1, `w` of shape `(d,)`
and the number `lam`, which is $\lambda$. Return $\nabla F(w)$, shape `(d,)`.

Hint: The derivative of $\log(1 + e^{-s})$ by $s$ is $-1 / (1 + e^{s})$, and $s_i = y_i w^\top x_i$.

Check: small_samples.risk_gradient
"""

import numpy as np


def risk_gradient(X, y, w, lam):
    """Return the gradient of the risk; (n, d), (n,), (d,), () -> (d,)."""
    X, y, w, lam = (np.asarray(value, dtype=float) for value in (X, y, w, lam))
    # --- your code: the derivative of each loss by its s, then the gradient
    s = y * (X @ w)
    slope = -1 / (1 + np.exp(s))
    return X.T @ (slope * y) / len(X) + 2 * lam * w
    # --- end
