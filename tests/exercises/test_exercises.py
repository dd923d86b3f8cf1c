"""Every exercise of the course: file, check, solutions and known mistakes belong together.

What holds for the four of one topic must hold for those of the next; nothing here names a topic.
"""

from pathlib import Path

import numpy as np
import pytest
from exercise_files import ANY, FRAMEWORKS, read_exercise

from fewshot_course.exercises import available, check, exercise
from fewshot_course.exercises._exercise import TOLERANCES

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("chapters/**/exercises/*.py"))
MISTAKES = [(name, i) for name in available() for i in range(len(exercise(name).mistakes))]


def define(code, function):
    scope = {"__name__": "answer"}
    exec(compile(code, "<answer>", "exec"), scope)
    return scope[function]


def sections(path):
    one = read_exercise(path)
    for framework in FRAMEWORKS:
        yield one, framework, ANY if ANY in one.code else framework


def test_files_and_checks_are_the_same_set():
    assert FILES
    checks = [read_exercise(path).check for path in FILES]
    assert sorted(checks) == sorted(available())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_solutions_of_both_frameworks_pass(path):
    for one, framework, key in sections(path):
        answer = define(one.solution(key), one.function)
        outcome = check(one.check, answer)
        assert outcome.passed, outcome
        if key != ANY:
            assert outcome.framework == framework
        assert check(one.check, answer, framework=framework).passed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_runs_as_it_stands(path):
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "exercise"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stub_can_be_run_gives_nothing_away_and_is_refused(path):
    for one, framework, key in sections(path):
        stub, solution = one.stub(key), one.solution(key)
        assert "# ---" not in stub + solution
        assert "# Your code" in stub
        outcome = check(one.check, define(stub, one.function), framework=framework)
        assert not outcome.passed
        # Each statement that stands in a gap must be gone from the stub.
        marked = one.code[key].splitlines()
        in_gap, hidden = False, []
        for line in marked:
            if line.strip().startswith("# --- your code"):
                in_gap = True
            elif line.strip() == "# --- end":
                in_gap = False
            elif in_gap and line.strip():
                hidden.append(line.strip())
        assert hidden
        assert not set(hidden) & {line.strip() for line in stub.splitlines()}


@pytest.mark.parametrize("name", available())
def test_enough_mistakes_are_known(name):
    one = exercise(name)
    assert len(one.mistakes) >= 3
    assert len({mistake.says for mistake in one.mistakes}) == len(one.mistakes)
    assert len({case.name for case in one.cases}) == len(one.cases)
    assert one.hint


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("name", "number"), MISTAKES)
def test_known_mistakes_are_refused_and_named(name, number, framework):
    one = exercise(name)
    mistake = one.mistakes[number]
    names = list(one.cases[0].inputs)

    def wrong(*values):
        arrays = [np.asarray(value, dtype=np.float64) for value in values]
        return mistake.function(**dict(zip(names, arrays, strict=True)))

    # float32 tensors in, so this also shows that rounding does not hide a mistake.
    for one_framework in ("numpy", framework):
        outcome = check(name, wrong, framework=one_framework)
        assert not outcome.passed
        assert f"Hint: {mistake.says}" in repr(outcome)


@pytest.mark.parametrize("name", available())
def test_answers_off_by_a_little_are_refused(name):
    one = exercise(name)
    for factor, offset in ((1.001, 0.0), (1.0, 0.001), (-1.0, 0.0)):

        def wrong(*values, factor=factor, offset=offset):
            inputs = dict(zip(one.cases[0].inputs, values, strict=True))
            return factor * one.oracle(**inputs) + offset

        assert not check(name, wrong, framework="numpy").passed


@pytest.mark.parametrize("name", available())
def test_cases_are_finite_and_leave_room_for_rounding(name):
    one = exercise(name)
    for case in one.cases:
        assert list(case.inputs) == list(one.cases[0].inputs)
        assert np.isfinite(one.expected(case)).all()
        rounded = {
            key: value.astype(np.float32).astype(np.float64)
            if isinstance(value, np.ndarray)
            else value
            for key, value in case.inputs.items()
        }
        relative, absolute = TOLERANCES["torch"]
        np.testing.assert_allclose(
            np.asarray(one.oracle(**rounded)),
            one.expected(case),
            rtol=relative / 3,
            atol=absolute / 3,
        )
