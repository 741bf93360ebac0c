"""Attention from its parts: encoders, fused and separate projections, biases per head, cross-attention."""

from __future__ import annotations

import numpy as np
from kit.layers import Built, Layers, image, tokens

from mlc.ir.core import Ints, Value
from mlc.ir.dtypes import DType


def heads(net: Layers, x: Value, length: int, count: int, inner: int) -> Value:
    """[N, length, count * inner] as [N, count, length, inner]."""
    return net.transpose(net.reshape(x, 0, length, count, inner), 0, 2, 1, 3)


def mix(net: Layers, q: Value, k: Value, v: Value, bias: Value | None = None) -> Value:
    """Softmax attention over [N, heads, length, inner]; a bias is added to the scores."""
    scores = net.op("MatMul", [q, net.transpose(k, 0, 1, 3, 2)])
    scores = net.scaled(scores, 0.5) if bias is None else net.op("Add", [scores, bias])
    return net.op("MatMul", [net.softmax(scores), v])


def merge(net: Layers, x: Value, length: int, wide: int) -> Value:
    return net.reshape(net.transpose(x, 0, 2, 1, 3), 0, length, wide)


def attention(
    net: Layers, x: Value, width: int, sizes: tuple[int, int, int], length: int, bias: Value | None = None
) -> Value:
    """Self attention over [N, length, width]; `sizes` are heads, width of queries and keys, width of values."""
    count, inner, outer = sizes
    q, k, v = (net.dense(x, width, count * n) for n in (inner, inner, outer))
    q, k, v = (
        heads(net, q, length, count, inner),
        heads(net, k, length, count, inner),
        heads(net, v, length, count, outer),
    )
    return net.dense(merge(net, mix(net, q, k, v, bias), length, count * outer), count * outer, width)


def bert() -> Built:
    """One encoder block over embedded tokens, position table included; pooled, classified."""
    net = Layers()
    width, length = 12, 6
    ids = net.input("ids", DType.I64, "N", length)
    x = net.op("Gather", [net.const(net.draw(20, width), "embedding"), ids], attrs={"axis": 0})
    x = net.layer_norm(net.op("Add", [x, net.const(net.draw(length, width), "positions")]), width)
    x = net.layer_norm(net.op("Add", [x, attention(net, x, width, (4, 5, 5), length)]), width)
    inner = net.op("Gelu", [net.dense(x, width, 40)])
    x = net.layer_norm(net.op("Add", [x, net.dense(inner, 40, width)]), width)
    pooled = net.op("ReduceMean", [x, net.ints(1)], attrs={"keepdims": 0})
    feeds = {"ids": np.random.default_rng(1).integers(0, 20, (2, length))}
    return net.done(net.linear(pooled, width, 3)), feeds


def vit() -> Built:
    """Patches by a strided convolution, a class token, one block with fused q, k, v."""
    net = Layers()
    width, heads, inner = 12, 3, 4
    x, feeds = image(net)
    attrs = {"kernel_shape": Ints((4, 4)), "strides": Ints((4, 4))}
    x = net.op("Conv", [x, net.weight(width, 3, 4, 4), net.vector(width)], attrs=attrs)
    x = net.transpose(net.reshape(x, 0, width, 4), 0, 2, 1)
    token = net.op("Expand", [net.const(net.draw(1, 1, width), "token"), net.ints(2, 1, width)])
    x = net.op("Add", [net.concat([token, x], 1), net.const(net.draw(5, width), "positions")])
    fused = net.reshape(net.dense(net.layer_norm(x, width), width, 3 * heads * inner), 2, 5, 3, heads, inner)
    fused = net.transpose(fused, 2, 0, 3, 1, 4)
    q, k, v = (net.gather(fused, i, 0) for i in range(3))
    scores = net.op("MatMul", [q, net.transpose(k, 0, 1, 3, 2)])
    mixed = net.op("MatMul", [net.softmax(scores), v])
    mixed = net.reshape(net.transpose(mixed, 0, 2, 1, 3), 2, 5, heads * inner)
    x = net.op("Add", [x, net.dense(mixed, heads * inner, width)])
    x = net.op("Add", [x, net.dense(net.op("Gelu", [net.dense(net.layer_norm(x, width), width, 20)]), 20, width)])
    first = net.gather(x, 0, 1)
    return net.done(net.linear(first, width, 4)), feeds


def fused_split() -> Built:
    """Queries, keys and values of one matrix, cut by Split before the heads are."""
    net = Layers()
    width, count, inner, length = 12, 3, 4, 5
    x, feeds = tokens(net, 6, length)
    x = net.dense(x, 6, width)
    parts = net.split(net.dense(net.layer_norm(x, width), width, 3 * count * inner), (count * inner,) * 3, 2)
    mixed = mix(net, *(heads(net, part, length, count, inner) for part in parts))
    x = net.op("Add", [x, net.dense(merge(net, mixed, length, count * inner), count * inner, width)])
    return net.done(net.dense(x, width, 3)), feeds


def alibi() -> Built:
    """Scores less a slope per head times the distance."""
    net = Layers()
    width, count, length = 12, 3, 5
    x, feeds = tokens(net, 6, length)
    x = net.dense(x, 6, width)
    slopes = net.const(net.rng.uniform(0.1, 1, (count, 1, 1)).astype(np.float32), "slopes")
    distance = np.abs(np.subtract.outer(np.arange(length), np.arange(length))).astype(np.float32)
    bias = net.op("Mul", [slopes, net.const(-distance, "distance")])
    x = net.op("Add", [x, attention(net, x, width, (count, 4, 7), length, bias)])
    return net.done(net.dense(x, width, 3)), feeds


def relative() -> Built:
    """A table of biases per bucket of distance and head (T5)."""
    net = Layers()
    width, count, length = 12, 3, 5
    x, feeds = tokens(net, 6, length)
    x = net.dense(x, 6, width)
    buckets = net.const(np.subtract.outer(np.arange(length), np.arange(length)) + length - 1, "buckets")
    table = net.const(net.draw(2 * length - 1, count), "table")
    bias = net.op("Unsqueeze", [net.transpose(net.op("Gather", [table, buckets]), 2, 0, 1), net.ints(0)])
    x = net.op("Add", [x, attention(net, net.rms_norm(x, width), width, (count, 4, 7), length, bias)])
    return net.done(net.dense(x, width, 3)), feeds


def cross_attention() -> Built:
    """An encoder of width 12 and a decoder of width 10 that attends to it."""
    net = Layers()
    memory, feeds = tokens(net, 6, 6, "source")
    x, more = tokens(net, 4, 4, "target")
    memory = net.dense(memory, 6, 12)
    memory = net.layer_norm(net.op("Add", [memory, attention(net, memory, 12, (2, 5, 7), 6)]), 12)
    x = net.dense(x, 4, 10)
    q = heads(net, net.dense(x, 10, 3 * 4), 4, 3, 4)
    k, v = heads(net, net.dense(memory, 12, 3 * 4), 6, 3, 4), heads(net, net.dense(memory, 12, 3 * 8), 6, 3, 8)
    x = net.op("Add", [x, net.dense(merge(net, mix(net, q, k, v), 4, 24), 24, 10)])
    return net.done(net.dense(net.layer_norm(x, 10), 10, 3)), feeds | more
