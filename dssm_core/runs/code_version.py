"""The version of the code that a function can reach, by the imports that its source spells out.

An edited caption or help text is reached by no training step, so it retrains nothing. An edited
sampler is reached by sample_negatives and by the steps after it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dssm_core import families
from dssm_core.runs.files import digest

PACKAGE = Path(__file__).parents[1]
NAME = PACKAGE.name
FAMILIES = f"{NAME}.families"
# The config names the members of all families and computes with the split only: `config.split` is
# a member itself. The members of another family count where a step builds them.
CONFIG = f"{NAME}.config"
FAMILIES_OF_CONFIG = frozenset({"SPLITS"})
LIBRARIES = {
    "annoy": "annoy",
    "duckdb": "duckdb",
    "faiss": "faiss-cpu",
    "implicit": "implicit",
    "numba": "numba",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
}


@dataclass(frozen=True)
class Imports:
    """What a module imports: modules of this package, and other top-level packages."""

    modules: frozenset[str]
    libraries: frozenset[str]


@cache
def code_version(*functions: str, package: Path = PACKAGE) -> str:
    """SHA-256 of the modules that `module:name` functions can reach, in hex.

    It covers the members of the families that these modules build, and the installed versions of
    the libraries that they compute with. Without a function it covers the whole package.
    """
    starts = [function.partition(":")[0] for function in functions]
    modules = reachable(*starts, package=package) if starts else _all_modules(package)
    code = {module: _source_hash(_file(module, package)) for module in sorted(modules)}
    imported = frozenset().union(*(_imports(module, package).libraries for module in modules))
    installed = {name: _installed(LIBRARIES[name]) for name in sorted(imported & set(LIBRARIES))}
    return digest([code, installed])


def reachable(*modules: str, package: Path = PACKAGE) -> frozenset[str]:
    """The modules of this package that some modules import, directly or through others."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += _imports(module, package).modules
    return frozenset(seen)


@cache
def _imports(module: str, package: Path) -> Imports:
    modules: set[str] = set()
    libraries: set[str] = set()
    for name in _imported_names(ast.parse(_file(module, package).read_bytes())):
        if name.partition(".")[0] != NAME:
            libraries.add(name.partition(".")[0])
        elif name.startswith(f"{FAMILIES}."):
            modules |= {FAMILIES, *_members(name.removeprefix(f"{FAMILIES}."), module)}
        else:
            modules.add(_module_of(name, package))
    return Imports(frozenset(modules), frozenset(libraries))


def _imported_names(node: ast.AST) -> Iterator[str]:
    """`package.module.name` of each import, inside functions too; those for type checkers only are
    skipped.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for other in child.orelse:
                yield from _imported_names(other)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from _imported_names(child)


def _members(name: str, importer: str) -> set[str]:
    """The modules of a family's members, if `name` is a family that `importer` builds."""
    family = getattr(families, name, None)
    by_config = importer == CONFIG or importer.startswith(f"{CONFIG}.")
    if not isinstance(family, dict) or (by_config and name not in FAMILIES_OF_CONFIG):
        return set()
    return {member.partition(":")[0] for member in family.values()}


def _module_of(name: str, package: Path) -> str:
    """The module that `package.module.name` is, or that it is imported from."""
    return name if _file(name, package).is_file() else name.rpartition(".")[0]


def _file(module: str, package: Path) -> Path:
    path = package.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _all_modules(package: Path) -> frozenset[str]:
    files = (file.relative_to(package.parent) for file in package.rglob("*.py"))
    return frozenset(
        ".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files
    )


@cache
def _source_hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
