"""The oracles of the topic "fine_tuning" against the package, and planted answers."""

import numpy as np
import pytest
import tensorflow as tf
import torch

from fewshot_course.exercises import check, exercise


def oracle(name):
    return exercise(f"fine_tuning.{name}").oracle


def test_gradient_oracle_is_autograd_also_for_large_logits():
    rng = np.random.default_rng(0)
    logits = np.vstack([rng.normal(size=(4, 3)), [[800.0, 799.0, -800.0]]])
    labels, weights = np.array([0, 1, 2, 1, 1]), rng.uniform(0.1, 2, 5)
    z = torch.tensor(logits, requires_grad=True)
    losses = torch.nn.functional.cross_entropy(z, torch.tensor(labels), reduction="none")
    (torch.tensor(weights) * losses).mean().backward()
    ours = oracle("softmax_gradient")(logits, np.eye(3)[labels], weights)
    np.testing.assert_allclose(ours, z.grad, atol=1e-12)


def test_oracles_are_what_the_package_computes():
    from fewshot_course.torch.encoder import low_rank_update, mean_pool
    from fewshot_course.torch.fine_tuning import contrastive_pair_loss

    rng = np.random.default_rng(1)
    sequence, mask = rng.normal(size=(3, 5, 4)), np.tril(np.ones((5, 5)))[[4, 2, 0]]
    theirs = mean_pool(torch.tensor(sequence), torch.tensor(mask))
    np.testing.assert_allclose(oracle("mean_pool")(sequence, mask), theirs)
    x, W, A, B = (torch.tensor(rng.normal(size=s)) for s in ((3, 4), (5, 4), (2, 4), (5, 2)))
    theirs = x @ W.T + low_rank_update(x, A, B, 6.0)
    ours = oracle("lora_forward")(*(value.numpy() for value in (x, W, A, B)), 6.0)
    np.testing.assert_allclose(ours, theirs)
    features, labels = rng.normal(size=(7, 3)), np.array([0, 1, 2, 0, 1, 2, 0])
    theirs = contrastive_pair_loss(torch.tensor(features), torch.tensor(labels))
    assert oracle("contrastive_pair_loss")(features, labels) == pytest.approx(float(theirs))


# Wrong answers as students write them; three in PyTorch, then three in TensorFlow.
PLANTED = {
    "fine_tuning.softmax_gradient": [
        lambda z, y, w: torch.softmax(z, 1) - y,
        lambda z, y, w: w[:, None] * (torch.log_softmax(z, 1) - y) / len(y),
        lambda z, y, w: (
            w[:, None] * (z.exp() / z.exp().sum(1, keepdim=True) - y) / len(y) + torch.zeros(1)
        ),
        lambda z, y, w: w[:, None] * (tf.nn.sigmoid(z) - y) / len(y),
        lambda z, y, w: tf.reduce_mean(w[:, None] * (tf.nn.softmax(z) - y), 0, keepdims=True),
        lambda z, y, w: w[:, None] * (tf.nn.softmax(z) - y) / z.shape[0] / z.shape[1],
    ],
    "fine_tuning.mean_pool": [
        lambda s, m: torch.mean(s, 2),
        lambda s, m: torch.amax(s * m[..., None], 1),
        lambda s, m: (s * m[..., None]).sum(1) / torch.sum(m),
        lambda s, m: tf.reduce_mean(s, 1),
        lambda s, m: tf.gather(s, tf.cast(tf.reduce_sum(m, 1), tf.int32) - 1, batch_dims=1),
        lambda s, m: tf.reduce_sum(s, 1) / tf.reduce_sum(m, 1)[:, None],
    ],
    "fine_tuning.lora_forward": [
        lambda x, W, A, B, alpha: torch.matmul(x, W.T) + alpha / len(B) * x @ A.T @ B.T,
        lambda x, W, A, B, alpha: torch.matmul(x, W.T) * (1 + alpha / len(A)),
        lambda x, W, A, B, alpha: torch.matmul(x, (W + B @ A).T) * alpha / len(A),
        lambda x, W, A, B, alpha: tf.matmul(x, W + B @ A, transpose_b=True),
        lambda x, W, A, B, alpha: tf.matmul(x, W - alpha / len(A) * B @ A, transpose_b=True),
        lambda x, W, A, B, alpha: tf.matmul(x, W + len(A) / alpha * B @ A, transpose_b=True),
    ],
    "fine_tuning.contrastive_pair_loss": [
        lambda f, y: torch.cdist(f, f).square().mean(),
        lambda f, y: (
            (torch.nn.functional.normalize(f) @ f.T - (y[:, None] == y).float()).square().mean()
        ),
        lambda f, y: (
            -torch.nn.functional.cosine_similarity(f[:, None], f, dim=2)[y[:, None] == y].mean()
        ),
        lambda f, y: tf.reduce_mean(
            tf.square(f @ tf.transpose(f) - tf.cast(y[:, None] == y, f.dtype))
        ),
        lambda f, y: tf.zeros(()),
        lambda f, y: tf.reduce_mean(tf.keras.losses.cosine_similarity(f[:, None], f)),
    ],
}


@pytest.mark.parametrize(("name", "i"), [(name, i) for name in PLANTED for i in range(6)])
def test_planted_answers_are_refused(name, i):
    outcome = check(name, PLANTED[name][i])
    assert not outcome.passed
    assert outcome.framework == ("torch" if i < 3 else "tensorflow")
    assert "Case" in repr(outcome)
    # Refused for its value, not for an error of the test's own making.
    assert "it raised" not in repr(outcome)


def test_overflow_is_told_as_nan_with_the_way_out():
    def overflows(logits, y, weights):
        powers = torch.exp(logits)
        return weights[:, None] * (powers / powers.sum(1, keepdim=True) - y) / len(y)

    text = repr(check("fine_tuning.softmax_gradient", overflows))
    assert "3 of 4 cases right" in text
    assert "NaN" in text
    assert "Subtract each row's largest logit" in text


def test_unbalanced_mean_is_named_in_tensorflow_too():
    def over_all_pairs(features, labels):
        unit = tf.linalg.l2_normalize(features, axis=1)
        wanted = tf.cast(labels[:, None] == labels, unit.dtype)
        error = tf.square(unit @ tf.transpose(unit) - wanted)
        pairs = 1 - tf.linalg.band_part(tf.ones_like(error), -1, 0)
        return tf.reduce_sum(error * pairs) / tf.reduce_sum(pairs)

    outcome = check("fine_tuning.contrastive_pair_loss", over_all_pairs)
    assert "This is the mean over all pairs" in repr(outcome)
