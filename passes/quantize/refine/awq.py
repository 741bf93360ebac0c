"""AWQ: inputs that are large get finer weights, by a scaling that the model undoes.

    s_j = a_j^alpha / sqrt(max s * min s),   a_j = mean |x_j|
    min over alpha of  |Q(W diag s) diag(s)^-1 x - W x|^2

(Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", 2024.) Weights are
multiplied by s and what they read is divided by it: in the layer or norm before where nothing else reads it, else by a
Mul, where that pays (passes/quantize/scaling.py). alpha 0 is rounding to nearest, and among the candidates. The search
of clips that follows in AWQ is the refinement `clip` (solvers.py), on the quantized model. It starts from grids of
least error, where the paper has the full range: what it cannot see or improve keeps those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ir.core import Value
from ....ir.dtypes import DType
from ....ir.quant import QSpec
from ....ir.rewrite import Rewriter
from ...base import Context, Done, SkipCode, Skipped
from ...linear import Linear
from ..scaling import ScalingSite, axes_of, blocked, divide, scaling_sites
from ..smooth_samples import Seen, rows_of, watch
from .gptq import Settings, expanded, searched

Array = np.ndarray[Any, Any]
ALPHAS = tuple(round(0.05 * i, 2) for i in range(20))
#: The share of the error that has to go: a Mul costs time when the model runs.
_WORTH = {"mul": 0.2, "folded": 0.01}
_OUTPUTS = 384  # of an operator that errors are taken from
_FAR = 2.0**12  # how far numbers may lie from one: float16 has to bear it


def awq(rw: Rewriter, specs: Mapping[str, QSpec], ctx: Context, scale_type: DType = DType.F32) -> list[Done | Skipped]:
    """Scale the float module `rw.module` so that rounding the weights of `specs` (by name) to nearest hurts less.

    The outputs stay equal within float rounding. One entry per place that can be scaled: its errors and alpha, or why
    it was left. Needs `ctx.data` and `ctx.runner`.
    """
    axes = axes_of(rw.module)
    sites = [s for s in scaling_sites(axes) if _asked(s, specs) and not blocked(s) and _watched(rw, s)]
    told: list[Done | Skipped] = []
    for site, seen in watch(rw.module, sites, ctx):
        if any(not rows for rows in seen.rows.values()):
            told.append(Skipped(site.name, SkipCode.NO_DATA, "no sample reaches it"))
            continue
        numbers, outcome = _choose(site, seen, specs, scale_type)
        told.append(outcome)
        if numbers is not None:
            divide(rw, axes, site, numbers)
    return told


def _asked(site: ScalingSite, specs: Mapping[str, QSpec]) -> bool:
    """Whether all readers are rounded, on grids that lie along their inputs or outputs."""
    return all(r.weight.name in specs and _blocks(r, specs[r.weight.name]) is not None for r in site.readers)


def _watched(rw: Rewriter, site: ScalingSite) -> bool:
    return all(value.home is rw.module.graph for value in site.positions)


def _blocks(linear: Linear, spec: QSpec) -> int | None:
    """How many inputs share a scale, 0 for all; None where grids lie in another way."""
    assert linear.weight.constant is not None
    axis = None if spec.axis is None else spec.axis % linear.weight.constant.type.rank
    if spec.block:
        return spec.block if axis == linear.input_axis and linear.taps == 1 else None
    return 0 if axis == linear.output_axis else None


def _choose(
    site: ScalingSite, seen: Seen, specs: Mapping[str, QSpec], scale_type: DType
) -> tuple[Array | None, Done | Skipped]:
    """The numbers of the best alpha (None: they are not worth it) and what to tell."""
    readers = [RoundedReader.of(site, seen, reader, specs[reader.weight.name], scale_type) for reader in site.readers]
    sizes = magnitudes(site, seen)
    tried = {alpha: scales(sizes, alpha) for alpha in ALPHAS}
    errors = {alpha: float(np.mean([r.error(numbers) for r in readers])) for alpha, numbers in tried.items()}
    best = min(errors, key=lambda a: (errors[a], a))
    before, kind = errors[0.0], "folded" if site.folded else "mul"
    told = f"error {before:.3%}"
    if not errors[best] < (1 - _WORTH[kind]) * before:
        why = f"no {'alpha' if site.folded else 'Mul'} is worth it: {told}, {errors[best]:.3%} with alpha {best:g}"
        return None, Skipped(site.name, SkipCode.HURTS, why)
    where = "folded" if site.folded else "by a Mul"
    return tried[best], Done(site.name, told, f"error {errors[best]:.3%}, alpha {best:g}, {where}")


def magnitudes(site: ScalingSite, seen: Seen) -> Array:
    """a: the mean magnitude of the inputs by cell, the largest where several positions share one."""
    found: dict[Value, Array] = {}
    for reader in site.readers:
        columns = np.abs(rows_of(site, seen, reader)).mean(axis=1, dtype=np.float64).reshape(-1)
        by_position = columns.reshape(-1, reader.taps).mean(axis=1)
        found[reader.data] = np.maximum(by_position, found.get(reader.data, np.zeros(1)))
    return site.by_cell(found)


def scales(sizes: Array, alpha: float) -> Array:
    """a^alpha, normalised; 1 for inputs that are always zero. All ones for alpha 0."""
    live = sizes > 0
    if not live.any():
        return np.ones_like(sizes)
    raised = np.where(live, sizes, 1.0) ** alpha
    raised = raised / np.sqrt(raised[live].max() * raised[live].min())
    return np.where(live, np.clip(raised, 1 / _FAR, _FAR), 1.0)


@dataclass(frozen=True, eq=False)
class RoundedReader:
    """One reader: its rows and matrix, and how it will be rounded."""

    site: ScalingSite
    reader: Linear
    rows: Array  # [groups, n, depth]
    matrix: Array  # [groups, outputs, depth]
    power: float  # of the products
    settings: Settings

    @classmethod
    def of(cls, site: ScalingSite, seen: Seen, reader: Linear, spec: QSpec, scale_type: DType) -> RoundedReader:
        assert reader.weight.constant is not None
        matrix = reader.matrix(reader.weight.constant.array())
        matrix = matrix[:, :: max(1, matrix.shape[0] * matrix.shape[1] // _OUTPUTS)].astype(np.float32)
        rows = rows_of(site, seen, reader)
        power = float(np.square(rows @ np.swapaxes(matrix, 1, 2), dtype=np.float64).sum())
        along = QSpec(spec.bits, spec.signed, spec.symmetric, None, _blocks(reader, spec) or 0)
        return cls(site, reader, rows, matrix, power, Settings(along, scale_type, clips=(1.0,)))

    def error(self, numbers: Array) -> float:
        """The relative error of the products when inputs are divided by numbers [cells]."""
        by_position = self.site.by_position(self.reader.data, numbers)
        columns = np.repeat(by_position.reshape(self.reader.groups, 1, -1), self.reader.taps, axis=2)
        columns = columns.astype(np.float32)
        difference = to_nearest(self.matrix * columns, self.settings) / columns - self.matrix
        off = np.square(self.rows @ np.swapaxes(difference, 1, 2), dtype=np.float64).sum()
        return float(off) / self.power if self.power else 0.0


def to_nearest(matrix: Array, settings: Settings) -> Array:
    """The matrix rounded to nearest on the grids that cover its blocks."""
    spec = settings.spec
    grids = searched(matrix, np.ones((matrix.shape[0], matrix.shape[2])), settings)
    scale, zero = (expanded(p, spec.block, matrix.shape[2]) for p in grids)
    return np.asarray((np.clip(np.rint(matrix / scale) + zero, spec.qmin, spec.qmax) - zero) * scale)
