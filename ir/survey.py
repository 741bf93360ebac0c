"""What the verifier's invariants look at: the graphs, ops and values of a module, listed once."""

from __future__ import annotations

from dataclasses import dataclass

from .core import Graph, Module, Op, Value


@dataclass(frozen=True, slots=True)
class Fault:
    """One place where an invariant does not hold: what is wrong, the op there, what was expected instead."""

    message: str
    op: Op | None
    expected: str
    where: str = ""  # default: the location of the op


class Survey:
    """A module's graphs, ops (terminators included) and values."""

    __slots__ = ("graphs", "module", "ops", "values")

    def __init__(self, module: Module) -> None:
        self.module = module
        self.graphs: list[Graph] = []
        self.ops: list[Op] = []
        self.values: list[Value] = list(module.constants.values())
        self._visit(module.graph)

    def _visit(self, graph: Graph) -> None:
        self.graphs.append(graph)
        self.values += graph.inputs
        for op in graph.ops:
            self.ops.append(op)
            self.values += op.results
            for region in op.regions.values():
                self._visit(region)
        self.ops.append(graph.ret)
