"""`int4`: weights in 4 bits, rounded to nearest on the least-squares grid of their block. No data needed.

    small = mlc.passes.Int4()(module)

Weights of MatMul and Gemm and embedding tables become `DequantizeLinear` over 4-bit codes, in standard ONNX (opset
21, `block_size`). What a runtime runs them with is decided when the artifact is made (backends/legalize.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Module, Value
from ...ir.dtypes import BY_SHORT, DType
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from ...ir.quant import QSpec
from ...ir.quant_blocks import fitting_scale_type, largest, quantize_constant
from ...ir.rewrite import Rewriter
from ...ir.types import TensorType
from ..base import LOSSY, Context, Done, Effect, Pass, Plan, SkipCode, Skipped, option
from .emit import BlockEmitter
from .weights import BLOCK_AXES, LOOKUPS, Reader, Weight, block_axis, describe, float_weights, is_notable

#: Bytes of names, shapes and nodes that a quantized weight adds to a file.
_OVERHEAD = 512
#: The least share of the model's weights that a site must save. A row that every sample reads (a token type) costs more
#: than its bytes are worth: its error adds up instead of averaging out.
_LEAST_SHARE = 1e-4
_SAMPLE = 1 << 14  # elements that the error in a plan is estimated from
#: Metadata of the DequantizeLinear that tells the backend how exactly to compute.
ACCURACY = "mlc.accuracy_level"


@dataclass(frozen=True)
class Int4Site:
    """One weight: its readers, blocks and scales, bytes in the file before and after, and the relative squared
    error (from a sample of big weights)."""

    constant: str
    readers: tuple[str, ...]
    shape: tuple[int, ...]
    axis: int
    block: int
    symmetric: bool
    scale: str
    bytes_before: int
    bytes_after: int
    error: float

    @property
    def spec(self) -> QSpec:
        return QSpec(4, self.symmetric, self.symmetric, self.axis, self.block)


@dataclass(frozen=True)
class Int4Plan(Plan):
    sites: tuple[Int4Site, ...] = ()


@dataclass(frozen=True)
class _Problem:
    code: SkipCode
    why: str
    what_to_do: str = ""


@dataclass(frozen=True)
class Int4(Pass):
    """Stores weights of MatMul, Gemm and embeddings in 4 bits, with a scale and a zero point per block.

    Round to nearest (half to even) on the clip that minimises the squared error over a grid, for each block of `block`
    weights along the axis that is contracted: q = clip(round(w / s) + z, 0, 15), w' = s (q - z). Writes standard
    `DequantizeLinear` with `block_size`; the target turns it into kernels. Blocks of zeros stay exactly zero. Errors:
    CANNOT_HONOUR when the step's selector names only what cannot be stored so.
    """

    name: ClassVar[str] = "int4"
    effect: ClassVar[Effect] = LOSSY
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune")

    block: int = option(32, unit="int", choices=(32, 64, 128), doc="weights that share a scale", positional=True)
    embedding_block: int = option(128, unit="int", choices=(32, 64, 128), doc="the same, for embedding tables")
    symmetric: bool = option(False, unit="bool", doc="no zero points: a little smaller, less exact")
    scale: str = option("f16", unit="name", choices=("f16", "f32"), doc="type of the stored scales")
    accuracy_level: int = option(
        4, unit="int", choices=(0, 1, 4), doc="4: the runtime may round activations to 8 bits (fast); 0, 1: floats"
    )

    def plan(self, module: Module, ctx: Context) -> Int4Plan:
        sites: list[Int4Site] = []
        skipped = list(_without_weights(module, ctx))
        total = sum(v.constant.nbytes for v in module.constants.values() if v.constant is not None)
        for weight in float_weights(module):
            found = self._decide(weight, ctx, total)
            if isinstance(found, Int4Site):
                sites.append(found)
            else:
                skipped += found
        return Int4Plan(tuple(skipped), _notes(sites), tuple(sites))

    def _decide(self, weight: Weight, ctx: Context, total: int) -> Int4Site | list[Skipped]:
        constant = weight.value.constant
        assert constant is not None
        problems = [self._problem(r, constant, ctx) for r in weight.readers]
        notable = [r for r in weight.readers if is_notable(weight, r)]
        if any(problems):
            return _skip_some(weight, problems, notable)
        axes = {block_axis(r, constant.type.rank) for r in weight.readers}
        if len(axes) != 1:
            why = "its readers need blocks along different axes" if axes else "nothing reads it"
            return [Skipped(r.site, SkipCode.SHARED, why) for r in notable]
        axis = axes.pop()
        assert isinstance(axis, int)
        site = self._site(weight, constant, axis)
        problem = site if isinstance(site, _Problem) else _gain(site, total)
        if problem is not None:
            return [Skipped(r.site, problem.code, problem.why, problem.what_to_do) for r in notable]
        assert isinstance(site, Int4Site)
        return site

    def _problem(self, reader: Reader, constant: Constant, ctx: Context) -> _Problem | None:
        """Why this reader cannot take a 4-bit weight."""
        axis = block_axis(reader, constant.type.rank)
        if isinstance(axis, str):
            return _Problem(SkipCode.UNSUPPORTED, axis, "store it with fp16, or keep it")
        if not ctx.scope.allows(reader.op):
            return _Problem(SkipCode.SCOPE, "outside the scope of the step")
        if ctx.target is not None:
            block = self._block((reader,))
            support = ctx.target.supports(reader.op, "blocks", bits=4, block=block, symmetric=self.symmetric)
            if not support:
                return _Problem(SkipCode.UNSUPPORTED, support.reason, "store it with fp16, or choose another target")
        return None

    def _block(self, readers: Sequence[Reader]) -> int:
        """A table that only embeds has a block of its own: it carries much of the size and little of the error."""
        return self.embedding_block if all(r.op.kind in LOOKUPS for r in readers) else self.block

    def _site(self, weight: Weight, constant: Constant, axis: int) -> Int4Site | _Problem:
        made = {_float_type(v) for v in (weight.value, *(c.result for c in weight.casts)) if v.uses}
        if not made <= {DType.F32, DType.F16}:
            return _Problem(SkipCode.DTYPE, f"{constant.dtype.short} weights have no 4-bit kernel", "convert it to f32")
        most = largest(constant)
        if not np.isfinite(most):
            return _Problem(SkipCode.HURTS, "it holds Inf or NaN")
        spec = QSpec(4, self.symmetric, self.symmetric, axis, self._block(weight.readers))
        wished = DType.F16 if DType.F16 in made else BY_SHORT[self.scale]
        scale = wished if DType.F16 in made else fitting_scale_type(most, spec, wished)
        return Int4Site(
            constant=weight.name,
            readers=tuple(r.site for r in weight.readers),
            shape=constant.shape,
            axis=axis,
            block=spec.block,
            symmetric=self.symmetric,
            scale=scale.short,
            bytes_before=constant.nbytes,
            bytes_after=_bytes_after(constant.shape, spec, scale) + _OVERHEAD,
            error=_sampled_error(constant, spec, scale) if constant.elements else 0.0,
        )

    def apply(self, rw: Rewriter, plan: Int4Plan, ctx: Context) -> list[Done]:
        done = []
        for index, site in enumerate(plan.sites):
            if ctx.progress is not None:
                ctx.progress.advance(self.name, index, len(plan.sites))
            done.append(self._quantize(rw, site))
        return done

    def _quantize(self, rw: Rewriter, site: Int4Site) -> Done:
        value = rw.module.constants[site.constant]
        constant = value.constant
        assert constant is not None
        casts = [op for op in value.users if op.kind == "Cast"]
        made = quantize_constant(constant, site.spec, scale_type=BY_SHORT[site.scale])
        meta = {ACCURACY: str(self.accuracy_level)}
        emitter = BlockEmitter(rw, site.constant, made, site.axis, site.block, meta)
        for root in (*(c.result for c in casts), value):
            emitter.replace(root, but=casts)
        return Done(
            site.constant,
            f"{constant.type}",
            f"{made.codes.dtype.short} block {site.block}, {site.scale} scales, error {made.relative_error:.3%}",
            constant.nbytes - made.nbytes,
        )


def _float_type(value: Value) -> DType:
    assert isinstance(value.type, TensorType)
    return value.type.dtype


def _bytes_after(shape: tuple[int, ...], spec: QSpec, scale: DType) -> int:
    """Bytes in the file; kernels store whole blocks."""
    assert spec.axis is not None
    groups = 1
    for size in spec.scale_shape(shape):
        groups *= size
    return groups * (spec.block + scale.bits // 4 + (0 if spec.symmetric else 1)) // 2


def _gain(site: Int4Site, total: int) -> _Problem | None:
    """Why a site is not worth it, given the bytes of all weights."""
    saved = site.bytes_before - site.bytes_after
    if saved <= 0:
        return _Problem(
            SkipCode.TOO_SMALL, f"{site.bytes_before} bytes now, {site.bytes_after} with scales and padding"
        )
    if saved < _LEAST_SHARE * total:
        return _Problem(SkipCode.TOO_SMALL, f"it would save {saved} bytes, less than {_LEAST_SHARE:.2%} of the weights")
    return None


def _sampled_error(constant: Constant, spec: QSpec, scale: DType) -> float:
    """The relative squared error of a weight, from evenly spaced whole blocks."""
    rows, columns = constant.shape
    step = 1 if spec.axis == 1 else spec.block
    chunks = -(-rows // step)
    wanted = min(chunks, max(1, _SAMPLE // (step * columns)))
    picked = [int(i) * step for i in np.linspace(0, chunks - 1, wanted)]
    stretches = [_rows(constant, first, min(step, rows - first)) for first in picked]
    sample = np.concatenate(stretches) if len(stretches) > 1 else stretches[0]
    return round(quantize_constant(Constant.of(sample), spec, scale_type=scale).relative_error, 6)


def _rows(constant: Constant, first: int, count: int) -> np.ndarray[Any, Any]:
    columns = constant.shape[1]
    return constant.flat(first * columns, (first + count) * columns).reshape(count, columns).astype(np.float32)


def _notes(sites: Sequence[Int4Site]) -> tuple[str, ...]:
    if any(s.scale == "f16" for s in sites):
        return ("scales are stored in 16 bits: keep graph optimizations of ONNX Runtime on (basic or higher)",)
    return ()


def _skip_some(weight: Weight, problems: Sequence[_Problem | None], notable: Sequence[Reader]) -> list[Skipped]:
    """A reader with a problem is skipped for it; the others because the floats stay in the file anyway."""
    culprit = next(describe(r) for r, p in zip(weight.readers, problems) if p is not None)
    shared = _Problem(SkipCode.SHARED, f"its weight {weight.name} is also {culprit}, which needs floats")
    return [
        Skipped(r.site, (p or shared).code, (p or shared).why, (p or shared).what_to_do)
        for r, p in zip(weight.readers, problems)
        if r in notable
    ]


def _without_weights(module: Module, ctx: Context) -> Iterator[Skipped]:
    """Matrix products and gathers that have no constant weight: activations, or weights that are quantized."""
    for op in module.walk():
        site = op.name or op.kind
        if lookup(op.kind).has(Trait.QUANTIZED) and op.kind not in ("QuantizeLinear", "DequantizeLinear"):
            yield Skipped(site, SkipCode.ALREADY, f"{op.op_type} has quantized operands")
        slots = [slot for kind, slot in BLOCK_AXES if kind == op.kind and kind not in LOOKUPS]
        if slots and not any(_source_kind(v) == "constant" for v in op.operands):
            if any(_source_kind(v) == "quantized" for v in op.operands):
                yield Skipped(site, SkipCode.ALREADY, "its weight is quantized")
            elif ctx.scope.allows(op):
                yield Skipped(site, SkipCode.NOT_CONSTANT, "both sides are activations")


def _source_kind(value: Value | None) -> str:
    """Where an operand comes from: a constant, quantized data, or computation."""
    while value is not None and value.op is not None and value.op.kind in ("Transpose", "Cast", "Identity"):
        value = value.op.operand(0)
    if value is None or value.constant is not None:
        return "constant" if value is not None else "computed"
    return "quantized" if value.op is not None and value.op.kind == "DequantizeLinear" else "computed"
