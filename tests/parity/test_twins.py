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


# ---------------------------------------------------------------- planted holes


def fabricated(source):
    module = types.ModuleType("fewshot_course_fabricated")
    exec(source, vars(module))
    return module


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
