# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""What unlabelled examples teach the discriminator

Unlabelled examples $x$ are real, samples $G(z)$ are not. The discriminator lowers

$$
-\frac{1}{2} \Bigl( \operatorname{mean} \log D(x)
  + \operatorname{mean} \log \bigl( 1 - D(G(z)) \bigr) \Bigr) .
$$

You get the $K$ logits of `unlabelled` `(m, k)` and `generated` examples `(g, k)`. Return one
number.

Hint: $\log D = -\log(1 + 1/Z) = -\mathrm{softplus}(-\log Z)$. Find the same for $1 - D$.

Check: generative.unsupervised_loss
"""

# %% torch
import torch


def unsupervised_loss(unlabelled, generated):
    """Return the loss without labels; (m, k), (g, k) -> ()."""
    # --- your code: two means of softplus, and the half
    real = torch.nn.functional.softplus(-torch.logsumexp(unlabelled, dim=1)).mean()
    fake = torch.nn.functional.softplus(torch.logsumexp(generated, dim=1)).mean()
    return 0.5 * (real + fake)
    # --- end


# %% tensorflow
import tensorflow as tf


def unsupervised_loss(unlabelled, generated):
    """Return the loss without labels; (m, k), (g, k) -> ()."""
    # --- your code: two means of softplus, and the half
    real = tf.reduce_mean(tf.math.softplus(-tf.reduce_logsumexp(unlabelled, axis=1)))
    fake = tf.reduce_mean(tf.math.softplus(tf.reduce_logsumexp(generated, axis=1)))
    return 0.5 * (real + fake)
    # --- end
