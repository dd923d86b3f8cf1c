"""Exercises of the topic "Which method when"."""

from __future__ import annotations

import numpy as np

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(90)


# --- posterior_taste -------------------------------------------------------------------------


def _one_rating_after_the_other(Phi: Array, r: Array, m: Array, S: Array, sigma: Array) -> Array:
    """Update the prior by each rating in turn, with the formula for a single number."""
    mean, covariance = m.astype(float), S.astype(float)
    for phi, rating in zip(Phi, r, strict=True):
        gain = covariance @ phi / (phi @ covariance @ phi + sigma**2)
        mean = mean + gain * (rating - phi @ mean)
        covariance = covariance - np.outer(gain, phi @ covariance)
    return mean


def _ridge(Phi: Array, r: Array, m: Array, S: Array, sigma: Array) -> Array:
    precision = np.linalg.inv(S) + Phi.T @ Phi / sigma**2
    return np.linalg.solve(precision, Phi.T @ r / sigma**2)


def _noise_not_squared(Phi: Array, r: Array, m: Array, S: Array, sigma: Array) -> Array:
    precision = np.linalg.inv(S) + Phi.T @ Phi / sigma
    return m + np.linalg.solve(precision, Phi.T @ (r - Phi @ m) / sigma)


def _prior_not_inverted(Phi: Array, r: Array, m: Array, S: Array, sigma: Array) -> Array:
    return m + np.linalg.solve(S + Phi.T @ Phi / sigma**2, Phi.T @ (r - Phi @ m) / sigma**2)


def _least_squares(Phi: Array, r: Array, m: Array, S: Array, sigma: Array) -> Array:
    return m + np.linalg.pinv(Phi) @ (r - Phi @ m)


POSTERIOR_TASTE = Exercise(
    name="capstone.posterior_taste",
    oracle=_one_rating_after_the_other,
    cases=(
        Case(
            "one rating of one item",
            {
                "Phi": np.array([[1.0]]),
                "r": np.array([4.0]),
                "m": np.array([2.0]),
                "S": np.array([[1.0]]),
                "sigma": 1.0,
            },
            hint="Prior and rating are equally sure, so the answer lies half way between 2 and 4.",
        ),
        Case(
            "a sure prior and a noisy rating",
            {
                "Phi": np.array([[1.0, 2.0]]),
                "r": np.array([3.0]),
                "m": np.array([1.0, -1.0]),
                "S": 0.01 * np.eye(2),
                "sigma": 2.0,
            },
            hint="Almost nothing changes: the answer stays close to m.",
        ),
        Case(
            "fewer ratings than features",
            {
                "Phi": _RNG.normal(size=(2, 4)),
                "r": _RNG.normal(size=2),
                "m": _RNG.normal(size=4),
                "S": np.diag([2.0, 1.0, 0.5, 0.2]),
                "sigma": 0.5,
            },
        ),
        Case(
            "many ratings",
            {
                "Phi": _RNG.normal(size=(20, 3)),
                "r": _RNG.normal(size=20),
                "m": _RNG.normal(size=3),
                "S": np.array([[1.0, 0.3, 0.0], [0.3, 1.0, 0.2], [0.0, 0.2, 0.5]]),
                "sigma": 0.7,
            },
        ),
    ),
    hint="S' = inv(inv(S) + Phi.T @ Phi / sigma**2), then "
    "m + S' @ Phi.T @ (r - Phi @ m) / sigma**2.",
    mistakes=(
        Mistake(
            "This is ridge regression towards 0: it forgets the prior mean m. Correct m by what "
            "it did not foresee, r - Phi @ m.",
            _ridge,
        ),
        Mistake("Divide by sigma squared: sigma is a standard deviation.", _noise_not_squared),
        Mistake("The precision is the inverse of S. You added S itself.", _prior_not_inverted),
        Mistake(
            "This trusts the ratings wholly, as if there were no noise: the covariances S and "
            "sigma² weigh prior and ratings.",
            _least_squares,
        ),
    ),
)


# --- simplest_unbeaten -----------------------------------------------------------------------


def _beaten_pair_by_pair(scores: Array, t: Array) -> Array:
    """Each pair of methods by itself, sums written out."""
    methods, n = scores.shape
    for i in range(methods):
        beaten = False
        for j in range(i + 1, methods):
            d = [float(scores[j, k] - scores[i, k]) for k in range(n)]
            mean = sum(d) / n
            spread = (sum((x - mean) ** 2 for x in d) / (n - 1)) ** 0.5
            beaten = beaten or mean - float(t) * spread / n**0.5 > 0
        if not beaten:
            return np.asarray(i)
    return np.asarray(methods - 1)


