"""Write the API reference from the package as it is: a new module appears by itself.

A marker in a page is replaced, when Sphinx reads the page, by one section for each public module:

``<!-- api-reference: methods -->``
    a module of ``fewshot_course.torch`` and its twin of ``fewshot_course.tf`` share a section and
    stand in the framework's tabs
``<!-- api-reference: shared -->``
    all modules that need neither framework

Modules are read, not imported, to find their names; autodoc then imports them with stand-ins for
the frameworks (``autodoc_mock_imports`` in _config.yml), which need not be installed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

PACKAGE = "fewshot_course"
TWINS = {"torch": ("torch", "PyTorch"), "tensorflow": ("tf", "TensorFlow")}
TWIN_FOLDERS = [folder for folder, _ in TWINS.values()]
NOT_LISTED = {"cli"}  # its commands are told by `fewshot --help`


@dataclass(frozen=True)
class Module:
    """A module's file, read without importing it."""

    name: str
    path: Path

    @cached_property
    def _body(self) -> list[ast.stmt]:
        return ast.parse(self.path.read_text(encoding="utf-8")).body

    @cached_property
    def exported(self) -> list[str]:
        """``__all__``; empty where the module has none."""
        for statement in self._body:
            if isinstance(statement, ast.Assign | ast.AnnAssign) and "__all__" in _targets(
                statement
            ):
                return list(ast.literal_eval(statement.value))  # type: ignore[arg-type]
        return []

    @cached_property
    def classes(self) -> list[str]:
        """Public classes that are defined here, exported or not: annotations refer to them."""
        names = [node.name for node in self._body if isinstance(node, ast.ClassDef)]
        return [name for name in names if not name.startswith("_")]

    @cached_property
    def imported(self) -> dict[str, str]:
        """Names that come from another module of the package, and which."""
        return {
            alias.asname or alias.name: node.module
            for node in self._body
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE)
            for alias in node.names
        }

    def constant_doc(self, name: str) -> str:
        """Return the string that stands below an assignment to ``name``."""
        for statement, after in zip(self._body, self._body[1:], strict=False):
            if isinstance(statement, ast.Assign | ast.AnnAssign) and name in _targets(statement):
                value = getattr(after, "value", None)
                found = value.value if isinstance(value, ast.Constant) else ""
                return found if isinstance(found, str) else ""
        return ""


