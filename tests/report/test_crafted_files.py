"""A file names data, never code: names of modules, dunders and private attributes are refused."""

import copy
import sys

import numpy as np
import own_data
import pytest

from fewshot_course.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from fewshot_course.frameworks import MODULES, framework_module
from fewshot_course.report import load_model, read_examples
from fewshot_course.report._methods import methods_for
from fewshot_course.weights import load_arrays, save_arrays

NAMES = [
    "_torch", "torch", "os.system", "__class__", "__init__", "_build", "fit.__globals__",
    "BaseEstimator", "Networks", "_training", "maml", "settings", "KLAdapter", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def mixture_file(tmp_path_factory):
    """A report's model whose head is an estimator of the course."""
    folder = tmp_path_factory.mktemp("models")
    examples = read_examples(own_data.vector_npz(folder, unlabelled=4))
    (method,) = (m for m in methods_for(examples, "torch", "off")[0] if "ixture" in m.name)
    model = method.model(examples, 0).fit(examples.X, examples.y)
    return model.save(folder / "m.safetensors")


def spoiled(path, tmp_path, *keys, value):
    """Write the file again with one entry of its header changed."""
    arrays, header = load_arrays(path)
    header = copy.deepcopy(header)
    place = header
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return save_arrays(tmp_path / "spoiled.safetensors", arrays, header)


PLACES = [
    ("parts", "features"), ("parts", "head"), ("facts", "head", "framework"),
    ("facts", "head", "header", "class"), ("kind",),
]  # fmt: skip


# "torch" as a framework is a right name in its right place.
SPOILED = [
    (keys, name) for keys in PLACES for name in NAMES if (keys[-1], name) != ("framework", "torch")
]


@pytest.mark.parametrize(("keys", "name"), SPOILED)
def test_a_report_model_takes_names_from_closed_lists(mixture_file, tmp_path, keys, name):
    pytest.importorskip("torch", reason="torch is not installed")
    path = spoiled(mixture_file, tmp_path, *keys, value=name)
    before = set(sys.modules)
    with pytest.raises(ValueError, match=keys[-1]):
        load_model(path)
    assert set(sys.modules) == before, "a name in a file imported something"


@pytest.mark.parametrize("keys", [("parts",), ("facts",), ("facts", "head")])
@pytest.mark.parametrize("value", [None, 3, [], {}])
def test_a_report_model_that_is_not_whole_is_refused(mixture_file, tmp_path, keys, value):
    with pytest.raises(ValueError, match="model"):
        load_model(spoiled(mixture_file, tmp_path, *keys, value=value))


@pytest.fixture(scope="module", params=list(MODULES))
def estimator(request, tmp_path_factory):
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    package = framework_module(request.param)
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    few = np.where(np.arange(40) < 10, y, -1)
    fitted = package.SelfTraining("mlp", steps=2, random_state=0).fit(X, few, device="cpu")
    return package.SelfTraining, fitted.save(tmp_path_factory.mktemp("one") / "e.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_an_estimator_file_sets_only_what_is_declared(estimator, tmp_path, name):
    cls, path = estimator
    for keys in (("class",), ("params",), ("facts",), ("params", name), ("facts", name)):
        with pytest.raises(ValueError, match=r"holds a|settings|facts"):
            cls.load(spoiled(path, tmp_path, *keys, value=name))


@pytest.mark.parametrize("name", NAMES)
def test_an_array_of_another_name_is_refused(estimator, tmp_path, name):
    cls, path = estimator
    arrays, header = load_arrays(path)
    other = save_arrays(tmp_path / "o.safetensors", {**arrays, name: np.zeros(1)}, header)
    with pytest.raises(ValueError, match="unexpected"):
        cls.load(other)


def test_a_network_by_another_name_is_refused(estimator, tmp_path):
    cls, path = estimator
    for name in filter(None, NAMES):  # "" stands for the usual network
        with pytest.raises((ValueError, TypeError), match="network"):
            cls.load(spoiled(path, tmp_path, "params", "network", value=name))


def test_a_checkpoint_is_data_only(tmp_path):
    """What is no safetensors file is refused before anybody could read a pickle in it."""
    save_checkpoint(tmp_path, {"a": np.zeros(2)}, {"step": 1}, fingerprint={"method": "x"})
    (file,) = tmp_path.glob("*.safetensors")
    ran = tmp_path / "ran"
    file.write_bytes(f"cposix\nsystem\n(S'touch {ran}'\ntR.".encode())
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path, {"method": "x"})
    assert not ran.exists()
