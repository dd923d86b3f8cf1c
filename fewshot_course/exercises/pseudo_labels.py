"""Exercises of the topic "Semi-supervised learning": mixtures and pseudo-labels."""

from __future__ import annotations

import numpy as np
from scipy import special, stats

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(30)


# --- responsibilities ------------------------------------------------------------------------


def _responsibilities(x: Array, weights: Array, means: Array, variances: Array) -> Array:
    """Ask SciPy for each density, and normalise with logsumexp."""
    d = x.shape[1]
    parts = zip(weights, means, variances, strict=True)
    joint = [
        np.log(w) + stats.multivariate_normal(m, v * np.eye(d)).logpdf(x).reshape(-1)
        for w, m, v in parts
    ]
    log_joint = np.stack(joint, axis=1)
    return np.exp(log_joint - special.logsumexp(log_joint, axis=1, keepdims=True))


def _from_log(x: Array, weights: Array, means: Array, variances: Array, d: float) -> Array:
    distance = ((x[:, None] - means) ** 2).sum(2)
    return special.softmax(
        np.log(weights) - 0.5 * (d * np.log(variances) + distance / variances), 1
    )


def _densities(x: Array, weights: Array, means: Array, variances: Array) -> Array:
    distance = ((x[:, None] - means) ** 2).sum(2)
    density = weights * variances ** (-x.shape[1] / 2) * np.exp(-0.5 * distance / variances)
    return density / density.sum(1, keepdims=True)


_PAIR = {"weights": np.array([0.5, 0.5]), "means": np.array([[-1.0], [1.0]])}

RESPONSIBILITIES = Exercise(
    name="pseudo_labels.responsibilities",
    oracle=_responsibilities,
    cases=(
        Case(
            "two equal Gaussians, a point in the middle and one at the right",
            {"x": np.array([[0.0], [1.0]]), **_PAIR, "variances": np.ones(2)},
        ),
        Case(
            "one is wider: its density is lower at its mean",
            {"x": np.array([[0.0], [-1.0]]), **_PAIR, "variances": np.array([4.0, 1.0])},
            hint="The log density has the term -½·d·log σ², which differs between components.",
        ),
        Case(
            "three components in the plane, unequal weights",
            {
                "x": np.round(_RNG.normal(size=(4, 2)), 2),
                "weights": np.array([0.7, 0.2, 0.1]),
                "means": np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]),
                "variances": np.array([1.0, 0.5, 2.0]),
            },
        ),
        Case(
            "a point far from all means",
            {"x": np.array([[80.0]]), **_PAIR, "variances": np.ones(2)},
            hint="All densities are 0 here, and 0/0 is NaN. Stay with logarithms until the end.",
        ),
    ),
    hint="softmax over k of log π_k - ½ (d log σ_k² + |x - μ_k|²/σ_k²).",
    mistakes=(
        Mistake(
            "The weights are missing: a rare component must be less probable.",
            lambda x, weights, means, variances: _responsibilities(
                x, np.ones_like(weights), means, variances
            ),
        ),
        Mistake(
            "The log density needs d·log σ², with the number d of coordinates: it is missing.",
            lambda **inputs: _from_log(**inputs, d=0),
        ),
        Mistake(
            "You normalised over the points. Each point's row must sum to 1.",
            lambda x, weights, means, variances: special.softmax(
                np.log(weights)
                - 0.5
                * (x.shape[1] * np.log(variances) + ((x[:, None] - means) ** 2).sum(2) / variances),
                0,
            ),
        ),
        Mistake(
            "Far from all means every density is 0, and 0/0 is NaN. Stay with logarithms.",
            _densities,
        ),
    ),
)


# --- m_step_variances ------------------------------------------------------------------------


def _variances(x: Array, r: Array) -> Array:
    """Let NumPy weigh: np.cov with ``aweights``, one component at a time."""
    return np.stack(
        [np.diag(np.cov(x, rowvar=False, aweights=w, ddof=0).reshape(x.shape[1], -1)) for w in r.T]
    )


def _moments(x: Array, r: Array) -> tuple[Array, Array]:
    counts = r.sum(0)[:, None]
    means = r.T @ x / counts
    return counts, (r[:, :, None] * (x[:, None] - means) ** 2).sum(0)


_X = np.round(_RNG.normal(size=(6, 3)), 2)

M_STEP_VARIANCES = Exercise(
    name="pseudo_labels.m_step_variances",
    oracle=_variances,
    cases=(
        Case("one component: the plain variance", {"x": _X, "r": np.ones((6, 1))}),
        Case(
            "two components that share nothing",
            {"x": _X, "r": np.repeat(np.eye(2), [2, 4], axis=0)},
            hint="Each component has a mean and a count of its own.",
        ),
        Case(
            "soft responsibilities",
            {"x": _X, "r": np.round(_RNG.dirichlet(np.ones(3), 6), 2) + 0.01},
        ),
    ),
    hint="counts = Σ_i r_ik; means = rᵀx / counts; then Σ_i r_ik (x_i - μ_k)² / counts.",
    mistakes=(
        Mistake(
            "You divided by the number of points. Divide by the component's count Σ_i r_ik.",
            lambda x, r: _moments(x, r)[1] / len(x),
        ),
        Mistake(
            "You took the differences to the mean of all points; each component has its own.",
            lambda x, r: (r[:, :, None] * (x - x.mean(0))[:, None] ** 2).sum(0) / r.sum(0)[:, None],
        ),
        Mistake(
            "These are second moments. Subtract the squared means, or centre first.",
            lambda x, r: r.T @ x**2 / r.sum(0)[:, None],
        ),
        Mistake(
            "These are standard deviations; variances are wanted.",
            lambda x, r: np.sqrt(_variances(x, r)),
        ),
    ),
)


