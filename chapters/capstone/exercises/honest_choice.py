r"""Choose on one part, report on another

In each of $n$ draws you have $M$ methods, with a score on validation examples and one on test
examples. You choose the method with the best validation score, draw by draw, and report its mean
test score. Whoever looks for the best *test* score instead reports the luckiest method.

You get `validation` and `test`, both of shape `(M, n)`. Return the mean test score of the chosen
methods, shape `()`. On a tie take the first.

Hint: `validation.argmax(axis=0)` says for each draw which method was chosen.

Check: capstone.honest_choice
"""

import numpy as np


def honest_choice(validation, test):
    """Return the mean test score of what validation chose; (M, n), (M, n) -> ()."""
    validation, test = np.asarray(validation, float), np.asarray(test, float)
    # --- your code: choose in each draw, then look the test scores up
    chosen = validation.argmax(axis=0)
    return test[chosen, np.arange(test.shape[1])].mean()
    # --- end
