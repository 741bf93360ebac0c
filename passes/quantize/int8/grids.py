"""The grids of activations, from what calibration data does to the values of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ....ir.core import Module
from ....ir.quant import QSpec, grid
from ...base import Context
from ...statistics import StreamingStatistics, sources
from ..observe import OBSERVERS
from ..probe import ANGLE, Probe, affordable
from .placement import GridClass, Placement
from .plan import ActivationGrid

#: Activations: unsigned, asymmetric, one grid for the tensor.
ACTIVATIONS = QSpec(8, signed=False, symmetric=False)
#: What `auto` chooses from. The first is the safe one: nothing is cut off.
CHOICES = ("minmax", "average", "percentile", "mse")
_SAMPLES = 24  # at most, that observers are compared on


@dataclass(frozen=True)
class Range:
    """What a class of values covers; `low <= 0 <= high`."""

    low: float
    high: float

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True)
class Calibration:
    """The ranges of all classes by one observer, and what was measured of others (damage by name, and its measure)."""

    observer: str
    ranges: tuple[Range, ...]
    tried: Mapping[str, float] = field(default_factory=dict)
    measure: str = ANGLE


def calibrate(module: Module, placement: Placement, observer: str, ctx: Context) -> Calibration:
    """The ranges of all classes. With the observer `auto` those among `CHOICES` with which rounding all activations
    does the least damage to the outputs (probe.py)."""
    stats = ctx.stats or StreamingStatistics(*sources(ctx), max_memory=ctx.max_memory, progress=ctx.progress)
    within = replace(ctx, stats=stats)
    places = tuple(
        (tuple(v.name for v in c.values), tuple(v.name for v in c.sources), c.bound) for c in placement.classes
    )
    question = ("calibration", observer, places, tuple(op.results[0].name for op in placement.glue))
    return stats.remember(module, question, lambda: _calibrate(module, placement, observer, within))


def _calibrate(module: Module, placement: Placement, observer: str, ctx: Context) -> Calibration:
    names = CHOICES if observer == "auto" else (observer,)
    found = _observe(module, placement.classes, names, ctx)
    first = names[0]
    if len(names) == 1 or not placement.classes or not all(r.known for ranges in found.values() for r in ranges):
        return Calibration(first, found[first])
    damage, measure = _damage(module, placement, found, ctx)
    best = min(names, key=damage.__getitem__)
    return Calibration(best, found[best], damage, measure)


def _observe(
    module: Module, classes: Sequence[GridClass], names: Sequence[str], ctx: Context
) -> dict[str, tuple[Range, ...]]:
    """The range of every class by every observer, in one set of streaming runs."""
    assert ctx.stats is not None
    values = dict.fromkeys(v.name for c in classes for v in c.sources)
    requests = {(name, value): OBSERVERS[name].request(value) for name in names for value in values}
    found = ctx.stats.get(module, list(requests.values()))

    def cover(name: str, members: GridClass) -> Range:
        results = [found[requests[name, v.name]] for v in members.sources]
        ends = [OBSERVERS[name].bounds(result, ACTIVATIONS) for result in results]
        return join([Range(float(low), float(high)) for low, high in ends], members.bound)

    return {name: tuple(cover(name, c) for c in classes) for name in names}


def _damage(
    module: Module, placement: Placement, found: Mapping[str, Sequence[Range]], ctx: Context
) -> tuple[dict[str, float], str]:
    """The damage of all activations rounded on the ranges of every observer, weights as they are; and its measure."""
    made = {name: {g.value: (g.scale, g.zero) for g in probed(placement, ranges)} for name, ranges in found.items()}
    glue = [op.results[0].name for op in placement.glue]
    samples = affordable(module, ctx, len(made), most=_SAMPLES)
    probe = Probe(module, ctx, (), next(iter(made.values())), glue=glue, samples=samples, stages=1)
    return {name: probe.damage(activations=grids, told=True) for name, grids in made.items()}, probe.measure


def probed(placement: Placement, ranges: Sequence[Range]) -> list[ActivationGrid]:
    """The grids of values that an operator reads: of what is only an output, a probe sees nothing."""
    read = {v.name for c in placement.classes for v in c.values if any(not op.is_terminator for op in v.users)}
    return [g for g in grids(placement, ranges) if g.value in read]


def join(parts: Sequence[Range], bound: float | None) -> Range:
    """The range of a class: all of its sources, within the clamp that its grid replaces; NaN if one of them is not
    known."""
    low, high = float(np.min([p.low for p in parts])), float(np.max([p.high for p in parts]))  # min() may lose NaN
    return Range(low, high) if bound is None else Range(0.0 if low == low else low, min(high, bound))


def grids(placement: Placement, ranges: Sequence[Range]) -> tuple[ActivationGrid, ...]:
    """One grid per value."""
    made = []
    factors = {h.value: h.factor for h in placement.heads}
    for members, found in zip(placement.classes, ranges):
        scale, zero = grid(np.float32(found.low), np.float32(found.high), ACTIVATIONS)  # type: ignore[arg-type]
        made += [ActivationGrid(v.name, float(scale), int(zero), factors.get(v, 1.0)) for v in members.values]
    return tuple(made)
