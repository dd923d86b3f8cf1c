"""Exercises of the topic "Domain adaptation by KL divergence"."""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, special, stats

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(20)


# --- gaussian_kl -----------------------------------------------------------------------------


def _kl_by_quadrature(mean_p: Array, log_var_p: Array, mean_q: Array, log_var_q: Array) -> Array:
    """Integrate p (log p - log q) for each coordinate; coordinates are independent, so add.

    The trapezoidal rule on 12 standard deviations each way is exact to rounding for integrands
    that fall off like a Gaussian (Trefethen & Weideman, SIAM Review 56, 2014).
    """
    p = stats.norm(mean_p, np.exp(log_var_p / 2))
    q = stats.norm(mean_q, np.exp(log_var_q / 2))
    x = p.mean() + p.std() * np.linspace(-12, 12, 1001)[:, None, None]
    return integrate.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x, axis=0).sum(axis=1)


def _kl_terms(mean_p: Array, log_var_p: Array, mean_q: Array, log_var_q: Array) -> Array:
    distance = (mean_p - mean_q) ** 2 / np.exp(log_var_q)
    return 0.5 * (log_var_q - log_var_p + np.exp(log_var_p - log_var_q) + distance - 1)


def _four(n: int, d: int) -> dict[str, Array]:
    names = ("mean_p", "log_var_p", "mean_q", "log_var_q")
    return {name: np.round(_RNG.normal(0, 0.8, (n, d)), 2) for name in names}


_STANDARD = {"mean_q": np.zeros((1, 1)), "log_var_q": np.zeros((1, 1))}

GAUSSIAN_KL = Exercise(
    name="kl.gaussian_kl",
    oracle=_kl_by_quadrature,
    cases=(
        Case(
            "means 2 apart, both variances 1",
            {"mean_p": np.full((1, 1), 2.0), "log_var_p": np.zeros((1, 1)), **_STANDARD},
            hint="Only the distance of the means counts here: half of its square.",
        ),
        Case(
            "same mean, variances 4 and 1",
            {"mean_p": np.zeros((1, 1)), "log_var_p": np.full((1, 1), math.log(4)), **_STANDARD},
            hint="The arguments are logarithms of variances, not of standard deviations.",
        ),
        Case(
            "p equals q: the divergence is 0",
            {
                "mean_p": np.array([[1.0, -2.0]]),
                "log_var_p": np.array([[0.5, -1.0]]),
                "mean_q": np.array([[1.0, -2.0]]),
                "log_var_q": np.array([[0.5, -1.0]]),
            },
            hint="Do not forget the -1 of each coordinate.",
        ),
        Case("three pairs of Gaussians in two dimensions", _four(3, 2)),
        Case("two pairs in five dimensions", _four(2, 5)),
    ),
    hint="For each coordinate: half of (log var_q - log var_p + var_p / var_q "
    "+ (mean_p - mean_q)^2 / var_q - 1). Then sum over the coordinates, the last axis.",
    mistakes=(
        Mistake(
            "This is KL(q || p), the other direction. The samples that count come from p, so "
            "you divide by the variance of q.",
            lambda mean_p, log_var_p, mean_q, log_var_q: _kl_terms(
                mean_q, log_var_q, mean_p, log_var_p
            ).sum(1),
        ),
        Mistake(
            "You took the mean over the coordinates. Independent coordinates add up: take the sum.",
            lambda **inputs: _kl_terms(**inputs).mean(1),
        ),
        Mistake(
            "The factor 1/2 in front is missing.",
            lambda **inputs: 2 * _kl_terms(**inputs).sum(1),
        ),
        Mistake(
            "The squared distance of the means must be divided by the variance of q.",
            lambda mean_p, log_var_p, mean_q, log_var_q: (
                _kl_terms(mean_p, log_var_p, mean_p, log_var_q) + 0.5 * (mean_p - mean_q) ** 2
            ).sum(1),
        ),
        Mistake(
            "You read the arguments as logarithms of standard deviations. They are logarithms "
            "of variances: var = exp(log_var).",
            lambda mean_p, log_var_p, mean_q, log_var_q: _kl_terms(
                mean_p, 2 * log_var_p, mean_q, 2 * log_var_q
            ).sum(1),
        ),
        Mistake(
            "The -1 of each coordinate is missing: without it KL(p || p) is not 0.",
            lambda **inputs: (_kl_terms(**inputs) + 0.5).sum(1),
        ),
        Mistake(
            "The term with the distance of the means is missing.",
            lambda mean_p, log_var_p, mean_q, log_var_q: _kl_terms(
                mean_p, log_var_p, mean_p, log_var_q
            ).sum(1),
        ),
    ),
)


