"""`fp16`: weights stored in 16 bits and widened when the model is loaded. Halves the file; changes no speed.

    small = mlc.passes.Fp16()(module)

The graph keeps computing in float32: every weight becomes a float16 constant and a Cast, which ONNX Runtime folds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...ir.constants import Constant, ConvertedPayload
from ...ir.core import Module, Value
from ...ir.dtypes import DType
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from ...ir.rewrite import Rewriter
from ...ir.types import TensorType
from ..base import ROUNDING, Context, Done, Effect, Pass, Plan, SkipCode, Skipped, option
from .emit import readers_by_graph

_OVERHEAD = 160  # bytes of the Cast and its names in a file
#: The least share of the model's weights that a tensor must save: small ones (norms, biases) cost more than they save.
_LEAST_SHARE = 1e-4
_PIECE = 1 << 20
_MOST = float(np.finfo(np.float16).max)
_LEAST = float(np.finfo(np.float16).smallest_normal)


@dataclass(frozen=True)
class Fp16Site:
    """One weight, bytes in the file before and after, and the relative squared error of rounding it."""

    constant: str
    bytes_before: int
    bytes_after: int
    error: float


_SIZE_ONLY = (
    "fp16 storage changes the size only: the model still computes in float32 "
    "(so it does with int8(mode=stored), in half the bytes)"
)


@dataclass(frozen=True)
class Fp16Plan(Plan):
    sites: tuple[Fp16Site, ...] = ()


@dataclass(frozen=True)
class Fp16(Pass):
    """Stores float32 weights in 16 bits, widened by a Cast that the runtime folds when it loads the model.

    Size only: the model still computes in float32. Values are rounded half to even; a weight with a value beyond
    65504 is skipped, infinities (masks) are kept. Parameters of quantization are not touched.
    """

    name: ClassVar[str] = "fp16"
    effect: ClassVar[Effect] = ROUNDING
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune", "int4")

    min_elements: int = option(512, unit="int", low=1, doc="smaller tensors stay: a Cast costs what it saves")

    def plan(self, module: Module, ctx: Context) -> Fp16Plan:
        sites: list[Fp16Site] = []
        skipped: list[Skipped] = []
        total = sum(v.constant.nbytes for v in module.constants.values() if v.constant is not None)
        for value in module.constants.values():
            constant = value.constant
            assert constant is not None
            if constant.dtype is not DType.F32 or constant.elements < self.min_elements or not value.uses:
                continue
            saved = constant.nbytes // 2 - _OVERHEAD
            if saved < _LEAST_SHARE * total:
                why = f"it would save {saved} bytes, less than {_LEAST_SHARE:.2%} of the weights"
                skipped.append(Skipped(value.name, SkipCode.TOO_SMALL, why))
                continue
            problem = _problem(value, ctx)
            if problem is not None:
                skipped.append(problem)
                continue
            found = _measure(value.name, constant)
            (sites if isinstance(found, Fp16Site) else skipped).append(found)  # type: ignore[arg-type]
        notes = (_SIZE_ONLY,) if sites else ()
        return Fp16Plan(tuple(skipped), notes, tuple(sites))

    def apply(self, rw: Rewriter, plan: Fp16Plan, ctx: Context) -> list[Done]:
        return [_store(rw, site) for site in plan.sites]


def _problem(value: Value, ctx: Context) -> Skipped | None:
    """Why a constant keeps its 32 bits, whatever its values."""
    for op in value.users:
        row = lookup(op.kind)
        if row.has(Trait.QUANTIZED):
            return Skipped(value.name, SkipCode.ALREADY, f"it belongs to quantized data ({op.op_type})")
        if op.domain:
            return Skipped(value.name, SkipCode.UNSUPPORTED, f"{op.kind} may want it as a constant of 32 bits")
        if ctx.target is not None and not op.is_terminator:
            support = ctx.target.supports(op, "fp16")
            if not support:
                return Skipped(value.name, SkipCode.UNSUPPORTED, support.reason)
    if not any(ctx.scope.allows(op) for op in value.users):
        return Skipped(value.name, SkipCode.SCOPE, "outside the scope of the step")
    left = next((op for op in value.users if not ctx.scope.allows(op) and not op.is_terminator), None)
    if left is not None:
        return Skipped(value.name, SkipCode.SHARED, f"{left.name or left.kind}, outside the scope, reads it too")
    return None


def _measure(name: str, constant: Constant) -> Fp16Site | Skipped:
    """The error of rounding a tensor to 16 bits, or why it cannot be."""
    error = power = most = 0.0
    for x in _flat(constant):
        finite = np.isfinite(x)
        if np.isnan(x).any():
            return Skipped(name, SkipCode.HURTS, "it holds NaN")
        kept = x if finite.all() else x[finite]  # Inf (a mask) is Inf in 16 bits, too
        if kept.size == 0:
            continue
        most = max(most, float(np.abs(kept).max()))
        if most > _MOST:
            return Skipped(name, SkipCode.HURTS, f"it holds {most:.3g}; float16 ends at 65504")
        difference = kept - kept.astype(np.float16).astype(np.float32)
        error += float(np.einsum("i,i->", difference, difference, dtype=np.float64))
        power += float(np.einsum("i,i->", kept, kept, dtype=np.float64))
    if 0 < most < _LEAST:
        return Skipped(name, SkipCode.HURTS, f"its largest value is {most:.3g}, too small for float16")
    relative = error / power if power else 0.0
    return Fp16Site(name, constant.nbytes, constant.nbytes // 2 + _OVERHEAD, float(f"{relative:.3g}"))


def _flat(constant: Constant) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, constant.elements, _PIECE):
        yield constant.flat(start, start + _PIECE)


def _store(rw: Rewriter, site: Fp16Site) -> Done:
    value = rw.module.constants[site.constant]
    constant = value.constant
    assert constant is not None
    half = Constant(
        TensorType(DType.F16, constant.shape), ConvertedPayload(constant, DType.F16), constant.origin
    )  # fmt: skip
    stored = rw.constant(half, f"{site.constant}_f16")
    for _, readers, before in readers_by_graph(value):
        cast = rw.insert(
            "Cast", [stored], {"to": DType.F32.onnx}, before=before, names=[f"{site.constant}_f32"],
            results=[constant.type],
        )  # fmt: skip
        rw.replace_uses(value, cast.result, only=readers)
    return Done(site.constant, f"{constant.type}", f"f16, error {site.error:.1e}", constant.nbytes // 2)
