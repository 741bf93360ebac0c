"""`use "other.mlc" as x`: what another file binds, under names that start with `x.`.

A Python file (`use "x.py"`) is only found here; its passes are in user_passes.py, its functions are metrics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..ir.errors import Code, Diagnostic, MlcError, Span
from . import syntax as ast
from .files import read_file
from .parser import is_file, recover_file

_Bound = ast.Binding | ast.Let | ast.Define


@dataclass(frozen=True, slots=True)
class PythonFile:
    """A used Python file: its path, as it was written, and where."""

    path: str
    written: str
    span: Span | None


@dataclass(frozen=True)
class Used:
    """What the used files bind, renamed; the folder that the paths of each binding are relative to; and mistakes."""

    statements: tuple[_Bound, ...] = ()
    bases: Mapping[str, Path] = field(default_factory=dict)
    modules: Mapping[str, PythonFile] = field(default_factory=dict)  # by their alias
    diagnostics: tuple[Diagnostic, ...] = ()
    lost: frozenset[str] = frozenset()  # names of statements that could not be read


def alias_of(use: ast.Use) -> str:
    """The name that a file is used by: the one given, or that of the file."""
    return use.alias or use.path.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]


def used_by(file: ast.File, folder: Path, above: tuple[Path, ...] = ()) -> Used:
    """What the files that `file` uses bind, and those that they use. `above` are the files that are being read."""
    taken = {s.name: s.span for s in file.statements if isinstance(s, ast.Binding | ast.Let | ast.Define)}
    found = []
    for use in file.statements:
        if not isinstance(use, ast.Use):
            continue
        alias = alias_of(use)
        problem = _misnamed(use, alias, alias in taken)
        taken[alias] = use.span
        try:
            if problem is not None:
                raise MlcError(problem)
            found.append(_used(use, alias, folder, above))
        except MlcError as e:
            found.append(Used(diagnostics=e.diagnostics, lost=frozenset({alias})))
    return Used(
        tuple(s for used in found for s in used.statements),
        {name: base for used in found for name, base in used.bases.items()},
        {name: file for used in found for name, file in used.modules.items()},
        tuple(d for used in found for d in used.diagnostics),
        frozenset(name for used in found for name in used.lost),
    )


def _misnamed(use: ast.Use, alias: str, taken: bool) -> Diagnostic | None:
    if not alias.isidentifier() or alias in ast.KEYWORDS:
        message = f"the file {use.path!r} needs a name in recipes"
        return Diagnostic(Code.SYNTAX, message, use.span, help=f'write: use "{use.path}" as NAME')
    if taken:
        message = f"'{alias}' is bound twice"
        return Diagnostic(Code.DUPLICATE, message, use.span, help=f'choose another name: use "{use.path}" as NAME')
    return None


def _used(use: ast.Use, alias: str, folder: Path, above: tuple[Path, ...]) -> Used:
    """What one file binds. Errors: whatever keeps it from being read."""
    path = folder / use.path
    here = path.resolve()
    if path.suffix == ".py" and path.is_file():
        return Used(modules={alias: PythonFile(str(path), use.path, use.span)})
    if path.suffix == ".py":
        raise _unusable(use, Code.NOT_FOUND, "there is no such file", "check the path: it is relative to this file")
    if path.suffix != ".mlc":
        raise _unusable(use, Code.NOT_YET, "it is neither recipes nor Python", _OTHERS)
    if here in above:
        way = " -> ".join(p.name for p in (*above[above.index(here) :], here))
        raise _unusable(use, Code.CYCLE, f"it uses itself ({way})", "move what both need to a third file")
    try:
        text = read_file(path)
    except MlcError as e:
        raise MlcError([dataclasses.replace(d, span=use.span, where="") for d in e.diagnostics]) from None
    if not is_file(text):
        raise _unusable(use, Code.UNKNOWN_RECIPE, "it binds no names", "name its recipe: recipe NAME = ...")
    parsed = recover_file(text, str(path))
    inner = used_by(parsed.file, path.parent, (*above, here))
    own = [s for s in parsed.file.statements if isinstance(s, ast.Binding | ast.Let | ast.Define)]
    return _renamed(alias, [*inner.statements, *own], inner, parsed.lost, path.parent, parsed.diagnostics)


def _unusable(use: ast.Use, code: Code, why: str, help: str) -> MlcError:
    return MlcError(Diagnostic(code, f"{use.path!r} cannot be used: {why}", use.span, help=help))


_OTHERS = "use NAME.mlc for recipes, NAME.py for passes and metrics"


def _renamed(
    alias: str,
    statements: list[_Bound],
    inner: Used,
    lost: frozenset[str],
    folder: Path,
    diagnostics: tuple[Diagnostic, ...],
) -> Used:
    """Statements and the names in them under an alias."""
    bound = frozenset(s.name for s in statements) | lost | inner.lost
    bases = {s.name: inner.bases.get(s.name, folder) for s in statements if isinstance(s, ast.Binding)}
    return Used(
        tuple(_prefixed(s, f"{alias}.", bound, inner.lost | inner.modules.keys()) for s in statements),
        {f"{alias}.{name}": base for name, base in bases.items()},
        {f"{alias}.{name}": file for name, file in inner.modules.items()},
        (*inner.diagnostics, *diagnostics),
        frozenset(f"{alias}.{name}" for name in lost | inner.lost),
    )


def _prefixed(statement: _Bound, prefix: str, bound: frozenset[str], aliases: frozenset[str]) -> _Bound:
    """A statement with the names that its file binds, or takes from files under `aliases`, behind a prefix."""
    visible = bound - frozenset(_parameters(statement))

    def far(name: str) -> bool:
        return any(space in aliases for space in spaces(name))

    def change(node: ast.Node) -> ast.Node:
        if isinstance(node, ast.Ref | ast.Call | ast.KindName) and (node.name in visible or far(node.name)):
            return dataclasses.replace(node, name=prefix + node.name)
        if isinstance(node, ast.Bound | ast.Objective):
            metric = f"{prefix}{node.metric}" if far(node.metric) else node.metric
            target = f"{prefix}{node.target}" if node.target in visible else node.target
            return dataclasses.replace(node, metric=metric, target=target)
        return node

    return dataclasses.replace(ast.mapped(statement, change), name=prefix + statement.name)


def spaces(name: str) -> Iterator[str]:
    """The aliases that a dotted name may start with: `a` and `a.b` of `a.b.c`."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))


def _parameters(statement: _Bound) -> Iterator[str]:
    if isinstance(statement, ast.Define):
        yield from (param.name for param in statement.params)
