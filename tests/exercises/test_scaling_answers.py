"""The oracles of the topic "scaling" against the frameworks, and planted answers."""

import numpy as np
import pytest
import tensorflow as tf
import torch

from fewshot_course.exercises import check, exercise


def oracle(name):
    return exercise(f"scaling.{name}").oracle


def test_rounding_oracle_is_both_frameworks_cast():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=500) * 10.0 ** rng.integers(-20, 20, 500)).astype(np.float32)
    x = np.concatenate([x, [0.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8]]).astype(np.float32)
    ours = oracle("round_bfloat16")(x)  # ties go to the even neighbour
    np.testing.assert_array_equal(ours, torch.tensor(x).bfloat16().double().numpy())
    cast = tf.cast(tf.cast(tf.constant(x), tf.bfloat16), tf.float64)
    np.testing.assert_array_equal(ours, cast.numpy())


def test_accumulation_oracle_is_the_package():
    from fewshot_course.torch.scaling import average_gradients

    rng = np.random.default_rng(1)
    means, sizes = rng.normal(size=(3, 4)), np.array([5, 2, 9])
    theirs = average_gradients([[torch.tensor(row)] for row in means], sizes.tolist())[0]
    np.testing.assert_allclose(oracle("accumulated_gradient")(means, sizes), theirs)


def test_speed_up_oracle_is_amdahls_law_without_an_exchange():
    k = np.array([1.0, 2.0, 7.0])
    amdahl = 1 / (0.2 + 0.8 / k)
    np.testing.assert_allclose(oracle("speed_up")(2.0, 8.0, 0.0, k), amdahl)


# Wrong answers as students write them; three in PyTorch, then three in TensorFlow.
PLANTED = {
    "scaling.accumulated_gradient": [
        lambda m, s: torch.sum(m, 0),
        lambda m, s: torch.mean(m, 0),
        lambda m, s: torch.sum(m / s[:, None], 0),
        lambda m, s: tf.reduce_mean(m, 0),
        lambda m, s: tf.reduce_sum(s[:, None] * m, 0),
        lambda m, s: tf.reduce_mean(s[:, None] * m, 0) / tf.reduce_sum(s),
    ],
    "scaling.round_bfloat16": [
        lambda x: torch.trunc(x * 128) / 128,
        lambda x: x.half().float() + torch.zeros(1),
        lambda x: torch.round(x, decimals=2),
        lambda x: tf.round(x * 128) / 128,
        lambda x: tf.identity(x),
        lambda x: tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.uint32), 0xFFFF0000), x.dtype),
    ],
    "scaling.unscaled_update": [
        lambda w, g, s, lr: w - torch.nan_to_num(lr * g / s, 0.0, 0.0, 0.0),
        lambda w, g, s, lr: w if not torch.isfinite(g).all() else w - lr * g,
        lambda w, g, s, lr: w if torch.isinf(g).any() else w - lr * g / s,
        lambda w, g, s, lr: tf.where(tf.math.is_finite(g), w - lr * g / s, w),
        lambda w, g, s, lr: w - lr * tf.clip_by_value(g / s, -1.0, 1.0),
        lambda w, g, s, lr: tf.zeros_like(w),
    ],
    "scaling.speed_up": [
        lambda a, p, e, k: torch.ones_like(k) * k,
        lambda a, p, e, k: (a + p) / (a + p / k + e) + torch.zeros(1),
        lambda a, p, e, k: a + p / k + torch.where(k > 1, e, 0.0),
        lambda a, p, e, k: (a + p) / (a + p / k) + tf.zeros(()),
        lambda a, p, e, k: (a + p) / ((a + p) / k + tf.where(k > 1, e, 0.0)),
        lambda a, p, e, k: (a + p) / (a + p / k + tf.where(k > 1, e, 0.0)) / k,
    ],
}


@pytest.mark.parametrize(("name", "i"), [(name, i) for name in PLANTED for i in range(6)])
def test_planted_answers_are_refused(name, i):
    outcome = check(name, PLANTED[name][i])
    assert not outcome.passed
    assert outcome.n_right < outcome.n_cases
    assert "Case " in repr(outcome)


@pytest.mark.parametrize(
    ("name", "answer", "says"),
    [
        ("accumulated_gradient", lambda m, s: tf.reduce_sum(m, 0), "the step is k times too long"),
        ("round_bfloat16", lambda x: torch.round(x * 128) / 128, "2⁻⁷ for all numbers"),
        (
            "unscaled_update",
            lambda w, g, s, lr: tf.where(tf.math.is_finite(g), w - lr * g / s, w),
            "leave the whole update out",
        ),
        ("speed_up", lambda a, p, e, k: (a + p) / (a + p / k + e) + torch.zeros(1), "nobody to"),
    ],
)
def test_well_known_mistakes_are_named(name, answer, says):
    assert says in repr(check(f"scaling.{name}", answer))