# --- monte_carlo_kl --------------------------------------------------------------------------


def _monte_carlo_by_loop(log_p: Array, log_q: Array) -> Array:
    """Sum the terms one by one; the closed form stands against it in the tests."""
    samples, n = log_p.shape
    return np.array(
        [
            math.fsum(math.expm1(log_q[s, i] - log_p[s, i]) for s in range(samples)) / samples
            + math.fsum(log_p[s, i] - log_q[s, i] for s in range(samples)) / samples
            for i in range(n)
        ]
    )


def _log_densities(samples: int, n: int) -> dict[str, Array]:
    """Log densities of N(0, 1) and N(1/2, 1) at points drawn from the first."""
    x = np.round(_RNG.normal(size=(samples, n)), 2)
    log_p = stats.norm.logpdf(x)
    return {"log_p": np.round(log_p, 3), "log_q": np.round(stats.norm.logpdf(x, 0.5), 3)}


MONTE_CARLO_KL = Exercise(
    name="kl.monte_carlo_kl",
    oracle=_monte_carlo_by_loop,
    cases=(
        Case(
            "one sample, r = log 2",
            {"log_p": np.zeros((1, 1)), "log_q": np.full((1, 1), math.log(2))},
            hint="exp(r) - 1 - r = 2 - 1 - log 2, which is not negative.",
        ),
        Case(
            "p equals q: the estimate is 0, whatever the samples",
            {"log_p": np.array([[-1.0], [-3.0]]), "log_q": np.array([[-1.0], [-3.0]])},
        ),
        Case("eight samples for each of three pairs", _log_densities(8, 3)),
        Case("five samples for each of two pairs", _log_densities(5, 2)),
    ),
    hint="With r = log_q - log_p take exp(r) - 1 - r, then the mean over the samples, axis 0.",
    mistakes=(
        Mistake(
            "This is the plain estimator, the mean of log p - log q. It has the right mean, but "
            "single terms are negative and it varies more: add the term exp(r) - 1, whose mean "
            "is 0.",
            lambda log_p, log_q: (log_p - log_q).mean(0),
        ),
        Mistake(
            "The sign of r is turned: the samples come from p, so r = log_q - log_p.",
            lambda log_p, log_q: (np.expm1(log_p - log_q) - (log_p - log_q)).mean(0),
        ),
        Mistake(
            "You summed over the samples; take their mean.",
            lambda log_p, log_q: (np.expm1(log_q - log_p) - (log_q - log_p)).sum(0),
        ),
        Mistake(
            "You took the mean over axis 1. Samples lie along axis 0, pairs along axis 1.",
            lambda log_p, log_q: (np.expm1(log_q - log_p) - (log_q - log_p)).mean(1),
        ),
        Mistake(
            "The -1 is missing: exp(r) has the mean 1, exp(r) - 1 the mean 0.",
            lambda log_p, log_q: (np.exp(log_q - log_p) - (log_q - log_p)).mean(0),
        ),
        Mistake(
            "This is half the mean square of r: small variance, but biased.",
            lambda log_p, log_q: ((log_q - log_p) ** 2 / 2).mean(0),
        ),
    ),
)


# --- leave_one_out_log_prob ------------------------------------------------------------------


def _leave_one_out_by_loop(z: Array, mean: Array, log_var: Array) -> Array:
    """Take SciPy's normal densities and delete the own component, one sample at a time."""
    components = stats.norm(mean, np.exp(log_var / 2))
    rows = []
    for i, point in enumerate(z):
        others = np.delete(components.logpdf(point).sum(axis=1), i)
        rows.append(special.logsumexp(others) - math.log(len(others)))
    return np.array(rows)


