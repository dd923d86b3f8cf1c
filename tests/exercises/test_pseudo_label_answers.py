"""Planted answers to the exercises on pseudo-labels, in both frameworks."""

import pytest
import tensorflow as tf
import torch

from fewshot_course.exercises import check

# Wrong answers as students write them; three in PyTorch, then in TensorFlow.
PLANTED = {
    "pseudo_labels.responsibilities": [
        lambda x, w, m, v: torch.softmax(-0.5 * torch.cdist(x, m) ** 2 / v, 1),
        lambda x, w, m, v: torch.softmax(torch.log(w) - torch.cdist(x, m) / v, 1),
        lambda x, w, m, v: torch.log_softmax(torch.log(w) - 0.5 * torch.cdist(x, m) ** 2 / v, 1),
        lambda x, w, m, v: tf.nn.softmax(
            tf.math.log(w) - 0.5 * tf.reduce_sum((x[:, None] - m) ** 2, 2)
        ),
        lambda x, w, m, v: w * tf.exp(-0.5 * tf.reduce_sum((x[:, None] - m) ** 2, 2) / v),
    ],
    "pseudo_labels.m_step_variances": [
        lambda x, r: torch.var(x, dim=0).expand(r.shape[1], -1),
        lambda x, r: r.T @ (x - torch.mean(x, 0)) ** 2,
        lambda x, r: (torch.ones(1) * (r.T @ x) / r.sum(0)[:, None]) ** 2,
        lambda x, r: tf.matmul(r, x**2, transpose_a=True),
        lambda x, r: tf.reduce_sum(r[:, :, None] * (x[:, None] - tf.reduce_mean(x)) ** 2, 0),
    ],
    "pseudo_labels.clamped_responsibilities": [
        lambda j, y, c: torch.softmax(torch.where(y[:, None] == c, j, -torch.inf), 1),
        lambda j, y, c: torch.softmax(j + torch.eq(y[:, None], c).float(), 1),
        lambda j, y, c: torch.exp(j) * ((y[:, None] == -1) | (y[:, None] == c)),
        lambda j, y, c: tf.cast(y[:, None] == c, tf.float32),
        lambda j, y, c: tf.nn.softmax(j, axis=0),
    ],
    "pseudo_labels.pseudo_label_loss": [
        lambda z, t: torch.nn.functional.cross_entropy(z, torch.softmax(z, 1)),
        lambda z, t: torch.log_softmax(z, 1).amax(1).mean(),
        lambda z, t: -torch.log_softmax(z, 1)[torch.softmax(z, 1).amax(1) >= t].sum() / len(z),
        lambda z, t: -tf.reduce_sum(tf.reduce_max(tf.nn.log_softmax(z), 1)),
        lambda z, t: tf.reduce_mean(tf.nn.softmax(z)),
    ],
}


@pytest.mark.parametrize(("name", "i"), [(name, i) for name in PLANTED for i in range(5)])
def test_planted_answers_are_refused(name, i):
    outcome = check(name, PLANTED[name][i])
    assert not outcome.passed
    assert outcome.framework == ("torch" if i < 3 else "tensorflow")
    assert "it raised" not in repr(outcome)
