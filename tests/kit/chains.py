"""Deep graphs that grow by equal blocks: what an analysis of a graph must be near-linear on.

`CHAINS` maps names to builders: chain(ops) is a module of about that many ops. Every block has weights of its own,
so that classes grow with the chain; widths are small, so that fifty thousand ops fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kit.layers import Layers
from kit.nets_attention import attention

from mlc.ir.core import Module, Value
from mlc.ir.dtypes import DType


def residual(ops: int) -> Module:
    """Convolution blocks on one residual stream: one class at two sites of every block."""
    net = Layers()
    x = net.conv(net.input("x", DType.F32, "N", 3, 4, 4), 3, 4)
    for _ in range(ops // 7):
        y = net.relu(net.norm(net.conv(x, 4, 4, 1), 4))
        x = net.relu(net.op("Add", [x, net.norm(net.conv(y, 4, 4, 1), 4)]))
    return net.done(net.head(x, 4))


def dense(ops: int) -> Module:
    """Dense blocks of four concatenations, with a transition after each."""
    net = Layers()
    x = net.conv(net.input("x", DType.F32, "N", 3, 4, 4), 3, 4)
    for _ in range(ops // 13):
        width = 4
        for _ in range(4):
            y = net.conv(net.relu(x), width, 2, 1)
            x, width = net.concat([x, y], 1), width + 2
        x = net.conv(x, width, 4, 1)
    return net.done(net.head(x, 4))


def transformer(ops: int) -> Module:
    """Encoder blocks: every projection is reshaped to heads and back."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 3, 8)
    x = net.dense(x, 8, 8)
    for _ in range(ops // 27):
        x = net.op("Add", [x, attention(net, net.layer_norm(x, 8), 8, (2, 4, 4), 3)])
        hidden = net.op("Gelu", [net.dense(net.layer_norm(x, 8), 8, 6)])
        x = net.op("Add", [x, net.dense(hidden, 6, 8)])
    return net.done(net.dense(x, 8, 3))


def refined_last(ops: int) -> Module:
    """One class over the whole chain that is cut and reshaped only at its end."""
    net = Layers()
    x = net.dense(net.input("x", DType.F32, "N", 12), 12, 12)
    for _ in range(ops // 3):
        x = net.op("Add", [x, net.dense(x, 12, 12)])
    x = net.op("Add", [net.concat([net.slice(x, 6, 12, 1), net.slice(x, 0, 6, 1)], 1), x])
    return net.done(net.dense(net.reshape(net.relu(net.reshape(x, -1, 4, 3)), -1, 12), 12, 3))


def peeled(ops: int) -> Module:
    """A position cut off the front of an axis again and again: the structure is as long as the chain."""
    net = Layers()
    count = ops // 2
    x: Value = net.op("MatMul", [net.input("x", DType.F32, "N", 3), net.weight(3, count + 2)])
    total = net.slice(x, 0, 1, 1)
    for left in range(count + 1, 1, -1):
        x = net.slice(x, 1, left + 1, 1)
        total = net.op("Add", [total, net.slice(x, 0, 1, 1)])
    return net.done(total)


CHAINS: Mapping[str, Callable[[int], Module]] = {f.__name__: f for f in (residual, dense, transformer, refined_last)}
