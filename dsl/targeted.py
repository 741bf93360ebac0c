"""A recipe for one target: bounds `for` it are its own, bounds for others are not judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..ir.errors import Code, Diagnostic, MlcError
from . import syntax as ast
from .library import Checked


def for_target(checked: Checked, target: str | None) -> Checked:
    """The recipe as it is judged on `target`, a name of its file; None for a target without a name.

    Errors: BAD_TARGET for bounds on a target where none was named, and for loops that another target ends.
    """
    aimed = [b for b in _bounds(checked.expanded) if b.target is not None]
    if not aimed:
        return checked
    if target is None:
        raise MlcError([_unnamed(b) for b in aimed])
    goal = checked.expanded.goal
    kept = tuple(b for b in goal.bounds if b.target in (None, target))
    foreign = [b for b in _bounds(checked.expanded.body) if b.target not in (None, target)]
    if foreign:
        raise MlcError([_foreign(b, target) for b in foreign])
    program = dataclasses.replace(checked.expanded, goal=dataclasses.replace(goal, bounds=kept))
    return dataclasses.replace(checked, expanded=ast.mapped(program, _aimed))


def _aimed(node: ast.Node) -> ast.Node:
    return dataclasses.replace(node, target=None) if isinstance(node, ast.Bound) else node


def _bounds(node: ast.Node) -> Iterator[ast.Bound]:
    return (n for n in ast.walk(node) if isinstance(n, ast.Bound))


def _unnamed(bound: ast.Bound) -> Diagnostic:
    message = f"this bound is for the target '{bound.target}', and the recipe runs on a target without a name"
    help = f"name the target: --to {bound.target}, or compile ... to {bound.target} in the file"
    return Diagnostic(Code.BAD_TARGET, message, bound.span, help=help)


def _foreign(bound: ast.Bound, target: str) -> Diagnostic:
    message = f"this loop is judged on the target '{bound.target}', and the recipe runs on '{target}'"
    help = f"compile to {bound.target} alone, or leave 'for {bound.target}' out"
    return Diagnostic(Code.BAD_TARGET, message, bound.span, help=help)
