"""The grids of activations, from what calibration data does to the values of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....ir.core import Module
from ....ir.quant import QSpec, grid
from ...base import Context
from ...statistics import StreamingStatistics, sources
from ..observe import Observer
from .placement import GridClass, Placement
from .plan import ActivationGrid

#: Activations: unsigned, asymmetric, one grid for the tensor.
ACTIVATIONS = QSpec(8, signed=False, symmetric=False)


@dataclass(frozen=True)
class Range:
    """What a class of values covers; `low <= 0 <= high`."""

    low: float
    high: float

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


def observe(module: Module, classes: Sequence[GridClass], observer: Observer, ctx: Context) -> list[Range]:
    """The range of every class, in one set of streaming runs."""
    stats = ctx.stats or StreamingStatistics(*sources(ctx), max_memory=ctx.max_memory)
    requests = {v.name: observer.request(v.name) for c in classes for v in c.sources}
    found = stats.get(module, list(requests.values()))
    ranges: Mapping[str, Range] = {
        name: Range(*(float(end) for end in observer.bounds(found[request], ACTIVATIONS)))
        for name, request in requests.items()
    }
    return [_join([ranges[v.name] for v in c.sources], c.bound) for c in classes]


def _join(parts: Sequence[Range], bound: float | None) -> Range:
    low, high = min(p.low for p in parts), max(p.high for p in parts)
    return Range(low, high) if bound is None else Range(0.0 if low == low else low, min(high, bound))


def grids(placement: Placement, ranges: Sequence[Range]) -> tuple[ActivationGrid, ...]:
    """One grid per value."""
    made = []
    factors = {h.value: h.factor for h in placement.heads}
    for members, found in zip(placement.classes, ranges):
        scale, zero = grid(np.float32(found.low), np.float32(found.high), ACTIVATIONS)  # type: ignore[arg-type]
        made += [ActivationGrid(v.name, float(scale), int(zero), factors.get(v, 1.0)) for v in members.values]
    return tuple(made)
