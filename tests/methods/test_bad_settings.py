"""Every estimator, with one setting or one argument of ``fit`` wrong: refused, by its name."""

import re
import warnings
from collections import Counter

import every_estimator
import numpy as np
import pytest
import tiny_bert
from frameworks import FRAMEWORKS
from sklearn.base import clone

from fewshot_course.frameworks import framework_module

ALLOWED = {
    "ImageClassifier pretrained": "ignored where training starts at random, as documented",
    "CompressedTextClassifier model": "ignored where the teacher is the course's, as documented",
}
DATA = ("X", "y", "X_source", "y_source", "X_target", "y_target", "sampler", "episodes")


def wrong_settings(name, value):
    """Return values that no setting of this kind takes."""
    if name == "random_state":
        return ["x", 1.5]
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        return ["x", 1.5, float("nan"), -7, [1]]
    if isinstance(value, float):
        return ["x", float("nan"), float("inf"), -7.0, [1.0]]
    if isinstance(value, str):
        return ["no-such-name", 3]
    if isinstance(value, tuple):
        return [3, "x", (None,), (-1,)]
    return [object()] if value is None else []


def wrong_data(value):
    """Return what cannot stand in an argument of ``fit``."""
    if isinstance(value, list):
        return [3, "x", [], [*value[:-1], 3], set(value), value[:1]]
    if not isinstance(value, np.ndarray):
        return [None, 3, "x"]
    shape = value.shape
    wrong = [
        "x", {}, value[:0], value[:-1], value[None], np.full(shape, np.nan), np.full(shape, "x"),
        np.ma.masked_array(value, mask=np.ones(shape, bool)),
    ]  # fmt: skip
    if value.dtype.kind == "f":
        return [*wrong, np.full(shape, 1e300)]
    return [*wrong, value - 5, value + 0.5, np.full(shape, 2**63 + 1, np.uint64)]


def outcome(estimator, data, names):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(*data, device="cpu")
    except Exception as error:
        if type(error).__module__.startswith("fewshot_course"):
            return "named"
        if not isinstance(error, TypeError | ValueError | OSError | ImportError):
            return f"obscure {error!r:.200}"
        said = any(re.search(rf"\b{name}\b", str(error)) for name in names)
        return "named" if said else f"unnamed {error!r:.200}"
    return "accepted"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_wrong_is_named(framework, tmp_path):
    found, count = [], Counter()
    for name, (fit, _) in every_estimator.fits(framework, tiny_bert.make(tmp_path)).items():
        estimator, data = fit.make(), fit.data
        for setting, value in estimator.get_params(deep=False).items():
            for wrong in wrong_settings(setting, value):
                changed = clone(estimator)
                setattr(changed, setting, wrong)
                said = outcome(changed, data, [setting])
                count[said] += 1
                if said != "named" and f"{name} {setting}" not in ALLOWED:
                    found.append(f"{name} {setting}={wrong!r:.30}: {said}")
        for index, value in enumerate(data):
            for wrong in wrong_data(value):
                said = outcome(clone(estimator), [*data[:index], wrong, *data[index + 1 :]], DATA)
                count[said] += 1
                if said != "named":
                    found.append(f"{name}, argument {index}, {wrong!r:.30}: {said}")
    assert found == [], "\n".join(found)
    assert count["named"] > 1000


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["SelfTraining", "GMMPseudoLabeler", "KLIEP", "ProtoNet"])
def test_numbers_that_overflow_on_the_way_are_refused(framework, name, tmp_path):
    """They are finite in float64; as float32 they gave NaN for a probability, and class 0."""
    fit, X = every_estimator.fits(framework, tiny_bert.make(tmp_path))[name]
    model = fit()
    if X is None:
        X = every_estimator.X
        model = model.adapt(X[:4], every_estimator.Y[:4])
    far = np.array(X[:3])
    far[1] = 1e200
    with pytest.raises(ValueError, match=r"X has 1 of 3 examples .* too large"):
        model.predict_proba(far)
    assert np.isfinite(model.predict_proba(far[[0, 2]])).all()


def test_texts_without_an_order_and_hidden_values_are_refused():
    encoder = framework_module("torch", "encoder")
    for texts in ({"a b", "c d"}, {"a b": 1}):
        with pytest.raises(TypeError, match="texts must be a list of str"):
            encoder.encode(texts)
    with pytest.raises(ValueError, match="texts is a masked array that hides 1"):
        encoder.encode(np.ma.masked_array(["a", "b"], mask=[True, False]))