def _pairwise(z: Array, mean: Array, log_var: Array) -> Array:
    scaled = (z[:, None] - mean) ** 2 / np.exp(log_var)
    return -0.5 * (scaled + log_var + math.log(2 * math.pi)).sum(2)


def _without_own(z: Array, mean: Array, log_var: Array) -> Array:
    log_prob = _pairwise(z, mean, log_var)
    np.fill_diagonal(log_prob, -np.inf)
    return log_prob


def _encodings(n: int, d: int) -> dict[str, Array]:
    mean = np.round(_RNG.normal(0, 1.5, (n, d)), 2)
    log_var = np.round(_RNG.normal(-0.5, 0.5, (n, d)), 2)
    z = np.round(mean + np.exp(log_var / 2) * _RNG.normal(size=(n, d)), 2)
    return {"z": z, "mean": mean, "log_var": log_var}


LEAVE_ONE_OUT = Exercise(
    name="kl.leave_one_out_log_prob",
    oracle=_leave_one_out_by_loop,
    cases=(
        Case(
            "two encodings: each sample sees only the other's component",
            {
                "z": np.array([[0.0], [1.0]]),
                "mean": np.array([[0.0], [2.0]]),
                "log_var": np.zeros((2, 1)),
            },
            hint="With n = 2 the mixture without the own component is one Gaussian.",
        ),
        Case("four encodings in two dimensions", _encodings(4, 2)),
        Case("six encodings in three dimensions", _encodings(6, 3)),
        Case(
            "encodings 60 standard deviations apart",
            {
                "z": np.array([[0.0], [60.0], [120.0]]),
                "mean": np.array([[0.0], [60.0], [120.0]]),
                "log_var": np.zeros((3, 1)),
            },
            hint="exp(-1800) is 0 in floating point, and log(0) is -inf. Stay in logarithms: "
            "use logsumexp, which takes the largest term out first.",
        ),
    ),
    hint="Make the matrix log N(z_i; mean_j, var_j), set its diagonal to -inf, take logsumexp "
    "over j and subtract log(n - 1).",
    mistakes=(
        Mistake(
            "The own component is still in. Each z_i lies near the component it was drawn from, "
            "so the density looks too high: set the diagonal to -inf before logsumexp and "
            "divide by n - 1.",
            lambda **inputs: special.logsumexp(_pairwise(**inputs), 1) - math.log(len(inputs["z"])),
        ),
        Mistake(
            "Without the own component there are n - 1 components: subtract log(n - 1), not "
            "log(n).",
            lambda **inputs: (
                special.logsumexp(_without_own(**inputs), 1) - math.log(len(inputs["z"]))
            ),
        ),
        Mistake(
            "The mean over the components is missing: subtract log(n - 1).",
            lambda **inputs: special.logsumexp(_without_own(**inputs), 1),
        ),
        Mistake(
            "This is the mean of the log densities. A mixture averages the densities: take the "
            "logarithm afterwards, which is what logsumexp does.",
            lambda **inputs: (
                (_pairwise(**inputs).sum(1) - np.diag(_pairwise(**inputs))) / (len(inputs["z"]) - 1)
            ),
        ),
        Mistake(
            "You summed over the wrong axis: row i is for the sample z_i, columns are components.",
            lambda **inputs: (
                special.logsumexp(_without_own(**inputs), 0) - math.log(len(inputs["z"]) - 1)
            ),
        ),
        Mistake(
            "You set the own component's log density to 0, which is a density of 1. A component "
            "that is left out has density 0, log density -inf.",
            lambda **inputs: (
                special.logsumexp(
                    np.where(np.eye(len(inputs["z"])) == 1, 0.0, _pairwise(**inputs)), 1
                )
                - math.log(len(inputs["z"]) - 1)
            ),
        ),
        Mistake(
            "The densities underflow: exp(-1800) is 0 in floating point, and its logarithm is "
            "-inf. Use logsumexp.",
            lambda **inputs: np.log(np.exp(_without_own(**inputs)).sum(1) / (len(inputs["z"]) - 1)),
        ),
    ),
)


