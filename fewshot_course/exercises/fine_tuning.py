"""Exercises of the topic "Fine-tuning a small language model"."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from scipy.special import softmax

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(40)


def _draw(*shape: int) -> Array:
    return np.round(_RNG.normal(0, 1, shape), 2)


# --- softmax_gradient ------------------------------------------------------------------------


def _gradient_by_complex_step(logits: Array, y: Array, weights: Array) -> Array:
    """Im L(z + ih) / h is the derivative without a difference that rounds (Squire & Trapp 1998)."""
    gradient = np.empty(logits.shape)
    for place in np.ndindex(*logits.shape):
        z = logits.astype(complex)
        z[place] += 1e-20j
        shift = z.real.max(1, keepdims=True)
        log_sum = np.log(np.exp(z - shift).sum(1)) + shift[:, 0]
        loss = (weights * (log_sum - (y * z).sum(1))).mean()
        gradient[place] = loss.imag / 1e-20
    return gradient


def _weighted(logits: Array, y: Array, weights: Array) -> Array:
    return weights[:, None] * (softmax(logits, axis=1) - y)


def _labelled(n: int, classes: int) -> dict[str, Array]:
    return {"logits": _draw(n, classes), "y": np.eye(classes)[np.arange(n) % classes]}


SOFTMAX_GRADIENT = Exercise(
    name="fine_tuning.softmax_gradient",
    oracle=_gradient_by_complex_step,
    cases=(
        Case(
            "one text, two classes, equal logits",
            {"logits": np.zeros((1, 2)), "y": np.array([[1.0, 0.0]]), "weights": np.ones(1)},
            hint="p is (1/2, 1/2) and y is (1, 0), so the gradient is (-1/2, 1/2).",
        ),
        Case(
            "four texts, three classes, all weights 1",
            {**_labelled(4, 3), "weights": np.ones(4)},
            hint="The loss is a mean over the texts: divide by n.",
        ),
        Case(
            "weights 2, 1 and 0.5",
            {**_labelled(3, 3), "weights": np.array([2.0, 1.0, 0.5])},
            hint="Each text's row is multiplied by its weight, then divided by n.",
        ),
        Case(
            "logits of 1000",
            {
                "logits": np.array([[1000.0, 998.0], [-1000.0, 1000.0]]),
                "y": np.eye(2),
                "weights": np.ones(2),
            },
            hint="exp(1000) overflows. Subtract each row's largest logit first: p is the same.",
        ),
    ),
    hint="weights[:, None] * (p - y) / n, with p the softmax over the classes, axis 1.",
    mistakes=(
        Mistake(
            "The sign is wrong: you returned y - p. Descent must raise the right class's logit, "
            "so its gradient is negative.",
            lambda **a: -_weighted(**a) / len(a["y"]),
        ),
        Mistake(
            "This is the gradient of the sum over the texts. The loss is their mean: divide by n.",
            lambda **a: _weighted(**a),
        ),
        Mistake(
            "The weights are missing: each text's row must be multiplied by its weight.",
            lambda logits, y, weights: (softmax(logits, axis=1) - y) / len(y),
        ),
        Mistake(
            "You divided by the sum of the weights, as torch's cross_entropy does. Here the mean "
            "is over n.",
            lambda **a: _weighted(**a) / a["weights"].sum(),
        ),
        Mistake(
            "The softmax went over the texts. It must go over the classes, axis 1.",
            lambda logits, y, weights: weights[:, None] * (softmax(logits, axis=0) - y) / len(y),
        ),
    ),
)


# --- mean_pool -------------------------------------------------------------------------------


def _mean_by_loop(sequence: Array, mask: Array) -> Array:
    """Cut each text's padding off, then take the mean of what is left."""
    pairs = zip(sequence, mask, strict=True)
    return np.array([vectors[keep == 1].mean(0) for vectors, keep in pairs])


