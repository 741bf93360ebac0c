"""Bounds and goals: which metrics exist, with which units, and in which direction a bound makes sense."""

from __future__ import annotations

from ..ir.errors import Code, Diagnostic, Span
from . import habits
from . import syntax as ast
from .metrics import METRICS, USER, Metric
from .names import Names
from .quantity import Quantity, base_value, kind_of
from .values import near


def check_goal(goal: ast.Goal, names: Names) -> list[Diagnostic]:
    """Mistakes in `where`, `minimize`, `maximize` and `search`."""
    found = []
    seen: set[tuple[str, str | None]] = set()
    for bound in goal.bounds:
        found += _check(bound, names, sense=True)
        if (bound.metric, bound.target) in seen:
            message = f"'{bound.metric}' is bounded twice"
            found.append(Diagnostic(Code.DUPLICATE, message, bound.span, help="keep the stricter bound"))
        seen.add((bound.metric, bound.target))
    if goal.objective is not None:
        found += _objective(goal.objective, names)
    return found


def check_loop_bound(bound: ast.Bound, names: Names) -> list[Diagnostic]:
    """Mistakes in the condition of `until` or `while`; there both directions make sense."""
    return _check(bound, names, sense=False)


def metric_of(name: str) -> Metric | None:
    """The metric of a dotted name (`latency.p95`), None if there is none."""
    base, _, statistic = name.partition(".")
    metric = METRICS.get(base)
    return metric if metric is not None and (not statistic or statistic in metric.statistics) else None


def _check(bound: ast.Bound, names: Names, *, sense: bool) -> list[Diagnostic]:
    own = names.metric(bound.metric) is not None
    metric = USER if own else metric_of(bound.metric)
    if metric is None and names.is_lost(bound.metric):
        return _judge(bound, names)
    if metric is None:
        return [_unknown(bound.metric, bound.metric_span or bound.span, names), *_judge(bound, names)]
    found = _judge(bound, names)
    kind = kind_of(bound.limit)
    if kind is not None and kind not in metric.kinds:
        return [*found, _unit(bound, metric, kind)]
    if kind is not None:
        found += _range(bound, metric, kind)
    if own and bound.comparison not in ("<=", ">="):
        help = f"write {bound.metric} <= or >="
        found.append(
            Diagnostic(
                Code.BOUND_SENSE, "a bound on a metric of yours says which side is better", bound.span, help=help
            )
        )
    elif sense and not own:
        found += _sense(bound, metric)
    return found


def _objective(objective: ast.Objective, names: Names) -> list[Diagnostic]:
    metric = metric_of(objective.metric)
    found = _judge(objective, names)
    if metric is None:
        return [_unknown(objective.metric, objective.span, names), *found]
    if (objective.direction == "minimize") is not metric.less_is_better:
        better = "minimize" if metric.less_is_better else "maximize"
        message = f"'{objective.metric}' is better when {'smaller' if metric.less_is_better else 'larger'}"
        found.append(Diagnostic(Code.BOUND_SENSE, message, objective.span, help=f"write {better} {objective.metric}"))
    return found


def _judge(node: ast.Bound | ast.Objective, names: Names) -> list[Diagnostic]:
    target = node.target
    if target is None or names.kind(target) == "Target" or target in names.lost:
        return []
    known = [name for name in names.bindings if names.kind(name) == "Target"]
    advice = near(target, known) or f"bind it in a file: target {target} = ort(cpu)"
    return [Diagnostic(Code.BAD_TARGET, f"unknown target '{target}'", node.span, help=advice)]


def _unknown(name: str, span: Span | None, names: Names) -> Diagnostic:
    base, _, statistic = name.partition(".")
    if base in METRICS and statistic:
        known = METRICS[base].statistics
        message = f"'{base}' has no statistic '{statistic}'"
        advice = f"it has {', '.join(known)}" if known else f"write {base}"
        return Diagnostic(Code.UNKNOWN_METRIC, message, span, help=advice)
    others = f"the metrics are {', '.join(METRICS)}; yours: --metric {name}=FILE.py:FUNCTION"
    habit = f"write {habits.METRICS[name]}" if name in habits.METRICS else ""
    advice = habit or near(name, (*METRICS, *names.metrics)) or others
    return Diagnostic(Code.UNKNOWN_METRIC, f"unknown metric '{name}'", span, help=advice)


def _unit(bound: ast.Bound, metric: Metric, kind: Quantity) -> Diagnostic:
    bare = kind is Quantity.NUMBER
    value = bound.limit.value / 100 if kind is Quantity.RATIO else bound.limit.value
    advice = metric.advice.replace("{n}", f"{value!r}")
    return Diagnostic(
        Code.METRIC_UNIT,
        f"'{bound.metric}' needs a unit" if bare else f"'{bound.metric}' is not measured in this unit",
        bound.limit.span,
        label="a bare number is ambiguous here" if bare else f"this is a {kind}",
        help=advice,
    )


def _range(bound: ast.Bound, metric: Metric, kind: Quantity) -> list[Diagnostic]:
    value, top = base_value(bound.limit), metric.kinds[kind]
    if 0 <= value <= top and (value > 0 or metric.zero_makes_sense):
        return []
    return [
        Diagnostic(
            Code.OUT_OF_RANGE,
            f"{bound.limit.value!r}{bound.limit.unit} is out of range for '{bound.metric}'",
            bound.limit.span,
            help=f"'{bound.metric}' is the {metric.doc}",
        )
    ]


def _sense(bound: ast.Bound, metric: Metric) -> list[Diagnostic]:
    wanted = ("<=", "<") if metric.less_is_better else (">=", ">")
    if bound.comparison in wanted:
        return []
    better = "smaller" if metric.less_is_better else "larger"
    limit = f"{bound.limit.value!r}{bound.limit.unit}"
    return [
        Diagnostic(
            Code.BOUND_SENSE,
            f"'{bound.metric}' is better when {better}: a bound says how far it may go",
            bound.span,
            help=f"write {bound.metric} {wanted[0]} {limit}",
        )
    ]
