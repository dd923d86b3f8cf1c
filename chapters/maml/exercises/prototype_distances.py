r"""Distances to prototypes

A prototypical network embeds all examples. The *prototype* of a class is the mean of its support
embeddings. A query belongs to the class whose prototype is nearest, by squared Euclidean distance.

You get `support` of shape `(ways, shots, d)` and `queries` of shape `(q, d)`. Return the squared
distances, shape `(q, ways)`.

Hint: The mean over the shots gives `(ways, d)`. With `queries[:, None]` of shape `(q, 1, d)` the
difference has shape `(q, ways, d)`. Square, and sum over the last axis.

Check: maml.prototype_distances
"""

import numpy as np


def prototype_distances(support, queries):
    """Return squared distances; (ways, shots, d), (q, d) -> (q, ways)."""
    support, queries = np.asarray(support), np.asarray(queries)
    # --- your code: the prototypes, all differences, squared lengths
    prototypes = np.mean(support, axis=1)
    differences = queries[:, None] - prototypes
    return np.sum(differences**2, axis=2)
    # --- end
