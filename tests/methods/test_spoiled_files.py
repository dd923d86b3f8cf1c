"""Every estimator's file, changed in every place: it is refused in words, or does no harm."""

import inspect

import every_estimator
import numpy as np
import pytest
import spoiled
import tiny_bert

from fewshot_course.frameworks import framework_module
from fewshot_course.weights import save_arrays

NAMES = [
    "KLAdapter", "CORALAdapter", "DANNAdapter", "MMDAdapter", "AdaBNAdapter", "KLIEP",
    "SelfTraining", "GANPseudoLabeler",
    "VAEPseudoLabeler", "GMMPseudoLabeler", "ImageClassifier", "DataParallelClassifier",
    "TextClassifier", "CompressedImageClassifier", "CompressedTextClassifier", "MAML", "FOMAML",
    "ANIL", "Reptile", "ProtoNet", "MatchingNet", "FrozenBody",
]  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert.make(tmp_path_factory.mktemp("bert") / "tiny")


def test_every_estimator_of_the_course_is_here(framework, bert):
    package = framework_module(framework.name)
    public = {name: getattr(package, name) for name in package.__all__}
    storable = {
        name for name, one in public.items() if inspect.isclass(one) and hasattr(one, "load")
    }
    assert storable == set(every_estimator.fits(framework.name, bert)) == set(NAMES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_changed_file_is_refused_or_harmless(framework, bert, tmp_path, name):
    fit, examples = every_estimator.fits(framework.name, bert)[name]
    fitted = fit()
    good = fitted.save(tmp_path / "good")
    expected = every_estimator.answer(fitted, examples)
    versions = list(spoiled.versions(good))
    if framework.name != "torch":  # networks are built more slowly there, the reader is the same
        chosen = np.random.default_rng(0).choice(len(versions), 60, replace=False)
        versions = [versions[i] for i in chosen]
    refused, long, wrong = [], [], []
    for what, arrays, header in versions:
        path = save_arrays(tmp_path / "spoiled", arrays, header)
        try:
            loaded = type(fitted).load(path)
        except (ValueError, FileNotFoundError) as error:  # the latter: a text encoder that is named
            refused.append(what)
            long += [what] * (len(str(error)) > 1500)
            continue
        try:
            answer = every_estimator.answer(loaded, examples)
        except ValueError as error:
            wrong += [what] * ("the adaptation diverged" not in str(error))  # a rate may be meant
            continue
        if answer.shape != expected.shape or not np.isfinite(answer).all():
            wrong.append(what)
    assert (long, wrong) == ([], [])
    assert len(refused) > len(versions) / 3
