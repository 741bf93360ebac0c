"""The recipe that is stored beside an artifact: what ran, in a form that runs again."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from . import syntax as ast
from .files import FORMAT
from .library import Checked
from .names import Names
from .print import layout, to_text
from .uses import PythonFile

_RECIPE = "main"


def file_text(checked: Checked, folder: Path = Path()) -> str:
    """The expanded recipe with the format's number, without names of data: those are given when it runs again.

    Python files whose passes or metrics it names are used from where they are, by a path relative to `folder`, in which
    the text will lie.
    """
    program = ast.mapped(checked.expanded, _without(frozenset(checked.bindings.of_kind("data"))))
    files = _aliases(program, checked.bindings.names)
    head = f"# mlc recipe\n# format: {FORMAT}\n"
    if not files:
        return f"{head}{layout(program)}\n"
    flat = {alias: _flat(alias, place) for place, alias in enumerate(files)}
    uses = []
    for alias, name in flat.items():
        path = Path(checked.bindings.names.modules[alias].path)
        head += f"# sha256 of {path.name}: {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        uses.append(ast.Use(os.path.relpath(path.resolve(), folder.resolve()), name))
    define = ast.Define(_RECIPE, (), ast.mapped(program, _renamed(flat)))
    return head + to_text(ast.File((*uses, define)))


def used_files(checked: Checked) -> tuple[PythonFile, ...]:
    """The Python files whose passes or metrics a recipe names."""
    names = checked.bindings.names
    return tuple(names.modules[alias] for alias in _aliases(checked.expanded, names))


def _without(data: frozenset[str]) -> ast.Change:
    def alone(node: ast.Node) -> ast.Node:
        if not isinstance(node, ast.Call):
            return node
        kept = tuple(a for a in node.arguments if not (isinstance(a.value, ast.Ref) and a.value.name in data))
        return dataclasses.replace(node, arguments=kept) if kept else ast.Ref(node.name)

    return alone


def _aliases(program: ast.Program, names: Names) -> tuple[str, ...]:
    """The aliases of Python files that a recipe needs, in the order in which it names them."""
    found: dict[str, None] = {}
    for node in ast.walk(program):
        if isinstance(node, ast.Ref | ast.Call) and node.name in names.passes:
            found[node.name.rpartition(".")[0]] = None
        elif isinstance(node, ast.Bound) and node.metric.rpartition(".")[0] in names.modules:
            found[node.metric.rpartition(".")[0]] = None
    return tuple(found)


def _flat(alias: str, place: int) -> str:
    """An alias as one name: `far.mine`, of a file that a used file uses, has no statement of its own."""
    return alias if "." not in alias else f"{alias.replace('.', '_')}_{place}"


def _renamed(flat: dict[str, str]) -> ast.Change:
    def shown(name: str) -> str:
        alias, _, last = name.rpartition(".")
        return f"{flat[alias]}.{last}" if alias in flat else name

    def change(node: ast.Node) -> ast.Node:
        if isinstance(node, ast.Ref | ast.Call):
            return dataclasses.replace(node, name=shown(node.name))
        return dataclasses.replace(node, metric=shown(node.metric)) if isinstance(node, ast.Bound) else node

    return change
