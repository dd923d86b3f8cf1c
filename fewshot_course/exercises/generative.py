"""Checks of the exercises on variational autoencoders and adversarial networks."""

from __future__ import annotations

import numpy as np
from scipy import special, stats

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(0)


# --- kl_to_prior -----------------------------------------------------------------------------


def _kl(mean: Array, log_var: Array) -> Array:
    """Entropy and cross-entropy of Gaussians, by SciPy."""
    scale = np.exp(log_var / 2)
    cross = 0.5 * (np.log(2 * np.pi) + scale**2 + mean**2)
    return (cross - stats.norm.entropy(scale=scale)).sum(-1)


KL_TO_PRIOR = Exercise(
    name="generative.kl_to_prior",
    oracle=_kl,
    cases=(
        Case("q is the prior", {"mean": np.zeros((1, 3)), "log_var": np.zeros((1, 3))}),
        Case(
            "a shifted mean",
            {"mean": np.array([[3.0, 0.0]]), "log_var": np.zeros((1, 2))},
            hint="A code far from 0 must cost something: the mean enters with its square.",
        ),
        Case(
            "any q",
            {
                "mean": np.round(_RNG.normal(size=(4, 3)), 2),
                "log_var": np.round(_RNG.normal(size=(4, 3)), 2),
            },
        ),
    ),
    hint="-½ Σ_j (1 + log σ_j² - μ_j² - σ_j²), with σ² = exp(log_var), summed over j.",
    mistakes=(
        Mistake(
            "The mean plays no part: without -μ² a code may lie anywhere for nothing.",
            lambda mean, log_var: -0.5 * (1 + log_var - np.exp(log_var)).sum(-1) + 0 * mean.sum(),
        ),
        Mistake(
            "You averaged over the dimensions. They are independent, so their divergences add up.",
            lambda mean, log_var: _kl(mean, log_var) / mean.shape[-1],
        ),
        Mistake(
            "You took log_var for the standard deviation's logarithm. σ² is exp(log_var).",
            lambda mean, log_var: _kl(mean, 2 * log_var),
        ),
        Mistake(
            "The sign is wrong: a divergence is never negative.",
            lambda mean, log_var: -_kl(mean, log_var),
        ),
    ),
)


# --- unlabelled_bound ------------------------------------------------------------------------


def _marginal(bounds: Array, logits: Array) -> Array:
    """Logarithm of Σ_y exp L(x, y), less the divergence of q(y|x) from the best one."""
    log_q, total = special.log_softmax(logits, axis=1), special.logsumexp(bounds, axis=1)
    divergence = special.rel_entr(np.exp(log_q), np.exp(bounds - total[:, None])).sum(1)
    return total - divergence


_BOUNDS = np.round(_RNG.normal(-20, 2, size=(4, 3)), 1)
_CLASS_LOGITS = np.round(_RNG.normal(size=(4, 3)), 1)

UNLABELLED_BOUND = Exercise(
    name="generative.unlabelled_bound",
    oracle=_marginal,
    cases=(
        Case(
            "one class is certain",
            {"bounds": np.array([[-3.0, -9.0]]), "logits": np.array([[30.0, 0.0]])},
            hint="If the class is certain, the bound is that of the labelled example.",
        ),
        Case(
            "two classes are equally likely",
            {"bounds": np.array([[-3.0, -3.0]]), "logits": np.zeros((1, 2))},
            hint="Not knowing the class is worth its entropy, here log 2.",
        ),
        Case("any", {"bounds": _BOUNDS, "logits": _CLASS_LOGITS}),
    ),
    hint="log_q = log_softmax(logits); then Σ_y exp(log_q) (bounds - log_q).",
    mistakes=(
        Mistake(
            "The entropy of q(y|x) is missing: subtract log q(y|x) inside the sum.",
            lambda bounds, logits: (special.softmax(logits, axis=1) * bounds).sum(1),
        ),
        Mistake(
            "The entropy has the wrong sign: it is added to the bound, so log q is subtracted.",
            lambda bounds, logits: (
                special.softmax(logits, axis=1) * (bounds + special.log_softmax(logits, axis=1))
            ).sum(1),
        ),
        Mistake(
            "You took the likeliest class alone. Average over all of them with q(y|x).",
            lambda bounds, logits: bounds[np.arange(len(bounds)), logits.argmax(1)],
        ),
        Mistake(
            "You averaged over the classes with equal weights. The weights are q(y|x).",
            lambda bounds, logits: (bounds - special.log_softmax(logits, axis=1)).mean(1),
        ),
    ),
)