def _targets(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def submodules(folder: Path, name: str) -> list[Module]:
    """Return the public modules of a package's folder that export something."""
    modules = [
        Module(f"{name}.{path.stem}", path)
        for path in sorted(folder.glob("*.py"))
        if not path.stem.startswith("_") and path.stem not in NOT_LISTED
    ]
    return [module for module in modules if module.exported]


def automodule(module: Module, names: list[str], root: Path) -> str:
    """Return the markup that documents these names of a module, after its docstring."""
    constants = [name for name in names if name.isupper()]
    members = [name for name in names if name not in constants]
    lines = ["``````{eval-rst}", f".. automodule:: {module.name}"]
    lines += [f"   :members: {', '.join(members)}" if members else "   :no-members:", ""]
    for name in constants:
        # autodoc leaves out a constant without docstring, or one that another module defines.
        home = module.imported.get(name)
        path = root / Path(*home.split(".")).with_suffix(".py") if home else module.path
        doc = Module(module.name, path).constant_doc(name)
        lines += [f".. py:data:: {name}", f"   :module: {module.name}", ""]
        lines += [f"   {line}" for line in inspect.cleandoc(doc).splitlines()] + [""]
    return "\n".join([*lines, "``````", ""])


def plain_sections(root: Path) -> list[str]:
    """Return the sections of the modules that need no framework.

    A package's ``__all__`` is its public face; a submodule gets a section of its own for the
    names that the package does not pass on.
    """
    sections = []
    for init in sorted((root / PACKAGE).glob("*/**/__init__.py")):
        parts = init.parent.relative_to(root).parts
        if parts[1] in TWIN_FOLDERS:
            continue
        package = Module(".".join(parts), init)
        sections.append(section(package, package.exported, root))
        for module in submodules(init.parent, package.name):
            rest = [name for name in module.exported if name not in package.exported]
            if rest:
                sections.append(section(module, rest, root))
    for module in submodules(root / PACKAGE, PACKAGE):
        sections.append(section(module, module.exported, root))
    return sections


def section(module: Module, names: list[str], root: Path) -> str:
    """Return a section about one module."""
    return f"## {module.name}\n\n{automodule(module, names, root)}"


def twin_sections(root: Path) -> list[str]:
    """Return one section for each module that stands in both frameworks, in their tabs."""
    twins = {
        folder: {
            module.path.stem: module
            for module in submodules(root / PACKAGE / folder, f"{PACKAGE}.{folder}")
        }
        for folder in TWIN_FOLDERS
    }
    return [twin_section(stem, twins, root) for stem in sorted(set().union(*twins.values()))]


def twin_section(stem: str, twins: dict[str, dict[str, Module]], root: Path) -> str:
    """Return the tabs of one module and its twin, then what both take from elsewhere."""
    lines = [f"## {stem.replace('_', ' ')}, in both frameworks", ""]
    lines += ["::::{tab-set}", ":sync-group: framework", ""]
    shared: dict[str, str] = {}
    for sync, (folder, title) in TWINS.items():
        module = twins[folder].get(stem)
        if module is None:
            continue  # the test of the twins finds the hole
        elsewhere = {name for name in module.exported if name in module.imported}
        shared |= {name: f"{module.name}.{name}" for name in sorted(elsewhere - shared.keys())}
        own = [name for name in module.exported if name not in elsewhere]
        own += [name for name in module.classes if name not in own]
        lines += [f":::{{tab-item}} {title}", f":sync: {sync}", ""]
        lines += [automodule(module, own, root), ":::", ""]
    lines += ["::::", ""]
    if shared:
        lines += ["The same in both frameworks:", "", "``````{eval-rst}"]
        for name, full in shared.items():
            kind = "autoclass" if name[0].isupper() else "autofunction"
            lines += [f".. {kind}:: {full}", *(["   :members:"] if kind == "autoclass" else []), ""]
        lines += ["``````", ""]
    return "\n".join(lines)


def write_reference(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the sections in the markers' places."""
    for kind, sections in (("methods", twin_sections), ("shared", plain_sections)):
        marker = f"<!-- api-reference: {kind} -->"
        if marker in source[0]:
            source[0] = source[0].replace(marker, "\n".join(sections(Path(app.srcdir))))


class NoFrameworks(MetaPathFinder):
    """Refuse to import a framework, so that a build is the same whether it is installed or not.

    autodoc's stand-ins come first, but only while it imports a module; later it looks for the
    source of base classes, which would load the real framework.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{fullname} is not used while the book is built")


def prepare_imports(app: Sphinx, config: Any) -> None:
    """Make the package importable without the frameworks."""
    # These look for torch among the loaded modules while they start, and stumble over a stand-in.
    importlib.import_module("scipy.stats")
    importlib.import_module("sklearn.base")
    sys.meta_path.insert(0, NoFrameworks(config.autodoc_mock_imports))
    # The package makes sure that Keras runs on TensorFlow; a stand-in has no answer to that.
    start = ModuleType(f"{PACKAGE}.tf._start")
    start.start = lambda: None  # type: ignore[attr-defined]
    sys.modules[start.__name__] = start
    sys.path.insert(0, str(app.srcdir))


def skip_generated(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what scikit-learn adds to every estimator for its metadata routing."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def keep_first_line(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep napoleon from reading ``text: more`` at the start of a property as ``type: text``."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment


def find_elsewhere(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Resolve a reference to a name by where it is documented, not where it is used.

    ``package.name`` may be defined in a module of the package, and what both frameworks take from
    elsewhere is documented once, under PyTorch's module.
    """
    target = node.get("reftarget", "")
    if not target.startswith(PACKAGE):
        target = f"{node.get('py:module')}.{target}"
    package, _, name = target.rpartition(".")
    python = env.get_domain("py")
    assert isinstance(python, PythonDomain)
    homes = [
        full
        for full, entry in python.objects.items()
        if not entry.aliased
        and (
            (full.startswith(f"{package}.") and full.endswith(f".{name}"))
            or full == target.replace(f"{PACKAGE}.tf.", f"{PACKAGE}.torch.")
        )
    ]
    if not package.startswith(PACKAGE) or len(homes) != 1:
        return None
    entry = python.objects[homes[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, [content])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", prepare_imports)
    app.connect("autodoc-skip-member", skip_generated)
    app.connect("autodoc-process-docstring", keep_first_line, priority=400)
    app.connect("source-read", write_reference)
    app.connect("missing-reference", find_elsewhere)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
