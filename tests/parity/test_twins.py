"""The twin rule: what is public in one framework is public in the other, with one signature."""

import dataclasses
import importlib
import inspect
import pkgutil
import types

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

# Modules that only one framework needs.
ONE_SIDED = {"_start"}  # TensorFlow alone writes to stderr when it starts

# Parameters that are an idiom of one framework, by where they stand.
# - training: Keras hands the mode down as an argument, torch keeps it in the module.
IDIOM = {"training"}
# - kwargs: Keras passes a layer's name through the constructor, torch names by attribute.
# - an update is traced in TensorFlow (signature), knows its layers (network) and averages over
#   the workers itself (strategy); in torch the wrapped network averages, unless told not to.
IDIOM_OF = {
    "networks.BatchNorm.__init__": {"kwargs"},
    "networks.LayerNorm.__init__": {"kwargs"},
    "_training.Updater.__init__": {"network", "signature", "strategy", "no_sync"},
}

# What runs a network: torch says forward, Keras says call.
EXEMPT_METHODS = {"forward", "call"}


def module_names(package):
    return {m.name for m in pkgutil.iter_modules(package.__path__)}


def signature_of(function, where):
    """What must be equal: names, order, kinds and defaults; annotations are not compared."""
    exempt = IDIOM | IDIOM_OF.get(where, set())
    return [
        (p.name, p.kind.name, None if p.default is p.empty else ("default", repr(p.default)))
        for p in inspect.signature(function).parameters.values()
        if p.name not in exempt
    ]


def methods_of(cls):
    """Name → function of what the course itself wrote and a user may call."""
    found = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("fewshot_course"):
            continue
        for name, value in vars(base).items():
            value = getattr(value, "__func__", value)  # class methods
            value = value.fget if isinstance(value, property) else value
            public = not name.startswith("_") or name == "__init__"
            if public and name not in EXEMPT_METHODS and inspect.isfunction(value):
                found[name] = value
    if dataclasses.is_dataclass(cls):
        found["__init__"] = cls.__init__
    return found


def holes(one, two, where):
    """List every difference between two twin modules."""
    names_one, names_two = (list(getattr(m, "__all__", [])) for m in (one, two))
    found = [
        f"{where}.{name} is in the __all__ of one twin only"
        for name in sorted(set(names_one) ^ set(names_two))
    ]
    for name in sorted(set(names_one) & set(names_two)):
        found += _holes_of_object(getattr(one, name), getattr(two, name), f"{where}.{name}")
    return found


def _holes_of_object(one, two, where):
    if inspect.isclass(one) != inspect.isclass(two):
        return [f"{where} is a class in one twin only"]
    if inspect.isclass(one):
        mine, theirs = methods_of(one), methods_of(two)
        found = [
            f"{where}.{n} is a method of one twin only" for n in sorted(set(mine) ^ set(theirs))
        ]
        for name in sorted(set(mine) & set(theirs)):
            found += _holes_of_object(mine[name], theirs[name], f"{where}.{name}")
        return found
    if callable(one) and callable(two):
        mine, theirs = signature_of(one, where), signature_of(two, where)
        return [] if mine == theirs else [f"{where} takes {mine} and {theirs}"]
    return [] if one == two else [f"{where} is {one!r} and {two!r}"]


@pytest.fixture(scope="module")
def packages():
    return importlib.import_module("fewshot_course.torch"), importlib.import_module(
        "fewshot_course.tf"
    )


def test_both_frameworks_have_the_same_modules(packages):
    torch_modules, tf_modules = map(module_names, packages)
    assert torch_modules - ONE_SIDED == tf_modules - ONE_SIDED
    assert len(torch_modules) >= 5


def test_the_twins_have_no_hole(packages):
    found = holes(*packages, "fewshot_course")
    for name in sorted(module_names(packages[0]) & module_names(packages[1])):
        twins = [importlib.import_module(f"{package.__name__}.{name}") for package in packages]
        assert all(hasattr(twin, "__all__") for twin in twins), f"{name} has no __all__"
        found += holes(*twins, name)
    assert found == []


def test_every_exemption_is_still_needed(packages):
    """An exemption that exempts nothing would one day hide a hole."""
    torch_modules, tf_modules = map(module_names, packages)
    assert torch_modules ^ tf_modules >= ONE_SIDED
    for where, names in IDIOM_OF.items():
        module, _, path = where.partition(".")
        parameters = set()
        for package in packages:
            target = importlib.import_module(f"{package.__name__}.{module}")
            for part in path.split("."):
                target = getattr(target, part)
            parameters |= set(inspect.signature(target).parameters)
        assert names <= parameters