# --- importance_bound ------------------------------------------------------------------------


def _log_mean_exp(log_weights: Array) -> Array:
    """Shift each column by its largest weight before the exponential."""
    top = log_weights.max(0)
    return top + np.log(np.exp(log_weights - top).mean(0))


IMPORTANCE_BOUND = Exercise(
    name="generative.importance_bound",
    oracle=_log_mean_exp,
    cases=(
        Case("one sample", {"log_weights": np.array([[-4.0, -2.5]])}),
        Case(
            "three samples",
            {"log_weights": np.log([[0.2, 0.1], [0.4, 0.1], [0.3, 0.7]])},
            hint="Average the weights, not their logarithms, and take the logarithm last.",
        ),
        Case(
            "weights that are 0 in floating point",
            {"log_weights": np.array([[-1500.0, -900.0], [-1501.0, -902.0]])},
            hint="exp(-1500) is 0 and log 0 is infinite: use logsumexp.",
        ),
    ),
    hint="logsumexp over the samples, minus log k.",
    mistakes=(
        Mistake(
            "You averaged the logarithms: that is the ELBO, whatever k.",
            lambda log_weights: log_weights.mean(0),
        ),
        Mistake(
            "You forgot to divide by the number of samples: subtract log k.",
            lambda log_weights: special.logsumexp(log_weights, axis=0),
        ),
        Mistake(
            "You averaged over the examples. The samples are the first axis.",
            lambda log_weights: (
                special.logsumexp(log_weights, axis=1) - np.log(log_weights.shape[1])
            ),
        ),
    ),
)


# --- real_probability ------------------------------------------------------------------------


def _real(logits: Array) -> Array:
    """Softmax over the K+1 logits, the last of which is 0."""
    whole = np.concatenate([logits, np.zeros((len(logits), 1))], axis=1)
    return special.softmax(whole, axis=1)[:, :-1].sum(1)


_LOGITS = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [-3.0, -4.0, -2.0]])

REAL_PROBABILITY = Exercise(
    name="generative.real_probability",
    oracle=_real,
    cases=(
        Case("all logits are 0", {"logits": np.zeros((1, 3))}),
        Case("three examples", {"logits": _LOGITS}),
        Case(
            "large logits",
            {"logits": np.array([[800.0, 100.0], [-800.0, -900.0]])},
            hint="exp(800) is infinite. D is the sigmoid of log Z, and log Z is a logsumexp.",
        ),
    ),
    hint="sigmoid(logsumexp(logits)).",
    mistakes=(
        Mistake(
            "You left the class 'generated' out of the softmax: the rest always adds up to 1.",
            lambda logits: special.softmax(logits, axis=1).sum(1),
        ),
        Mistake(
            "You took the largest logit for log Z. Sum over all classes.",
            lambda logits: special.expit(logits.max(1)),
        ),
        Mistake(
            "This is Z / (Z + K). The last logit is held at 0, so exp of it is 1.",
            lambda logits: special.expit(
                special.logsumexp(logits, axis=1) - np.log(logits.shape[1])
            ),
        ),
        Mistake("This is 1 - D, the probability of 'generated'.", lambda logits: 1 - _real(logits)),
    ),
)


# --- unsupervised_loss -----------------------------------------------------------------------


def _unsupervised(unlabelled: Array, generated: Array) -> Array:
    """-½ [mean log D + mean log(1 - D)] by the log-softmax over K+1 logits."""

    def extended(logits: Array) -> Array:
        whole = np.concatenate([logits, np.zeros((len(logits), 1))], axis=1)
        return special.log_softmax(whole, axis=1)

    real = special.logsumexp(extended(unlabelled)[:, :-1], axis=1).mean()
    return np.asarray(-0.5 * (real + extended(generated)[:, -1].mean()))