# --- coral_loss ------------------------------------------------------------------------------


def _coral_by_numpy(source: Array, target: Array) -> float:
    """Take NumPy's covariances; their difference is symmetric, so its eigenvalues will do."""
    gap = np.atleast_2d(np.cov(source, rowvar=False)) - np.atleast_2d(np.cov(target, rowvar=False))
    return float((np.linalg.eigvalsh(gap) ** 2).sum() / (4 * source.shape[1] ** 2))


def _covariance(X: Array, ddof: int = 1, centre: bool = True) -> Array:
    X = X - X.mean(0) if centre else X
    return X.T @ X / (len(X) - ddof)


def _coral(source: Array, target: Array, ddof: int = 1, centre: bool = True) -> float:
    gap = _covariance(source, ddof, centre) - _covariance(target, ddof, centre)
    return float((gap**2).sum() / (4 * source.shape[1] ** 2))


def _two_batches(n: int, m: int, d: int) -> dict[str, Array]:
    source = _RNG.normal(1.0, 1.0, (n, d)) @ _RNG.normal(0, 1, (d, d))
    target = _RNG.normal(-0.5, 1.5, (m, d))
    return {"source": np.round(source, 2), "target": np.round(target, 2)}


CORAL = Exercise(
    name="kl.coral_loss",
    oracle=_coral_by_numpy,
    cases=(
        Case(
            "one feature, variances 2 and 8",
            {"source": np.array([[-1.0], [1.0]]), "target": np.array([[-2.0], [2.0]])},
            hint="The variance of -1 and 1 is 2 (divide by n - 1 = 1), so the loss is "
            "(2 - 8)^2 / 4 = 9.",
        ),
        Case(
            "the target is the source moved by 5: the loss is 0",
            {
                "source": np.array([[0.0, 1.0], [2.0, -1.0], [1.0, 3.0]]),
                "target": np.array([[5.0, 6.0], [7.0, 4.0], [6.0, 8.0]]),
            },
            hint="Subtract each batch's own mean first: CORAL does not see where a batch lies.",
        ),
        Case("six source and four target rows, three features", _two_batches(6, 4, 3)),
        Case("five source and nine target rows, two features", _two_batches(5, 9, 2)),
    ),
    hint="Centre each batch, make its covariance with n - 1, subtract, square, sum all entries, "
    "divide by 4 d^2.",
    mistakes=(
        Mistake(
            "The scale is 1 / (4 d^2); the 4 is missing.",
            lambda source, target: 4 * _coral(source, target),
        ),
        Mistake(
            "The scale 1 / (4 d^2) is missing, d being the number of features.",
            lambda source, target: 4 * source.shape[1] ** 2 * _coral(source, target),
        ),
        Mistake(
            "The scale is 1 / (4 d^2), with the square of the number of features d.",
            lambda source, target: source.shape[1] * _coral(source, target),
        ),
        Mistake(
            "Your covariances divide by n. Unbiased covariances divide by n - 1.",
            lambda source, target: _coral(source, target, ddof=0),
        ),
        Mistake(
            "The rows are not centred: subtract each batch's own mean before X.T @ X.",
            lambda source, target: _coral(source, target, centre=False),
        ),
        Mistake(
            "This is the Frobenius norm itself; CORAL takes its square.",
            lambda source, target: float(
                np.sqrt(((_covariance(source) - _covariance(target)) ** 2).sum())
                / (4 * source.shape[1] ** 2)
            ),
        ),
        Mistake(
            "You compare the variances only. CORAL compares the whole covariance matrices.",
            lambda source, target: float(
                ((source.var(0, ddof=1) - target.var(0, ddof=1)) ** 2).sum()
                / (4 * source.shape[1] ** 2)
            ),
        ),
    ),
)

EXERCISES = (GAUSSIAN_KL, MONTE_CARLO_KL, LEAVE_ONE_OUT, CORAL)
