r"""The likelihood of a hidden Markov model

A hidden Markov model gives a text $w_1, \dots, w_T$ the probability

$$
p(w) = \sum_{s_1, \dots, s_T} \pi_{s_1} B_{s_1 w_1} \prod_{t=2}^{T} A_{s_{t-1} s_t} B_{s_t w_t} .
$$

There are $S^T$ paths of states. The forward recursion needs only $T S^2$ products:
$\alpha_1(s) = \pi_s B_{s w_1}$ and $\alpha_t(s) = B_{s w_t} \sum_r \alpha_{t-1}(r) A_{r s}$.

You get `start` $\pi$ of shape `(S,)`, `A` of shape `(S, S)` with rows that sum to 1, `B` of shape
`(S, V)` and the word numbers `words` of shape `(T,)`. Return $\log p(w)$, shape `()`.

Hint: Divide $\alpha_t$ by its sum at each step and add the logarithms of the sums. Without that, a
long text underflows to 0.

Check: augmentation.hmm_log_likelihood
"""

import numpy as np


def hmm_log_likelihood(start, A, B, words):
    """Return log p(words); (S,), (S, S), (S, V), (T,) -> ()."""
    start, A, B = (np.asarray(value, dtype=float) for value in (start, A, B))
    words = np.asarray(words).astype(int)
    alpha, total = start * B[:, words[0]], 0.0
    for t in range(len(words)):
        # --- your code: from the second word on, go one step; then scale and add to the total
        if t > 0:
            alpha = (alpha @ A) * B[:, words[t]]
        total += np.log(alpha.sum())
        alpha = alpha / alpha.sum()
        # --- end
    return np.asarray(total)
