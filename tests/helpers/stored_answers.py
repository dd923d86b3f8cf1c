"""What every run that scores single examples tells of them."""

import numpy as np

from fewshot_course.experiments.results import unpack_answers


def assert_answers(result):
    """As many answers as examples were scored, and the accuracy is their mean."""
    answers = unpack_answers(result.answers)
    assert np.count_nonzero(~np.isnan(answers)) == result.n_test
    assert abs(np.nanmean(answers) - result.metrics["accuracy"]) < 1e-12
