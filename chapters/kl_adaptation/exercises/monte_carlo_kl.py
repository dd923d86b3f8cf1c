# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""Estimate a KL divergence from samples

Often there is no closed form. But you can draw samples $x \sim p$ and you know both densities at
them. The plain estimate is the mean of $\log p(x) - \log q(x)$. It has the right mean, but single
terms are often negative, and it varies a lot.

With $r = \log q(x) - \log p(x)$ use the term

$$
e^{r} - 1 - r .
$$

Its mean is the same, because $e^{r} = q(x) / p(x)$ has the mean 1 under $p$. And it is never
negative, because $e^{r} \ge 1 + r$.

You get `log_p` and `log_q`, both of shape `(samples, n)`: each column holds the samples of one pair
of densities. Return `n` estimates.

Hint: The samples come from $p$, so $q$ stands above $p$ in the ratio $e^r$. The function `expm1`
computes $e^r - 1$ without loss for small $r$. Take the mean over axis 0.

Check: kl.monte_carlo_kl
"""

# %% torch
import torch


def monte_carlo_kl(log_p, log_q):
    """Estimate KL(p || q) from samples of p; (samples, n) each -> (n,)."""
    # --- your code: the log ratio r, the term of each sample, and their mean
    r = log_q - log_p
    return (torch.expm1(r) - r).mean(dim=0)
    # --- end


# %% tensorflow
import tensorflow as tf


def monte_carlo_kl(log_p, log_q):
    """Estimate KL(p || q) from samples of p; (samples, n) each -> (n,)."""
    # --- your code: the log ratio r, the term of each sample, and their mean
    r = log_q - log_p
    return tf.reduce_mean(tf.math.expm1(r) - r, axis=0)
    # --- end
