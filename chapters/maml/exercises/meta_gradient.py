# ruff: noqa: E402, F811  (one file, two frameworks: see book/_ext/exercise_files.py)
r"""The gradient through a gradient

Let automatic differentiation compute MAML's gradient for one task of linear regression. The inner
step is

$$
w' = w - \alpha \nabla L_S(w), \qquad L_S(w) = \frac{1}{n} \sum_j (x_j^\top w - y_j)^2 ,
$$

and you want $\nabla_w L_Q(w')$, with the same loss on the query set.

You get `w` of shape `(d,)`, the support set `X_support` `(n, d)` and `y_support` `(n,)`, the query
set `X_query` and `y_query`, and the rate `lr`. Return the meta-gradient, shape `(d,)`.

Hint: The inner gradient must stay part of the graph. In PyTorch ask for it with
`create_graph=True`. In TensorFlow the outer tape must be open while the inner one computes its
gradient.

Check: maml.meta_gradient
"""

# %% torch
import torch


def meta_gradient(w, X_support, y_support, X_query, y_query, lr):
    """Return the gradient of the query loss after one inner step, by the old weights; -> (d,)."""

    def loss(w, X, y):
        return ((X @ w - y) ** 2).mean()

    w = w.clone().requires_grad_(True)
    # --- your code: the inner gradient, the adapted weights, the outer gradient
    (inner,) = torch.autograd.grad(loss(w, X_support, y_support), w, create_graph=True)
    adapted = w - lr * inner
    (outer,) = torch.autograd.grad(loss(adapted, X_query, y_query), w)
    return outer
    # --- end


# %% tensorflow
import tensorflow as tf


def meta_gradient(w, X_support, y_support, X_query, y_query, lr):
    """Return the gradient of the query loss after one inner step, by the old weights; -> (d,)."""

    def loss(w, X, y):
        return tf.reduce_mean((tf.linalg.matvec(X, w) - y) ** 2)

    # --- your code: two tapes; the inner gradient, the adapted weights, the outer gradient
    with tf.GradientTape() as outer_tape:
        outer_tape.watch(w)
        with tf.GradientTape() as inner_tape:
            inner_tape.watch(w)
            support_loss = loss(w, X_support, y_support)
        adapted = w - lr * inner_tape.gradient(support_loss, w)
        query_loss = loss(adapted, X_query, y_query)
    return outer_tape.gradient(query_loss, w)
    # --- end
