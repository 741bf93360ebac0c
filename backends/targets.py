"""Targets: which kernels a runtime has for which forms of an operator. A table, read while planning and lowering.

`ort(cpu, threads=2, isa=vnni)` is ONNX Runtime on this CPU. What a pass asks with `supports` is answered by the same
rows that docs/targets.md shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from ..ir.core import Op
from ..ir.errors import Code, error
from .costs import CostTable, Key, assumed_costs, known_costs, read
from .costs_of_ops import job_of
from .machine import Isa, detect_isa

Level = Literal["native", "emulated", "no"]
Form = Literal["float", "static", "dynamic", "blocks", "stored", "fp16"]  # passes/ports.py says what they mean


@dataclass(frozen=True, slots=True)
class Support:
    """How a target serves an op in a form, and why not better."""

    level: Level
    reason: str = ""
    kernel: str = ""

    def __bool__(self) -> bool:
        return self.level != "no"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a target's table: an operator (`*`: any other) whose weight is stored in a form."""

    op: str
    form: Form
    level: Level
    kernel: str = ""
    needs: str = ""
    reason: str = ""
    bits: tuple[int, ...] = (4,)


_STORAGE = {3: 4, 6: 8}  # bits that are stored in wider ones
_BITS = (2, 3, 4, 6, 8)
_SLOW = "there is no kernel for its codes: the weight would be widened on every run"
_MS = "com.microsoft::"
_MATRIX = "a constant matrix on the right, no factors (Gemm)"
_ALL = "operands and result in codes"
_ONE_GRID = "operand and result on one grid"
_ROUNDED = "it would be computed from floats that were rounded to codes and back"