# --- clamped_responsibilities ----------------------------------------------------------------


def _clamped(log_joint: Array, y: Array, component_class: Array) -> Array:
    """Normalise row by row over the allowed components alone."""
    result = np.zeros_like(log_joint)
    for i, label in enumerate(y):
        allowed = np.flatnonzero((label == -1) | (component_class == label))
        row = log_joint[i, allowed]
        result[i, allowed] = np.exp(row - special.logsumexp(row))
    return result


def _zeroed(log_joint: Array, y: Array, component_class: Array) -> Array:
    allowed = (y[:, None] == -1) | (y[:, None] == component_class)
    return special.softmax(log_joint, axis=1) * allowed


CLAMPED_RESPONSIBILITIES = Exercise(
    name="pseudo_labels.clamped_responsibilities",
    oracle=_clamped,
    cases=(
        Case(
            "one component a class, the second point is labelled",
            {
                "log_joint": np.log([[0.3, 0.1], [0.3, 0.1]]),
                "y": np.array([-1.0, 1.0]),
                "component_class": np.array([0.0, 1.0]),
            },
        ),
        Case(
            "two components of class 0",
            {
                "log_joint": np.log([[0.2, 0.1, 0.5], [0.2, 0.1, 0.5], [0.2, 0.1, 0.5]]),
                "y": np.array([0.0, 1.0, -1.0]),
                "component_class": np.array([0.0, 0.0, 1.0]),
            },
            hint="A label of class 0 leaves two components; they share the point, in proportion.",
        ),
        Case(
            "a label against all evidence",
            {
                "log_joint": np.array([[0.0, -300.0], [-2.0, -1.0]]),
                "y": np.array([1.0, -1.0]),
                "component_class": np.array([0.0, 1.0]),
            },
            hint="The allowed component gets all of the point, however improbable it is.",
        ),
    ),
    hint="Put -inf where a label forbids a component, then softmax over each row.",
    mistakes=(
        Mistake(
            "You set forbidden responsibilities to 0 but did not normalise again: a labelled "
            "point then counts less than 1.",
            _zeroed,
        ),
        Mistake(
            "The labels play no part: this is the E-step without clamps.",
            lambda log_joint, y, component_class: special.softmax(log_joint, axis=1),
        ),
        Mistake(
            "You gave each allowed component the same share. They share in proportion to "
            "exp(log_joint).",
            lambda log_joint, y, component_class: np.where(
                y[:, None] == -1,
                special.softmax(log_joint, axis=1),
                (y[:, None] == component_class)
                / (y[:, None] == component_class).sum(1, keepdims=True).clip(1),
            ),
        ),
    ),
)


# --- pseudo_label_loss -----------------------------------------------------------------------


def _loss_terms(logits: Array, threshold: float) -> tuple[Array, Array]:
    """Return -log of each row's largest probability, and whether the row counts."""
    proba = special.softmax(logits, axis=1)
    return -np.log(proba.max(1)), proba.max(1) >= threshold


def _pseudo_label_loss(logits: Array, threshold: float) -> Array:
    losses, counted = _loss_terms(logits, threshold)
    return np.asarray(losses[counted].sum() / len(logits))


_LOGITS = np.array([[3.0, 0.0, 0.0], [0.0, 0.2, 0.1], [-1.0, 0.5, 4.0], [1.0, 0.0, 0.0]])

PSEUDO_LABEL_LOSS = Exercise(
    name="pseudo_labels.pseudo_label_loss",
    oracle=_pseudo_label_loss,
    cases=(
        Case("every example counts", {"logits": _LOGITS, "threshold": 0.0}),
        Case(
            "two of four are confident",
            {"logits": _LOGITS, "threshold": 0.8},
            hint="Divide by all four examples, not by the two that count.",
        ),
        Case(
            "none is confident",
            {"logits": _LOGITS, "threshold": 0.99},
            hint="Nothing is added up, so the loss is 0, not NaN.",
        ),
    ),
    hint="minus the largest log probability of each confident row, summed, divided by n.",
    mistakes=(
        Mistake(
            "You divided by the number of confident examples. Divide by all of the batch.",
            lambda logits, threshold: np.asarray(
                _loss_terms(logits, threshold)[0][_loss_terms(logits, threshold)[1]].mean()
                if _loss_terms(logits, threshold)[1].any()
                else np.nan
            ),
        ),
        Mistake(
            "The threshold plays no part: unsure examples must add nothing.",
            lambda logits, threshold: _loss_terms(logits, threshold)[0].mean(),
        ),
        Mistake(
            "This is the entropy of the predictions. A pseudo-label is one class, the likeliest.",
            lambda logits, threshold: (
                stats.entropy(special.softmax(logits, axis=1), axis=1)
                * _loss_terms(logits, threshold)[1]
            ).mean(),
        ),
        Mistake(
            "You compared logits with the threshold. Confidence is a probability.",
            lambda logits, threshold: (
                _loss_terms(logits, threshold)[0] * (logits.max(1) >= threshold)
            ).mean(),
        ),
    ),
)

EXERCISES = (RESPONSIBILITIES, M_STEP_VARIANCES, CLAMPED_RESPONSIBILITIES, PSEUDO_LABEL_LOSS)
