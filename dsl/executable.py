"""What the language can say but the compiler cannot execute yet: one diagnostic each, naming the feature."""

from __future__ import annotations

from collections.abc import Callable

from ..ir.errors import Code, Diagnostic
from . import syntax as ast
from .bounds import metric_of
from .metrics import METRICS
from .print import expression


def refusals(node: ast.Node) -> list[Diagnostic]:
    """Every feature of a program or statement that cannot be executed yet."""
    return [d for part in ast.walk(node) if type(part) in _REFUSALS for d in _refuse(part)]


def _refuse(node: ast.Node) -> list[Diagnostic]:
    told = _REFUSALS[type(node)](node)
    if told is None:
        return []
    feature, advice = told
    span = node.search.span if isinstance(node, ast.Goal) and node.search is not None else node.span
    return [Diagnostic(Code.NOT_YET, f"{feature} cannot be executed yet", span, help=advice)]


_Told = tuple[str, str] | None  # the feature and what to do instead; None: nothing to refuse


def _choice(node: ast.Node) -> _Told:
    assert isinstance(node, ast.Choice)
    return "a choice of steps ('|')", f"keep one option: {expression(node.options[0])}"


def _oneof(node: ast.Node) -> _Told:
    assert isinstance(node, ast.OneOf)
    return "a searched choice of values ('{ }')", f"keep one value: {expression(node.items[0])}"


def _range(node: ast.Node) -> _Told:
    assert isinstance(node, ast.Range)
    return "a searched range ('..')", f"give one value: {expression(node.low)}"


def _objective(node: ast.Node) -> _Told:
    assert isinstance(node, ast.Objective)
    return f"'{node.direction}' (a search)", "state a bound instead: where size <= 0.5x"


def _goal(node: ast.Node) -> _Told:
    assert isinstance(node, ast.Goal)
    if node.search is None:
        return None
    return f"'search {node.search.name}'", "give every argument one value and leave 'search' out"


def _bound(node: ast.Node) -> _Told:
    assert isinstance(node, ast.Bound)
    metric = metric_of(node.metric)
    if metric is not None and not metric.executable:
        able = ", ".join(name for name, m in METRICS.items() if m.executable)
        return f"a bound on '{node.metric}'", f"bounds can be put on {able}"
    return None


def _binding(node: ast.Node) -> _Told:
    assert isinstance(node, ast.Binding)
    if node.kind != "optimizer":
        return None
    return f"the statement 'optimizer {node.name} = ...'", "leave it out; no step takes an optimizer yet"


_REFUSALS: dict[type[ast.Node], Callable[[ast.Node], _Told]] = {
    ast.Choice: _choice,
    ast.OneOf: _oneof,
    ast.Range: _range,
    ast.Objective: _objective,
    ast.Goal: _goal,
    ast.Bound: _bound,
    ast.Binding: _binding,
}
