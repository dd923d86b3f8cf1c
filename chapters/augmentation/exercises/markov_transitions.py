r"""Fit a Markov chain

The probability of word $b$ after word $a$ is a count over a count,

$$
p(b \mid a) = \frac{n_{ab}}{\sum_{b'} n_{ab'}} ,
$$

where $n_{ab}$ counts how often $b$ follows $a$, and the end of a text counts as a word too.

You get `words` of shape `(n, T)`, a text a row, as numbers from 0 to V - 1 and -1 for padding on
the right, and the number of words `V`. Return the probabilities, shape `(V, V + 1)`; the last
column is the end. Every word occurs.

Hint: After the last word of a text comes the end, number `V`. Count all pairs first, then divide
each row by its sum.

Check: augmentation.markov_transitions
"""

import numpy as np


def markov_transitions(words, V):
    """Return p(b after a); (n, T) numbers, -1 for padding, V words -> (V, V + 1)."""
    words, V = np.asarray(words).astype(int), int(V)
    counts = np.zeros((V, V + 1))
    for row in words:
        text = row[row >= 0]
        # --- your code: count the pairs of this text, the end included
        for a, b in zip(text, [*text[1:], V], strict=True):
            counts[a, b] += 1
        # --- end
    # --- your code: make each row a distribution
    return counts / counts.sum(axis=1, keepdims=True)
    # --- end
