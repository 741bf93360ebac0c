"""The walk that follows one class through the operators that touch it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ....ir.axes import Axes, AxisClass
from ....ir.core import Module, Op
from ....ir.ops.opdef import Trait
from ....ir.ops.table import lookup
from .contractions import conv, matmul
from .rules import (
    add,
    average_pool,
    batch_norm,
    cast,
    concat,
    div,
    gather,
    move,
    mul,
    nonlinear,
    pad,
    reduce,
    softmax,
    sub,
)  # fmt: skip
from .trace import NotTraced, Trace

Rule = Callable[[Op, Trace], None]


def trace(module: Module, axes: Axes, target: AxisClass, ops: Sequence[Op]) -> Trace:
    """Walk the ops that touch the class, in program order. Raises NotTraced."""
    t = Trace(module, axes, target)
    for op in ops:
        if op.parent is not module.graph or op.regions:
            raise NotTraced(op, "it lies in a body of control flow")
        if op.kind in ("Shape", "Size"):
            continue
        rule = RULES.get(op.kind)
        if rule is None and lookup(op.kind).has(Trait.ELEMENTWISE):
            rule = nonlinear
        if rule is None:
            raise NotTraced(op, "the operator is not followed")
        rule(op, t)
    for consumer in t.consumers:
        others = [u for u in consumer.weight.users if all(u is not c.op for c in t.consumers)]
        if others or consumer.weight in t.used:
            raise NotTraced(consumer.op, "its weight is shared with another use")
    return t


_MOVES = "Dropout Expand Flatten Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze"
_REDUCES = "ReduceMax ReduceMean ReduceMin ReduceSum ReduceL1 ReduceL2 ReduceLogSumExp ReduceProd ReduceSumSquare"

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_MOVES.split(), move),
    **dict.fromkeys(_REDUCES.split(), reduce),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool", "InstanceNormalization", "Resize"), nonlinear),
    **dict.fromkeys(("MatMul", "Gemm"), matmul),
    **dict.fromkeys(("Conv", "ConvTranspose"), conv),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    "Add": add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Concat": concat,
    "Div": div,
    "Gather": gather,
    "GlobalAveragePool": move,
    "Mul": mul,
    "Pad": pad,
    "Sub": sub,
}