# ---------------------------------------------------------------- side by side

# What both/ holds for several methods, and so has no twins of its name.
GROUND = {
    "batches", "bert", "estimator", "generative", "probe", "pruning", "student", "texts",
    "training", "worker",
}  # fmt: skip

# How the frameworks call one thing, in docstrings.
WORDS = {
    "TensorFlow": "PyTorch", "tf.Tensor": "Tensor", "keras.Model": "nn.Module", "model": "module",
    "Keras": "torchao", "fewshot_course.tf": "fewshot_course.torch",
}  # fmt: skip
# Functions whose docstrings tell what only one framework does.
OWN_WORDS = {
    "_training.resolve_device", "_training.train", "_training.Updater",
    "encoder.Encoder", "encoder.load_encoder", "compression.Engine", "networks.BatchNorm",
    "maml.meta_loss",
    "meta_networks.check_layers", "meta_networks.expand", "meta_networks.parameters_of",
}  # fmt: skip
# Helpers that are traced in TensorFlow, or walk through its layers.
OWN_SIGNATURES = {
    "compression._train", "maml.MetaLearner._adapt", "networks.BatchNorm._update_running",
    "networks._state",
}  # fmt: skip
# What a method's class defines, in this order.
DOORS = ("_build", "_learn", "_apply")


def plain(text):
    for word, other in WORDS.items():
        text = text.replace(word, other)
    return " ".join(text.split())


def own_functions(module):
    """Return the functions and classes that a module itself defines, in their order."""
    return {
        name: value
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


def own_methods(cls):
    """Return the methods that a class itself defines, in their order, less Python's own."""
    return {
        name: function
        for name, value in vars(cls).items()
        if inspect.isfunction(function := getattr(value, "__func__", value))
        and function.__qualname__ == f"{cls.__qualname__}.{name}"
        and not (name.startswith("__") or name in EXEMPT_METHODS)
    }


def differences(one, two, where):
    """List where two twins do not read alike side by side."""
    mine, theirs = own_functions(one), own_functions(two)
    found = [*_order(mine, theirs, where), *_doors(mine, where), *_doors(theirs, where)]
    for name in mine.keys() & theirs.keys():
        a, b, here = mine[name], theirs[name], f"{where}.{name}"
        if not name.startswith("_"):
            found += _docstrings(a, b, here)
        elif inspect.isfunction(a) and inspect.isfunction(b):
            found += _signatures(a, b, here)
        if inspect.isclass(a) and inspect.isclass(b):
            found += _differences_of_methods(own_methods(a), own_methods(b), here)
    return sorted(found)


def _differences_of_methods(mine, theirs, where):
    found = _order(mine, theirs, where, private=True)
    for name in mine.keys() & theirs.keys():
        here = f"{where}.{name}"
        found += _signatures(mine[name], theirs[name], here)
        if any(inspect.getdoc(twin[name]) for twin in (mine, theirs)):
            found += _docstrings(mine[name], theirs[name], here)
    return found


def _order(mine, theirs, where, private=False):
    shared = [name for name in mine if name in theirs and (private or not name.startswith("_"))]
    if shared == [name for name in theirs if name in shared]:
        return []
    return [f"{where}: {shared} stand in another order in the other twin"]


def _doors(module, where):
    """List the classes whose doors stand in another order than that of a fit."""
    return [
        f"{where}.{name}: the doors stand in the order {doors}"
        for name, value in module.items()
        if inspect.isclass(value)
        and (doors := [method for method in own_methods(value) if method in DOORS])
        != sorted(doors, key=DOORS.index)
    ]


def _docstrings(a, b, where):
    if where in OWN_WORDS:
        return []
    if not (inspect.getdoc(a) or "").strip():
        return [f"{where} has no docstring"]
    if plain(inspect.getdoc(a)) != plain(inspect.getdoc(b) or ""):
        return [f"{where} has two docstrings"]
    return []


def _signatures(a, b, where):
    if where in OWN_SIGNATURES:
        return []
    mine, theirs = signature_of(a, where), signature_of(b, where)
    return [] if mine == theirs else [f"{where} takes {mine} and {theirs}"]


def all_differences(packages):
    found = []
    for name in sorted(module_names(packages[0]) & module_names(packages[1])):
        twins = [importlib.import_module(f"{package.__name__}.{name}") for package in packages]
        found += differences(*twins, name)
    return found


def test_twins_read_alike_side_by_side(packages):
    assert all_differences(packages) == []


def test_every_exemption_from_reading_alike_is_still_needed(packages, monkeypatch):
    exempt = OWN_WORDS | OWN_SIGNATURES
    for name in ("OWN_WORDS", "OWN_SIGNATURES"):
        monkeypatch.setitem(globals(), name, set())
    assert {found.split(" ")[0] for found in all_differences(packages)} == exempt


def test_each_method_is_three_files_of_one_name(packages):
    both = module_names(importlib.import_module("fewshot_course.both"))
    twins = module_names(packages[0]) & module_names(packages[1])
    assert both - twins == GROUND
    assert len(both & twins) >= 10


def fabricated(source):
    module = types.ModuleType("fewshot_course_fabricated")
    exec(source, vars(module))
    return module


ALIKE = '''
def first(x):
    """Return x."""


def second(x):
    """Return twice x."""


def _helper(x):
    return x


class Method:
    """A method in PyTorch."""

    def _build(self, data):
        return data

    def _learn(self, data):
        """Train the module."""

    def _apply(self, X):
        return X

    def predict(self, X):
        return X
'''


def changed(*pairs):
    source = ALIKE
    for before, after in pairs:
        assert before in source
        source = source.replace(before, after)
    return differences(fabricated(ALIKE), fabricated(source), "m")


@pytest.mark.parametrize(
    "pair",
    [
        ("def first(x):", "def later(x):"),
        ("PyTorch", "TensorFlow"),
        ("the module", "the model"),
        ("def _helper(x):", "def _other(x, y):"),
        ("def _helper(x):", "def _helper(x: int) -> int:"),
        ("    def _build(self", "    def _graph(self):\n        return 1\n\n    def _build(self"),
    ],
)
def test_what_may_differ_is_no_difference(pair):
    assert changed(pair) == []


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('"""Return x."""', '"""Return y."""', "m.first has two docstrings"),
        ('"""Return x."""', "return x", "m.first has two docstrings"),
        ("A method in", "Another method in", "m.Method has two docstrings"),
        ("Train the module", "Train it", "m.Method._learn has two docstrings"),
        ("def _helper(x):", "def _helper(x, y):", "m._helper takes"),
        ("_apply(self, X)", "_apply(self, x)", "m.Method._apply takes"),
        ("_apply(self, X)", "_apply(self, X, y=None)", "m.Method._apply takes"),
    ],
)
def test_what_does_not_read_alike_is_found(before, after, named):
    (fault,) = changed((before, after))
    assert fault.startswith(named)


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ("first", "second", "m: ['first', 'second', 'Method'] stand in another order"),
        ("_build", "predict", "m.Method: ['_build'"),
        (
            "_build",
            "_apply",
            "m.Method: the doors stand in the order ['_apply', '_learn', '_build'",
        ),
    ],
)
def test_another_order_is_found(one, other, named):
    found = changed((f"{one}(", "?("), (f"{other}(", f"{one}("), ("?(", f"{other}("))
    assert any(fault.startswith(named) for fault in found), found


