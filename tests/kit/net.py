"""A small builder for test graphs on the core's primitives, typed by hand or by the operator table.

net = Net()
x = net.input("x", F32, "N", 8)
y = net.op("Relu", [x], [x.type])
module = net.done(y)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlc.ir.constants import Constant
from mlc.ir.core import Attr, Graph, Module, Op, Value
from mlc.ir.dtypes import DType
from mlc.ir.types import Type, UnrankedTensor, tensor


class Net:
    """Builds one graph; `body()` starts a region that sees the values of this graph and shares its names."""

    def __init__(self, name: str = "net", *, opset: int = 21, within: Net | None = None) -> None:
        self.graph = Graph(name)
        self.module = within.module if within is not None else Module(self.graph, opset=opset)
        self._numbers: itertools.count[int] = within._numbers if within is not None else itertools.count()

    def fresh(self, stem: str) -> str:
        return f"{stem}{next(self._numbers)}"

    def input(self, name: str, dtype: DType, *shape: Any) -> Value:
        return self.argument(tensor(dtype, *shape), name)

    def argument(self, type: Type, name: str = "") -> Value:
        value = Value(type, name or self.fresh("in"))
        self.graph._add_input(value)
        return value

    def const(self, array: Any, name: str = "", *, dtype: DType | None = None) -> Value:
        constant = Constant.of(array, dtype)
        value = self.module._add_constant(name or self.fresh("c"), constant)
        if constant.dtype in (DType.I32, DType.I64) and len(constant.shape) <= 1 and constant.elements <= 64:
            value.dims = tuple(int(x) for x in constant.array().reshape(-1))
        return value

    def ints(self, *values: int) -> Value:
        return self.const(np.array(values, np.int64))

    def node(
        self,
        kind: str,
        operands: Sequence[Value | None],
        result_types: Sequence[Type] | None = None,
        attrs: Mapping[str, Attr] | None = None,
        *,
        regions: Mapping[str, Graph] | None = None,
        count: int = 1,
    ) -> Op:
        """An op at the end of the graph; without `result_types` the operator table says them."""
        known = result_types if result_types is not None else [UnrankedTensor(DType.F32)] * count
        results = [Value(t, self.fresh("v")) for t in known]
        op = Op(kind, operands, attrs, results, regions=regions, name=self.fresh(kind.rpartition("::")[2] + "_"))
        self.graph._insert(op)
        if result_types is None:
            from mlc.ir.infer import infer_op

            for value, found in zip(op.results, infer_op(op, self.module)):
                value.type, value.dims = found.type, found.dims
        return op

    def op(
        self,
        kind: str,
        operands: Sequence[Value | None],
        result_types: Sequence[Type] | None = None,
        attrs: Mapping[str, Attr] | None = None,
    ) -> Value:
        """The only result of a new op."""
        return self.node(kind, operands, result_types, attrs).result

    def body(self, name: str = "body") -> Net:
        return Net(name, within=self)

    def output(self, value: Value, name: str = "") -> None:
        self.graph._add_output(value, name or self.fresh("out"))

    def done(self, *outputs: Value) -> Module:
        """The module, with `outputs` under their own names (`out<n>` where a name is taken)."""
        for value in outputs:
            self.output(value, value.name if value.name not in self.graph.output_names else "")
        return self.module
