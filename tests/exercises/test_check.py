"""What a student can do to ``check``: right answers in any library, and every kind of mistake."""

import functools
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

from fewshot_course.exercises import check
from fewshot_course.exercises._exercise import show

NAME = "kl.coral_loss"


def numpy_answer(source, target):
    gap = np.cov(source, rowvar=False) - np.cov(target, rowvar=False)
    return (gap**2).sum() / (4 * source.shape[1] ** 2)


def torch_answer(source, target):
    gap = torch.atleast_2d(torch.cov(source.T)) - torch.atleast_2d(torch.cov(target.T))
    return (gap**2).sum() / (4 * source.shape[1] ** 2)


def tensorflow_answer(source, target):
    def covariance(x):
        x = x - tf.reduce_mean(x, 0)
        return tf.transpose(x) @ x / tf.constant(len(x) - 1.0)

    gap = covariance(source) - covariance(target)
    return tf.reduce_sum(gap**2) / (4 * source.shape[1] ** 2)


def methods_only(source, target):
    s, t = source - source.mean(0), target - target.mean(0)
    gap = s.T @ s / (len(s) - 1) - t.T @ t / (len(t) - 1)
    return (gap * gap).sum() / (4 * source.shape[1] ** 2)


def torch_methods_only(source, target):
    s, t = source - source.mean(dim=0), target - target.mean(dim=0)
    gap = s.T.matmul(s).div(len(s) - 1) - t.T.matmul(t).div(len(t) - 1)
    return gap.square().sum().div(4 * source.shape[1] ** 2)


def by_a_helper(source, target):
    return torch_answer(source, target)


class Layer(torch.nn.Module):
    def forward(self, source, target):
        scale = torch.nn.functional.relu(torch.ones(1, requires_grad=True))[0]
        return torch_answer(source, target) * scale


def import_inside(source, target):
    import tensorflow

    return tensorflow.constant(tensorflow_answer(source, target))


ANSWERS: dict[str, list[Any]] = {
    "numpy": [numpy_answer, lambda s, t: numpy_answer(s, t)],
    "torch": [torch_answer, by_a_helper, Layer(), torch_methods_only, methods_only],
    "tensorflow": [tensorflow_answer, tf.function(tensorflow_answer), import_inside],
}


@pytest.mark.parametrize(
    ("framework", "answer"), [(name, f) for name, answers in ANSWERS.items() for f in answers]
)
def test_right_answers_pass_and_their_framework_is_found(framework, answer):
    outcome = check(NAME, answer)
    assert outcome.passed, outcome
    assert outcome.framework == framework
    assert (outcome.n_right, outcome.n_cases) == (4, 4)
    assert outcome
    assert "passed, all 4 cases right" in repr(outcome)
    assert check(NAME, answer, framework=framework).passed


def test_framework_can_be_told():
    assert check(NAME, methods_only).framework == "torch"
    assert check(NAME, methods_only, framework="numpy").framework == "numpy"
    partial = functools.partial(tensorflow_answer)
    assert check(NAME, partial).framework == "tensorflow"


def recursion(source, target):
    return recursion(source, target)


def no_arguments():
    return 0.0


def raises(source, target):
    raise RuntimeError("a message\nof two lines")


class Unprintable(Exception):
    def __str__(self):
        raise ValueError


def raises_unprintable(source, target):
    raise Unprintable


def leaves(source, target):
    sys.exit(3)


def unfinished(source, target): ...


def half_finished(source, target):
    ...
    return gap.sum()  # noqa: F821


class Strange:
    def __call__(self, source, target):
        return self

    def __getattr__(self, name):
        raise RuntimeError(name)


