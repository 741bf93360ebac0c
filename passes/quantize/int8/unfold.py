"""Operators whose parts have kernels for codes, though they have none themselves, written as their parts."""

from __future__ import annotations

from ....ir.core import Op
from ....ir.rewrite import Rewriter
from .glue import is_float

_SWISH = {"alpha": 1 / 6, "beta": 0.5}


def unfold(rw: Rewriter) -> None:
    """HardSwish(x) = x * HardSigmoid(x, 1/6, 1/2), in the main graph. ONNX Runtime computes it that way too."""
    for op in list(rw.module.graph.ops):
        if op.kind == "HardSwish" and is_float(op.results[0]):
            _hard_swish(rw, op)


def _hard_swish(rw: Rewriter, op: Op) -> None:
    data = op.operands[0]
    gate = rw.insert("HardSigmoid", [data], _SWISH, before=op).result
    rw.replace(op, [rw.insert("Mul", [data, gate], before=op).result])
