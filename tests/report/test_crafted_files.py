"""A file names data, never code: names of modules, dunders and private attributes are refused."""

import ast
import copy
import json
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import own_data
import pytest
import spoiled as spoiled_values
from safetensors.numpy import save as to_bytes

import fewshot_course
from fewshot_course import checkpoints
from fewshot_course.checkpoints import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fewshot_course.experiments.characters import read_parts
from fewshot_course.experiments.networks import load_plans
from fewshot_course.experiments.results import Result, ResultsError, read_results
from fewshot_course.experiments.sweep import SweepError, load_sweep
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


def leaves(header, path=()):
    """Yield the place of every value in a header."""
    yield path
    for key, value in header.items() if isinstance(header, dict) else ():
        yield from leaves(value, (*path, key))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["vectors", "texts"])
def test_every_change_of_a_report_model_is_refused_or_harmless(tmp_path, kind):
    pytest.importorskip("torch", reason="torch is not installed")
    if kind == "vectors":
        examples = read_examples(own_data.vector_npz(tmp_path, unlabelled=4))
    else:
        examples = read_examples(own_data.text_csv(tmp_path))
    wrong, refused = [], 0
    for method in methods_for(examples, "torch", "off")[0]:
        model = method.model(examples, 0).fit(examples.X, examples.y)
        path = model.save(tmp_path / "m.safetensors")
        arrays, header = load_arrays(path)
        changes = [
            (str(keys), arrays, keys, value)
            for keys in leaves(header) if keys
            for value in spoiled_values.VALUES
        ]  # fmt: skip
        changes += [(what, other, None, None) for what, other in spoiled_values.of_arrays(arrays)]
        for what, other, keys, value in changes:
            changed = copy.deepcopy(header)
            if keys:
                place = changed
                for key in keys[:-1]:
                    place = place[key]
                place[keys[-1]] = value
            file = save_arrays(tmp_path / "s.safetensors", other, changed)
            try:
                loaded = load_model(file)
            except ValueError:
                refused += 1
                continue
            try:
                said = loaded.predict(examples.X)
            except (ValueError, TypeError) as error:
                if not re.match(r"X (has examples of shape|holds|must)", str(error)):
                    wrong.append((method.name, what, value))
                continue  # another kind or shape than that of these examples, which is said
            if not all(isinstance(word, str) for word in said):
                wrong.append((method.name, what, value))
    assert wrong == []
    assert refused > 300


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


# ---------------------------------------------------------------------------- the other readers


@pytest.fixture
def nothing_imported():
    """After the test: no file has imported anything, nor asked for a pickle."""
    import yaml  # noqa: F401  (the reader of YAML may be imported)

    before = set(sys.modules)
    yield
    assert set(sys.modules) == before, "a name in a file imported something"


def crafted_checkpoint(folder, **changes):
    """Write a checkpoint whose checksum fits what has been changed in it."""
    arrays = {"a": np.zeros(2)}
    texts = {"format": checkpoints._FORMAT, "meta": "{}", "fingerprint": "{}"}
    texts = {name: text for name, text in (texts | changes).items() if text is not None}
    whole = {**texts, "sha256": checkpoints._digest(texts, arrays)}
    folder.mkdir(exist_ok=True)
    (folder / checkpoints.CURRENT).write_bytes(checkpoints._serialise(arrays, metadata=whole))
    return folder


@pytest.mark.usefixtures("nothing_imported")
@pytest.mark.parametrize("key", ["format", "meta", "fingerprint"])
@pytest.mark.parametrize("text", [None, "", "os.system", "[1]", '"__class__"', "1", "{"])
def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path, key, text):
    with pytest.raises(CheckpointError, match=r"format|damaged"):
        load_checkpoint(crafted_checkpoint(tmp_path, **{key: text}), {"method": "x"})


@pytest.mark.usefixtures("nothing_imported")
@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_checkpoint_stay_data(tmp_path, name):
    """The fingerprint refuses them; without one they come back as the data that they are."""
    text = json.dumps({name: name, "method": name})
    folder = crafted_checkpoint(tmp_path, meta=text, fingerprint=text)
    with pytest.raises(CheckpointError, match="another run"):
        load_checkpoint(folder, {"method": "x"})
    found = load_checkpoint(folder)
    assert type(found) is Checkpoint
    assert found.meta == json.loads(text)


LINE = {
    "schema": 1, "experiment": "maml", "method": "maml", "framework": "torch", "data": "glyphs",
    "preset": "quick", "config": {}, "config_hash": "abc", "seed": 0, "metrics": {"accuracy": 1.0},
    "n_test": 1, "seconds": 1.0, "peak_mb": 1.0, "versions": {}, "device": "cpu",
}  # fmt: skip


@pytest.mark.usefixtures("nothing_imported")
@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_line_of_results_stay_data(tmp_path, name):
    path = tmp_path / "r.jsonl"
    if name != "torch":
        path.write_text(json.dumps({**LINE, "framework": name}) + "\n")
        with pytest.raises(ResultsError, match="framework"):
            read_results(path)
    attributes = set(dir(Result.from_json(json.dumps(LINE))))
    path.write_text(json.dumps({**LINE, name: name, "config": {name: name}}) + "\n")
    (result,) = read_results(path)
    assert (result.extra, result.config) == ({name: name}, {name: name})
    assert set(dir(result)) == attributes
    assert type(result) is Result


