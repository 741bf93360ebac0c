"""Argument values: does a written value fit a parameter, and what is it in Python."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

from ..ir.errors import Code, Diagnostic, Span
from . import syntax as ast
from .print import expression
from .quantity import UNITS, Quantity, base_value, kind_of
from .signature import Parameter

WANTS = {
    "ratio": "a ratio such as 50%",
    "number": "a plain number",
    "int": "a whole number",
    "name": "a name",
    "str": 'a string in quotes, such as "text"',
    "word": "a name, or a string in quotes",
    "path": 'a path in quotes, such as "samples.npz"',
    "bool": "true or false",
    "ints": "a whole number, or a list of them such as [4, 8]",
    "numbers": "a plain number, or a list of them such as [0.5, 1]",
    "size": "a size such as 64KiB",
    "data": "the name of a data binding",
}
Value = object


class MisfitError(Exception):
    """A value that does not fit; carries its diagnostic to the one place that collects them."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.message)


def near(word: str, pool: Iterable[str]) -> str:
    """Advice that names the closest known word, or nothing."""
    lower = {name.lower(): name for name in pool}
    found = [lower[name] for name in difflib.get_close_matches(word.lower(), lower, 1, 0.6)]
    return f"did you mean '{found[0]}'?" if found else ""


def convert(step: str, parameter: Parameter, node: ast.Expr) -> Value:
    """The Python value of an argument: `50%` is 0.5, `64KiB` is 65536, `[4, 8]` is (4, 8) and so is 4 (4,)."""
    if _is_none(node):
        if parameter.nullable:
            return None
        raise _misfit(step, parameter, node)
    value = _READERS[parameter.unit](step, parameter, node)
    if isinstance(value, tuple):
        spans = [item.span for item in node.items] if isinstance(node, ast.ListOf) else [node.span]
        for item, span in zip(value, spans):
            _check_range(step, parameter, item, span)
    else:
        _check_range(step, parameter, value, node.span)
    return value


def members(node: ast.Expr) -> tuple[ast.Expr, ...]:
    """What a searched value ranges over (the ends of a range); the value itself if it is not searched."""
    if isinstance(node, ast.OneOf):
        return tuple(m for item in node.items for m in members(item))
    if isinstance(node, ast.Range):
        return (node.low, node.high)
    return (node,)


def check_range(node: ast.Range) -> list[Diagnostic]:
    """An empty range, mixed units, a step that does not advance."""
    parts = [node.low, node.high, *([node.by] if node.by is not None else [])]
    if any(kind_of(p) is None for p in parts):
        return []  # the unit itself is reported
    if len({kind_of(p) for p in parts}) > 1:
        return [
            Diagnostic(Code.WRONG_UNIT, "the parts of this range have different units", node.span, help="use one unit")
        ]
    if base_value(node.low) > base_value(node.high):
        turned = expression(ast.Range(node.high, node.low, node.by))
        return [
            Diagnostic(
                Code.EMPTY_RANGE,
                "an empty range: the low end is above the high end",
                node.span,
                help=f"write {turned}",
            )
        ]
    if node.by is not None and base_value(node.by) <= 0:
        return [Diagnostic(Code.EMPTY_RANGE, "the step of a range must be positive", node.by.span, help="write by 10%")]
    return []


def _number(step: str, parameter: Parameter, node: ast.Expr) -> int | float:
    if not isinstance(node, ast.Number) or kind_of(node) is not Quantity.NUMBER:
        raise _misfit(step, parameter, node)
    return node.value


def _int(step: str, parameter: Parameter, node: ast.Expr) -> int:
    value = _number(step, parameter, node)
    if not isinstance(value, int):
        raise _misfit(step, parameter, node)
    return value


def _ratio(step: str, parameter: Parameter, node: ast.Expr) -> float:
    if not isinstance(node, ast.Number) or kind_of(node) not in (Quantity.RATIO, Quantity.NUMBER):
        raise _misfit(step, parameter, node)
    value = float(base_value(node))
    if not 0 <= value <= 1:
        bare_percent = node.unit == "" and 1 < value <= 100
        raise MisfitError(
            Diagnostic(
                Code.OUT_OF_RANGE,
                f"'{step}.{parameter.name}' = {expression(node)} is out of range 0%..100%",
                node.span,
                help=f"write {value:g}%" if bare_percent else "write a share of the whole: 50%",
            )
        )
    return value


def _size(step: str, parameter: Parameter, node: ast.Expr) -> int:
    if not isinstance(node, ast.Number) or kind_of(node) is not Quantity.SIZE:
        raise _misfit(step, parameter, node)
    return int(base_value(node))


def _name(step: str, parameter: Parameter, node: ast.Expr) -> str:
    if not isinstance(node, ast.Ref):
        raise _misfit(step, parameter, node)
    return node.name


def _string(step: str, parameter: Parameter, node: ast.Expr) -> str:
    if not isinstance(node, ast.String):
        raise _misfit(step, parameter, node)
    return node.value


