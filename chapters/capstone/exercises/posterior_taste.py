r"""The taste of a new user

A user's taste $w$ has the prior $N(m, S)$, and a rating of an item with features $\varphi$ is
$r = \varphi^\top w + \varepsilon$ with $\varepsilon \sim N(0, \sigma^2)$. After $k$ ratings, with
the features as the rows of $\Phi$, the taste is Gaussian again:

$$
S' = \Bigl( S^{-1} + \tfrac{1}{\sigma^2} \Phi^\top \Phi \Bigr)^{-1} , \qquad
m' = m + \tfrac{1}{\sigma^2} S' \Phi^\top (r - \Phi m) .
$$

You get `Phi` of shape `(k, d)`, `r` of shape `(k,)`, `m` of shape `(d,)`, `S` of shape `(d, d)` and
the number `sigma`. Return $m'$, shape `(d,)`.

Hint: The second formula starts from $m$ and corrects it by what the prior did not foresee,
$r - \Phi m$.

Check: capstone.posterior_taste
"""

import numpy as np


def posterior_taste(Phi, r, m, S, sigma):
    """Return the posterior mean; (k, d), (k,), (d,), (d, d), () -> (d,)."""
    Phi, r, m, S = (np.asarray(value, dtype=float) for value in (Phi, r, m, S))
    # --- your code: the covariance after the ratings, then the mean
    covariance = np.linalg.inv(np.linalg.inv(S) + Phi.T @ Phi / sigma**2)
    return m + covariance @ Phi.T @ (r - Phi @ m) / sigma**2
    # --- end
