# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""Leave the own component out

A stochastic encoder turns example $i$ of a batch into a Gaussian $N(\mu_i, \sigma_i^2)$ and draws
$z_i$ from it. The density of the whole population at $z_i$ is estimated by the mixture of the
batch. But $z_i$ lies close to the component that it was drawn from. If you count that one, the
density looks too high, and two equal populations seem far apart.

So leave the own component out when you measure:

$$
\log \hat p(z_i) = \log \frac{1}{n - 1} \sum_{j \ne i} N(z_i;\, \mu_j, \sigma_j^2) .
$$

You get `z`, `mean` and `log_var`, all of shape `(n, d)`. Coordinates are independent. Return `n`
log densities. They must stay finite when the encodings lie far apart.

Then ask yourself what an optimiser would do that may move the encodings to lower such an estimate.
The page shows it: as a loss it has no lower bound.

Hint: The matrix of all $\log N(z_i; \mu_j, \sigma_j^2)$ has shape `(n, n)`. A component that is
left out has density 0, so its log density is $-\infty$: put that on the diagonal. Then `logsumexp`
over each row, and subtract $\log (n - 1)$.

Check: kl.leave_one_out_log_prob
"""

# %% torch
import math

import torch


def leave_one_out_log_prob(z, mean, log_var):
    """Return log p(z_i) under the other components; (n, d) each -> (n,)."""
    n = z.shape[0]
    scaled = (z[:, None] - mean) ** 2 / torch.exp(log_var)  # (n, n, d)
    terms = scaled + log_var + math.log(2 * math.pi)
    log_prob = -0.5 * terms.sum(dim=-1)  # (n, n)
    # --- your code: leave the own components out, average the others' densities
    own = torch.eye(n, dtype=torch.bool)
    log_prob = log_prob.masked_fill(own, -math.inf)
    return torch.logsumexp(log_prob, dim=1) - math.log(n - 1)
    # --- end


# %% tensorflow
import math

import tensorflow as tf


def leave_one_out_log_prob(z, mean, log_var):
    """Return log p(z_i) under the other components; (n, d) each -> (n,)."""
    n = z.shape[0]
    scaled = (z[:, None] - mean) ** 2 / tf.exp(log_var)  # (n, n, d)
    terms = scaled + log_var + math.log(2 * math.pi)
    log_prob = -0.5 * tf.reduce_sum(terms, axis=-1)  # (n, n)
    # --- your code: leave the own components out, average the others' densities
    own = tf.eye(n) == 1
    log_prob = tf.where(own, -math.inf, log_prob)
    return tf.reduce_logsumexp(log_prob, axis=1) - math.log(n - 1)
    # --- end