MISTAKES = [
    (unfinished, "it returned None: is the `return` missing"),
    (lambda s, t: ..., "a gap is still open"),
    (half_finished, "it raised NameError: name 'gap' is not defined"),
    (recursion, "it raised RecursionError"),
    (raises, "it raised RuntimeError: a message of two lines"),
    (raises_unprintable, "it raised Unprintable"),
    (leaves, "it raised SystemExit"),
    (no_arguments, "it raised TypeError"),
    (lambda s, t: s @ t, "it raised"),
    (lambda s, t: torch.zeros(3), "it returned shape (3,), expected ()"),
    (lambda s, t: torch.zeros(1), "it returned shape (1,), expected ()"),
    (lambda s, t: float("nan"), "it returned NaN in 1 of 1 places"),
    (lambda s, t: torch.tensor(float("inf")), "got      = inf"),
    (lambda s, t: "9", "it returned a str"),
    (lambda s, t: (1.0, 2.0), "it returned a tuple"),
    (lambda s, t: [torch.ones(2), torch.ones(3)], "it returned a list"),
    (lambda s, t: {"loss": 9.0}, "it returned a dict"),
    (lambda s, t: max, "expected one array or number"),
    (lambda s, t: torch_answer, "it returned a function"),
    (lambda s, t: np.array(["a"]), "expected real numbers"),
    (lambda s, t: 1j * numpy_answer(s, t), "expected real numbers"),
    (lambda s, t: np.array(None), "expected real numbers"),
    (lambda s, t: torch.zeros((), requires_grad=True), "got      = 0"),
    (lambda s, t: tf.zeros(()), "got      = 0"),
    (Strange(), "it "),
    (7, "without brackets: check('kl.coral_loss', coral_loss)"),
    (None, "got a value of type NoneType"),
    (torch.ones(()), "got a value of type Tensor"),
    (np.ones(3), "got a value of type ndarray"),
    ("coral_loss", "got a value of type str"),
]


@pytest.mark.parametrize("framework", [None, "numpy", "torch", "tensorflow"])
@pytest.mark.parametrize(("answer", "says"), MISTAKES, ids=range(len(MISTAKES)))
def test_no_mistake_crashes_the_check(answer, says, framework):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = check(NAME, answer, framework)
    assert not outcome.passed
    assert not outcome
    assert outcome.n_right < outcome.n_cases == 4
    assert "not yet" in repr(outcome)
    if framework is None:
        assert says in repr(outcome)


def test_message_tells_case_values_and_hint():
    text = repr(check(NAME, lambda s, t: torch_answer(s, t) + 1))
    for part in [
        "kl.coral_loss: not yet, 0 of 4 cases right, called with PyTorch.",
        "Case 'one feature, variances 2 and 8', coral_loss(source, target): the value differs.",
        "source   = [[-1.] [1.]], shape (2, 1)",
        "expected = 9",
        "got      = 10",
        "Hint: The variance of -1 and 1 is 2",
    ]:
        assert part in text


def test_printing_is_shown_with_the_answer_and_nowhere_else(capfd):
    def talks(source, target):
        print("gap", 3)
        print("also here", file=sys.stderr)

    outcome = check(NAME, talks)
    assert outcome.printed == "gap 3\nalso here\n"
    assert "Your function printed:\n  gap 3\n  also here" in repr(outcome)

    def chatters(source, target):
        print("line\n" * 500)
        return 0.0

    assert len(repr(check(NAME, chatters)).splitlines()) < 30

    def talks_and_is_right(source, target):
        print("fine")
        return torch_answer(source, target)

    assert check(NAME, talks_and_is_right)
    assert capfd.readouterr() == ("", "")


def test_answer_that_changes_its_inputs_cannot_change_the_cases():
    def spoils(source, target):
        value = numpy_answer(source, target)
        source[:] = target[:] = 0
        return value

    assert check(NAME, spoils, framework="numpy").passed
    assert check(NAME, spoils, framework="numpy").passed


def test_interrupting_still_works():
    def interrupted(source, target):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(NAME, interrupted)


def test_unknown_names_are_told():
    with pytest.raises(ValueError, match=r"Did you mean 'kl.coral_loss'"):
        check("kl.coral_los", torch_answer)
    with pytest.raises(ValueError, match="framework='jax' is not known"):
        check(NAME, torch_answer, framework="jax")


def test_framework_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="torch"):
        check(NAME, torch_answer, framework="torch")
    assert "it raised" in repr(check(NAME, torch_answer))


def test_large_arrays_are_shown_by_their_first_row():
    assert show(np.arange(3.0)) == "[0. 1. 2.], shape (3,)"
    assert show(np.ones((100, 4))) == "array of shape (100, 4), first row [1. 1. 1. 1.]"
    assert len(show(np.random.default_rng(0).normal(size=(50, 1000)))) < 200
    assert show(0.25) == "0.25"
