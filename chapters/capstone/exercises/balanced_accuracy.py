r"""When one class is rare

With 95 examples of one class and 5 of another, "always the first" has an accuracy of 95 %. The
*balanced accuracy* is the mean over the classes of the share of each class that was found:

$$
\frac{1}{K} \sum_{c} \frac{\#\{i : y_i = c,\ \hat y_i = c\}}{\#\{i : y_i = c\}} .
$$

You get `y` and `predicted`, whole numbers of shape `(n,)`. The classes are those that occur in `y`.
Return the balanced accuracy, shape `()`.

Hint: A class that was predicted and does not occur in `y` is no class of the sum.

Check: capstone.balanced_accuracy
"""

import numpy as np


def balanced_accuracy(y, predicted):
    """Return the mean share found over the classes of y; (n,), (n,) -> ()."""
    y, predicted = np.asarray(y), np.asarray(predicted)
    # --- your code: the share found of each class, then their mean
    found = [np.mean(predicted[y == c] == c) for c in np.unique(y)]
    return np.mean(found)
    # --- end
