r"""Labels by attention

A matching network believes each support example's label as much as the query resembles it.
The resemblance is the cosine of two embeddings. The *attention* $a_i$ is the softmax of the
cosines, times a scale $s$, over all support examples:

$$
a_i = \frac{e^{s \cos(z, z_i)}}{\sum_j e^{s \cos(z, z_j)}} , \qquad
P(\text{class } k) = \sum_{i \,:\, y_i = k} a_i .
$$

You get `support` of shape `(n, d)`, their `labels` of shape `(n,)` from 0 to `ways - 1`, `queries`
of shape `(q, d)`, `ways` and `scale`. Return the probabilities, shape `(q, ways)`.

Hint: Divide each vector by its length; then one matrix product gives all cosines, `(q, n)`. With
one-hot labels `(n, ways)` the sums over the classes are a matrix product too.

Check: maml.attention_labels
"""

import numpy as np


def attention_labels(support, labels, queries, ways, scale):
    """Return probabilities; (n, d), (n,), (q, d), (), () -> (q, ways)."""
    support, queries = np.asarray(support), np.asarray(queries)
    one_hot = np.eye(int(ways))[np.asarray(labels, dtype=int)]
    # --- your code: cosines, their softmax over the support examples, sums over classes
    support = support / np.linalg.norm(support, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    weights = np.exp(scale * queries @ support.T)
    attention = weights / np.sum(weights, axis=1, keepdims=True)
    return attention @ one_hot
    # --- end