def _best_mean(scores: Array, t: Array) -> Array:
    return np.asarray(scores.mean(1).argmax())


def _unpaired(scores: Array, t: Array) -> Array:
    n = scores.shape[1]
    half = t * scores.std(1, ddof=1) / np.sqrt(n)
    for i in range(len(scores)):
        if not (scores[i + 1 :].mean(1) - half[i + 1 :] > scores[i].mean() + half[i]).any():
            return np.asarray(i)
    return np.asarray(len(scores) - 1)


def _without_root(scores: Array, t: Array) -> Array:
    for i in range(len(scores)):
        d = scores[i + 1 :] - scores[i]
        if not (d.mean(1) - t * d.std(1, ddof=1) > 0).any():
            return np.asarray(i)
    return np.asarray(len(scores) - 1)


def _next_only(scores: Array, t: Array) -> Array:
    n = scores.shape[1]
    for i in range(len(scores) - 1):
        d = scores[i + 1] - scores[i]
        if not d.mean() - t * d.std(ddof=1) / np.sqrt(n) > 0:
            return np.asarray(i)
    return np.asarray(len(scores) - 1)


_HARD_DRAWS = np.array([0.5, 0.7, 0.6, 0.8, 0.55, 0.75])
_SMALL_NOISE = 0.004 * np.array([1.0, -1, 1, 1, -1, -1])

SIMPLEST_UNBEATEN = Exercise(
    name="capstone.simplest_unbeaten",
    oracle=_beaten_pair_by_pair,
    cases=(
        Case(
            "a clear winner",
            {
                "scores": np.array([[0.5, 0.52, 0.51, 0.5], [0.9, 0.91, 0.9, 0.92]]),
                "t": 3.1824,
            },
            hint="The second method is far better on every draw.",
        ),
        Case(
            "a better mean that is no proof",
            {"scores": np.array([[0.6, 0.7, 0.5, 0.6], [0.9, 0.5, 0.6, 0.7]]), "t": 3.1824},
            hint="The mean difference is above 0, but its interval holds 0: keep the simple one.",
        ),
        Case(
            "draws that are hard for both",
            {
                "scores": np.stack([_HARD_DRAWS, _HARD_DRAWS + 0.03 + _SMALL_NOISE]),
                "t": 2.5706,
            },
            hint="The draws differ much, the differences hardly: take them draw by draw.",
        ),
        Case(
            "the third beats the first",
            {
                "scores": np.array(
                    [[0.50, 0.60, 0.55], [0.60, 0.50, 0.56], [0.70, 0.81, 0.74]], dtype=float
                ),
                "t": 4.3027,
            },
            hint="A method is beaten if any later one beats it, not only the next.",
        ),
        Case(
            "enough draws",
            {
                "scores": np.stack(
                    [
                        0.6 + 0.05 * np.sin(np.arange(30.0)),
                        0.62 + 0.05 * np.cos(2 * np.arange(30.0)),
                    ]
                ),
                "t": 2.0452,
            },
        ),
        Case(
            "a small gain over many draws",
            {
                "scores": np.stack(
                    [np.full(25, 0.7), 0.72 + 0.03 * np.tile([1.0, -1, 1, -1, 0], 5)]
                ),
                "t": 2.0639,
            },
            hint="The standard error is the standard deviation over the root of n.",
        ),
    ),
    hint="For each i: d = scores[i+1:] - scores[i]; low = mean - t * sd / sqrt(n); none above 0?",
    mistakes=(
        Mistake("This is the best mean. A better mean may be chance.", _best_mean),
        Mistake(
            "You compared two intervals. Take the interval of the differences, draw by draw.",
            _unpaired,
        ),
        Mistake("Divide the standard deviation by the square root of n.", _without_root),
        Mistake("Compare with every later method, not only with the next.", _next_only),
    ),
)


# --- honest_choice ---------------------------------------------------------------------------


def _draw_by_draw(validation: Array, test: Array) -> Array:
    """Walk through the draws and remember the first best."""
    total = 0.0
    for k in range(validation.shape[1]):
        best = 0
        for j in range(1, validation.shape[0]):
            if validation[j, k] > validation[best, k]:
                best = j
        total += float(test[best, k])
    return np.asarray(total / validation.shape[1])