#: What only moves or picks elements, and so does the same to codes.
_VIEWS = (
    *("MaxPool", "ReduceMax", "ReduceMin", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split"),
    *("Gather", "GatherElements", "DepthToSpace", "Expand", "Tile", "Identity", "Pad"),
)

#: ONNX Runtime, CPU execution provider. tests/test_targets.py holds the rows against the runtime.
ORT_CPU: tuple[Row, ...] = (
    Row("MatMul", "blocks", "native", f"{_MS}MatMulNBits", "a constant matrix on the right", bits=_BITS),
    Row("Gemm", "blocks", "native", f"{_MS}MatMulNBits + Add", "a constant matrix as B", bits=_BITS),
    Row("Gather", "blocks", "native", f"{_MS}GatherBlockQuantized", "a constant table, axis 0", bits=_BITS),
    Row("Slice", "blocks", "native", f"{_MS}GatherBlockQuantized + Range", "rows of a constant table", bits=_BITS),
    Row("*", "blocks", "no", reason=_SLOW),
    Row("Conv", "static", "native", "QLinearConv", "the result in codes"),
    Row("MatMul", "static", "native", f"{_MS}MatMulIntegerToFloat", _MATRIX),
    Row("Gemm", "static", "native", f"{_MS}MatMulIntegerToFloat", _MATRIX),
    Row("Add", "static", "native", f"{_MS}QLinearAdd", _ALL),
    Row("Mul", "static", "native", f"{_MS}QLinearMul", _ALL),
    Row("Where", "static", "native", f"{_MS}QLinearWhere", _ALL),
    Row("Concat", "static", "native", f"{_MS}QLinearConcat", _ALL),
    Row("AveragePool", "static", "native", f"{_MS}QLinearAveragePool", _ALL),
    Row("GlobalAveragePool", "static", "native", f"{_MS}QLinearGlobalAveragePool", _ALL),
    Row("Sigmoid", "static", "native", f"{_MS}QLinearSigmoid", _ALL),
    Row("LeakyRelu", "static", "native", f"{_MS}QLinearLeakyRelu", _ALL),
    Row("HardSigmoid", "static", "native", f"{_MS}QLinearAdd", "its clamp and its factor are left to rounding"),
    Row("Relu", "static", "native", "none: the rounding behind it does its work", "0 is the least code"),
    Row(
        "Clip", "static", "native", "none: the rounding behind it does its work", "its bounds are the ends of the codes"
    ),
    *(Row(op, "static", "native", f"{op} of codes", _ONE_GRID) for op in _VIEWS),
    Row("Resize", "static", "native", "Resize of codes", f"mode nearest, {_ONE_GRID}"),
    Row("Softmax", "static", "no", reason=f"{_MS}QLinearSoftmax is 8 times slower than Softmax of floats"),
    Row("ConvTranspose", "static", "no", reason="there is no ConvTranspose of codes"),
    Row("*", "static", "no", reason=_ROUNDED),
    Row("MatMul", "dynamic", "native", f"{_MS}DynamicQuantizeMatMul", _MATRIX),
    Row("Gemm", "dynamic", "native", f"{_MS}DynamicQuantizeMatMul", _MATRIX),
    Row("Conv", "dynamic", "no", reason="ConvInteger is slower than Conv of floats"),
    Row("*", "dynamic", "no", reason="there is no kernel that rounds its input on the run"),
    Row("*", "stored", "native", "Cast and Mul, folded at load", "graph optimizations basic or higher"),
    Row("*", "fp16", "native", "Cast, folded when the model is loaded", "graph optimizations basic or higher"),
)
_BLOCKS = (16, 32, 64, 128, 256)
_COSTS_OF: Mapping[Form, Form] = {"stored": "float", "fp16": "float"}  # they are floats once they are loaded


@dataclass(frozen=True)
class OrtTarget:
    """ONNX Runtime on a CPU."""

    threads: int = 1
    isa: Isa = "auto"
    name: str = "ort(cpu)"
    costs_from: str = "auto"  # auto: measured on this machine, else assumed; assumed; or a file

    rows = ORT_CPU

    @property
    def weight_bits(self) -> int:
        """Without VNNI, products of u8 and s8 saturate in 16 bits on x86: weights then use 7 of their bits."""
        return 8 if self.known_isa in ("vnni", "neon") else 7

    def supports(self, op: Op, form: Form, *, bits: int = 8, block: int = 0, symmetric: bool = True) -> Support:
        """What the table says of an op whose weight is held in a form."""
        row = self._row(op.kind, form)
        if row is None:
            return Support("no", f"{self.name} has no kernel for {op.kind} in the form {form!r}")
        if form == "blocks" and row.level == "native" and bits not in row.bits:
            return Support("no", f"{row.kernel} has no kernel for {bits} bits")
        if row.level == "native" and form == "blocks" and block not in _BLOCKS:
            return Support("no", f"{row.kernel} wants blocks of 16 to 256, a power of two, not {block}")
        if form == "blocks" and row.level == "native" and self.known_isa == "portable":
            return Support("emulated", f"{row.kernel} has no fast path on this CPU", row.kernel)
        return Support(row.level, row.reason, row.kernel)

    def seconds(self, op: Op, form: Form, dims: Mapping[str, int], *, bits: int = 8, block: int = 0) -> float | None:
        """CPU seconds of one run of the op in a form; `dims` are the sizes of symbolic dimensions.

        Static products include the rounding of their input and yield floats; other static ops read and yield codes.
        None where a size is unknown or the form was not measured.
        """
        held = _COSTS_OF.get(form, form)
        job = job_of(op, dims, held)
        if job is None:
            return None
        key = Key(job.series, held, _STORAGE.get(bits, bits), block) if held == "blocks" else Key(job.series, held)
        found = self.costs.seconds(key, job.sizes)
        return None if found is None else found * job.factor

    def boundary(self, elements: int) -> float:
        """CPU seconds of rounding so many elements to codes and of widening them again."""
        sizes = {"elements": elements}
        parts = (self.costs.seconds(Key(op, "static"), sizes) for op in ("QuantizeLinear", "DequantizeLinear"))
        return sum(p for p in parts if p is not None)

    @cached_property
    def costs(self) -> CostTable:
        """The cost table that answers, read when it is first asked. Errors: NOT_FOUND, BAD_TARGET."""
        if self.costs_from == "assumed" or (self.costs_from == "auto" and self.known_isa != detect_isa()):
            return assumed_costs(self.known_isa)
        if self.costs_from == "auto":
            return known_costs(self.threads, self.known_isa)
        return read(Path(self.costs_from), "given")

    @property
    def asked_costs(self) -> CostTable | None:
        """The cost table, if anything was decided by it."""
        return vars(self).get("costs")

    def _row(self, kind: str, form: str) -> Row | None:
        rows = [r for r in self.rows if r.form == form and r.op in (kind, "*")]
        return next((r for r in rows if r.op == kind), rows[0] if rows else None)

    @property
    def known_isa(self) -> Isa:
        return detect_isa() if self.isa == "auto" else self.isa

    @property
    def detected_isa(self) -> Isa:
        """The instruction set of this machine."""
        return detect_isa()

    def __str__(self) -> str:
        given = [f"threads={self.threads}"] if self.threads != 1 else []
        given += [f"isa={self.isa}"] if self.isa != "auto" else []
        given += [f"costs={self.costs_from}"] if self.costs_from != "auto" else []
        return f"ort({', '.join(['cpu', *given])})"


def parse_target(text: str) -> OrtTarget:
    """A target from its text: `ort`, `ort(cpu)`, `ort(cpu, threads=2, isa=avx2)`. Errors: BAD_TARGET."""
    shape = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if shape is None:
        raise _bad(text, "it does not read as a target")
    name, inside = shape.group(1), shape.group(2) or ""
    if name != "ort":
        planned = " yet" if name in ("tvm", "edge") else ""
        raise _bad(text, f"there is no target {name!r}{planned}")
    threads, isa, costs = 1, "auto", "auto"
    for part in (p.strip() for p in inside.split(",") if p.strip()):
        key, _, value = (x.strip() for x in part.partition("="))
        if part == "cpu":
            continue
        if key == "threads" and value.isdigit() and int(value) > 0:
            threads = int(value)
        elif key == "isa" and value in get_args(Isa):
            isa = value
        elif key == "costs" and (value in ("auto", "assumed") or value.endswith(".json")):
            costs = value
        else:
            raise _bad(text, f"it has no argument {part!r}")
    return OrtTarget(threads, isa, costs_from=costs)  # type: ignore[arg-type]


def _bad(text: str, why: str) -> Exception:
    choices = "|".join(get_args(Isa))
    return error(
        Code.BAD_TARGET,
        f"target {text!r}: {why}",
        help=f"write ort(cpu), or ort(cpu, threads=N, isa={choices}, costs=auto|assumed|FILE.json)",
    )
