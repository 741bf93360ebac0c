"""Which weights can be held in 8 bits, and in which forms their readers can use them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ....ir.constants import Constant
from ....ir.core import Module, Op, Value
from ....ir.dtypes import DType
from ....ir.ops.access import attr_float, attr_int
from ....ir.quant_blocks import largest
from ....ir.types import TensorType
from ...base import Context, SkipCode, Skipped
from ...linear import RECURRENT
from ...ports import Form
from ..sites import already
from ..weights import Reader, Weight, describe, float_weights, is_notable
from .channels import channel_axis

#: Bytes of names, shapes and nodes that a weight in codes adds to a file.
OVERHEAD = 256
#: Ops that the emitter can give 8-bit activations; the weight is operand 1, the data operand 0.
_INTEGER = ("Conv", "MatMul", "Gemm")
_KEEP = "keep it, or store it with fp16"


@dataclass(frozen=True)
class Candidate:
    """A weight that has a form in 8 bits, the axis of its channels, and for each reader the forms that it has."""

    weight: Weight
    axis: int
    forms: dict[Reader, tuple[Form, ...]]
    refusals: dict[Reader, str]  # why a reader has no form with 8-bit activations

    @property
    def constant(self) -> Constant:
        assert self.weight.value.constant is not None
        return self.weight.value.constant

    @property
    def bytes_after(self) -> int:
        """Bytes in the file: codes, scales, and what names and nodes take."""
        return self.constant.elements + 4 * self.constant.shape[self.axis] + OVERHEAD


@dataclass(frozen=True)
class _Problem:
    code: SkipCode
    why: str
    what_to_do: str = ""


def candidates(module: Module, ctx: Context) -> Iterator[Candidate | Skipped]:
    """Every weight that has an 8-bit form, or why not, in the order of the module."""
    yield from already(module)
    for weight in float_weights(module):
        yield from _decide(module, weight, ctx)


def _decide(module: Module, weight: Weight, ctx: Context) -> Iterator[Candidate | Skipped]:
    constant = weight.value.constant
    assert constant is not None
    notable = [r for r in weight.readers if is_notable(weight, r) and not _is_bias(r)]
    axes = {r: channel_axis(r, constant.type.rank) for r in weight.readers}
    problems = {r: _reader_problem(r, axes[r], ctx) for r in weight.readers}
    problem = _weight_problem(constant) if notable and not any(problems.values()) else None
    culprit = next((r for r, p in problems.items() if p is not None), None)
    if culprit is not None:
        shared = _Problem(SkipCode.SHARED, f"its weight {weight.name} is also {describe(culprit)}, which needs floats")
        yield from (_skipped(r, problems[r] or shared) for r in notable)
    elif problem is not None:
        yield from (_skipped(r, problem) for r in notable)
    elif len(set(axes.values())) > 1:
        apart = _Problem(SkipCode.SHARED, "its readers have their channels along different axes", _KEEP)
        yield from (_skipped(r, apart) for r in notable)
    elif axes:
        axis = next(iter(axes.values()))
        assert isinstance(axis, int)
        forms, refusals = {}, {}
        for reader in weight.readers:
            forms[reader], refusals[reader] = _forms(module, reader, constant, ctx)
        yield Candidate(weight, axis, forms, {r: why for r, why in refusals.items() if why})


def _is_bias(reader: Reader) -> bool:
    """Biases and states of recurrent layers are few numbers, whatever their rank."""
    return reader.op.kind in RECURRENT and reader.slot > 2


def _reader_problem(reader: Reader, axis: int | str, ctx: Context) -> _Problem | None:
    if isinstance(axis, str):
        return _Problem(SkipCode.UNSUPPORTED, axis, _KEEP)
    if not ctx.scope.allows(reader.op):
        return _Problem(SkipCode.SCOPE, "outside the scope of the step")
    return None


def _weight_problem(constant: Constant) -> _Problem | None:
    if constant.dtype not in (DType.F32, DType.F16):
        return _Problem(SkipCode.DTYPE, f"{constant.dtype.short} weights have no 8-bit kernel", "convert it to f32")
    if constant.elements == 0:
        return _Problem(SkipCode.TOO_SMALL, "it is empty")
    if not np.isfinite(largest(constant)):
        return _Problem(SkipCode.HURTS, "it holds Inf or NaN")
    return None


def _forms(module: Module, reader: Reader, constant: Constant, ctx: Context) -> tuple[tuple[Form, ...], str]:
    """The forms of a reader, the one with most kernels first, and why it has none with 8-bit activations."""
    refusal = _integer_refusal(reader, constant)
    found: list[Form] = []
    reasons = []
    if not refusal:
        for form in ("static", "dynamic"):
            reason = _form_refusal(module, reader.op, form, ctx)
            found += [] if reason else [form]
            reasons += [reason] if reason else []
        refusal = "" if found else reasons[0]
    return (*found, "stored"), refusal


def _form_refusal(module: Module, op: Op, form: Form, ctx: Context) -> str:
    if form == "static" and op.parent is not module.graph:
        return "values inside bodies are not observed"
    if form == "dynamic" and op.kind == "Conv":
        return "convolutions in integers are slower than in floats"
    support = ctx.target.supports(op, form) if ctx.target is not None else None
    return support.reason or f"no kernel for {op.kind}" if support is not None and not support else ""


def _integer_refusal(reader: Reader, constant: Constant) -> str:
    """Why the op cannot compute from codes of its data; empty if it can."""
    op = reader.op
    if op.kind not in _INTEGER or reader.slot != 1:
        return f"{describe(reader)} has no kernel for 8-bit activations"
    data = op.operand(0)
    if data is None or data.constant is not None or not all(_is_f32(v) for v in (data, op.results[0])):
        return "its data are not 32-bit floats"
    if op.kind == "Conv":
        bias = op.operand(2)
        return "" if bias is None or bias.constant is not None else "its bias is computed"
    if constant.type.rank != 2:
        return f"a weight of rank {constant.type.rank} has no kernel for 8-bit activations"
    scaled = attr_int(op, "transA") or (attr_float(op, "alpha", 1.0), attr_float(op, "beta", 1.0)) != (1.0, 1.0)
    return "its factors alpha, beta or its transposed data have no kernel in 8 bits" if scaled else ""


def _is_f32(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype is DType.F32


def _skipped(reader: Reader, problem: _Problem) -> Skipped:
    return Skipped(reader.site, problem.code, problem.why, problem.what_to_do)
