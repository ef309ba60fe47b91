"""The docstrings of the standard library, read from its source files.

Sources are parsed, never imported: no side effects, and one Python version always gives the same entries. Modules
written in C have no source here; where the library ships a Python twin of one (`_pydecimal`), the twin is read under
the public name.
"""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PYTHON_TWINS = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
}
"""Private modules that are the Python source of a public one, and the public name."""

_GRAPHICAL = ("idlelib", "tkinter", "turtle", "turtledemo")
_REMOVED_LATER = ("distutils", "lib2to3")
LEFT_OUT = frozenset(
    ("antigravity", "this", "test", "ensurepip", "encodings", "pydoc_data", *_GRAPHICAL, *_REMOVED_LATER)
)
"""Jokes, graphical programs, test suites, tables, and what later versions of Python do not have."""

MAX_SIGNATURE_CHARS = 110


@dataclass(frozen=True)
class Entry:
    """One documented thing. qualname is the name inside its module, "" for the module itself; heading is what a
    page prints above the docstring; docstring is without its indentation."""

    module: str
    qualname: str
    kind: Literal["module", "class", "function", "method"]
    heading: str
    docstring: str

    @property
    def name(self) -> str:
        """The last part of the qualified name: what a query must not contain."""
        return self.qualname.rpartition(".")[2] or self.module


@dataclass(frozen=True)
class Module:
    """The documented entries of one module, in the order of its source: the module's own docstring first."""

    name: str
    entries: tuple[Entry, ...]


def collect(library: Path | None = None, names: Sequence[str] | None = None) -> list[Module]:
    """The documented public modules of the standard library, sorted by name.

    library: the folder of the sources, by default this Python's. names: top-level names, by default all public ones.
    """
    library = Path(sysconfig.get_paths()["stdlib"]) if library is None else library
    names = sorted(sys.stdlib_module_names) if names is None else names
    modules = []
    for name in names:
        if name in LEFT_OUT or (name.startswith("_") and name not in PYTHON_TWINS):
            continue
        for path, dotted in _sources(library, name):
            entries = tuple(_entries(path, dotted))
            if entries:
                modules.append(Module(dotted, entries))
    return sorted(modules, key=lambda module: module.name)


def _sources(library: Path, name: str) -> Iterator[tuple[Path, str]]:
    """(file, dotted module name) of every public Python module under the top-level `name`."""
    single, package = library / f"{name}.py", library / name
    if single.is_file():
        yield single, PYTHON_TWINS.get(name, name)
    if not (package / "__init__.py").is_file():
        return
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") or part in ("test", "tests") for part in parts):
            yield path, ".".join(parts)


def _entries(path: Path, module: str) -> Iterator[Entry]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree)
    if docstring:
        yield Entry(module, "", "module", module, docstring)
    seen: set[str] = set()
    for entry in _members(tree.body, module, prefix=""):
        if entry.qualname not in seen:  # a property's getter and setter, or one function per platform
            seen.add(entry.qualname)
            yield entry


def _members(body: Sequence[ast.stmt], module: str, prefix: str) -> Iterator[Entry]:
    """Documented public classes and functions of a module's or a class's body, in source order."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _members([*node.body, *node.orelse], module, prefix)
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        qualname = prefix + node.name
        docstring = ast.get_docstring(node)
        is_class = isinstance(node, ast.ClassDef)
        if docstring:
            kind = "class" if is_class else ("method" if prefix else "function")
            yield Entry(module, qualname, kind, _heading(node, qualname, bool(prefix)), inspect.cleandoc(docstring))
        if is_class:
            yield from _members(node.body, module, prefix=f"{qualname}.")


def _heading(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, qualname: str, is_member: bool) -> str:
    """`class Name(Base)` or `Name.method(arguments)`, without the first argument of a method."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        text = f"class {qualname}({bases})" if bases else f"class {qualname}"
    else:
        arguments = ast.unparse(node.args)
        if is_member and arguments.partition(",")[0] in ("self", "cls"):
            arguments = arguments.partition(",")[2].strip()
        text = f"{qualname}({arguments})"
    return text if len(text) <= MAX_SIGNATURE_CHARS else f"{text[: MAX_SIGNATURE_CHARS - 4]} ...".replace("\n", " ")