HONEST_CHOICE = Exercise(
    name="capstone.honest_choice",
    oracle=_draw_by_draw,
    cases=(
        Case(
            "validation and test agree",
            {
                "validation": np.array([[0.5, 0.6], [0.8, 0.9]]),
                "test": np.array([[0.5, 0.5], [0.7, 0.9]]),
            },
            hint="The second method is chosen in both draws.",
        ),
        Case(
            "the lucky one",
            {
                "validation": np.array([[0.9, 0.5], [0.4, 0.7]]),
                "test": np.array([[0.6, 0.9], [0.8, 0.5]]),
            },
            hint="In the first draw method 0 is chosen (0.6), in the second method 1 (0.5).",
        ),
        Case(
            "a tie",
            {
                "validation": np.array([[0.7, 0.2], [0.7, 0.9]]),
                "test": np.array([[0.6, 0.1], [0.9, 0.8]]),
            },
            hint="On a tie the first method is taken.",
        ),
        Case(
            "five methods",
            {"validation": _RNG.uniform(size=(5, 12)), "test": _RNG.uniform(size=(5, 12))},
        ),
    ),
    hint="test[validation.argmax(axis=0), np.arange(n)].mean()",
    mistakes=(
        Mistake(
            "This is the best test score of each draw: it was chosen on the test.",
            lambda validation, test: test.max(0).mean(),
        ),
        Mistake(
            "You report the validation score that the choice was made on; it is too good as well.",
            lambda validation, test: validation.max(0).mean(),
        ),
        Mistake(
            "You chose one method for all draws. Choose anew in each draw.",
            lambda validation, test: test[validation.mean(1).argmax()].mean(),
        ),
        Mistake(
            "The axes are exchanged: argmax over the methods is axis 0.",
            lambda validation, test: test[:, validation.argmax(1)].mean(),
        ),
    ),
)


# --- balanced_accuracy -----------------------------------------------------------------------


def _from_the_table(y: Array, predicted: Array) -> Array:
    """Count every pair of label and prediction, then divide the diagonal by the row sums."""
    names = sorted(set(y.tolist()) | set(predicted.tolist()))
    table = np.zeros((len(names), len(names)))
    for true, guess in zip(y.tolist(), predicted.tolist(), strict=True):
        table[names.index(true), names.index(guess)] += 1
    rows = table.sum(1)
    return np.asarray(np.mean(np.diag(table)[rows > 0] / rows[rows > 0]))


def _over_all_names(y: Array, predicted: Array) -> Array:
    names = np.unique(np.concatenate([y, predicted]))
    found = [np.mean(predicted[y == c] == c) if (y == c).any() else 0.0 for c in names]
    return np.asarray(np.mean(found))


def _precision(y: Array, predicted: Array) -> Array:
    found = [np.mean(y[predicted == c] == c) if (predicted == c).any() else 0.0 for c in set(y)]
    return np.asarray(np.mean(found))


BALANCED_ACCURACY = Exercise(
    name="capstone.balanced_accuracy",
    oracle=_from_the_table,
    cases=(
        Case(
            "always the frequent class",
            {"y": np.array([0.0] * 19 + [1.0]), "predicted": np.zeros(20)},
            hint="All of class 0 and none of class 1 were found: one half.",
        ),
        Case(
            "three classes",
            {
                "y": np.array([0.0, 0, 0, 0, 1, 1, 2, 2]),
                "predicted": np.array([0.0, 0, 0, 1, 1, 1, 2, 0]),
            },
        ),
        Case(
            "a prediction that is no class of y",
            {"y": np.array([0.0, 0, 1, 1]), "predicted": np.array([0.0, 3, 1, 1])},
            hint="Class 3 does not occur in y: the mean is over classes 0 and 1.",
        ),
        Case(
            "labels that are no row of numbers",
            {"y": np.array([7.0, 7, 7, 4]), "predicted": np.array([7.0, 7, 4, 4])},
            hint="The classes are 4 and 7.",
        ),
    ),
    hint="np.mean([np.mean(predicted[y == c] == c) for c in np.unique(y)])",
    mistakes=(
        Mistake(
            "This is the plain accuracy: the frequent class decides it.",
            lambda y, predicted: np.mean(y == predicted),
        ),
        Mistake("A class that does not occur in y does not count.", _over_all_names),
        Mistake(
            "You divided by how often a class was predicted. Divide by how often it occurs in y.",
            _precision,
        ),
    ),
)


EXERCISES = (POSTERIOR_TASTE, SIMPLEST_UNBEATEN, HONEST_CHOICE, BALANCED_ACCURACY)