def _padded(lengths: list[int], d: int) -> dict[str, Array]:
    mask = np.array([[1.0] * n + [0.0] * (max(lengths) - n) for n in lengths])
    return {"sequence": _draw(*mask.shape, d), "mask": mask}


MEAN_POOL = Exercise(
    name="fine_tuning.mean_pool",
    oracle=_mean_by_loop,
    cases=(
        Case(
            "one text of two tokens",
            {"sequence": np.array([[[1.0, 0.0], [3.0, 4.0]]]), "mask": np.ones((1, 2))},
            hint="The mean of (1, 0) and (3, 4) is (2, 2).",
        ),
        Case(
            "one token and two of padding",
            {
                "sequence": np.array([[[1.0, 2.0], [9.0, 9.0], [9.0, 9.0]]]),
                "mask": np.array([[1.0, 0.0, 0.0]]),
            },
            hint="Only the first token counts, in the sum and in what you divide by.",
        ),
        Case("three texts of different length", _padded([4, 2, 1], 3)),
        Case("as many tokens as features", _padded([3, 2], 3)),
    ),
    hint="Multiply by mask[..., None], sum over axis 1, divide by the mask's own sum.",
    mistakes=(
        Mistake(
            "Padding is counted: this is the mean over all positions. A text's vector would "
            "depend on the others in its batch.",
            lambda sequence, mask: sequence.mean(1),
        ),
        Mistake(
            "The sum leaves padding out, but you divide by the padded length. Divide by the "
            "number of tokens, mask.sum(1).",
            lambda sequence, mask: (sequence * mask[..., None]).mean(1),
        ),
        Mistake(
            "This is the sum over the tokens. Divide by their number.",
            lambda sequence, mask: (sequence * mask[..., None]).sum(1),
        ),
        Mistake(
            "This is the vector of the first token. Take the mean over all tokens.",
            lambda sequence, mask: sequence[:, 0],
        ),
    ),
)


# --- lora_forward ----------------------------------------------------------------------------


def _merged(x: Array, W: Array, A: Array, B: Array, alpha: float) -> Array:
    """Add the update to the weight matrix first."""
    return np.einsum("ni,oi->no", x, W + alpha / A.shape[0] * np.einsum("or,ri->oi", B, A))


def _layer(n: int, wide: int, out: int, rank: int, alpha: float) -> dict[str, Array | float]:
    shapes = {"x": (n, wide), "W": (out, wide), "A": (rank, wide), "B": (out, rank)}
    return {name: _draw(*shape) for name, shape in shapes.items()} | {"alpha": alpha}


def _with_scale(scale: Callable[[float, int], float]) -> Callable[..., Array]:
    return lambda x, W, A, B, alpha: x @ W.T + scale(alpha, len(A)) * (x @ A.T @ B.T)


LORA_FORWARD = Exercise(
    name="fine_tuning.lora_forward",
    oracle=_merged,
    cases=(
        Case(
            "B is 0: the pretrained layer",
            {**_layer(2, 3, 2, 2, 4.0), "B": np.zeros((2, 2))},
            hint="With B = 0 the update is 0, and x W^T is left.",
        ),
        Case(
            "rank 1, alpha 1",
            {
                "x": np.array([[1.0, 2.0]]),
                "W": np.eye(2),
                "A": np.array([[1.0, 1.0]]),
                "B": np.array([[1.0], [0.0]]),
                "alpha": 1.0,
            },
            hint="x A^T is 3, times B^T gives (3, 0), and x W^T is (1, 2): together (4, 2).",
        ),
        Case("rank 2, alpha 8", _layer(3, 4, 3, 2, 8.0), hint="The scale is alpha / r."),
        Case("as many outputs as inputs", _layer(2, 3, 3, 2, 16.0)),
    ),
    hint="x @ W.T + alpha / r * (x @ A.T) @ B.T, where r is the number of rows of A.",
    mistakes=(
        Mistake(
            "You scaled by alpha alone. Divide by the rank r, the number of rows of A.",
            _with_scale(lambda alpha, rank: alpha),
        ),
        Mistake(
            "The scale alpha / r of the update is missing.", _with_scale(lambda alpha, rank: 1.0)
        ),
        Mistake(
            "This is the update alone. Add it to what the pretrained layer gives, x W^T.",
            lambda x, W, A, B, alpha: alpha / len(A) * (x @ A.T @ B.T),
        ),
        Mistake(
            "The update is not there: this is the pretrained layer alone.",
            lambda x, W, A, B, alpha: x @ W.T,
        ),
    ),
)