def test_no_docstring_at_all_is_found():
    bare = fabricated(ALIKE.replace('"""Return x."""', "return x"))
    assert differences(bare, bare, "m") == ["m.first has no docstring"]


# ---------------------------------------------------------------- planted holes


WHOLE = """
__all__ = ["Net", "loss"]
def loss(x, *, weight=1.0): ...
class Net:
    __module__ = "fewshot_course.fabricated"
    def __init__(self, width, depth=2): ...
    def features(self, x): ...
    def forward(self, x): ...
    def _private(self, x): ...
    @classmethod
    def load(cls, path): ...
"""


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('["Net", "loss"]', '["Net"]', "m.loss"),
        ("weight=1.0", "weight=2.0", "m.loss"),
        ("weight=1.0", "weight", "m.loss"),
        ("*, weight", "weight", "m.loss"),
        ("def loss(x,", "def loss(y,", "m.loss"),
        ("width, depth=2", "depth=2, width=3", "m.Net.__init__"),
        ("def features", "def features_of", "m.Net.features"),
        ("def features(self, x)", "def features(self, x, mask=None)", "m.Net.features"),
        ("def load(cls, path)", "def load(cls, file)", "m.Net.load"),
    ],
)
def test_a_planted_hole_is_found(before, after, named):
    assert before in WHOLE
    found = holes(fabricated(WHOLE), fabricated(WHOLE.replace(before, after)), "m")
    assert any(hole.startswith(named) for hole in found), found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def forward(self, x)", "def call(self, x, mask)"),
        ("def _private(self, x)", "def _other(self)"),
        ("def features(self, x)", "def features(self, x: int, training: bool = False) -> int"),
    ],
)
def test_what_is_exempt_is_no_hole(before, after):
    assert before in WHOLE
    assert holes(fabricated(WHOLE), fabricated(WHOLE.replace(before, after)), "m") == []
