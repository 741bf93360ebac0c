"""Parameters of recipes: what may be given for one of a kind (`recipe small(r: ratio = 50%)`), and in a selector."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

from ..ir.errors import Code, Diagnostic
from . import syntax as ast
from .signature import UNITS, Parameter
from .values import MisfitError, convert, members, near, what

STEP = "step"  # one step, or several of them
KINDS = (*(unit for unit in UNITS if unit != "path"), STEP)


def unknown_kind(param: ast.Param) -> Iterator[Diagnostic]:
    """A complaint about a kind that there is not."""
    if param.kind is not None and param.kind not in KINDS:
        help = near(param.kind, KINDS) or f"the kinds are {', '.join(KINDS)}"
        yield Diagnostic(Code.WRONG_KIND, f"unknown kind '{param.kind}' of '{param.name}'", param.span, help=help)


def misfits(recipe: str, param: ast.Param, value: ast.Expr, unbound: Collection[str]) -> Iterator[Diagnostic]:
    """What is wrong with a value for a parameter; `unbound` are names that may stand for anything."""
    if param.kind not in KINDS or any(isinstance(n, ast.Ref) and n.name in unbound for n in ast.walk(value)):
        return
    if param.kind == STEP:
        if not isinstance(value, ast.Ref | ast.Call | ast.Chain | ast.Choice | ast.Scoped):
            message = f"'{recipe}.{param.name}' wants a step"
            yield Diagnostic(Code.WRONG_UNIT, message, value.span, label=f"this is {what(value)}")
        return
    for member in members(value):
        try:
            convert(recipe, Parameter(param.name, param.kind, nullable=True), member)
        except MisfitError as e:
            yield e.diagnostic


def fill(node: ast.KindName | ast.Test, value: ast.Expr) -> ast.Selector:
    """A part of a selector with the value of a parameter for its name: `on part`, `size > least`."""
    if isinstance(value, ast.Ref):
        if isinstance(node, ast.KindName):
            return dataclasses.replace(node, name=value.name)
        return dataclasses.replace(node, value=value.name)
    if isinstance(node, ast.KindName) and isinstance(value, ast.String):
        return ast.Glob(value.value, span=node.span)
    if isinstance(node, ast.Test) and isinstance(value, ast.Number):
        return dataclasses.replace(node, value=value)
    if isinstance(node, ast.KindName):
        message, help = "this selects no operators", 'give a pattern in quotes, "encoder.**", or a kind such as Conv'
    else:
        message, help = f"'{node.subject}' is not compared with this", "give a number such as 64KiB, or an element type"
    raise MisfitError(Diagnostic(Code.WRONG_KIND, message, value.span, label=f"this is {what(value)}", help=help))
