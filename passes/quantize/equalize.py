"""`equalize`: brings channels of neighbouring layers to the same ranges of weights. No data; outputs stay equal.

    equal = mlc.passes.Equalize()(module)

Cross-layer equalization (Nagel et al., 2019) on every class of axes that admits positive scales: pairs of layers, the
triples around a depthwise convolution, residual streams. How scales are found: equalize_solve.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...ir.axes import Axes
from ...ir.axis_actions import BEHAVIOUR
from ...ir.axis_scales import Scale
from ...ir.core import Module, Value
from ...ir.quant import QSpec, dequantize, min_max, quantize
from ...ir.rewrite import Rewriter
from ..base import EXACT, Context, Done, Effect, Pass, SkipCode, Skipped, site_name
from ..linear import Linear, linear_of
from .equalize_solve import Balance, Meeting, meetings
from .prepare import Prepared, prepare
from .scaling import ScalingPlan, apply_scales, axes_of

Array = np.ndarray[Any, Any]

_ASK_SIZES = ("Shape", "Size")  # they read no elements
_SPEC = QSpec(8, signed=True, symmetric=True)


@dataclass(frozen=True)
class EqualizeSite:
    """Layers that meet in a class: those that make its units and those that read them, and the relative squared error
    of their weights with one 8-bit scale per tensor, before and after. Sides of exponent one are multiplied by
    `numbers`."""

    name: str
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    constants: tuple[str, ...]  # with axes: `weight:0`; last the units
    before: float
    after: float
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class EqualizePlan(ScalingPlan):
    sites: tuple[EqualizeSite, ...] = ()
    sweeps: int = 0


@dataclass(frozen=True)
class Equalize(Pass):
    """Scales channels so that layers that meet have weights of equal range: one 8-bit scale per tensor then suffices.

    s_i = sqrt(r1_i r2_i) / r2_i with r the largest absolute weight of a channel, over all layers of a class at once,
    until no number moves by a thousandth. Batch normalizations and constants are folded into the weights first. Not
    through ReLU6, GELU or SiLU, which do not commute with scales. Channels without weights stay as they are.
    """

    name: ClassVar[str] = "equalize"
    effect: ClassVar[Effect] = EXACT
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune", "absorb")

    def plan(self, module: Module, ctx: Context) -> EqualizePlan:
        """Fold a copy, and solve there."""
        ready = Prepared.of(module, ctx, by=self.name)
        axes = axes_of(ready.module)
        found = meetings(axes)
        allowed = [m for m in found if _in_scope(m, ready.ctx)]
        balance = Balance(axes, [m for m in allowed if not _unusable(m)]).solve()
        start = Balance(axes, balance.meetings)
        sites: list[EqualizeSite] = []
        skipped = [Skipped(m.name, SkipCode.SCOPE, "outside the scope of the step") for m in found if m not in allowed]
        for m in allowed:
            decided = _decide(m, start, balance)
            (sites if isinstance(decided, EqualizeSite) else skipped).append(decided)  # type: ignore[arg-type]
        skipped += _fixed(axes, found)
        notes = (*ready.notes, *(() if balance.converged else (f"not at rest after {balance.sweeps} sweeps",)))
        return EqualizePlan(tuple(skipped), notes if sites else (), tuple(sites), balance.sweeps)

    def apply(self, rw: Rewriter, plan: EqualizePlan, ctx: Context) -> list[Done]:
        if not plan.sites:
            return []
        prepare(rw, ctx)
        axes = axes_of(rw.module)
        every = meetings(axes)
        found = {m.key: m for m in every}
        assert len(found) == len(every), "two meetings cannot be told apart"
        scales = [Scale(found[s.constants].cells, np.array(s.numbers)) for s in plan.sites]
        apply_scales(rw, axes, scales)
        return [
            Done(s.name, f"error {s.before:.2g} with one scale per tensor", f"error {s.after:.2g}") for s in plan.sites
        ]


def _in_scope(m: Meeting, ctx: Context) -> bool:
    touched = (op for value, _ in m.cells.direction.sides if value.constant is not None for op in value.users)
    return ctx.scope.allows_group(m.makers) and not any(ctx.scope.excludes(op) for op in touched)


def _unusable(m: Meeting) -> str:
    for value, _, _ in m.sides:
        assert value.constant is not None
        if not np.isfinite(value.constant.array()).all():
            return f"{value.name} holds Inf or NaN"
    return ""


def _decide(m: Meeting, start: Balance, balance: Balance) -> EqualizeSite | Skipped:
    if problem := _unusable(m):
        return Skipped(m.name, SkipCode.HURTS, problem)
    numbers = balance.numbers[m]
    if bool((numbers == 1).all()):
        return Skipped(m.name, SkipCode.ALREADY, "its ranges are equal")
    makers, readers = (tuple(map(site_name, ops)) for ops in (m.makers, m.readers))
    before, after = (float(np.mean([_error(b.scaled(v)) for v, _, _ in m.sides])) for b in (start, balance))
    return EqualizeSite(m.name, makers, readers, m.key, _short(before), _short(after), tuple(float(x) for x in numbers))


def _error(weight: Array) -> float:
    """The relative squared error of a tensor with one 8-bit scale."""
    flat = weight.reshape(-1, 1)
    scale, _ = min_max(flat, _SPEC)
    made = dequantize(quantize(weight, scale.reshape(()), None, _SPEC), scale.reshape(()), None, _SPEC)
    energy = float(np.square(weight, dtype=np.float64).sum())
    return float(np.square(made - weight, dtype=np.float64).sum()) / energy if energy else 0.0


def _short(error: float) -> float:
    return float(f"{error:.4g}")


def _fixed(axes: Axes, found: Sequence[Meeting]) -> Iterator[Skipped]:
    """The linear operators whose outputs take part in nothing, and what is in the way."""
    making = {op for m in found for op in m.makers}
    for op in axes.module.walk():
        linear = linear_of(op)
        if linear is not None and op not in making:
            why = _obstacle(linear)
            yield Skipped(site_name(op), SkipCode.PINNED_AXIS, why)


def _obstacle(linear: Linear) -> str:
    """What keeps the outputs of an operator from being scaled: the first op behind it that no scale passes."""
    if not linear.exposed:
        return "its gates do not commute with scales"
    seen: dict[Value, None] = {}
    waiting: list[Value] = [linear.op.results[0]]
    while waiting:
        value = waiting.pop(0)
        if value in seen:
            continue
        seen[value] = None
        for user in value.users:
            if user.is_terminator:
                return "it makes an output of the model" if user.parent is not None else "it leaves a body"
            if user.kind not in BEHAVIOUR and user.kind not in _ASK_SIZES:
                return f"{user.kind} behind it does not commute with scales ({site_name(user)})"
            if linear_of(user) is None:
                waiting += user.results
    return "no other weights meet it there"
