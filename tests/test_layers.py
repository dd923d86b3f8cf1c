"""The floors of the house: each imports from those below it, and from no other.

Imports are read from the source, so that one inside a function counts too.
"""

import ast
from pathlib import Path

import pytest

import fewshot_course

ROOT = Path(fewshot_course.__file__).parent

# What a floor may import, beside itself.  A name is a folder or a module of the package.
GROUND = {
    "__init__",
    "_arguments",
    "_checks",
    "_processes",
    "_reading",
    "_streams",
    "checkpoints",
    "frameworks",
    "weights",
}
MAY = {
    "data": GROUND,
    "evaluation": GROUND | {"data"},
    "both": GROUND | {"data", "evaluation"},
    "torch": GROUND | {"data", "evaluation", "both"},
    "tf": GROUND | {"data", "evaluation", "both"},
    "experiments": GROUND | {"data", "evaluation", "both", "doors"},
    "exercises": GROUND | {"data", "evaluation", "both", "torch", "tf", "doors"},
    "report": GROUND | {"data", "evaluation", "both", "doors"},
    "doors": GROUND | {"data", "evaluation", "both"},
    "cli": GROUND | {"data", "evaluation", "both", "doors", "experiments", "report", "exercises"},
}
# The translator is a PyTorch model; it is imported when one is made.
EXCEPT = {("data/augment/translation.py", name) for name in ("torch", "transformers")}
DOORS = {"cold_start", "label_shift", "pseudo_label_loop", "small_network"}
# Packages that a floor may not import at all: a floor below torch and tf knows neither.
FOREIGN = {
    "ground": {"torch", "tensorflow", "keras", "transformers", "sklearn"},
    "data": {"torch", "tensorflow", "keras", "transformers"},
    "evaluation": {"torch", "tensorflow", "keras", "transformers"},
    "both": {"torch", "tensorflow", "keras", "transformers"},
    "torch": {"tensorflow", "keras"},
    "tf": {"torch", "transformers"},
}


def floor_of(path):
    """Return the floor that a file or a dotted name in the package stands on."""
    first = path.split("/")[0].removesuffix(".py") if "/" in path or path.endswith(".py") else path
    first = first.split(".")[0]
    if first in DOORS:
        return "doors"
    return "ground" if first in GROUND else first


def imports(source):
    """Yield the dotted names that a source imports; type checkers' own imports count too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if node.module == "fewshot_course":
                yield from (f"fewshot_course.{alias.name}" for alias in node.names)
            else:
                yield node.module


def faults(path, source):
    """List what a file imports from a floor that is not below its own."""
    floor = floor_of(path)
    allowed = (MAY[floor] | {floor}) if floor != "ground" else GROUND
    found = []
    for name in imports(source):
        first, _, rest = name.partition(".")
        if first != "fewshot_course":
            if first in FOREIGN.get(floor, set()) and (path, first) not in EXCEPT:
                found.append(f"{path} imports {name}")
            continue
        target = rest.split(".")[0] or "__init__"
        if target in ("__version__", "tests"):
            continue
        if floor_of(target) not in allowed and target not in allowed:
            found.append(f"{path} imports {name}")
    return found


FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def test_every_file_stands_on_a_floor():
    assert {floor_of(path) for path in FILES} <= {*MAY, "ground"}
    assert len(FILES) > 100


def test_no_floor_imports_from_above():
    found = [fault for path in FILES for fault in faults(path, (ROOT / path).read_text())]
    assert found == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("data/images.py", "from fewshot_course.torch import networks"),
        ("data/images.py", "def f():\n    import torch"),
        ("data/augment/translation.py", "import tensorflow"),
        ("report/_model.py", "from fewshot_course.experiments import EXPERIMENTS"),
        ("exercises/maml.py", "from fewshot_course.experiments import EXPERIMENTS"),
        ("data/images.py", "def f():\n    import fewshot_course.experiments.runner"),
        ("_checks.py", "from fewshot_course.data import splits"),
        ("_checks.py", "import sklearn.base"),
        ("both/vae.py", "from fewshot_course.tf import vae"),
        ("both/vae.py", "import torch"),
        ("torch/vae.py", "from fewshot_course.tf.vae import elbo"),
        ("torch/vae.py", "import keras"),
        ("tf/vae.py", "import torch.nn as nn"),
        ("experiments/maml.py", "from fewshot_course.report import load_model"),
        ("experiments/maml.py", "from fewshot_course.torch import MAML"),
        ("small_network.py", "from fewshot_course.experiments import runner"),
    ],
)
def test_a_planted_import_is_found(path, line):
    assert faults(path, line), line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("torch/vae.py", "import torch\nfrom fewshot_course.both import vae"),
        ("cli.py", "from fewshot_course.report import read_examples"),
        ("both/vae.py", "from fewshot_course import __version__"),
    ],
)
def test_what_is_allowed_is_no_fault(path, line):
    assert faults(path, line) == []


# Who may import by a name that it puts together, and what those names come from.
BY_NAME = {
    "frameworks.py": "MODULES and FRAMEWORKS",
    "experiments/registry.py": "the `run` of a registered experiment",
    "exercises/__init__.py": "the exercise files",
    "tf/_start.py": "the two packages that it quietens",
}


def imports_by_name(source):
    """Whether a source calls ``import_module`` or ``__import__``, by whatever way."""
    names = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return bool(names & {"import_module", "__import__"})


def test_frameworks_are_imported_by_name_in_one_place():
    found = {path for path in FILES if imports_by_name((ROOT / path).read_text())}
    assert found == set(BY_NAME)


@pytest.mark.parametrize(
    "line",
    ["importlib.import_module('x')", "from importlib import import_module as f\nimport_module(x)",
     "__import__('x')"],
)  # fmt: skip
def test_a_planted_import_by_name_is_found(line):
    assert imports_by_name(line)


def test_the_search_path_is_left_alone():
    """A clone's or anybody's folder on it would choose whose modules are imported."""
    for path in FILES:
        source = (ROOT / path).read_text()
        found = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path"
        ]
        assert not found, path
