"""Bad input, generated: errors name the argument, and nothing wrong is taken without a word.

Each public function is called with one argument wrong.  What must be refused and is not, or not by
its name, stands in ``ALLOWED``; the list may become shorter only.
"""

import importlib
import inspect
import re
import warnings
from collections import Counter

import bad_values
import pytest
import tiny_bert
import valid_calls
from frameworks import FRAMEWORKS

# function, argument, what is wrong: why it is as it is.
ALLOWED = {
    "encoder.low_rank_update alpha -1.0": "a factor of any sign",
    "intervals.accuracy_interval correct NaN": "an item that was not asked",
    "results.pack_answers correct NaN": "an item that was not asked",
}
OBSCURE = 0.02
"""Part of all refusals that may be of another kind than documented."""


def outcome(function, arguments, changed, alone=True):
    """Call; return "accepted", "named", "unnamed" or "obscure", and the error.

    Where two arguments do not fit together, and neither is wrong alone, either name will do.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**arguments)
    except Exception as error:
        documented = isinstance(error, TypeError | ValueError | OSError | ImportError)
        if not documented and not type(error).__module__.startswith("fewshot_course"):
            return "obscure", error
        names = [changed] if alone else list(arguments)
        said = any(re.search(rf"\b{name}\b", str(error)) for name in names)
        return ("named" if said else "unnamed"), error
    return "accepted", None


def function_of(name):
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(f"fewshot_course.{module}"), function)


def tried(calls):
    """Yield function, argument, what is wrong, whether it must be refused, outcome and error."""
    for name, arguments in sorted(calls.items()):
        function = function_of(name)
        function(**arguments)  # the call itself is right
        parameters = inspect.signature(function).parameters
        for argument, value in arguments.items():
            optional = parameters[argument].default is None
            for what, wrong, must in bad_values.variants(argument, value):
                must = must and not (optional and wrong is None)
                found, error = outcome(function, arguments | {argument: wrong}, argument, must)
                yield f"{name} {argument} {what}", must, found, error


def check(calls):
    count, not_allowed = Counter(), []
    for what, must, found, error in tried(calls):
        count[found] += 1
        if must and found != "named" and what.partition(".")[2] not in ALLOWED:
            not_allowed.append(f"{what}: {found}, {error!r:.200}")
    assert not_allowed == [], "\n".join(not_allowed)
    refused = sum(count.values()) - count["accepted"]
    assert count["obscure"] <= OBSCURE * refused, count
    assert count["named"] >= 0.95 * refused, count


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_functions_of_a_framework_name_what_is_wrong(framework, tmp_path, monkeypatch):
    calls = valid_calls.of_framework(framework, tiny_bert.make(tmp_path))
    monkeypatch.chdir(tmp_path)
    check(calls)


def test_functions_without_a_framework_name_what_is_wrong(tmp_path, monkeypatch):
    calls = valid_calls.shared(tmp_path)
    monkeypatch.chdir(tmp_path)  # some names are written to
    check(calls)


def test_every_public_function_has_a_call(tmp_path):
    names = {name for name, _ in valid_calls.public_functions()}
    tried = set(valid_calls.LEFT_OUT) | set(valid_calls.shared(tmp_path))
    for framework in ("torch", "tensorflow"):
        tried |= set(valid_calls.of_framework(framework, tiny_bert.make(tmp_path)))
    assert names - tried == set()
    assert set(valid_calls.LEFT_OUT) - names == set()


def test_a_planted_fault_is_found():
    def careless(X):
        return X.sum()

    assert outcome(careless, {"X": None}, "X")[0] == "obscure"
    assert outcome(lambda X: X, {"X": None}, "X")[0] == "accepted"
    assert outcome(lambda X: float(X), {"X": "x"}, "X")[0] == "unnamed"
