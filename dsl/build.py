"""From a checked recipe to what the compiler executes: steps with Python arguments, loops, bounds in base units."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..ir.errors import Span
from . import syntax as ast
from .metrics import METRICS
from .print import bound as bound_text
from .print import expression
from .quantity import UNITS, Quantity, base_value
from .signature import Catalog
from .values import convert


@dataclass(frozen=True, slots=True)
class StepScope:
    """Where a step may work: what `on` selects (None: everything), less what `except` selects."""

    on: ast.Selector | None = None
    but: ast.Selector | None = None

    @property
    def everywhere(self) -> bool:
        return self.on is None and self.but is None


@dataclass(frozen=True, slots=True)
class Step:
    """One pass to run. Arguments left out are absent: the pass has its defaults."""

    name: str
    arguments: Mapping[str, object]
    scope: StepScope
    text: str  # canonical, with its scope
    data: ast.Ref | None = None  # the data it asks to calibrate with
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Limit:
    """One hard bound. `value` is in the base unit of `kind` (bytes, seconds, 0..1, dB)."""

    metric: str  # size, latency, ..., or one of the user's
    statistic: str  # p50, p95 or empty
    comparison: str
    value: float
    kind: Quantity
    text: str  # canonical
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> str:
        """What is measured for it: a metric, or a statistic of one that is measured by itself."""
        return self.metric if self.statistic in ("", "p50") else f"{self.metric}.{self.statistic}"

    @property
    def relative(self) -> bool:
        """Whether the value is a part of what the input model has (`0.3x`, or a relative drop in `%`)."""
        return self.kind is Quantity.FACTOR or (self.metric == "acc_drop" and self.kind is Quantity.RATIO)

    def holds(self, measured: float) -> bool:
        """Whether a measurement in the same terms satisfies the bound."""
        return _COMPARE[self.comparison](measured, self.value)


@dataclass(frozen=True, slots=True)
class Repeat:
    """Steps that run again until one bound on their result holds, or while another does."""

    body: tuple[Step | Repeat, ...]
    until: Limit | None
    keep: Limit | None  # of `while`
    rounds: int  # at most
    limited: bool  # whether the number of rounds was asked for
    text: str  # canonical
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The bounds of this loop and of those in it."""
        own = tuple(limit for limit in (self.until, self.keep) if limit is not None)
        return own + tuple(limit for part in self.body if isinstance(part, Repeat) for limit in part.limits)


MAX_ROUNDS = 32  # of a loop that does not say `times N`

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}


def build_steps(body: ast.Expr, catalog: Catalog) -> tuple[Step | Repeat, ...]:
    """The steps of an expanded, checked and executable body, in order."""
    parts = body.steps if isinstance(body, ast.Chain) else (body,)
    return tuple(_repeat(p, catalog) if isinstance(p, ast.Scoped) and _loops(p) else _step(p, catalog) for p in parts)


def steps_of(parts: Iterable[Step | Repeat]) -> Iterator[Step]:
    """The steps in order, those of loops once."""
    for part in parts:
        if isinstance(part, Repeat):
            yield from steps_of(part.body)
        else:
            yield part


def build_limits(goal: ast.Goal) -> tuple[Limit, ...]:
    """The bounds of an expanded, checked and executable goal."""
    return tuple(map(_limit, goal.bounds))


def _loops(node: ast.Scoped) -> bool:
    return any(isinstance(m, ast.Until | ast.While) for m in node.modifiers)


def _repeat(node: ast.Scoped, catalog: Catalog) -> Repeat:
    times = [int(m.count.value) for m in node.modifiers if isinstance(m, ast.Times)]
    until = [m.bound for m in node.modifiers if isinstance(m, ast.Until)]
    keep = [m.bound for m in node.modifiers if isinstance(m, ast.While)]
    scopes = [m for m in node.modifiers if isinstance(m, ast.On | ast.Except)]
    return Repeat(
        build_steps(ast.scoped(node.body, scopes, span=node.body.span), catalog),
        _limit(until[0]) if until else None,
        _limit(keep[0]) if keep else None,
        times[0] if times else MAX_ROUNDS,
        bool(times),
        expression(node),
        span=node.span,
    )


def _step(node: ast.Expr, catalog: Catalog) -> Step:
    scope = StepScope()
    inner = node
    if isinstance(node, ast.Scoped):
        inner = node.body
        on = [m.selector for m in node.modifiers if isinstance(m, ast.On)]
        but = [m.selector for m in node.modifiers if isinstance(m, ast.Except)]
        scope = StepScope(on[0] if on else None, but[0] if but else None)
    call = ast.Call(inner.name) if isinstance(inner, ast.Ref) else inner
    assert isinstance(call, ast.Call), "an expanded body holds only steps"
    signature = catalog.find(call.name)
    given = {a.name: a.value for a in call.arguments if a.name is not None}
    data = [value for name, value in given.items() if signature.parameters[name].unit == "data"]
    arguments = {
        name: convert(call.name, signature.parameters[name], value)
        for name, value in given.items()
        if value not in data
    }
    asked = data[0] if data and isinstance(data[0], ast.Ref) else None
    return Step(call.name, arguments, scope, expression(node), asked, span=node.span)


def _limit(bound: ast.Bound) -> Limit:
    metric, _, statistic = bound.metric.partition(".")
    if metric not in METRICS:  # one of the user's
        metric, statistic = bound.metric, ""
    return Limit(
        metric,
        statistic,
        bound.comparison,
        float(base_value(bound.limit)),
        UNITS[bound.limit.unit].kind,
        bound_text(bound),
        span=bound.span,
    )
