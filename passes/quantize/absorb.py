"""`absorb`: moves biases that a ReLU never cuts into the next layer, so that activations take less room.

    less = mlc.passes.Absorb()(module)

High-bias absorption (Nagel et al., 2019), by what a batch normalization says of its own result: mean beta, deviation
gamma. Where beta > 3 gamma nearly all of a channel lies above c = beta - 3 gamma, and

    W relu(y) + b  =  W relu(y - c) + (b + W c)        for y >= c
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Module, Op
from ...ir.ops.access import attr_int, attr_ints, attr_text
from ...ir.rewrite import Rewriter
from ..base import LOSSY, Context, Done, Effect, Pass, SkipCode, Skipped, option, site_name
from ..bias import add_bias
from ..linear import Convolution, Linear, TransposedConvolution, linear_of
from .scaling import ScalingPlan

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class AbsorbSite:
    """A batch normalization, the layers that read it behind a ReLU, how many channels are lowered, and what each is
    lowered by."""

    name: str
    readers: tuple[str, ...]
    channels: int
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class AbsorbPlan(ScalingPlan):
    sites: tuple[AbsorbSite, ...] = ()


@dataclass(frozen=True)
class Absorb(Pass):
    """Lowers channels of which a batch normalization says that a ReLU leaves them alone; the next layer adds it back.

    c = max(0, beta - deviations * |gamma|), channel by channel: y - c in front of the ReLU, b + W c behind it. What
    lies below c (0.13 % of a normal distribution at three deviations) changes, the rest stays. No data; it reads batch
    normalizations, so it comes before everything that folds them.
    """

    name: ClassVar[str] = "absorb"
    effect: ClassVar[Effect] = LOSSY
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune")

    deviations: float = option(3.0, unit="number", low=0.0, doc="how far below its mean a channel is taken to reach")

    def plan(self, module: Module, ctx: Context) -> AbsorbPlan:
        sites: list[AbsorbSite] = []
        skipped: list[Skipped] = []
        for op in _norms(module):
            found = self._decide(op, ctx)
            (sites if isinstance(found, AbsorbSite) else skipped).append(found)  # type: ignore[arg-type]
        notes = () if sites or skipped else ("there is no batch normalization that says how its results are spread",)
        return AbsorbPlan(tuple(skipped), notes, tuple(sites))

    def _decide(self, op: Op, ctx: Context) -> AbsorbSite | Skipped:
        readers = _readers(op)
        if isinstance(readers, str):
            return Skipped(site_name(op), SkipCode.NOT_FOLLOWED, readers)
        if not ctx.scope.allows(op) or any(ctx.scope.excludes(r.op) for r in readers):
            return Skipped(site_name(op), SkipCode.SCOPE, "outside the scope of the step")
        gamma, beta = (_numbers(op, slot) for slot in (1, 2))
        lowered = np.maximum(0.0, beta - self.deviations * np.abs(gamma))
        if not np.isfinite(lowered).all():
            return Skipped(site_name(op), SkipCode.HURTS, "its scale or shift holds Inf or NaN")
        if not lowered.any():
            return Skipped(
                site_name(op), SkipCode.ALREADY, f"no channel lies {self.deviations:g} deviations above zero"
            )
        numbers = tuple(float(x) for x in lowered)
        return AbsorbSite(site_name(op), tuple(site_name(r.op) for r in readers), int((lowered > 0).sum()), numbers)

    def apply(self, rw: Rewriter, plan: AbsorbPlan, ctx: Context) -> list[Done]:
        norms = {site_name(op): op for op in _norms(rw.module)}
        return [_absorb(rw, norms[site.name], site) for site in plan.sites]


def _absorb(rw: Rewriter, op: Op, site: AbsorbSite) -> Done:
    readers = _readers(op)
    assert not isinstance(readers, str)
    lowered, shift = np.array(site.numbers), op.operand(2)
    assert shift is not None
    assert shift.constant is not None
    made = rw.constant(Constant.of(_numbers(op, 2) - lowered, shift.constant.dtype), f"{shift.name}_lowered")
    rw.set_operand(op, 2, made)
    for linear in readers:
        assert linear.weight.constant is not None
        matrix = linear.matrix(linear.weight.constant.array()).astype(np.float64)
        columns = np.repeat(lowered.reshape(linear.groups, -1), linear.taps, axis=1)
        add_bias(rw, linear.op, np.einsum("god,gd->go", matrix, columns).reshape(-1), linear.weight.constant.dtype)
    return Done(
        site.name, f"{site.channels} of {len(lowered)} channels never at zero", f"lowered by {lowered.max():.2g}"
    )


def _norms(module: Module) -> Iterator[Op]:
    for op in module.walk():
        if op.kind == "BatchNormalization" and not attr_int(op, "training_mode"):
            yield op


def _numbers(op: Op, slot: int) -> Array:
    value = op.operand(slot)
    assert value is not None
    assert value.constant is not None
    return value.constant.array().astype(np.float64)


def _readers(op: Op) -> list[Linear] | str:
    """The linear operators that read a normalization behind a ReLU, or why it cannot be lowered."""
    if any(v is None or v.constant is None for v in op.operands[1:3]):
        return "its scale or shift is computed"
    users = op.results[0].users
    if len(users) != 1 or users[0].kind != "Relu":
        return "it is not followed by a ReLU alone"
    found: list[Linear] = []
    for user in users[0].results[0].users:
        linear = linear_of(user)
        if linear is None or linear.data is not users[0].results[0]:
            return "what reads it behind the ReLU is not a layer with constant weights"
        if isinstance(linear, Convolution) and _padded(linear):
            return f"{site_name(user)} pads it with zeros, which do not move along"
        found.append(linear)
    return found or "nothing reads it"


def _padded(linear: Convolution) -> bool:
    if isinstance(linear, TransposedConvolution):
        return True
    mode = attr_text(linear.op, "auto_pad", "NOTSET")
    return any(attr_ints(linear.op, "pads") or ()) if mode == "NOTSET" else mode != "VALID" and linear.taps > 1
