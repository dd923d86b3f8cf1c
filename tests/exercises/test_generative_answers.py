"""Planted answers to the exercises on VAEs and GANs, in both frameworks."""

import pytest
import tensorflow as tf
import torch

from fewshot_course.exercises import check

# Wrong answers as students write them; three in PyTorch, then two in TensorFlow.
PLANTED = {
    "generative.kl_to_prior": [
        lambda m, v: -0.5 * torch.sum(1 + v - torch.exp(v), 1),
        lambda m, v: -0.5 * torch.mean(1 + v - m**2 - torch.exp(v), 1),
        lambda m, v: -0.5 * torch.sum(1 + torch.log(v**2 + 1e-9) - m**2 - v**2, 1),
        lambda m, v: -0.5 * tf.reduce_sum(1 + v - m**2 - tf.exp(v)),
        lambda m, v: tf.reduce_sum(1 + v - m**2 - tf.exp(v), 1),
    ],
    "generative.unlabelled_bound": [
        lambda b, z: (torch.softmax(z, 1) * b).sum(1),
        lambda b, z: (torch.softmax(z, 0) * (b - torch.log_softmax(z, 1))).sum(1),
        lambda b, z: torch.logsumexp(b, 1),
        lambda b, z: tf.reduce_sum(tf.nn.softmax(z) * (b - z), 1),
        lambda b, z: tf.reduce_max(b, 1) + 0 * tf.reduce_sum(z, 1),
    ],
    "generative.importance_bound": [
        lambda w: torch.log(torch.exp(w).mean(0)),
        lambda w: torch.mean(w, 0),
        lambda w: torch.amax(w, 0),
        lambda w: tf.reduce_logsumexp(w, 0),
        lambda w: tf.math.log(tf.reduce_mean(tf.exp(w), 0)),
    ],
    "generative.real_probability": [
        lambda z: torch.exp(z).sum(1) / (torch.exp(z).sum(1) + 1),
        lambda z: torch.sigmoid(torch.amax(z, 1)),
        lambda z: torch.sigmoid(torch.sum(z, 1)),
        lambda z: tf.reduce_max(tf.nn.softmax(z), 1),
        lambda z: tf.sigmoid(-tf.reduce_logsumexp(z, 1)),
    ],
    "generative.unsupervised_loss": [
        lambda u, g: (
            torch.nn.functional.softplus(-torch.logsumexp(u, 1)).mean()
            + torch.nn.functional.softplus(torch.logsumexp(g, 1)).mean()
        ),
        lambda u, g: (
            -0.5 * torch.log(torch.sigmoid(torch.logsumexp(u, 1))).mean()
            - 0.5 * torch.log(1 - torch.sigmoid(torch.logsumexp(g, 1))).mean()
        ),
        lambda u, g: 0.5 * torch.nn.functional.softplus(torch.logsumexp(u, 1)).mean(),
        lambda u, g: 0.5 * tf.reduce_sum(tf.math.softplus(-tf.reduce_logsumexp(u, 1))),
        lambda u, g: tf.reduce_mean(u) - tf.reduce_mean(g),
    ],
    "generative.feature_matching": [
        lambda r, m: ((torch.mean(r, 0) - torch.mean(m, 0)) ** 2).mean(),
        lambda r, m: torch.sqrt(((torch.mean(r, 0) - torch.mean(m, 0)) ** 2).sum()),
        lambda r, m: (torch.sum(r, 0) - torch.sum(m, 0)).square().sum(),
        lambda r, m: tf.reduce_sum(tf.abs(tf.reduce_mean(r, 0) - tf.reduce_mean(m, 0))),
        lambda r, m: (tf.reduce_mean(r) - tf.reduce_mean(m)) ** 2,
    ],
}


@pytest.mark.parametrize(("name", "i"), [(name, i) for name in PLANTED for i in range(5)])
def test_planted_answers_are_refused(name, i):
    outcome = check(name, PLANTED[name][i])
    assert not outcome.passed
    assert outcome.framework == ("torch" if i < 3 else "tensorflow")
    assert "it raised" not in repr(outcome)
