r"""The simplest method that nothing beats

You compare $M$ methods on the same $n$ draws. They are sorted, the simplest first. Method $j$
*beats* method $i$ if the 95 % interval of the paired differences $d_k = s_{jk} - s_{ik}$ lies
above 0:

$$
\bar d - t_{0.975,\, n-1} \, \frac{\operatorname{sd}(d)}{\sqrt n} > 0 .
$$

You get `scores` of shape `(M, n)` and `t`, the quantile. Return the number of the first method that
no later method beats, shape `()`.

Hint: Take the differences draw by draw before you take their standard deviation, with `ddof=1`.

Check: capstone.simplest_unbeaten
"""

import numpy as np


def simplest_unbeaten(scores, t):
    """Return the first row that no later row beats; (M, n), () -> ()."""
    scores = np.asarray(scores, dtype=float)
    n = scores.shape[1]
    for i in range(len(scores)):
        # --- your code: is there a later method whose paired interval lies above 0?
        d = scores[i + 1 :] - scores[i]
        low = d.mean(1) - t * d.std(1, ddof=1) / np.sqrt(n)
        if not (low > 0).any():
            return np.asarray(i)
        # --- end
    return np.asarray(len(scores) - 1)
