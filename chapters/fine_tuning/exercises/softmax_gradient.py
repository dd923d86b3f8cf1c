r"""The gradient of cross-entropy

Let $z_i$ be the logits of text $i$, $p_i$ their softmax, $y_i$ the one-hot label and $w_i$ the
weight of the text. The loss is

$$
L = \frac{1}{n} \sum_{i=1}^{n} w_i \, \ell_i , \qquad
\ell_i = \log \sum_c e^{z_{ic}} - \sum_c y_{ic} z_{ic} .
$$

You get `logits` and `y` of shape `(n, C)` and `weights` of shape `(n,)`. Return the gradient by the
logits, shape `(n, C)`. No automatic differentiation is needed.

Hint: Differentiate one text by one logit: $\partial L / \partial z_{ic}$. The derivative of
$\log \sum_c e^{z_c}$ is a softmax. Large logits overflow in `exp`: subtract each row's maximum.

Check: fine_tuning.softmax_gradient
"""

import numpy as np


def softmax_gradient(logits, y, weights):
    """Return the gradient by the logits; (n, C), (n, C), (n,) -> (n, C)."""
    logits, y, weights = (np.asarray(value) for value in (logits, y, weights))
    # --- your code: probabilities that do not overflow, then the gradient
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = powers / powers.sum(axis=1, keepdims=True)
    return weights[:, None] * (p - y) / len(y)
    # --- end
