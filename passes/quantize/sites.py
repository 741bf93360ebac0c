"""Which weights become codes, in which layout and with how many bits: what plans of weight-only quantization hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Module, Value
from ...ir.dtypes import BY_SHORT, DType
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from ...ir.quant import QSpec
from ...ir.quant_blocks import Search, encode, fitting_scale_type, largest, sampled
from ...ir.types import TensorType
from ..base import Context, SkipCode, Skipped, site_name
from .weights import LAYOUTS, LOOKUPS, Layout, Reader, Weight, describe, is_notable, is_stored, layout

Form = Literal["blocks", "stored"]
_COMPUTED: tuple[Literal["blocks", "float"], ...] = ("blocks", "float")
#: Weights that may share a scale.
BLOCKS = (32, 64, 128)
#: Bits from which on rounding to nearest is as good as floats: scales per channel do, and codes need no refining.
EXACT_ENOUGH = 8
#: Smaller blocks are more exact: larger ones must be faster by more than this.
_AS_FAST = 0.05
#: Bytes of names, shapes and nodes that a quantized weight adds to a file.
_OVERHEAD = 512
#: The least share of the model's weights that a site must save. A row that every sample reads (a token type) costs more
#: than its bytes are worth: its error adds up instead of averaging out.
_LEAST_SHARE = 1e-4
_SAMPLE = 1 << 14  # elements that the error in a plan is estimated from


@dataclass(frozen=True)
class Site:
    """One weight: its readers, the layout of its codes (`block` 0: a scale per index of `axis`) and what they are
    for (`blocks`: a kernel computes from them; `stored`: the runtime widens them when it loads the model, because there
    is no `kernel` or it would be slower), bytes in the file before and after, and the relative squared error (from a
    sample of big weights)."""

    constant: str
    readers: tuple[str, ...]
    shape: tuple[int, ...]
    axis: int
    block: int
    bits: int
    symmetric: bool
    scale: str
    form: Form
    kernel: bool
    bytes_before: int
    bytes_after: int
    error: float

    @property
    def spec(self) -> QSpec:
        return QSpec(self.bits, self.symmetric, self.symmetric, self.axis, self.block)


@dataclass(frozen=True)
class Wish:
    """What a pass asks of every weight; `embedding_block` is for tables that are only looked up, `stored` the least
    number of bits for what no kernel multiplies, `compute` what products work on where there is a kernel."""

    bits: int
    stored: int
    block: int
    embedding_block: int
    symmetric: bool
    scale: str
    search: Search
    compute: str

    def block_for(self, readers: Sequence[Reader], ctx: Context) -> int:
        if all(r.op.kind in LOOKUPS for r in readers):
            return self.embedding_block
        return self.block or _fastest(readers, self.bits, ctx)

    def spec(self, axis: int, block: int, *, kernel: bool = True) -> QSpec:
        bits = self.bits if kernel else max(self.bits, self.stored)
        return QSpec(bits, self.symmetric, self.symmetric, axis, block)


@dataclass(frozen=True)
class Problem:
    """Why a reader keeps its floats."""

    code: SkipCode
    why: str
    what_to_do: str = ""


def decide(weight: Weight, wish: Wish, ctx: Context, total: int) -> Site | list[Skipped]:
    """The site that a weight becomes, or a line for every notable reader that keeps its floats.

    `total` is the size of all weights of the model in bytes.
    """
    constant = weight.value.constant
    assert constant is not None
    found = [_layout(r, constant, ctx) for r in weight.readers]
    notable = [r for r in weight.readers if is_notable(weight, r)]
    if any(isinstance(f, Problem) for f in found):
        return _skip_some(weight, [f if isinstance(f, Problem) else None for f in found], notable)
    layouts = [f for f in found if isinstance(f, Layout)]
    if len({f.axis for f in layouts}) != 1:
        why = "its readers need blocks along different axes" if layouts else "nothing reads it"
        return [Skipped(r.site, SkipCode.SHARED, why) for r in notable]
    site = _site(weight, constant, layouts, wish, ctx)
    problem = site if isinstance(site, Problem) else _gain(site, total)
    if problem is not None:
        return [Skipped(r.site, problem.code, problem.why, problem.what_to_do) for r in notable]
    assert isinstance(site, Site)
    return site


def _layout(reader: Reader, constant: Constant, ctx: Context) -> Layout | Problem:
    found = layout(reader, constant.type.rank)
    if isinstance(found, str):
        return Problem(SkipCode.UNSUPPORTED, found, "store it with fp16, or keep it")
    if not ctx.scope.allows(reader.op):
        return Problem(SkipCode.SCOPE, "outside the scope of the step")
    return found


def _site(weight: Weight, constant: Constant, layouts: Sequence[Layout], wish: Wish, ctx: Context) -> Site | Problem:
    made = {_float_type(v) for v in (weight.value, *(c.result for c in weight.casts)) if v.uses}
    if not made <= {DType.F32, DType.F16}:
        return Problem(SkipCode.DTYPE, f"{constant.dtype.short} weights have no form in few bits", "convert it to f32")
    most = largest(constant)
    if not np.isfinite(most):
        return Problem(SkipCode.HURTS, "it holds Inf or NaN")
    groups = _groups(constant.shape, layouts[0], wish.block_for(weight.readers, ctx))
    kernel = _kernel(weight.readers, layouts, wish, groups, ctx)
    if isinstance(kernel, Problem):
        return kernel
    spec = wish.spec(*groups, kernel=kernel)
    form: Form = "blocks" if kernel and not _in_floats(weight.readers, spec, wish.compute, ctx) else "stored"
    spec = spec if form == "blocks" else _storage(layouts[0], spec)
    wished = DType.F16 if DType.F16 in made else BY_SHORT[wish.scale]
    scale = wished if DType.F16 in made else fitting_scale_type(most, spec, wished)
    return Site(
        constant=weight.name,
        readers=tuple(r.site for r in weight.readers),
        shape=constant.shape,
        axis=layouts[0].axis if spec.axis is None else spec.axis,
        block=spec.block,
        bits=spec.bits,
        symmetric=wish.symmetric,
        scale=scale.short,
        form=form,
        kernel=kernel,
        bytes_before=constant.nbytes,
        bytes_after=_bytes_after(constant, spec, scale, padded=form == "blocks") + _OVERHEAD,
        error=_sampled_error(constant, spec, scale, wish.search) if constant.elements else 0.0,
    )


def _fastest(readers: Sequence[Reader], bits: int, ctx: Context) -> int:
    """The block that the target multiplies with in the least time; the smallest where it knows none."""
    times = {block: _seconds(readers, "blocks", bits, block, ctx) for block in BLOCKS}
    known = {block: seconds for block, seconds in times.items() if seconds is not None}
    if len(known) < len(BLOCKS):
        return BLOCKS[0]
    enough = min(known.values()) * (1 + _AS_FAST)
    return next(block for block in BLOCKS if known[block] <= enough)


def _seconds(
    readers: Sequence[Reader], form: Literal["blocks", "float"], bits: int, block: int, ctx: Context
) -> float | None:
    if ctx.target is None:
        return None
    found = [ctx.target.seconds(r.op, form, ctx.dims, bits=bits, block=block) for r in readers]
    return None if None in found else sum(s for s in found if s is not None)


def _groups(shape: tuple[int, ...], found: Layout, block: int) -> tuple[int, int]:
    """(axis, block) of the codes: one scale per output where blocks would be short, as in depthwise convolutions."""
    inside = shape[found.axis + 1 :]
    short = not found.kernel and shape[found.axis] < block and any(n > 1 for n in inside)
    return (found.outputs, 0) if short else (found.axis, block)


def _storage(found: Layout, spec: QSpec) -> QSpec:
    """The codes of a weight that is widened at load. With 8 bits a scale per output is exact enough, as in `int8`:
    blocks would add a tenth to the bytes."""
    return replace(spec, axis=found.outputs, block=0) if spec.bits >= EXACT_ENOUGH else spec


def _kernel(
    readers: Sequence[Reader], layouts: Sequence[Layout], wish: Wish, groups: tuple[int, int], ctx: Context
) -> bool | Problem:
    """Whether kernels can compute from the codes. Readers of both kinds would need two copies of them."""
    served = {_serve(reader, found, wish, groups, ctx) for reader, found in zip(readers, layouts)}
    for found in served:
        if isinstance(found, Problem):
            return found
    if len(served) > 1:
        why = f"only some of its readers have a kernel for {wish.bits}-bit codes"
        return Problem(SkipCode.SHARED, why, "choose 4 bits, or keep it")
    return served.pop()


def _serve(reader: Reader, found: Layout, wish: Wish, groups: tuple[int, int], ctx: Context) -> bool | Problem:
    target = ctx.target
    if target is None:
        return found.kernel
    spec = wish.spec(*groups)
    if found.kernel and target.supports(
        reader.op, "blocks", bits=spec.storage.bits, block=spec.block, symmetric=spec.symmetric
    ):
        return True
    spec = _storage(found, wish.spec(*groups, kernel=False))
    support = target.supports(reader.op, "stored", bits=spec.storage.bits, block=spec.block, symmetric=spec.symmetric)
    if support:
        return False
    return Problem(SkipCode.UNSUPPORTED, support.reason, "store it with fp16, or choose another target")


def _in_floats(readers: Sequence[Reader], spec: QSpec, compute: str, ctx: Context) -> bool:
    """Whether products work on floats, widened at load, although there is a kernel for the codes.

    By default where the target knows that to be faster: small matrices, and many rows. Tables that are looked up stay
    codes.
    """
    if compute == "codes" or any(r.op.kind in LOOKUPS for r in readers):
        return False
    if compute == "floats":
        return True
    codes, floats = (_seconds(readers, form, spec.bits, spec.block, ctx) for form in _COMPUTED)
    return codes is not None and floats is not None and codes > floats


def _float_type(value: Value) -> DType:
    assert isinstance(value.type, TensorType)
    return value.type.dtype


def _bytes_after(constant: Constant, spec: QSpec, scale: DType, *, padded: bool) -> int:
    """Bytes in the file; kernels store whole blocks."""
    groups = 1
    for size in spec.scale_shape(constant.shape):
        groups *= size
    bits = spec.storage.bits
    codes = groups * spec.block if padded else constant.elements
    return -(-codes * bits // 8) + -(-groups * (scale.bits + (0 if spec.symmetric else bits)) // 8)


def _gain(site: Site, total: int) -> Problem | None:
    """Why a site is not worth it, given the bytes of all weights."""
    saved = site.bytes_before - site.bytes_after
    if saved <= 0:
        return Problem(SkipCode.TOO_SMALL, f"{site.bytes_before} bytes now, {site.bytes_after} with scales and padding")
    if saved < _LEAST_SHARE * total:
        return Problem(SkipCode.TOO_SMALL, f"it would save {saved} bytes, less than {_LEAST_SHARE:.2%} of the weights")
    return None


def _sampled_error(constant: Constant, spec: QSpec, scale: DType, search: Search) -> float:
    """The relative squared error of a weight, from evenly spaced whole groups."""
    x = sampled(constant, spec, _SAMPLE)
    power = float(np.einsum("ij,ij->", x, x, dtype=np.float64))
    steps, zeros = search(x, spec, scale)[:2]
    _, error = encode(x, steps, zeros, spec)
    return round(error / power, 6) if power else 0.0


def _skip_some(weight: Weight, problems: Sequence[Problem | None], notable: Sequence[Reader]) -> list[Skipped]:
    """A reader with a problem is skipped for it; the others because the floats stay in the file anyway."""
    culprit = next(describe(r) for r, p in zip(weight.readers, problems) if p is not None)
    shared = Problem(SkipCode.SHARED, f"its weight {weight.name} is also {culprit}, which needs floats")
    return [
        Skipped(r.site, (p or shared).code, (p or shared).why, (p or shared).what_to_do)
        for r, p in zip(weight.readers, problems)
        if r in notable
    ]


_CODING = ("QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear")


def already(module: Module) -> Iterator[Skipped]:
    """Operators that compute with codes, or whose weight is stored as codes."""
    for op in module.walk():
        if op.kind in _CODING or (op.results and is_stored(op.results[0])):
            continue  # they make codes, or widen them
        if lookup(op.kind).has(Trait.QUANTIZED):
            yield Skipped(site_name(op), SkipCode.ALREADY, f"{op.op_type} has quantized operands")
        elif any(_is_widened(op.operand(slot)) for slot in lookup(op.kind).weights):
            yield Skipped(site_name(op), SkipCode.ALREADY, "its weight is quantized", "`dequantize` it first")


def activations_only(module: Module, ctx: Context) -> Iterator[Skipped]:
    """Products that have no weight: both sides are computed."""
    for op in module.walk():
        slots = [slot for kind, slot in LAYOUTS if kind == op.kind and kind not in LOOKUPS]
        if slots and ctx.scope.allows(op) and all(_is_computed(op.operand(slot)) for slot in slots):
            yield Skipped(site_name(op), SkipCode.NOT_CONSTANT, "both sides are activations")


def _is_widened(value: Value | None) -> bool:
    return value is not None and value.op is not None and is_stored(value)


def _is_computed(value: Value | None) -> bool:
    """Neither codes nor a constant, nor made from one by renaming its elements."""
    if is_stored(value):
        return False
    while value is not None and value.op is not None and value.op.kind in ("Transpose", "Cast", "Identity"):
        value = value.op.operand(0)
    return value is not None and value.constant is None
