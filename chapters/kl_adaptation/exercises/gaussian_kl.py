# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""The KL divergence of two Gaussians

An encoder gives every example a Gaussian: a mean $\mu$ and a log-variance $\log \sigma^2$ for each
of $d$ coordinates. The coordinates are independent.

Write the divergence of two such Gaussians in closed form. For one coordinate it is

$$
\mathrm{KL}(p \,\|\, q) = \frac{1}{2} \left( \log \frac{\sigma_q^2}{\sigma_p^2}
  + \frac{\sigma_p^2 + (\mu_p - \mu_q)^2}{\sigma_q^2} - 1 \right).
$$

You get $n$ pairs at once: four inputs of shape `(n, d)`. Return `n` numbers.

Hint: You have logarithms of variances, so $\log (\sigma_q^2 / \sigma_p^2)$ is a difference, and a
variance is `exp(log_var)`. Independent coordinates add up: take the sum over the last axis.

Check: kl.gaussian_kl
"""

# %% torch
import torch


def gaussian_kl(mean_p, log_var_p, mean_q, log_var_q):
    """Return KL(p || q) of diagonal Gaussians; (n, d) each -> (n,)."""
    # --- your code: the ratio of the variances, the scaled distance of the means
    ratio = torch.exp(log_var_p - log_var_q)
    distance = (mean_p - mean_q) ** 2 / torch.exp(log_var_q)
    # --- end
    # --- your code: put them together and add up the coordinates
    terms = log_var_q - log_var_p + ratio + distance - 1
    return 0.5 * terms.sum(dim=-1)
    # --- end


# %% tensorflow
import tensorflow as tf


def gaussian_kl(mean_p, log_var_p, mean_q, log_var_q):
    """Return KL(p || q) of diagonal Gaussians; (n, d) each -> (n,)."""
    # --- your code: the ratio of the variances, the scaled distance of the means
    ratio = tf.exp(log_var_p - log_var_q)
    distance = (mean_p - mean_q) ** 2 / tf.exp(log_var_q)
    # --- end
    # --- your code: put them together and add up the coordinates
    terms = log_var_q - log_var_p + ratio + distance - 1
    return 0.5 * tf.reduce_sum(terms, axis=-1)
    # --- end