# --- contrastive_pair_loss -------------------------------------------------------------------


def _loss_by_pairs(
    features: Array,
    labels: Array,
    *,
    length: bool = True,
    apart: float = 0.0,
    balanced: bool = True,
    squared: bool = True,
) -> Array:
    """One pair at a time; the keywords make the well-known mistakes."""
    errors: dict[bool, list[float]] = {True: [], False: []}
    for i, j in itertools.combinations(range(len(labels)), 2):
        u, v = features[i], features[j]
        similarity = u @ v / (np.linalg.norm(u) * np.linalg.norm(v) if length else 1.0)
        same = bool(labels[i] == labels[j])
        error = similarity - (1.0 if same else apart)
        errors[same].append(error**2 if squared else abs(error))
    if not balanced:
        return np.asarray(np.mean(errors[True] + errors[False]))
    return np.asarray(0.5 * (np.mean(errors[True]) + np.mean(errors[False])))


def _own_pairs_too(features: Array, labels: Array) -> Array:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine, same = unit @ unit.T, labels[:, None] == labels
    within, between = np.square(1 - cosine[same]), np.square(cosine[~same])
    return np.asarray(0.5 * (within.mean() + between.mean()))


CONTRASTIVE_PAIR_LOSS = Exercise(
    name="fine_tuning.contrastive_pair_loss",
    oracle=_loss_by_pairs,
    cases=(
        Case(
            "three texts in the plane",
            {
                "features": np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]),
                "labels": np.array([0.0, 0.0, 1.0]),
            },
            hint="Within: cosine 0, error 1. Between: cosines 1 and 0, mean error 1/2. Half of "
            "their sum is 3/4.",
        ),
        Case(
            "two classes of three and two",
            {"features": _draw(5, 3), "labels": np.array([0.0, 1.0, 0.0, 1.0, 0.0])},
        ),
        Case(
            "three classes",
            {"features": _draw(6, 4), "labels": np.array([2.0, 1.0, 0.0, 0.0, 2.0, 1.0])},
            hint="Texts of one class are in few pairs. Take the mean of each kind of pair first.",
        ),
    ),
    hint="Give the rows the length 1, multiply them, and look at the places above the diagonal.",
    mistakes=(
        Mistake(
            "You took the product of the vectors themselves. Give each the length 1 first.",
            lambda **a: _loss_by_pairs(**a, length=False),
        ),
        Mistake(
            "You pull texts of different classes to a similarity of -1. Three classes cannot all "
            "be opposite: their target is 0.",
            lambda **a: _loss_by_pairs(**a, apart=-1.0),
        ),
        Mistake(
            "This is the mean over all pairs. Most pairs are between classes: take the mean of "
            "each kind, then half of the sum.",
            lambda **a: _loss_by_pairs(**a, balanced=False),
        ),
        Mistake(
            "You counted each text with itself. Such a pair has similarity 1 whatever the "
            "encoder does.",
            _own_pairs_too,
        ),
        Mistake(
            "These are absolute errors. The loss squares them.",
            lambda **a: _loss_by_pairs(**a, squared=False),
        ),
    ),
)

EXERCISES = (SOFTMAX_GRADIENT, MEAN_POOL, LORA_FORWARD, CONTRASTIVE_PAIR_LOSS)
"""The exercises of the topic, in the order of the page."""
