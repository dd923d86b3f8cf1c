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

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot_course._arguments import NOT_NEGATIVE, checked

__all__ = ["outputs_after_step"]


@checked(lr=NOT_NEGATIVE)
def outputs_after_step(
    theta: Mapping[str, Tensor],
    X_support: Tensor,
    support_loss: Callable[[Tensor], Tensor],
    X_query: Tensor,
    lr: float,
    first_order: bool = False,
) -> Tensor:
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
    values = list(theta.values())
    layers = list(zip(values[::2], values[1::2], strict=True))
    inputs = [X_support.flatten(2)]
    for weight, bias in layers[:-1]:
        inputs.append(F.relu(F.linear(inputs[-1], weight, bias)))
    outputs = F.linear(inputs[-1], *layers[-1])
    (delta,) = torch.autograd.grad(support_loss(outputs), outputs, create_graph=True)
    deltas = [delta]
    for (weight, _), h in zip(layers[:0:-1], inputs[:0:-1], strict=True):
        deltas.append(torch.where(h > 0, deltas[-1] @ weight, 0.0))
    x = X_query.flatten(2)
    for number, ((weight, bias), h, delta) in enumerate(
        zip(layers, inputs, reversed(deltas), strict=True)
    ):
        if first_order:
            h, delta = h.detach(), delta.detach()
        seen = torch.bmm(x, h.transpose(1, 2)) + 1
        x_next = torch.baddbmm(F.linear(x, weight, bias), seen, delta, alpha=-lr)
        x = F.relu(x_next) if number + 1 < len(layers) else x_next
    return x
