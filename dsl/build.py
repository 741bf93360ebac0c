"""From a checked recipe to what the compiler executes: steps with Python arguments, and bounds in base units."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..ir.errors import Span
from . import syntax as ast
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
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Limit:
    """One hard bound. `value` is in the base unit of `kind` (bytes, seconds, 0..1, dB)."""

    metric: str  # size, latency, ...
    statistic: str  # p50, p95 or empty
    comparison: str
    value: float
    kind: Quantity
    text: str  # canonical
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def relative(self) -> bool:
        """Whether the value is a part of what the input model has (`0.3x`, or a relative drop in `%`)."""
        return self.kind is Quantity.FACTOR or (self.metric == "acc_drop" and self.kind is Quantity.RATIO)

    def holds(self, measured: float) -> bool:
        """Whether a measurement in the same terms satisfies the bound."""
        return _COMPARE[self.comparison](measured, self.value)


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}


def build_steps(body: ast.Expr, catalog: Catalog) -> tuple[Step, ...]:
    """The steps of an expanded, checked and executable body, in order."""
    parts = body.steps if isinstance(body, ast.Chain) else (body,)
    return tuple(_step(part, catalog) for part in parts)


def build_limits(goal: ast.Goal) -> tuple[Limit, ...]:
    """The bounds of an expanded, checked and executable goal."""
    return tuple(map(_limit, goal.bounds))


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
    arguments = {
        a.name: convert(call.name, signature.parameters[a.name], a.value) for a in call.arguments if a.name is not None
    }
    return Step(call.name, arguments, scope, expression(node), span=node.span)


def _limit(bound: ast.Bound) -> Limit:
    metric, _, statistic = bound.metric.partition(".")
    return Limit(
        metric,
        statistic,
        bound.comparison,
        float(base_value(bound.limit)),
        UNITS[bound.limit.unit].kind,
        bound_text(bound),
        span=bound.span,
    )