def _word(step: str, parameter: Parameter, node: ast.Expr) -> str:
    if not isinstance(node, ast.Ref | ast.String):
        raise _misfit(step, parameter, node)
    return node.name if isinstance(node, ast.Ref) else node.value


def _bool(step: str, parameter: Parameter, node: ast.Expr) -> bool:
    if not isinstance(node, ast.Flag) or node.value is None:
        raise _misfit(step, parameter, node)
    return node.value


_Item = TypeVar("_Item")


def _list_of(read: Callable[[str, Parameter, ast.Expr], _Item]) -> Callable[..., tuple[_Item, ...]]:
    """A reader of lists; one item alone is a list of one."""

    def reader(step: str, parameter: Parameter, node: ast.Expr) -> tuple[_Item, ...]:
        if isinstance(node, ast.Number):
            return (read(step, parameter, node),)
        if not isinstance(node, ast.ListOf):
            raise _misfit(step, parameter, node)
        return tuple(read(step, parameter, item) for item in node.items)

    return reader


_READERS: dict[str, Callable[[str, Parameter, ast.Expr], Value]] = {
    "ratio": _ratio,
    "number": _number,
    "int": _int,
    "name": _name,
    "str": _string,
    "word": _word,
    "path": _string,
    "bool": _bool,
    "ints": _list_of(_int),
    "numbers": _list_of(_number),
    "size": _size,
    "data": _name,
}


def _check_range(step: str, parameter: Parameter, value: Value, span: Span | None) -> None:
    if parameter.choices and value not in parameter.choices:
        choices = [str(c) for c in parameter.choices]
        raise MisfitError(
            Diagnostic(
                Code.OUT_OF_RANGE,
                f"'{step}.{parameter.name}' cannot be {_shown(parameter, value)}",
                span,
                help=" ".join(filter(None, (near(str(value), choices), f"choose one of {', '.join(choices)}"))),
            )
        )
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    low, high = parameter.low, parameter.high
    if (low is not None and value < low) or (high is not None and value > high):
        limits = [
            f"{word} {_shown(parameter, limit)}" for word, limit in (("from", low), ("to", high)) if limit is not None
        ]
        raise MisfitError(
            Diagnostic(
                Code.OUT_OF_RANGE,
                f"'{step}.{parameter.name}' = {_shown(parameter, value)} is out of range",
                span,
                help=f"it goes {' '.join(limits)}{'' if len(limits) > 1 else ' up' if low is not None else ''}",
            )
        )


def _shown(parameter: Parameter, value: Value) -> str:
    if parameter.unit == "ratio" and isinstance(value, int | float):
        return f"{value * 100:g}%"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _misfit(step: str, parameter: Parameter, node: ast.Expr) -> MisfitError:
    wanted = WANTS[parameter.unit]
    if parameter.unit == "name" and parameter.choices:
        wanted = f"one of {', '.join(map(str, parameter.choices))}"
    return MisfitError(
        Diagnostic(
            Code.WRONG_UNIT,
            f"'{step}.{parameter.name}' wants {wanted}",
            node.span,
            label=f"this is {what(node)}" + (", and this argument always has a value" if _is_none(node) else ""),
            help=_advice(parameter, node),
        )
    )


def _advice(parameter: Parameter, node: ast.Expr) -> str:
    if isinstance(node, ast.Call) and node.name == parameter.name and len(node.arguments) == 1:
        return f"write {node.name}={expression(node.arguments[0].value)}"
    if parameter.unit in ("str", "path") and isinstance(node, ast.Ref):
        return f'write "{node.name}"'
    if parameter.unit == "name" and isinstance(node, ast.String):
        return f"write {node.value} without quotes" if node.value.isidentifier() else ""
    if parameter.unit == "size" and isinstance(node, ast.Number) and not node.unit:
        return f"write {expression(node)}B or {expression(node)}KiB"
    return ""


def _is_none(node: ast.Expr) -> bool:
    return isinstance(node, ast.Flag) and node.value is None


def what(node: ast.Expr) -> str:
    """An expression in words, for labels: `a ratio (%)`, `a list`."""
    if isinstance(node, ast.Number):
        if node.unit not in UNITS:
            return "a number of unknown unit"
        if node.unit == "":
            return "a whole number" if isinstance(node.value, int) else "a number with a fraction"
        return f"a {kind_of(node)}"
    if _is_none(node):
        return "none"
    return _WORDS[type(node)]


_WORDS: dict[type[ast.Node], str] = {
    ast.String: "a string",
    ast.Flag: "a truth value",
    ast.Ref: "a name",
    ast.Call: "a call",
    ast.ListOf: "a list",
    ast.OneOf: "a searched choice",
    ast.Range: "a searched range",
    ast.Chain: "a chain of steps",
    ast.Choice: "a choice of steps",
    ast.Scoped: "a step with a scope",
}