def _log_z(logits: Array) -> Array:
    return special.logsumexp(logits, axis=1)


_U, _G = np.round(_RNG.normal(size=(3, 4)), 1), np.round(_RNG.normal(size=(5, 4)), 1)

UNSUPERVISED_LOSS = Exercise(
    name="generative.unsupervised_loss",
    oracle=_unsupervised,
    cases=(
        Case("one of each", {"unlabelled": np.zeros((1, 2)), "generated": np.zeros((1, 2))}),
        Case(
            "more generated than real ones",
            {"unlabelled": _U, "generated": _G},
            hint="Take the mean of each kind first, then half of their sum.",
        ),
        Case(
            "large logits",
            {"unlabelled": np.array([[-700.0, -701.0]]), "generated": np.array([[500.0, 1.0]])},
            hint="log D = -softplus(-log Z) and log(1 - D) = -softplus(log Z) never overflow.",
        ),
    ),
    hint="½ mean softplus(-log Z(unlabelled)) + ½ mean softplus(log Z(generated)).",
    mistakes=(
        Mistake(
            "The signs are swapped: D should be large for unlabelled examples.",
            lambda unlabelled, generated: _unsupervised(generated, unlabelled),
        ),
        Mistake(
            "The half is missing.",
            lambda unlabelled, generated: 2 * _unsupervised(unlabelled, generated),
        ),
        Mistake(
            "You averaged over all examples together, so the larger batch counts more.",
            lambda unlabelled, generated: np.concatenate(
                [np.logaddexp(0, -_log_z(unlabelled)), np.logaddexp(0, _log_z(generated))]
            ).mean(),
        ),
        Mistake(
            "This is the generator's plain loss added on: generated examples must lower D here.",
            lambda unlabelled, generated: (
                0.5 * np.logaddexp(0, -_log_z(unlabelled)).mean()
                + 0.5 * np.logaddexp(0, -_log_z(generated)).mean()
            ),
        ),
    ),
)


# --- feature_matching ------------------------------------------------------------------------


def _matching(real: Array, made: Array) -> Array:
    """Expand the square into inner products of means."""
    a, b = real.sum(0) / len(real), made.sum(0) / len(made)
    return np.asarray(a @ a - 2 * a @ b + b @ b)


_R, _M = np.round(_RNG.normal(size=(4, 3)), 1), np.round(_RNG.normal(1, 1, size=(4, 3)), 1)

FEATURE_MATCHING = Exercise(
    name="generative.feature_matching",
    oracle=_matching,
    cases=(
        Case("one of each", {"real": np.array([[1.0, 2.0]]), "made": np.array([[0.0, 0.0]])}),
        Case(
            "equally many",
            {"real": _R, "made": _M},
            hint="Compare the means of the two batches, not their examples one by one.",
        ),
        Case(
            "fewer made than real",
            {"real": _R, "made": _M[:2]},
            hint="Each batch has a mean of its own size.",
        ),
    ),
    hint="The squared Euclidean distance between the two means over the batch.",
    mistakes=(
        Mistake(
            "You compared examples in pairs. Take the means first.",
            lambda real, made: np.mean([((r - m) ** 2).sum() for r in real for m in made]),
        ),
        Mistake(
            "You averaged over the features. The squared distance is their sum.",
            lambda real, made: _matching(real, made) / real.shape[1],
        ),
        Mistake(
            "This is the distance; its square is wanted.",
            lambda real, made: np.sqrt(_matching(real, made)),
        ),
        Mistake(
            "You took sums over the batch, so the size of a batch matters.",
            lambda real, made: ((real.sum(0) - made.sum(0)) ** 2).sum(),
        ),
    ),
)

EXERCISES = (
    KL_TO_PRIOR,
    UNLABELLED_BOUND,
    IMPORTANCE_BOUND,
    REAL_PROBABILITY,
    UNSUPERVISED_LOSS,
    FEATURE_MATCHING,
)
