"""The oracles of the topic "which method when" against the package, and planted answers."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from fewshot_course.cold_start import Prior, Ratings, posterior_taste
from fewshot_course.evaluation import paired_difference
from fewshot_course.exercises import check, exercise


def oracle(name):
    return exercise(f"capstone.{name}").oracle


def test_oracles_are_what_the_package_computes():
    rng = np.random.default_rng(0)
    phi, r, m = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=3)
    prior = Prior(m, np.diag([1.0, 2.0, 0.5]), 0.4)
    means, _ = posterior_taste(Ratings(phi[None], r[None]), prior)
    np.testing.assert_allclose(
        oracle("posterior_taste")(phi, r, m, prior.covariance, 0.4), means[0], rtol=1e-10
    )
    y, predicted = rng.integers(3, size=50), rng.integers(3, size=50)
    assert float(oracle("balanced_accuracy")(y, predicted)) == pytest.approx(
        balanced_accuracy_score(y, predicted)
    )


def test_unbeaten_means_what_a_paired_interval_says():
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores = rng.normal(size=(2, 10)) + np.array([[0.0], [0.8]])
        beaten = paired_difference(scores[1], scores[0]).low > 0
        assert int(oracle("simplest_unbeaten")(scores, 2.2622)) == int(beaten)


# Wrong answers as students write them.
PLANTED = {
    "capstone.posterior_taste": [
        lambda Phi, r, m, S, sigma: m + S @ Phi.T @ (r - Phi @ m) / sigma**2,  # the old covariance
        lambda Phi, r, m, S, sigma: np.linalg.lstsq(Phi, r, rcond=None)[0],  # the ratings alone
        lambda Phi, r, m, S, sigma: (m + np.linalg.pinv(Phi) @ r) / 2,  # half way, always
    ],
    "capstone.simplest_unbeaten": [
        lambda scores, t: np.asarray(0),  # always the simplest
        lambda scores, t: np.asarray(len(scores) - 1),  # always the last
        lambda scores, t: np.asarray(np.median(scores, axis=1).argmax()),  # the best median
    ],
    "capstone.honest_choice": [
        lambda validation, test: test[validation.argmin(0), np.arange(test.shape[1])].mean(),
        lambda validation, test: test.mean(1).max(),  # the best method on the test
        lambda validation, test: ((validation + test) / 2).max(0).mean(),  # both parts together
    ],
    "capstone.balanced_accuracy": [
        lambda y, predicted: np.mean([np.sum(predicted[y == c] == c) for c in np.unique(y)]),
        lambda y, predicted: min(np.mean(predicted[y == c] == c) for c in np.unique(y)),
        lambda y, predicted: np.mean([np.mean((y == c) == (predicted == c)) for c in np.unique(y)]),
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
