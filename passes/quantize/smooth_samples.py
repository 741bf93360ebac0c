"""What `smooth` has to know of the inputs of linear operators, in one streaming run: ranges, and some rows.

Ranges are per position over all samples; rows are a random part of about `ROWS` in all, as the operators see them
(patches, for convolutions). Memory does not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.core import Module, Value
from ..accumulators import MinMax
from ..base import Context
from ..budget import allowed, pick
from ..linear import Linear
from ..statistics import batch_size, runs, sources, stream
from .scaling import ScalingSite, data_axis

Array = np.ndarray[Any, Any]

ROWS = 256  # of all samples together, for each operator


@dataclass(eq=False)
class Seen:
    """The inputs of one site: smallest and largest by position for every value, rows [groups, n, depth] by reader."""

    ranges: dict[Value, MinMax] = field(default_factory=dict)
    rows: dict[Linear, list[Array]] = field(default_factory=dict)

    def bounds(self, value: Value) -> tuple[Array, Array]:
        return self.ranges[value].result()

    def sample(self, reader: Linear) -> Array:
        return np.concatenate(self.rows[reader], axis=1)


def watch(module: Module, sites: Sequence[ScalingSite], ctx: Context) -> Iterator[tuple[ScalingSite, Seen]]:
    """Every site with what was seen of it, a few sites at a time: as many as `ctx.max_memory` allows."""
    for group in runs(sites, _memory, allowed(ctx.max_memory)):
        yield from zip(group, _watch(module, group, ctx))


def _memory(site: ScalingSite) -> int:
    return sum(r.shape[0] * r.shape[2] * ROWS * 8 for r in site.readers)


def _watch(module: Module, sites: Sequence[ScalingSite], ctx: Context) -> list[Seen]:
    samples, runner = sources(ctx)
    taps = tuple(dict.fromkeys(value.name for site in sites for value in site.positions))
    executable = runner.prepare(module, taps)
    batch = batch_size(ctx, module)
    rng = ctx.rng("smooth", *taps)
    share = ROWS * batch / len(samples)
    seen = [_empty(site) for site in sites]
    for (values,) in stream(samples, batch, [executable], ctx.progress):
        for site, found in zip(sites, seen):
            _update(site, found, values, share, rng)
    return seen


def _empty(site: ScalingSite) -> Seen:
    axes = {r.data: data_axis(r) for r in site.readers}
    return Seen({value: MinMax(axes[value]) for value in site.positions}, {r: [] for r in _distinct(site)})


def _distinct(site: ScalingSite) -> list[Linear]:
    """One reader for each way of cutting a value into rows: matrix products that share a value share its rows."""
    return list({_cut(r): r for r in reversed(site.readers)}.values())


def _cut(reader: Linear) -> tuple[object, ...]:
    return (reader.data,) if reader.taps == 1 and reader.groups == 1 else (reader.data, reader.op)


def rows_of(site: ScalingSite, seen: Seen, reader: Linear) -> Array:
    """The rows [groups, n, depth] that a reader of the site sees."""
    return seen.sample(next(r for r in seen.rows if _cut(r) == _cut(reader)))


def _update(
    site: ScalingSite, found: Seen, values: Mapping[str, Array], share: float, rng: np.random.Generator
) -> None:
    for value, ranges in found.ranges.items():
        ranges.update(values[value.name])
    for reader, rows in found.rows.items():
        data = values[reader.data.name]
        count = reader.count(data) if data.size else 0
        if count and (share >= 1 or rng.random() < share):
            rows.append(reader.rows(data, pick(rng, count, share)).astype(np.float32))
