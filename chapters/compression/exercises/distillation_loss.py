r"""The loss of distillation

The student has logits $z$, the teacher $v$. At the temperature $T$ the soft labels are $p =
\operatorname{softmax}(v / T)$, and the student says $q = \operatorname{softmax}(z / T)$. The loss
is the mean over the texts of

$$
\alpha \, T^2 \sum_c p_c \log \frac{p_c}{q_c}
  \; - \; (1 - \alpha) \log \operatorname{softmax}(z)_y .
$$

The last part has no temperature, and it is left out for a text without a label, but the text
still counts in the mean.

You get `student` and `teacher` of shape `(n, C)`, `y` of shape `(n, C)` with the one-hot label of
each text or a row of zeros where it is unknown, and the numbers `T` and `alpha`. Return one
number.

Hint: A row of zeros times anything is 0, so the unknown labels need no special case.

Check: compression.distillation_loss
"""

import numpy as np


def distillation_loss(student, teacher, y, T, alpha):
    """Return the loss; (n, C), (n, C), (n, C), (), () -> ()."""
    student, teacher, y = (np.asarray(value) for value in (student, teacher, y))

    def log_softmax(x):
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    # --- your code: the soft part, the hard part, and the mean of their mix
    log_p, log_q = log_softmax(teacher / T), log_softmax(student / T)
    soft = T**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    hard = -(y * log_softmax(student)).sum(axis=1)
    return (alpha * soft + (1 - alpha) * hard).mean()
    # --- end
