r"""The loss of pairs

Contrastive fine-tuning compares two texts. Their features should point the same way if they have
the same label, and be at right angles if not. With $s_{ij}$, the cosine of the angle between the
features of the texts $i$ and $j$, the loss is

$$
\begin{aligned}
L = {} & \tfrac12 \operatorname*{mean}_{i < j,\; y_i = y_j} (1 - s_{ij})^2 \\
  & + \tfrac12 \operatorname*{mean}_{i < j,\; y_i \ne y_j} s_{ij}^2 .
\end{aligned}
$$

You get `features` of shape `(n, d)`, of any length, and `labels` of shape `(n,)`. Both kinds of
pairs occur. Return the loss, a number.

Hint: Divide each row by its length; then all cosines are one matrix product.
`np.triu_indices(n, 1)` gives the pairs $i < j$.

Check: fine_tuning.contrastive_pair_loss
"""

import numpy as np


def contrastive_pair_loss(features, labels):
    """Return the loss over all pairs; (n, d), (n,) -> ()."""
    features, labels = np.asarray(features), np.asarray(labels)
    i, j = np.triu_indices(len(labels), 1)
    # --- your code: directions, the cosine of each pair, the mean over each kind of pair
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = np.sum(directions[i] * directions[j], axis=1)
    same = labels[i] == labels[j]
    return 0.5 * (np.mean((1 - cosine[same]) ** 2) + np.mean(cosine[~same] ** 2))
    # --- end
