# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""What a code costs

The encoder gives each example a Gaussian $q(z \mid x) = N(\mu, \mathrm{diag}(\sigma^2))$. The bound
pays for it with the divergence from the prior $p(z) = N(0, I)$:

$$
\mathrm{KL}(q \,\|\, p)
  = -\frac{1}{2} \sum_j \bigl( 1 + \log \sigma_j^2 - \mu_j^2 - \sigma_j^2 \bigr) .
$$

You get `mean` and `log_var`, which holds $\log \sigma_j^2$, both of shape `(n, d)`. Return the
divergence of each example, shape `(n,)`.

Hint: Three mistakes are common: to leave $\mu_j^2$ out, to average over the dimensions, and to take
`log_var` for $\log \sigma_j$. Try $\mu = 3$, $\sigma = 1$ in one dimension: the answer is 4.5.

Check: generative.kl_to_prior
"""

# %% torch
import torch


def kl_to_prior(mean, log_var):
    """Return KL(q || N(0, I)); (n, d), (n, d) -> (n,)."""
    # --- your code: the sum over the dimensions
    terms = 1 + log_var - mean**2 - torch.exp(log_var)
    return -0.5 * terms.sum(dim=1)
    # --- end


# %% tensorflow
import tensorflow as tf


def kl_to_prior(mean, log_var):
    """Return KL(q || N(0, I)); (n, d), (n, d) -> (n,)."""
    # --- your code: the sum over the dimensions
    terms = 1 + log_var - mean**2 - tf.exp(log_var)
    return -0.5 * tf.reduce_sum(terms, axis=1)
    # --- end
