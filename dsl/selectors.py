"""Selectors: which operators and tensors a step may touch.

Patterns are matched against the segments of names (ir/patterns.py).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from ..ir.errors import Code, Diagnostic
from ..ir.patterns import glob_regex, normal
from . import syntax as ast
from .quantity import Quantity, base_value, kind_of
from .values import near


class Site(Protocol):
    """What a selector sees of an operator: its name, loc and constants' names, its kind, its properties."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def kind(self) -> str: ...

    @property
    def properties(self) -> Mapping[str, float | str]: ...


Predicate = Callable[[Site], bool]

PROPERTIES: dict[str, Quantity | None] = {  # the kind of number to compare with; None: a name
    "size": Quantity.SIZE,
    "params": Quantity.NUMBER,
    "macs": Quantity.NUMBER,
    "bits": Quantity.NUMBER,
    "rank": Quantity.NUMBER,
    "dtype": None,
}
DTYPES = {
    "float32": "f32",
    "fp32": "f32",
    "float16": "f16",
    "fp16": "f16",
    "bfloat16": "bf16",
    "float64": "f64",
    "double": "f64",
    **{f"int{bits}": f"i{bits}" for bits in (2, 4, 8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits}" for bits in (2, 4, 8, 16, 32, 64)},
}  # spellings of other tools, to the names of the IR
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


def predicate(selector: ast.Selector) -> Predicate:
    """The test that a (checked) selector stands for."""
    match selector:
        case ast.Glob(pattern):
            return match_names(glob_regex(pattern).match, normal)
        case ast.Regex(pattern):
            return match_names(re.compile(pattern).search, str)
        case ast.KindName(name):
            return lambda site: site.kind == name or site.kind.rpartition(".")[2] == name
        case ast.Test():
            return _test(selector)
        case ast.Not(part):
            inner = predicate(part)
            return lambda site: not inner(site)
        case ast.AllOf(parts):
            tests = [predicate(p) for p in parts]
            return lambda site: all(test(site) for test in tests)
        case ast.AnyOf(parts):
            tests = [predicate(p) for p in parts]
            return lambda site: any(test(site) for test in tests)


def check_selector(selector: ast.Selector) -> list[Diagnostic]:
    """Mistakes that can be seen without a model."""
    return [d for part in leaves(selector) for d in _check_leaf(part)]


# ---- matching --------------------------------------------------------------------------------------------


def match_names(match: Callable[[str], object], prepare: Callable[[str], str]) -> Predicate:
    return lambda site: any(match(prepare(name)) for name in site.names)


def _test(node: ast.Test) -> Predicate:
    compare = _COMPARE[node.comparison]
    if isinstance(node.value, str):
        wanted = DTYPES.get(node.value, node.value)
        equal = node.comparison == "=="
        return lambda site: node.subject in site.properties and (site.properties[node.subject] == wanted) is equal
    limit = base_value(node.value)

    def holds(site: Site) -> bool:
        value = site.properties.get(node.subject)
        return isinstance(value, int | float) and compare(value, limit)

    return holds


def leaves(selector: ast.Selector) -> Iterator[ast.Selector]:
    """The parts without and, or and not."""
    if isinstance(selector, ast.AllOf | ast.AnyOf):
        for part in selector.parts:
            yield from leaves(part)
    elif isinstance(selector, ast.Not):
        yield from leaves(selector.part)
    else:
        yield selector


# ---- checking --------------------------------------------------------------------------------------------


def _check_leaf(part: ast.Selector) -> list[Diagnostic]:
    if isinstance(part, ast.Test):
        return _check_test(part)
    if isinstance(part, ast.Glob) and not normal(part.pattern):
        return [Diagnostic(Code.BAD_SELECTOR, "an empty pattern selects nothing", part.span, help='write "**" for all')]
    if isinstance(part, ast.Regex):
        try:
            re.compile(part.pattern)
        except (re.error, OverflowError, RecursionError) as e:
            return [
                Diagnostic(
                    Code.BAD_SELECTOR,
                    f"an invalid regular expression: {e}",
                    part.span,
                    help="a pattern without ~ is simpler: * within a segment, ** across segments",
                )
            ]
    return []


def _check_test(part: ast.Test) -> list[Diagnostic]:
    if part.subject not in PROPERTIES:
        advice = near(part.subject, PROPERTIES) or f"the properties are {', '.join(PROPERTIES)}"
        message = f"unknown property '{part.subject}'"
        return [Diagnostic(Code.BAD_SELECTOR, message, part.span, help=advice)]
    wanted = PROPERTIES[part.subject]
    value = part.value
    if wanted is None:
        if isinstance(value, ast.Number):
            return [_misfit(part, "wants the name of an element type", "for example: dtype == f32")]
        if part.comparison not in ("==", "!="):
            return [_misfit(part, "is compared with == or !=", f"write {part.subject} == {value}")]
        return []
    if isinstance(value, str):
        return [_misfit(part, f"wants a {wanted}", "")]
    if kind_of(value) not in (wanted, None):
        advice = f"write {value.value!r}B or {value.value!r}KiB" if wanted is Quantity.SIZE and not value.unit else ""
        return [_misfit(part, f"wants a {wanted}", advice)]
    return []


def _misfit(part: ast.Test, wants: str, advice: str) -> Diagnostic:
    span = part.value.span if isinstance(part.value, ast.Number) else part.span
    return Diagnostic(Code.WRONG_UNIT, f"'{part.subject}' {wants}", span, help=advice)
