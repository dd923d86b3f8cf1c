"""One inner step of a multilayer perceptron, without weights of its own for each task.

A gradient step changes a linear layer by outer products: W' = W - α Σ_i δ_i h_iᵀ and
b' = b - α Σ_i δ_i, where h_i are the layer's inputs on the support set and δ_i the loss gradients
of its outputs.  For the input x of a query that means

    W'x + b' = W x + b - α Σ_i (h_i·x + 1) δ_i

so all tasks share W, and each looks back at the few examples that it has seen (the dual form of a
layer that was trained by gradient descent; Irie et al. 2022).  It is the same function, and far
less work as long as a task has fewer examples than the layer has units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from fewshot_course._arguments import NOT_NEGATIVE, checked

__all__ = ["outputs_after_step"]


@checked(lr=NOT_NEGATIVE)
def outputs_after_step(
    theta: Mapping[str, tf.Tensor],
    X_support: tf.Tensor,
    support_loss: Callable[[tf.Tensor], tf.Tensor],
    X_query: tf.Tensor,
    lr: float,
    first_order: bool = False,
) -> tf.Tensor:
    """Run each task's network on its query set, after one gradient step on its support set.

    Args:
        theta: weights and biases of an MLP with ReLU, layer by layer, without a task axis.
        X_support: ``(T, n, *input_shape)``.
        support_loss: outputs ``(T, n, n_outputs)`` → the sum over tasks of their losses.
        X_query: ``(T, m, *input_shape)``.
        lr: the inner rate α.
        first_order: take the inner gradients as constants (FOMAML).

    Returns:
        ``(T, m, n_outputs)``, to be differentiated with respect to θ.
    """
    values = list(map(tf.convert_to_tensor, theta.values()))
    layers = list(zip(values[::2], values[1::2], strict=True))
    inputs = [_flat(X_support)]
    for weight, bias in layers[:-1]:
        inputs.append(tf.nn.relu(_product(inputs[-1], weight) + bias))
    outputs = _product(inputs[-1], layers[-1][0]) + layers[-1][1]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = support_loss(outputs)
    deltas = [tape.gradient(loss, outputs)]
    for (weight, _), h in zip(layers[:0:-1], inputs[:0:-1], strict=True):
        back = _product(deltas[-1], tf.transpose(weight))
        deltas.append(tf.where(h > 0, back, tf.zeros_like(back)))
    x = _flat(X_query)
    for number, ((weight, bias), h, delta) in enumerate(
        zip(layers, inputs, reversed(deltas), strict=True)
    ):
        if first_order:
            h, delta = tf.stop_gradient(h), tf.stop_gradient(delta)
        seen = tf.matmul(x, h, transpose_b=True) + 1
        x_next = _product(x, weight) + bias - lr * tf.matmul(seen, delta)
        x = tf.nn.relu(x_next) if number + 1 < len(layers) else x_next
    return x


def _flat(X: tf.Tensor) -> tf.Tensor:
    return tf.reshape(X, (X.shape[0], X.shape[1], -1))


def _product(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Multiply ``(T, n, a)`` by shared weights ``(a, b)``, as one matrix product."""
    flat = tf.matmul(tf.reshape(x, (-1, x.shape[2])), weight)
    return tf.reshape(flat, (x.shape[0], x.shape[1], weight.shape[1]))
