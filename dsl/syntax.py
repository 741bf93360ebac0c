"""The abstract syntax of recipes: frozen nodes, compared without their spans.

Nodes are kept in a normal form by the constructors at the end of this file: chains and choices are flat,
modifiers of modifiers are one list, double negation is gone. Therefore `a + (b + c) == (a + b) + c`, and the
canonical printer (`print.py`) and the parser (`parser.py`) are inverse to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from ..ir.errors import Span

_N = TypeVar("_N", bound="Node")

COMPARISONS = ("<=", ">=", "==", "!=", "<", ">")

KEYWORDS = frozenset(
    {"on", "except", "times", "until", "while", "where", "minimize", "maximize", "search", "for", "by"}
    | {"and", "or", "not", "true", "false", "none", "with", "to", "as"}
)
"""Words that cannot name a step, a binding or an operator kind. Statement words stay usable: `int8(data=x)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    span: Span | None = field(default=None, compare=False, repr=False)


# ---- selectors -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Glob(Node):
    """`"layers.*.weight"`: a pattern over the segments of a name."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Regex(Node):
    """`~"^head\\."`: a regular expression searched in the raw name."""

    pattern: str


@dataclass(frozen=True, slots=True)
class KindName(Node):
    """`Conv`, `com.microsoft.Gelu`, or the name of a selector bound by `let`."""

    name: str


@dataclass(frozen=True, slots=True)
class Test(Node):
    """`size > 64KiB`, `dtype == float16`."""

    __test__ = False  # not a test class for pytest

    subject: str
    comparison: str
    value: Number | str


@dataclass(frozen=True, slots=True)
class Not(Node):
    part: Selector


@dataclass(frozen=True, slots=True)
class AllOf(Node):
    parts: tuple[Selector, ...]


@dataclass(frozen=True, slots=True)
class AnyOf(Node):
    parts: tuple[Selector, ...]


Selector = Glob | Regex | KindName | Test | Not | AllOf | AnyOf


# ---- expressions -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A number as written, with its unit (`50%` is value 50, unit `%`)."""

    value: int | float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class String(Node):
    value: str


@dataclass(frozen=True, slots=True)
class Flag(Node):
    """`true`, `false` or `none`."""

    value: bool | None


@dataclass(frozen=True, slots=True)
class Ref(Node):
    """A bare name: a step without arguments, a binding, a parameter, or a name used as a value."""

    name: str


@dataclass(frozen=True, slots=True)
class Argument(Node):
    value: Expr
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Call(Node):
    name: str
    arguments: tuple[Argument, ...] = ()
    name_span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class ListOf(Node):
    """`[a, b]`: one value, a list."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class OneOf(Node):
    """`{a, b}`: a searched choice of values."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Range(Node):
    """`20%..60% by 10%`: a searched range."""

    low: Number
    high: Number
    by: Number | None = None


@dataclass(frozen=True, slots=True)
class Chain(Node):
    """`a + b`: a, then b."""

    steps: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Choice(Node):
    """`a | b`: a, or else b; left to the search."""

    options: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Scoped(Node):
    """A step or a chain in parentheses with its modifiers, in the order written."""

    body: Expr
    modifiers: tuple[Modifier, ...]


Expr = Number | String | Flag | Ref | Call | ListOf | OneOf | Range | Chain | Choice | Scoped


# ---- modifiers and goals ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bound(Node):
    """`size <= 0.3x`, `latency.p95 <= 8ms for phone`."""

    metric: str
    comparison: str
    limit: Number
    target: str | None = None
    metric_span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class On(Node):
    selector: Selector


@dataclass(frozen=True, slots=True)
class Except(Node):
    selector: Selector


@dataclass(frozen=True, slots=True)
class Times(Node):
    count: Number


@dataclass(frozen=True, slots=True)
class Until(Node):
    bound: Bound


@dataclass(frozen=True, slots=True)
class While(Node):
    bound: Bound


Modifier = On | Except | Times | Until | While


@dataclass(frozen=True, slots=True)
class Objective(Node):
    direction: str  # minimize | maximize
    metric: str
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Goal(Node):
    bounds: tuple[Bound, ...] = ()
    objective: Objective | None = None
    search: Call | None = None


@dataclass(frozen=True, slots=True)
class Program(Node):
    """What a recipe says: an expression and a goal. A one-liner is exactly this."""

    body: Expr
    goal: Goal = field(default_factory=Goal)


# ---- files -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Use(Node):
    path: str
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Binding(Node):
    kind: str  # one of BINDINGS
    name: str
    value: Expr
    name_span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Let(Node):
    """`let q = int4(group=32)` or `let blocks = on "layers.*"`."""

    name: str
    value: Expr | On
    name_span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Param(Node):
    name: str
    kind: str | None = None
    default: Expr | None = None


@dataclass(frozen=True, slots=True)
class Define(Node):
    """`recipe small(r = 50%) = prune(r) + int4 where size <= 0.3x`."""

    name: str
    params: tuple[Param, ...]
    program: Program
    name_span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Compile(Node):
    source: Expr
    recipe: Expr
    targets: tuple[str, ...] = ()


Statement = Use | Binding | Let | Define | Compile

BINDINGS = ("model", "data", "target", "optimizer")


@dataclass(frozen=True, slots=True)
class File(Node):
    statements: tuple[Statement, ...]


# ---- constructors of the normal form ---------------------------------------------------------------------


def chain(steps: Iterable[Expr], *, span: Span | None = None) -> Expr:
    """`steps` one after the other: nested chains are flattened, a chain of one is that one."""
    flat = tuple(s for step in steps for s in (step.steps if isinstance(step, Chain) else (step,)))
    return flat[0] if len(flat) == 1 else Chain(flat, span=span)


def choice(options: Iterable[Expr], *, span: Span | None = None) -> Expr:
    flat = tuple(o for opt in options for o in (opt.options if isinstance(opt, Choice) else (opt,)))
    return flat[0] if len(flat) == 1 else Choice(flat, span=span)


def scoped(body: Expr, modifiers: Iterable[Modifier], *, span: Span | None = None) -> Expr:
    """`body` under `modifiers`; the modifiers of a body that has some already come first."""
    added = tuple(modifiers)
    if not added:
        return body
    if isinstance(body, Scoped):
        return Scoped(body.body, body.modifiers + added, span=span)
    return Scoped(body, added, span=span)


def negate(part: Selector, *, span: Span | None = None) -> Selector:
    return part.part if isinstance(part, Not) else Not(part, span=span)


def all_of(parts: Iterable[Selector], *, span: Span | None = None) -> Selector:
    flat = tuple(p for part in parts for p in (part.parts if isinstance(part, AllOf) else (part,)))
    return flat[0] if len(flat) == 1 else AllOf(flat, span=span)


def any_of(parts: Iterable[Selector], *, span: Span | None = None) -> Selector:
    flat = tuple(p for part in parts for p in (part.parts if isinstance(part, AnyOf) else (part,)))
    return flat[0] if len(flat) == 1 else AnyOf(flat, span=span)


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, outermost first, in the order written."""
    yield node
    for each in fields(node):
        value = getattr(node, each.name)
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, Node):
                yield from walk(child)


Change = Callable[[Node], Node]


def mapped(node: _N, change: Change) -> _N:
    """The tree with every node changed, the innermost first. `change` keeps the kind of what it is given."""
    changes: dict[str, object] = {}
    for each in fields(node):
        value = getattr(node, each.name)
        if isinstance(value, Node):
            changes[each.name] = mapped(value, change)
        elif isinstance(value, tuple):
            changes[each.name] = tuple(mapped(v, change) if isinstance(v, Node) else v for v in value)
    return change(replace(node, **changes))  # type: ignore[arg-type, return-value]  # field names come from the node
