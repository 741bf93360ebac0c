"""Writing the plan of `int8` into a graph, in standard ONNX: QuantizeLinear and DequantizeLinear around what stays.

A value in codes becomes `{value}_quantized` and is read as `{value}_dq`; a weight becomes `{weight}_quantized` with
`{weight}_scale`. Every graph that reads a weight has DequantizeLinears of its own, one for each reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....ir.core import Graph, Op, Value
from ....ir.dtypes import DType
from ....ir.quant_blocks import Quantized
from ....ir.rewrite import Rewriter
from ....ir.types import TensorType
from ...base import Done
from .codes import quantize_channels
from .glue import GLUE, Behaviour, hard_sigmoid, number
from .placement import ROUNDING
from .plan import ActivationGrid, Int8Plan, WeightSite

Array = np.ndarray[Any, Any]
#: A bias is a sum of products as well: half of 32 bits is left for the others.
_BIAS_STEPS = float(1 << 30)


class Emitter:
    """Carries out one plan on the module of a rewriter."""

    def __init__(self, rw: Rewriter, plan: Int8Plan) -> None:
        self._rw, self._plan = rw, plan
        self._made_by = {op.results[0].name: op for op in rw.module.walk() if op.results}
        self._values = {v.name: v for v in rw.module.values()}
        self._place = {op: index for index, op in enumerate(rw.module.graph.ops)}
        self._grids = {a.value: a for a in plan.activations}

    def run(self) -> list[Done]:
        forms = {r.op: r.form for w in self._plan.weights for r in w.readers}
        static = [self._made_by[name] for name, form in forms.items() if form == "static"]
        data = {op: self._grids[op.operands[0].name] for op in static if op.operands[0] is not None}  # before renaming
        glue = [self._in_codes(name) for name in self._plan.glue]
        done = [self._weight(w, data) for w in self._plan.weights]
        self._absorb()
        working = {*static, *glue}
        rounding = {op for op in static if op.kind in ROUNDING} | set(glue)
        for activation in self._plan.activations:
            self._activation(activation, working, rounding)
        self._dynamic([self._made_by[name] for name, form in forms.items() if form == "dynamic"])
        return done

    # -- weights -----------------------------------------------------------------------------------------------

    def _weight(self, site: WeightSite, data: dict[Op, ActivationGrid]) -> Done:
        value = self._values[site.constant]
        constant = value.constant
        assert constant is not None
        biased = [op for op in data if op.kind in ROUNDING and op.operand(1) is value and op.operand(2) is not None]
        least = self._least(biased, data)
        if least is not None and site.axis is None:
            least = least.max(keepdims=True)
        made = quantize_channels(constant, site.axis, site.bits, least=least)
        codes = self._rw.constant(made.codes, f"{site.constant}_quantized")
        scales: dict[DType, Value] = {}
        casts = [op for op in value.users if op.kind == "Cast"]
        for root in (*(c.result for c in casts), value):
            for op in root.users:
                if op not in casts:
                    self._read_codes(op, root, codes, made, scales, site)
        for op in biased:
            self._bias(op, data[op], made)
        forms = ", ".join(dict.fromkeys(r.form for r in site.readers))
        per = "tensor" if site.axis is None else "channel"
        bits = f"{site.bits} bits" if site.bits < 8 else "s8"
        return Done(
            site.constant,
            f"{constant.type}",
            f"{bits} per {per}, {forms}, error {made.relative_error:.3%}",
            constant.nbytes - made.nbytes,
        )

    def _read_codes(
        self, op: Op, root: Value, codes: Value, made: Quantized, scales: dict[DType, Value], site: WeightSite
    ) -> None:
        assert isinstance(root.type, TensorType)
        dtype = root.type.dtype
        if dtype not in scales:
            name = f"{site.constant}_scale"
            scales[dtype] = self._rw.constant(made.scale.array().astype(dtype.numpy), name, dtype=dtype)
        attrs = {} if site.axis is None else {"axis": site.axis}
        before = op if not op.is_terminator else op.parent
        assert before is not None
        dq = self._rw.insert(
            "DequantizeLinear", [codes, scales[dtype]], attrs, before=before, names=[f"{site.constant}_dq"]
        )
        self._rw.replace_uses(root, dq.result, only=[op])

    def _least(self, biased: Sequence[Op], data: dict[Op, ActivationGrid]) -> Array | None:
        """The least scales of a weight with which the biases of its readers fit 32 bits."""
        needed = [np.abs(_bias_of(op)) / (data[op].scale * _BIAS_STEPS) for op in biased]
        return np.max(needed, axis=0).astype(np.float32) if needed else None

    def _bias(self, op: Op, data: ActivationGrid, made: Quantized) -> None:
        """The bias in steps of (scale of the data) x (scale of the weight), in 32 bits."""
        value = op.operand(2)
        assert value is not None
        bias = _bias_of(op).astype(np.float64)
        scale = (np.float64(data.scale) * made.scale.array().astype(np.float64)).astype(np.float32)
        steps = np.rint(bias / scale.astype(np.float64)).astype(np.int32)
        codes = self._rw.constant(steps, f"{value.name}_quantized")
        attrs = {"axis": 0} if scale.ndim else {}
        dq = self._rw.insert(
            "DequantizeLinear",
            [codes, self._rw.constant(scale, f"{value.name}_scale")],
            attrs,
            before=op,
            names=[f"{value.name}_dq"],
        )
        self._rw.set_operand(op, 2, dq.result)

    # -- activations -------------------------------------------------------------------------------------------

    def _absorb(self) -> None:
        """Drop what rounding includes: its place is taken by what it computes from."""
        for name in self._plan.absorbed:
            op = self._made_by[name]
            source = next(v for v in op.operands if v is not None and v.constant is None)
            self._values[name] = source
            self._rw.replace(op, [source])

    def _in_codes(self, name: str) -> Op:
        """An op between weighted ones in the form that has a kernel: what is added or multiplied in codes as well."""
        op = self._made_by[name]
        if op.kind == "HardSigmoid":
            op = self._addition(op)
        for slot, value in enumerate(op.operands):
            if GLUE[op.kind].behaviour is Behaviour.OWN and value is not None and value.constant is not None:
                self._rw.set_operand(op, slot, self._number(value, op))
        return op

    def _addition(self, op: Op) -> Op:
        """What remains of a HardSigmoid when rounding includes its clamp and its factor."""
        alpha, beta = hard_sigmoid(op)
        name = op.results[0].name
        shift = self._rw.constant(np.asarray(beta / alpha, np.float32), f"{name}_shift")
        made = self._rw.insert("Add", [op.operands[0], shift], before=op)
        self._rw.replace(op, [made.result])
        self._made_by[name], self._values[name], self._place[made] = made, made.result, self._place[op]
        return made

    def _number(self, value: Value, before: Op) -> Value:
        """A number in codes, exactly: the outermost code on a grid that ends there."""
        found = number(value)
        assert found is not None
        assert value.constant is not None
        code, zero = (0, 255) if found < 0 else (255, 0)
        scale = np.float32(abs(found) / 255 or 1)
        shaped = np.full(value.constant.shape, code if found else zero, np.uint8)
        names = [f"{value.name}_{part}" for part in ("quantized", "scale", "zero_point")]
        arrays = (shaped, scale, np.uint8(zero))
        operands = [self._rw.constant(np.asarray(array), name) for array, name in zip(arrays, names)]
        return self._insert("DequantizeLinear", operands, before, f"{value.name}_dq")

    def _activation(self, grid: ActivationGrid, working: set[Op], rounding: set[Op]) -> None:
        value = self._values[grid.value]
        everyone = value.op in rounding
        readers = [op for op in value.users if everyone or op in working]
        if not readers:
            return
        before = self._first(readers)
        scale = self._rw.constant(np.asarray(grid.scale, np.float32), f"{grid.value}_scale")
        zero = self._rw.constant(np.asarray(grid.zero, np.uint8), f"{grid.value}_zero_point")
        step = scale
        if grid.factor != 1.0:
            step = self._rw.constant(np.asarray(grid.scale / grid.factor, np.float32), f"{grid.value}_step")
        codes = self._insert("QuantizeLinear", [value, step, zero], before, f"{grid.value}_quantized")
        back = self._insert("DequantizeLinear", [codes, scale, zero], before, f"{grid.value}_dq")
        self._rw.replace_uses(value, back, only=readers)

    def _insert(self, kind: str, operands: Sequence[Value], before: Op | Graph, name: str) -> Value:
        return self._rw.insert(kind, operands, before=before, names=[name]).result

    def _first(self, readers: Sequence[Op]) -> Op | Graph:
        """The first op of the main graph that reads, or holds a reader in a body."""
        main = self._rw.module.graph
        found = [op for op in (_within(op, main) for op in readers) if not op.is_terminator]
        return min(found, key=self._place.__getitem__) if found else main

    def _dynamic(self, ops: Sequence[Op]) -> None:
        """Grids that are found on the run, once for every value that products of a graph read."""
        shared: dict[tuple[Value, Graph], list[Op]] = {}
        for op in ops:
            assert op.parent is not None
            assert op.operands[0] is not None
            shared.setdefault((op.operands[0], op.parent), []).append(op)
        for (value, graph), readers in shared.items():
            wanted = set(readers)
            before = next(op for op in graph.ops if op in wanted)
            names = [f"{value.name}_{part}" for part in ("quantized", "scale", "zero_point")]
            made = self._rw.insert("DynamicQuantizeLinear", [value], before=before, names=names, count=3)
            back = self._insert("DequantizeLinear", made.results, before, f"{value.name}_dq")
            self._rw.replace_uses(value, back, only=readers)


def _bias_of(op: Op) -> Array:
    bias = op.operand(2)
    assert bias is not None
    assert bias.constant is not None
    return bias.constant.array()


def _within(op: Op, graph: Graph) -> Op:
    """The op of `graph` that is, or holds, an op."""
    while op.parent is not graph:
        assert op.parent is not None
        assert op.parent.owner is not None
        op = op.parent.owner
    return op
