r"""The Mahalanobis distance with few vectors

How far is a new vector from a class? The Mahalanobis distance measures in units of the class's own
spread,

$$
D(h) = \sqrt{(h - m)^\top \Sigma^{-1} (h - m)} , \qquad
\Sigma = (1 - \lambda) S + \lambda \mu I ,
$$

where $m$ is the mean of the class's $n$ vectors, $S = \frac{1}{n} \sum_i (x_i - m)(x_i - m)^\top$
their covariance, $\mu = \operatorname{tr}(S) / d$ its mean eigenvalue and $\lambda$ the shrinkage.
With fewer vectors than dimensions $S$ has no inverse, and $\Sigma$ has.

You get the class `X` of shape `(n, d)`, new vectors `H` of shape `(k, d)` and the number `shrink`,
which is $\lambda$. Return the distances, shape `(k,)`.

Hint: `np.linalg.solve(Sigma, D.T)` gives $\Sigma^{-1} (h - m)$ for all new vectors at once.

Check: augmentation.mahalanobis
"""

import numpy as np


def mahalanobis(X, H, shrink):
    """Return the distance of each row of H to the class; (n, d), (k, d), () -> (k,)."""
    X, H, shrink = (np.asarray(value, dtype=float) for value in (X, H, shrink))
    mean = X.mean(axis=0)
    # --- your code: the covariance of the class, and the shrunk one
    S = (X - mean).T @ (X - mean) / len(X)
    size = S.shape[0]
    Sigma = (1 - shrink) * S + shrink * np.trace(S) / size * np.eye(size)
    # --- end
    # --- your code: the distances
    D = H - mean
    return np.sqrt((D * np.linalg.solve(Sigma, D.T).T).sum(axis=1))
    # --- end
