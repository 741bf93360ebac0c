"""Dead code: ops whose results nobody reads and constants nobody uses. Runs after every pass."""

from __future__ import annotations

from .core import Graph, Op
from .rewrite import Rewriter


def drop_dead(rw: Rewriter) -> int:
    """Erase unused ops (bodies included) and constants; the number of ops erased. Linear in the module."""
    erased = sum(_sweep(rw, graph) for graph in reversed(list(rw.module.graph.graphs())))
    for value in list(rw.module.constants.values()):
        if not value.uses:
            rw.drop_constant(value)
    return erased


def _sweep(rw: Rewriter, graph: Graph) -> int:
    erased = 0
    for op in reversed(list(graph.ops)):
        if is_dead(op):
            rw.erase(op)
            erased += 1
    return erased


def is_dead(op: Op) -> bool:
    """Whether nothing can tell that the op is there. Every ONNX operator is free of side effects."""
    return not any(value.uses for value in op.results)
