"""The oracles of the topic "compression" against the package, and planted answers."""

import numpy as np
import pytest
import tensorflow as tf
import torch

from fewshot_course.both import pruning as _compression
from fewshot_course.exercises import check, exercise


def oracle(name):
    return exercise(f"compression.{name}").oracle


def test_oracles_are_what_the_package_computes():
    from fewshot_course.torch.compression import distillation_loss

    rng = np.random.default_rng(0)
    z, v, labels = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), np.array([0, -1, 2, 1, -1])
    y = np.eye(3)[labels] * (labels >= 0)[:, None]
    theirs = distillation_loss(*map(torch.tensor, (z, v, labels)), 3.0, 0.4)
    assert oracle("distillation_loss")(z, v, y, 3.0, 0.4) == pytest.approx(float(theirs))
    weights = rng.normal(size=(6, 7))
    kept = weights * _compression.magnitude_mask(weights, 0.6)
    np.testing.assert_array_equal(oracle("prune_smallest")(weights, 0.6), kept)
    steps = np.arange(-2.0, 15.0)
    theirs = [_compression.cubic_sparsity(t, 10, 0.9, 0.1, 1) for t in steps]
    np.testing.assert_allclose(oracle("cubic_sparsity")(steps, 1, 10, 0.1, 0.9), theirs)
    q, scale = _compression.quantize_symmetric(weights, axis=0)
    theirs = _compression.dequantize(q, scale, 0)
    np.testing.assert_allclose(oracle("round_to_int8")(weights), theirs)


# Wrong answers as students write them; three in PyTorch, then three in TensorFlow.
PLANTED = {
    "compression.distillation_loss": [
        lambda z, v, y, T, alpha: torch.nn.functional.mse_loss(z, v),
        lambda z, v, y, T, alpha: (
            alpha * T**2 * torch.nn.functional.kl_div(z / T, torch.softmax(v / T, 1))
            - (1 - alpha) * (y * torch.log_softmax(z, 1)).sum(1).mean()
        ),
        lambda z, v, y, T, alpha: (
            -alpha * T**2 * (torch.softmax(v / T, 1) * torch.log_softmax(z / T, 1)).sum(1).mean()
        ),
        lambda z, v, y, T, alpha: tf.reduce_mean(tf.square(z - v)),
        lambda z, v, y, T, alpha: tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(v), z)
        ),
        lambda z, v, y, T, alpha: (
            T * tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(v / T), z / T))
        ),
    ],
    "compression.prune_smallest": [
        lambda w, s: torch.where(torch.abs(w) > s, w, torch.zeros_like(w)),
        lambda w, s: torch.nn.functional.dropout(w, float(s)) * 2,
        lambda w, s: (
            w * (torch.abs(w) > torch.quantile(torch.abs(w), float(s), dim=1, keepdim=True))
        ),
        lambda w, s: tf.where(tf.abs(w) > s, w, tf.zeros_like(w)),
        lambda w, s: tf.nn.relu(w) - s,
        lambda w, s: w * tf.cast(tf.abs(w) > tf.reduce_mean(tf.abs(w)) + s, w.dtype),
    ],
    "compression.cubic_sparsity": [
        lambda t, t0, n, s_i, s_f: torch.full_like(t, float(s_f)),
        lambda t, t0, n, s_i, s_f: s_i + (s_f - s_i) * torch.sigmoid((t - t0) / n),
        lambda t, t0, n, s_i, s_f: s_f * (1 - (1 - torch.clamp((t - t0) / n, 0, 1)) ** 2),
        lambda t, t0, n, s_i, s_f: tf.ones_like(t) * s_f,
        lambda t, t0, n, s_i, s_f: s_i + (s_f - s_i) * tf.tanh((t - t0) / n),
        lambda t, t0, n, s_i, s_f: s_f * (1 - (1 - tf.clip_by_value(t / n, 0, 1)) ** 3) + s_i,
    ],
    "compression.round_to_int8": [
        lambda w: torch.round(w),
        lambda w: torch.round(w / w.abs().max(0).values * 127) * w.abs().max(0).values / 127,
        lambda w: torch.round(w * 127) / 127,
        lambda w: tf.round(w),
        lambda w: tf.round(w * 127) / 127,
        lambda w: tf.cast(tf.cast(w * 127, tf.int8), w.dtype) / 127,
    ],
}


@pytest.mark.parametrize(("name", "i"), [(name, i) for name in PLANTED for i in range(6)])
def test_planted_answers_are_refused(name, i):
    outcome = check(name, PLANTED[name][i])
    assert not outcome.passed
    assert outcome.framework == ("torch" if i < 3 else "tensorflow")
    # Refused for its value, not for an error of the test's own making.
    assert "it raised" not in repr(outcome)


def test_the_missing_square_is_named_in_torch():
    def plain(student, teacher, y, T, alpha):
        p, log_p = torch.softmax(teacher / T, 1), torch.log_softmax(teacher / T, 1)
        soft = (p * (log_p - torch.log_softmax(student / T, 1))).sum(1)
        hard = -(y * torch.log_softmax(student, 1)).sum(1)
        return (alpha * soft + (1 - alpha) * hard).mean()

    assert "T squared is missing" in repr(check("compression.distillation_loss", plain))
