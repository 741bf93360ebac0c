"""The graph of a probe: constants that a run may replace, and values that are rounded or not, as inputs say.

Weights become inputs whose default is the constant, so that a runtime reads them where they are and folds nothing
into copies. A weight that is known in codes passes through an If: floats, or codes that are widened then and there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir import errors
from ...ir.constants import Constant
from ...ir.core import Graph, Module, Op, Value
from ...ir.dtypes import DType
from ...ir.errors import Code
from ...ir.quant import QSpec
from ...ir.quant_blocks import Quantized
from ...ir.rewrite import Rewriter
from ...ir.types import TensorType, tensor
from ..linear import linear_of

#: What a branch makes of a value (in float32), inside of a graph.
Build = Callable[[Value, Graph], Value]


@dataclass(frozen=True)
class Coded:
    """A weight in codes, and the grid that they are on."""

    made: Quantized
    spec: QSpec


@dataclass(frozen=True)
class Switch:
    """Names of the inputs that turn the rounding of a value on, and of those that hold its grid."""

    static: str
    dynamic: str
    scale: str
    zero: str


def refusal(message: str) -> errors.MlcError:
    return errors.error(Code.CANNOT_HONOUR, message, help="a probe knows float constants, and float values of a graph")


class ProbeGraph:
    """Turns constants into inputs, and values into values that can be rounded."""

    def __init__(self, module: Module, glue: Collection[str]) -> None:
        self._rw = Rewriter(module, by="probe")
        self._glue = frozenset(glue)
        self._graph = module.graph
        self._opened: dict[str, Value] = {}
        self._values = {v.name: v for v in module.values() if v.constant is None}
        self._next: dict[Op, Op | Graph] = {}
        for graph in module.graph.graphs():
            ops = list(graph.ops)
            self._next |= dict(zip(ops, [*ops[1:], graph]))

    def open(self, name: str) -> str:
        """Make a constant the default of an input of the graph; the name of the input."""
        value = self._weight(name)
        assert value.constant is not None
        made = self._input(name, value.constant.type, value.constant)
        if value.uses:
            self._rw.replace_uses(value, made)
        self._rw.drop_constant(value)
        self._opened[name] = made
        return made.name

    def code(self, name: str, coded: Coded) -> str:
        """Let the readers of an opened constant read its codes when an input says so; the name of that input.

        The codes are defaults of inputs too: where they are constants, runtimes widen them for good.
        """
        weight, spec = self._opened[name], coded.spec
        rounded = self._input(f"{name}_rounded", tensor(DType.BOOL))
        parts = (coded.made.codes, coded.made.scale, coded.made.zero)
        operands = [self._input(f"{name}_coded", c.type, c) for c in parts if c is not None]
        attrs = {"block_size": spec.block} if spec.block else {}
        attrs |= {"axis": spec.axis} if spec.axis is not None else {}

        def widened(_: Value, graph: Graph) -> Value:
            scale = self._cast(operands[1], DType.F32, graph)
            return self._rw.insert("DequantizeLinear", [operands[0], scale, *operands[2:]], attrs, before=graph).result

        readers = weight.users
        branches = self._branch("codes", weight, widened), self._plain(weight)
        # In front of all others: runtimes that go depth first then widen a weight just before it is read.
        made = self._choose(rounded, *branches, weight, next(iter(self._graph.ops), self._graph))
        self._rw.replace_uses(weight, made, only=readers)
        return rounded.name

    def _weight(self, name: str) -> Value:
        value = self._rw.module.constants.get(name)
        if value is None or value.constant is None or not value.constant.dtype.is_float:
            raise refusal(f"there is no constant of floats {name!r}")
        return value

    def switch(self, name: str, scale: float, zero: int) -> Switch:
        """Let the readers of a value read it rounded when one of two inputs says so."""
        value = self._values.get(name)
        if value is None or not isinstance(value.type, TensorType) or not value.type.dtype.is_float:
            raise refusal(f"there is no float value {name!r}")
        readers = [op for op in value.users if not op.is_terminator]
        on_codes = [op for op in readers if self._works_on_codes(op, value)]
        if not readers:
            raise refusal(f"no operator reads the value {name!r}")
        static, dynamic = (self._input(f"{name}_{mode}", tensor(DType.BOOL)) for mode in ("static", "dynamic"))
        anchor = self._after(value)
        grid = [
            self._input(f"{name}_{part}", c.type, c)
            for part, c in (("scale", Constant.of(np.float32(scale))), ("zero", Constant.of(np.uint8(zero))))
        ]
        inner = Graph("not_static")
        on_the_run = self._branch("dynamic", value, lambda x, g: self._dynamic(x, g))
        self._leave(inner, self._choose(dynamic, on_the_run, self._plain(value), value, inner))
        rounded = self._branch("static", value, lambda x, g: self._static(x, g, grid))
        made = self._choose(static, rounded, inner, value, anchor)
        self._rw.replace_uses(value, made, only=on_codes or readers)
        return Switch(static.name, dynamic.name, *(g.name for g in grid))

    def _works_on_codes(self, op: Op, value: Value) -> bool:
        linear = linear_of(op)
        return (linear is not None and linear.data is value) or (bool(op.results) and op.results[0].name in self._glue)

    def _after(self, value: Value) -> Op | Graph:
        """What comes after the producer of a value: whatever reads it comes later."""
        if value.op is not None:
            return self._next[value.op]
        home = value.home
        assert home is not None
        return next(iter(home.ops), home)

    def _input(self, stem: str, type: TensorType, default: Constant | None = None) -> Value:
        value = Value(type, self._rw.fresh_name(f"{stem}__probe"))
        self._graph._add_input(value)
        if default is not None:
            self._rw.module.defaults[value.name] = default
        return value

    def _choose(self, condition: Value, then: Graph, other: Graph, like: Value, before: Op | Graph) -> Value:
        regions = {"then_branch": then, "else_branch": other}
        return self._rw.insert("If", [condition], before=before, results=[like.type], regions=regions).result

    def _branch(self, name: str, value: Value, build: Build) -> Graph:
        graph = Graph(name)
        assert isinstance(value.type, TensorType)
        wide = self._cast(value, DType.F32, graph)
        self._leave(graph, self._cast(build(wide, graph), value.type.dtype, graph))
        return graph

    def _plain(self, value: Value) -> Graph:
        graph = Graph("floats")
        self._leave(graph, value)
        return graph

    def _leave(self, graph: Graph, value: Value) -> None:
        """Make a value the result of a body, which must have made it itself."""
        if value.home is not graph:
            value = self._rw.insert("Identity", [value], before=graph).result
        graph._add_output(value, value.name)

    def _cast(self, value: Value, dtype: DType, graph: Graph) -> Value:
        assert isinstance(value.type, TensorType)
        if value.type.dtype is dtype:
            return value
        return self._rw.insert("Cast", [value], {"to": dtype.onnx}, before=graph).result

    def _static(self, x: Value, graph: Graph, grid: Sequence[Value]) -> Value:
        codes = self._rw.insert("QuantizeLinear", [x, *grid], before=graph).result
        return self._rw.insert("DequantizeLinear", [codes, *grid], before=graph).result

    def _dynamic(self, x: Value, graph: Graph) -> Value:
        parts = self._rw.insert("DynamicQuantizeLinear", [x], before=graph, count=3).results
        return self._rw.insert("DequantizeLinear", parts, before=graph).result
