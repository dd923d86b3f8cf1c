r"""A paired comparison

Two methods $a$ and $b$ were scored on the same $n$ draws.
The 95 % interval of the mean difference is

$$
\bar\delta \pm t \, \frac{s}{\sqrt{n}} , \qquad \delta_i = a_i - b_i , \qquad
s^2 = \frac{1}{n - 1} \sum_{i=1}^{n} (\delta_i - \bar\delta)^2 .
$$

You get `a` and `b` of shape `(n,)`, and the number `t`, the quantile of Student's distribution.
Return mean, lower end and upper end, shape `(3,)`.

Hint: Take the differences first. `np.std` divides by $n$ unless you say `ddof=1`.

Check: small_samples.paired_interval
"""

import numpy as np


def paired_interval(a, b, t):
    """Return (mean, low, high) of a - b; (n,), (n,), () -> (3,)."""
    a, b, t = (np.asarray(value, dtype=float) for value in (a, b, t))
    # --- your code: the differences, their mean and half the width of the interval
    delta = a - b
    mean = delta.mean()
    half = t * delta.std(ddof=1) / np.sqrt(len(delta))
    # --- end
    return np.array([mean, mean - half, mean + half])
