"""How much each weighted site suffers from few bits: damage at 8, 4 and 2 bits, everything else in floats.

    table = sensitivity(module, ctx)
    table.sites[0].damage["weight 4 bits, block 32"]

Weights are rounded as the passes round them (`int8`: symmetric, one scale per channel; `int4` and the like: least
squares on clips, per channel, and in blocks with a zero point). Data are rounded to unsigned 8 bits, on one grid from
all samples (static) and on one of each sample (dynamic). Damage is 1 - cosine of the worst output (probe.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Module, Op, Value
from ...ir.dtypes import DType
from ...ir.progress import counted
from ...ir.quant import QSpec, dequantize, grid
from ...ir.quant_blocks import largest, quantize_constant
from ...ir.types import TensorType
from ..base import Context, plain
from ..linear import linear_of
from ..ports import Array
from ..statistics import StreamingStatistics, sources
from .int8.codes import quantize_channels, symmetric
from .observe import OBSERVERS
from .probe import Probe, affordable
from .weights import Layout, Reader, Weight, float_weights, layout

FORMAT = 1
BLOCK = 32
ACTIVATIONS = QSpec(8, signed=False, symmetric=False)
STATIC, DYNAMIC = "data 8 bits, static", "data 8 bits, dynamic"
WEIGHT_8 = "weight 8 bits"
#: The forms of weights: what it is called, bits, blocks, and whether zero is in the middle.
_FORMS: tuple[tuple[str, int, int, bool], ...] = (
    (WEIGHT_8, 8, 0, True),
    ("weight 4 bits", 4, 0, True),
    (f"weight 4 bits, block {BLOCK}", 4, BLOCK, False),
    ("weight 2 bits", 2, 0, True),
    (f"weight 2 bits, block {BLOCK}", 2, BLOCK, False),
)
#: Columns of the table; the first is what it is sorted by where nothing else is asked for.
COLUMNS = (*(form[0] for form in _FORMS), STATIC, DYNAMIC)


@dataclass(frozen=True)
class SiteDamage:
    """A weight: who reads it, its shape and bytes, the data it is multiplied with, and the damage of every form that
    it has. `data` is empty where it is looked up, or read as something other than the weight of a product."""

    weight: str
    readers: tuple[str, ...]
    kinds: tuple[str, ...]
    shape: tuple[int, ...]
    nbytes: int
    data: tuple[str, ...]
    damage: Mapping[str, float]


@dataclass(frozen=True)
class Left:
    """A weight that has no form in few bits, and why."""

    weight: str
    why: str


@dataclass(frozen=True)
class Sensitivity:
    """Sites, those with most damage at 4 bits first; `samples` is how many answered."""

    sites: tuple[SiteDamage, ...]
    left: tuple[Left, ...]
    samples: int

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "samples": self.samples, "sites": plain(self.sites), "left": plain(self.left)}


def sensitivity(module: Module, ctx: Context, *, observer: str = "minmax") -> Sensitivity:
    """The damage of every form of every weight, and of its data in 8 bits, in one executable. Reads only.

    Errors: NO_DATA without calibration data.
    """
    found = [*_sites(module, ctx)]
    sites = [f for f in found if isinstance(f, _Site)]
    grids = _grids(module, ctx, sites, observer)
    values = {v.name: (1.0, 0) for site in sites for v in site.data} | grids
    samples = affordable(module, ctx, len(_FORMS) * len(sites) + 2 * len(values))
    probe = Probe(module, ctx, [s.weight.name for s in sites], values, samples=samples)
    rows = list(_measure(probe, sites, grids, ctx))
    rows.sort(key=lambda row: (-_rank(row), row.weight))
    return Sensitivity(tuple(rows), tuple(f for f in found if isinstance(f, Left)), probe.samples)


def _rank(row: SiteDamage) -> float:
    """The least damage at 4 bits."""
    return min(damage for name, damage in row.damage.items() if name.startswith("weight 4 bits"))


@dataclass(frozen=True)
class _Site:
    weight: Weight
    constant: Constant
    layout: Layout
    data: tuple[Value, ...]


def _sites(module: Module, ctx: Context) -> Iterator[_Site | Left]:
    for weight in float_weights(module):
        constant = weight.value.constant
        assert constant is not None
        readers = [r for r in weight.readers if not r.op.is_terminator]
        layouts = [layout(r, constant.type.rank) for r in readers]
        known = [found for found in layouts if isinstance(found, Layout)]
        if known and any(ctx.scope.allows(r.op) for r in readers):
            yield _site(weight, constant, readers, layouts, known)


def _site(
    weight: Weight,
    constant: Constant,
    readers: Sequence[Reader],
    layouts: Sequence[Layout | str],
    known: Sequence[Layout],
) -> _Site | Left:
    other = next((found for found in layouts if isinstance(found, str)), None)
    if other is not None:
        return Left(weight.name, other)
    if len({(found.axis, found.outputs) for found in known}) > 1:
        return Left(weight.name, "its readers have their channels along different axes")
    if constant.elements == 0 or not np.isfinite(largest(constant)):
        return Left(weight.name, "it is empty, or holds Inf or NaN")
    data = dict.fromkeys(v for r in readers if (v := _data(r.op, weight.value)) is not None)
    return _Site(weight, constant, replace(known[0], kernel=any(k.kernel for k in known)), tuple(data))


def _data(op: Op, weight: Value) -> Value | None:
    linear = linear_of(op)
    if linear is None or linear.weight is not weight or not isinstance(linear.data.type, TensorType):
        return None
    return linear.data if linear.data.type.dtype in (DType.F32, DType.F16) else None


def _grids(module: Module, ctx: Context, sites: Sequence[_Site], observer: str) -> dict[str, tuple[float, int]]:
    """The static grids of what the sites read in the main graph; values that are not finite have none."""
    watch = OBSERVERS[observer]
    stats = ctx.stats or StreamingStatistics(*sources(ctx), max_memory=ctx.max_memory, progress=ctx.progress)
    main = dict.fromkeys(v.name for site in sites for v in site.data if v.home is module.graph)
    requests = {name: watch.request(name) for name in main}
    found = stats.get(module, list(requests.values()))
    grids = {}
    for name, request in requests.items():
        low, high = watch.bounds(found[request], ACTIVATIONS)
        if np.isfinite(low) and np.isfinite(high):
            scale, zero = grid(low, high, ACTIVATIONS)
            grids[name] = float(scale), int(zero)
    return grids


def _measure(
    probe: Probe, sites: Sequence[_Site], grids: Mapping[str, tuple[float, int]], ctx: Context
) -> Iterator[SiteDamage]:
    data: dict[str, dict[str, float]] = {}
    for site in counted(sites, "weights", ctx.progress):
        damage = {name: probe.damage({site.weight.name: w}) for name, w in _rounded(site)}
        for value in site.data:
            if value.name not in data:
                data[value.name] = _of_data(probe, value.name, grids)
        for column in (STATIC, DYNAMIC):
            parts = [data[v.name][column] for v in site.data if column in data[v.name]]
            if parts:
                damage[column] = max(parts)
        readers = [r for r in site.weight.readers if not r.op.is_terminator]
        yield SiteDamage(
            weight=site.weight.name,
            readers=tuple(r.site for r in readers),
            kinds=tuple(dict.fromkeys(r.op.kind for r in readers)),
            shape=site.constant.shape,
            nbytes=site.constant.nbytes,
            data=tuple(v.name for v in site.data),
            damage=damage,
        )


def _of_data(probe: Probe, name: str, grids: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    static = {STATIC: probe.damage(activations=[name])} if name in grids else {}
    return {**static, DYNAMIC: probe.damage(dynamic=[name])}


def _rounded(site: _Site) -> Iterator[tuple[str, Array]]:
    """Every form of a weight, as floats."""
    for name, bits, block, middle in _FORMS:
        if block and site.constant.shape[site.layout.axis] < block and not site.layout.kernel:
            continue  # a block would be the whole of a short row: passes give such weights a scale per channel
        yield name, _form(site, bits, block, middle)


def _form(site: _Site, bits: int, block: int, middle: bool) -> Array:
    if bits == 8:
        spec = symmetric(bits, site.layout.outputs)
        made = quantize_channels(site.constant, site.layout.outputs, bits)
    else:
        spec = QSpec(bits, middle, middle, site.layout.axis if block else site.layout.outputs, block)
        made = quantize_constant(site.constant, spec, scale_type=DType.F32)
    zero = made.zero.array() if made.zero is not None else None
    return dequantize(made.codes.array(), made.scale.array(), zero, spec)