@pytest.mark.usefixtures("nothing_imported")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["experiment", "preset", "methods", "frameworks", "seeds"])
def test_a_sweep_takes_names_from_the_registry(tmp_path, key, name):
    if (key, name) in (("frameworks", "torch"), ("experiment", "maml")):
        return  # a right name in its right place
    part = {"experiment": "kl-adaptation", key: name}
    for content in (
        part,
        {"experiment": "kl-adaptation", name: 1},
        {"experiment": "kl-adaptation", "config": {name: 1}},
    ):
        path = tmp_path / "sweep.yaml"
        path.write_text(json.dumps(content))  # JSON is YAML
        with pytest.raises(SweepError):
            load_sweep(path)


@pytest.mark.parametrize("value", [None, 3, [["maml"]], {"maml": 1}, True])
@pytest.mark.parametrize("key", ["experiment", "preset", "methods", "frameworks", "config"])
def test_a_sweep_of_another_kind_is_refused(tmp_path, key, value):
    if (key, value) == ("config", None):
        return  # an empty one
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps({"experiment": "maml", key: value}))
    with pytest.raises(SweepError):
        load_sweep(path)


TAGS = ["object/apply:os.system ['touch {}']", "name:os.system", "module:os"]


@pytest.mark.parametrize("tag", TAGS)
def test_a_sweep_runs_no_tag(tmp_path, tag):
    path, ran = tmp_path / "sweep.yaml", tmp_path / "ran"
    path.write_text(f"experiment: !!python/{tag.format(ran)}\n")
    with pytest.raises(SweepError, match="no YAML"):
        load_sweep(path)
    assert not ran.exists()


LINE_BEFORE = '{"experiment": '

BOMBS = {
    "nested in brackets": "[" * 20_000,
    "nested by indentation": "\n".join(" " * i + "a:" for i in range(2_000)),
    "in itself": "&a [*a]",
    "aliases of aliases": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
    "a number with many digits": "experiment: maml\nseeds: 1" + "0" * 4000,
    "many seeds": "experiment: maml\nseeds: 1000000000",
    "many settings": "experiment: maml\nconfig: {lr: "
    + str([0.1] * 20_000)
    + ", iterations: "
    + str([1] * 20_000)
    + "}",
    "a long word": "experiment: " + "x" * 900_000,
    "a large file": "# " + "x" * 2_000_000,
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("reader", [load_sweep, load_plans])
def test_a_yaml_bomb_is_refused_in_a_short_line(tmp_path, reader, content):
    path = tmp_path / "bomb.yaml"
    path.write_text(content)
    tracemalloc.start()
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (each says something else)
        reader(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2_000
    assert peak < 200_000_000


def test_deep_json_is_refused_everywhere(tmp_path):
    deep = "[" * 100_000
    path = tmp_path / "r.jsonl"
    path.write_text(LINE_BEFORE + deep + "\n")
    with pytest.raises(ResultsError, match="nested too deeply"):
        read_results(path)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(crafted_checkpoint(tmp_path / "c", meta=deep))
    file = tmp_path / "w.safetensors"
    file.write_bytes(to_bytes({"a": np.zeros(2)}, metadata={"header": deep}))
    with pytest.raises(ValueError, match="nested too deeply"):
        load_arrays(file)


def use_plan(path):
    """Read a plan and take what it names."""
    (plan,) = load_plans(path).values()
    plan.estimator()
    read_parts(plan.data)


@pytest.mark.usefixtures("nothing_imported")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["method", "framework", "data", "settings"])
def test_a_plan_of_networks_takes_names_from_closed_lists(tmp_path, key, name):
    if (key, name) == ("framework", "torch"):
        return  # a right name in its right place
    task = {"ways": 2, "shots": 1, "queries": 1}
    plan = {
        "name": "a", "method": "MAML", "framework": "torch", "data": {"name": "glyphs", "size": 8},
        "seed": 0, "budget": 1, "task": task, "validation": task | {"tasks": 1},
    }  # fmt: skip
    named = {"data": {"name": name, "size": 8}, "settings": {name: 1}}
    path = tmp_path / "networks.yaml"
    path.write_text(json.dumps([plan | {key: named.get(key, name)}]))
    with pytest.raises(ValueError, match=rf"{key}|data|setting"):
        use_plan(path)


def test_no_reader_asks_for_a_pickle():
    """Every call that could read one says that it must not; torch.load is called nowhere."""
    root = Path(fewshot_course.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                found += [path] * bool(names & {"pickle", "joblib.load", "dill", "shelve"})
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called in ("torch.load", "pickle.load", "pickle.loads", "joblib.load", "yaml.load"):
                found.append(path)
            if called == "np.load" and options.get("allow_pickle") != "False":
                found.append(path)
    assert found == []
