"""The oracles of the topic "augmentation" against the package, and planted answers."""

import numpy as np
import pytest

from fewshot_course.data.augment import MarkovChain
from fewshot_course.data.augment.hmm import expected_counts
from fewshot_course.evaluation.embedding_quality import shrunk_covariance
from fewshot_course.exercises import check, exercise


def oracle(name):
    return exercise(f"augmentation.{name}").oracle


def test_oracles_are_what_the_package_computes():
    rng = np.random.default_rng(0)
    texts = ["abca", "cb", "bbac"]
    padded = np.array([[ord(w) - 97 for w in t.ljust(4, "`")] for t in texts], dtype=float)
    chain = MarkovChain().fit([list(text) for text in texts])
    np.testing.assert_allclose(oracle("markov_transitions")(padded, 3.0), chain.transitions_)

    model = (rng.dirichlet([1, 1]), rng.dirichlet([1, 1], 2), rng.dirichlet([1, 1, 1], 2))
    words = rng.integers(3, size=40)
    theirs = expected_counts(*model, words[None], np.ones((1, 40), bool)).log_likelihood
    ours = oracle("hmm_log_likelihood")(*model, words.astype(float))
    assert float(ours) == pytest.approx(theirs, rel=1e-12)

    X, H = rng.normal(size=(5, 8)), rng.normal(size=(3, 8))
    covariance, share = shrunk_covariance(X - X.mean(0))
    away = H - X.mean(0)
    theirs = np.sqrt(np.einsum("ki,ij,kj->k", away, np.linalg.inv(covariance), away))
    np.testing.assert_allclose(oracle("mahalanobis")(X, H, share), theirs)


def test_shared_weights_are_those_that_extend_gives():
    from fewshot_course.data.augment import RandomSwap, extend

    rng = np.random.default_rng(0)
    _, _, weights = extend(["a b", "c d", "e f"], [0, 1, 0], RandomSwap(0.5), 4, rng)
    origin = np.tile(np.arange(3.0), 5)
    np.testing.assert_allclose(oracle("shared_weights")(origin), weights)


def counted(words, V, after=1):
    counts = np.zeros((int(V), int(V) + 1))
    for row in np.asarray(words).astype(int):
        text = [*row[row >= 0], int(V)]
        for a, b in zip(text, text[after:], strict=False):
            if a < V:
                counts[a, b] += 1
    return counts


def by_row(counts):
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def recursion(start, A, B, words, scale=True, emit=True):
    words = np.asarray(words).astype(int)
    alpha, total = start * B[:, words[0]], 0.0
    for word in words[1:]:
        alpha = (alpha @ A) * (B[:, word] if emit else 1)
        if scale:
            alpha = alpha / alpha.sum()
    return np.asarray(total + np.log(alpha.sum()))


# Wrong answers as students write them.
PLANTED = {
    "augmentation.markov_transitions": [
        lambda words, V: by_row(counted(words, V) + 1),  # smoothed, unasked
        lambda words, V: by_row(counted(words, V, after=2)),  # the word after the next one
        lambda words, V: by_row(counted(words, V)[:, :-1]),  # no column for the end
    ],
    "augmentation.hmm_log_likelihood": [
        lambda start, A, B, words: recursion(start, A, B, words),  # scales are thrown away
        lambda start, A, B, words: recursion(start, A, B, words, emit=False),
        lambda start, A, B, words: np.exp(recursion(start, A, B, words, scale=False)),
    ],
    "augmentation.shared_weights": [
        lambda origin: np.array([1 / np.sum(origin[: j + 1] == o) for j, o in enumerate(origin)]),
        lambda origin: (
            1 / np.bincount(origin.astype(int))[origin.astype(int)].max() * np.ones(len(origin))
        ),  # the largest count for all
        lambda origin: np.array([float(o not in origin[:j]) for j, o in enumerate(origin)]),
    ],
    "augmentation.mahalanobis": [
        lambda X, H, shrink: np.sqrt(
            np.square((H - X.mean(0)) / X.std(0).clip(1e-9)).sum(1)
        ),  # a diagonal covariance
        lambda X, H, shrink: np.sqrt(
            ((H - X.mean(0)) @ np.linalg.pinv(np.cov(X.T, bias=True)) * (H - X.mean(0))).sum(1)
        ),  # no shrinkage
        lambda X, H, shrink: np.linalg.norm(H[:, None] - X, axis=2).min(1),  # the nearest vector
    ],
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "i"), [(name, i) for name in PLANTED for i in range(3)])
def test_planted_answers_are_refused(name, i):
    outcome = check(name, PLANTED[name][i], framework="numpy")
    assert not outcome.passed
    assert "Case" in repr(outcome)
    # Refused for its value, not for an error of the test's own making.
    assert "it raised" not in repr(outcome)


def test_underflow_is_named():
    def unscaled(start, A, B, words):
        words = np.asarray(words).astype(int)
        alpha = start * B[:, words[0]]
        for word in words[1:]:
            alpha = (alpha @ A) * B[:, word]
        with np.errstate(divide="ignore"):
            return np.log(alpha.sum())

    text = repr(check("augmentation.hmm_log_likelihood", unscaled))
    assert "3 of 4 cases right" in text
    assert "alpha underflows to 0" in text
