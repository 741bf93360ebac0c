"""Where codes cost less time than floats: the cheapest division of a graph into parts in codes and parts in floats.

Every op that may work on codes costs what it takes there or what it takes in floats, and every value that crosses from
one part to the other costs what rounding or widening it takes, once. The division with the least sum is a minimum cut
(Greig, Porteous, Seheult 1989): ops are nodes, a cut edge is a cost that is paid.

    codes -> op   its time in floats           producer -> gate -> readers   widening: paid if the producer has codes
    op -> floats  its time in codes                                          and some reader floats; rounding likewise

So a chain of small layers whose 8-bit kernels are no faster stays in floats as a whole, and a slow op between fast
ones stays in codes if leaving them would cost more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ....ir.core import Graph, Op, Value
from ....ir.dims import evaluate
from ....ir.types import TensorType
from ...ports import Form, Target
from .glue import data_of, glue_of, head_of
from .placement import ROUNDING, Placement, place

_UNIT = 1e-10  # seconds: capacities are whole numbers, so that the cut does not depend on the order of sums
_CODES, _FLOATS = "codes", "floats"


def slower_in_codes(
    graph: Graph, weighted: Collection[Op], works: Callable[[Op], bool], target: Target, dims: Mapping[str, int]
) -> set[Op]:
    """The ops among those that could work on codes which had better have floats; of equal divisions the one with most
    codes. Ops whose times the target does not know go with their neighbours."""
    import networkx

    placement = place(graph, weighted, works)
    flow = _Cut(target, dims, placement).graph(weighted)
    if not flow.has_node(_CODES) or not flow.has_node(_FLOATS):
        return set()
    _, (_, floats) = networkx.minimum_cut(flow, _CODES, _FLOATS)
    return {node for node in floats if isinstance(node, Op)}


@dataclass
class _Cut:
    target: Target
    dims: Mapping[str, int]
    placement: Placement

    def graph(self, weighted: Collection[Op]) -> Any:
        import networkx

        flow = networkx.DiGraph()
        nodes = {op: _rounds(op) for op in weighted} | dict.fromkeys(self.placement.glue, True)
        makers: dict[Value, Op] = {}
        for op, rounds in nodes.items():
            floats, codes = self._costs(op)
            flow.add_edge(_CODES, op, capacity=round(floats / _UNIT))
            flow.add_edge(op, _FLOATS, capacity=round(codes / _UNIT))
            if rounds:
                makers.update(dict.fromkeys((head_of(op).value, *op.results[1:]), op))
        for value in dict.fromkeys(v for c in self.placement.classes for v in c.values):
            self._cross(flow, value, makers.get(value), nodes)
        return flow

    def _costs(self, op: Op) -> tuple[float, float]:
        """Seconds in floats (or in the best form that reads them) and in codes; (0, 0) where they are not known."""
        floats, codes = self._seconds(op, "float"), self._seconds(op, "static")
        if floats is None or codes is None:
            return 0.0, 0.0
        if not _rounds(op):  # the rounding of its data is in its time; here it is the value that pays, once for all
            run = self._seconds(op, "dynamic")
            data = op.operands[0]
            assert data is not None
            return min(floats, floats if run is None else run), max(0.0, codes - self._boundary(data) / 2)
        absorbed = [self._seconds(a, "float") for a in head_of(op).absorbed if op.kind not in ROUNDING]
        return floats + sum(s or 0.0 for s in absorbed), codes

    def _seconds(self, op: Op, form: Form) -> float | None:
        return self.target.seconds(op, form, self.dims)

    def _cross(self, flow: Any, value: Value, maker: Op | None, nodes: Mapping[Op, bool]) -> None:
        """The costs of widening a value that some read in floats, and of rounding one that some read in codes."""
        readers = list(_readers(value, nodes))
        cost = round(self._boundary(value) / 2 / _UNIT)
        widening, rounding = ("widen", value.name), ("round", value.name)
        source = maker if maker is not None else _FLOATS
        if maker is not None:
            flow.add_edge(maker, widening, capacity=cost)
            for reader in readers:
                flow.add_edge(widening, reader if reader is not None else _FLOATS)  # no capacity: endless
        codes = [reader for reader in readers if reader is not None]
        if codes:
            flow.add_edge(rounding, source, capacity=cost)
        for reader in codes:
            flow.add_edge(reader, rounding)

    def _boundary(self, value: Value) -> float:
        known = evaluate(value.type.elements, self.dims) if isinstance(value.type, TensorType) else None
        return 0.0 if known is None else self.target.boundary(known)


def _rounds(op: Op) -> bool:
    """Whether an op in codes makes codes: products make floats."""
    return op.kind not in ("MatMul", "Gemm")


def _readers(value: Value, nodes: Mapping[Op, bool]) -> Iterator[Op | None]:
    """Who reads a value: ops that may have codes, or None for somebody who needs floats."""
    for op in value.users:
        glue = glue_of(op) if op in nodes and _rounds(op) and op.kind not in ROUNDING else None
        reads = op in nodes and (glue is None or value in data_of(op, glue))
        yield op if reads else None
