"""Passes of the user's: the classes of a Python file, `use "my_passes.py" as mine`, which are the steps `mine.NAME`.

A file is executed when a step names one of its passes, once for what it holds; files that only measure are not.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType

from ..frontends.user_code import blamed, import_module
from ..ir.errors import Code, Diagnostic, MlcError
from ..passes import registry
from ..passes.base import Pass
from . import syntax as ast
from .signature import Catalog, Signature, signature_of
from .user_code import refused_files
from .uses import PythonFile


@dataclass(frozen=True)
class UserPasses:
    """Passes by their names in recipes, what is wrong with the files that should hold them, and the names of those."""

    passes: Mapping[str, type[Pass]] = field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()
    lost: frozenset[str] = frozenset()


def passes_of(files: Mapping[str, PythonFile], statements: Iterable[ast.Node]) -> UserPasses:
    """The passes of the used files of which a statement names one. `files` are Python files by their alias."""
    names = {n.name for s in statements for n in ast.walk(s) if isinstance(n, ast.Ref | ast.Call)}
    named = names | {name.rpartition(".")[0] for name in names}
    refused = refused_files(files.values())
    if refused:  # those that only measure, too: nothing of them would run
        return UserPasses(diagnostics=tuple(refused), lost=frozenset(files))
    passes: dict[str, type[Pass]] = {}
    diagnostics: list[Diagnostic] = []
    lost = set()
    for alias in sorted(files.keys() & named):
        try:
            passes |= {f"{alias}.{found.name}": found for found in _passes(files[alias])}
        except MlcError as e:
            diagnostics += e.diagnostics
            lost.add(alias)
    return UserPasses(passes, tuple(diagnostics), frozenset(lost))


def extended(catalog: Catalog, passes: Mapping[str, type[Pass]]) -> Catalog:
    """A catalog with passes of the user's, under their names in recipes."""
    if not passes:
        return catalog
    own = {name: _signature(name, found, passes) for name, found in passes.items()}
    return Catalog((*catalog.names, *own), lambda name: own[name] if name in own else catalog.find(name))


def _signature(name: str, found: type[Pass], passes: Mapping[str, type[Pass]]) -> Signature:
    signature = signature_of(found)
    alias = name.rpartition(".")[0]
    after = tuple(f"{alias}.{early}" if f"{alias}.{early}" in passes else early for early in signature.after)
    return dataclasses.replace(signature, name=name, after=after)


def _passes(file: PythonFile) -> tuple[type[Pass], ...]:
    """The passes of a file. Errors: BROKEN_PASS for everything that is wrong with it."""
    with blamed(lambda why: _unusable(file, f"cannot be imported: {why}")):
        module = import_module(file.path)
    meant = tuple(dict.fromkeys(filter(_is_meant, _public(module))))
    if not meant:
        raise _unusable(file, "holds no pass", "write a subclass of mlc.Pass: docs/writing-a-pass.md")
    flaws = [_unusable(file, f"cannot be used: {c.__name__}: {why}") for c in meant if (why := _flaw(c))]
    if flaws:
        raise MlcError([d for each in flaws for d in each.diagnostics])
    found: dict[str, type[Pass]] = {}
    for each in meant:
        assert issubclass(each, Pass)
        if each.name in found:
            both = f"{found[each.name].__name__} and {each.__name__}"
            raise _unusable(file, f"has two passes called '{each.name}': {both}", "give one of them another name")
        found[each.name] = each
    return tuple(found.values())


def _public(module: ModuleType) -> Iterator[type]:
    """The classes that a module offers: those in `__all__`, else its own without an underscore."""
    listed = getattr(module, "__all__", None)
    for name, found in vars(module).items():
        own = isinstance(found, type) and found.__module__ == module.__name__ and not name.startswith("_")
        if isinstance(found, type) and (own if listed is None else name in listed):
            yield found


def _is_meant(found: type) -> bool:
    """Whether a class is meant to be a pass: it is one (and no base of others), or it looks like one."""
    if issubclass(found, Pass):
        return found is not Pass and not (inspect.isabstract(found) and not hasattr(found, "name"))
    return hasattr(found, "plan") and hasattr(found, "apply")


def _flaw(found: type) -> str:
    why = registry.flaw(found)
    if why:
        return why
    name = str(getattr(found, "name", ""))
    if name in registry.BUILTIN or name in ast.KEYWORDS:
        return f"its class is called '{name}', which is a pass or a word of mlc's own: give it another name"
    try:
        signature_of(found)
    except MlcError as e:
        return e.diagnostics[0].message
    return ""


def _unusable(file: PythonFile, why: str, help: str = "correct the file: docs/writing-a-pass.md") -> MlcError:
    return MlcError(Diagnostic(Code.BROKEN_PASS, f"{file.written!r} {why}", file.span, help=help))
