"""Decoders: grouped-query attention with and without rotary embedding, gated layers, experts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from kit.layers import Built, Layers, tokens
from kit.nets_attention import heads, merge, mix

from mlc.ir.core import Value
from mlc.ir.dtypes import DType

LENGTH = 5
Rotate = Callable[[Layers, Value, Value, Value, int], Value]


def _halves(net: Layers, x: Value, cos: Value, sin: Value, inner: int) -> Value:
    """Rotary embedding of the first half of the positions with the second."""
    low, high = net.slice(x, 0, inner // 2, -1), net.slice(x, inner // 2, inner, -1)
    turned = net.concat([net.op("Neg", [high]), low], -1)
    return net.op("Add", [net.op("Mul", [x, cos]), net.op("Mul", [turned, sin])])


def _pairs(net: Layers, x: Value, cos: Value, sin: Value, inner: int) -> Value:
    """Rotary embedding of even positions with odd ones, stacked again."""
    even, odd = (net.slice(x, start, 1 << 40, -1, 2) for start in (0, 1))
    first = net.op("Sub", [net.op("Mul", [even, cos]), net.op("Mul", [odd, sin])])
    second = net.op("Add", [net.op("Mul", [even, sin]), net.op("Mul", [odd, cos])])
    both = net.concat([net.op("Unsqueeze", [part, net.ints(-1)]) for part in (first, second)], -1)
    return net.reshape(both, 0, 0, 0, inner)


def _repeated(net: Layers, x: Value, kv: int, repeat: int, inner: int) -> Value:
    """Every key and value head for `repeat` heads of queries."""
    wide = net.op("Expand", [net.op("Unsqueeze", [x, net.ints(2)]), net.ints(1, kv, repeat, LENGTH, inner)])
    return net.reshape(wide, 0, kv * repeat, LENGTH, inner)


def _decoder(rotate: Rotate | None, *, kv: int, repeat: int, inner: int) -> Built:
    """RMS norm by hand, grouped-query attention, gated MLP, embedding tied to the head."""
    net = Layers()
    width, ff, vocabulary = 48, 64, 11
    ids = net.input("ids", DType.I64, "N", LENGTH)
    table = net.const(net.draw(vocabulary, width), "embedding")
    x = net.op("Gather", [table, ids], attrs={"axis": 0})
    angles = inner // 2 if rotate is _pairs else inner
    cos, sin = (net.const(net.draw(LENGTH, angles), name) for name in ("cos", "sin"))

    def project(v: Value, count: int) -> Value:
        return heads(net, net.op("MatMul", [v, net.weight(width, count * inner)]), LENGTH, count, inner)

    h = net.rms_norm(x, width)
    q, k, v = project(h, kv * repeat), project(h, kv), project(h, kv)
    if rotate is not None:
        q, k = (rotate(net, part, cos, sin, inner) for part in (q, k))
    mixed = mix(net, q, _repeated(net, k, kv, repeat, inner), _repeated(net, v, kv, repeat, inner))
    merged = merge(net, mixed, LENGTH, kv * repeat * inner)
    x = net.op("Add", [x, net.op("MatMul", [merged, net.weight(kv * repeat * inner, width)])])
    h = net.rms_norm(x, width)
    gate, up = (net.op("MatMul", [h, net.weight(width, ff)]) for _ in range(2))
    gated = net.op("Mul", [net.op("Mul", [gate, net.op("Sigmoid", [gate])]), up])
    x = net.op("Add", [x, net.op("MatMul", [gated, net.weight(ff, width)])])
    logits = net.op("MatMul", [net.rms_norm(x, width), net.transpose(table, 1, 0)])
    return net.done(logits), {"ids": np.random.default_rng(1).integers(0, vocabulary, (2, LENGTH))}


def gqa_decoder() -> Built:
    return _decoder(None, kv=2, repeat=3, inner=4)


def rope_decoder() -> Built:
    return _decoder(_halves, kv=2, repeat=3, inner=4)


def rope_interleaved() -> Built:
    return _decoder(_pairs, kv=2, repeat=3, inner=10)


def _experts(net: Layers, x: Value, weights: Value, count: int, hidden: int) -> Value:
    """Every expert on every token, summed by `weights` [N, length, experts]; their matrices are stacked."""
    inner = net.relu(net.op("MatMul", [net.op("Unsqueeze", [x, net.ints(1)]), net.weight(count, 12, hidden)]))
    each = net.op("MatMul", [inner, net.weight(count, hidden, 12)])
    scale = net.op("Unsqueeze", [net.transpose(weights, 0, 2, 1), net.ints(-1)])
    return net.op("ReduceSum", [net.op("Mul", [each, scale]), net.ints(1)], attrs={"keepdims": 0})


def experts_dense() -> Built:
    """A mixture of experts that uses all of them: their order is free."""
    net = Layers()
    x, feeds = tokens(net, 6, LENGTH)
    x = net.dense(x, 6, 12)
    gate = net.softmax(net.op("MatMul", [x, net.weight(12, 4)]))
    x = net.op("Add", [x, _experts(net, x, gate, 4, 10)])
    return net.done(net.dense(x, 12, 3)), feeds


def experts_top() -> Built:
    """A mixture of the two best experts, all computed: TopK reads their order, their hidden widths are free."""
    net = Layers()
    x, feeds = tokens(net, 6, LENGTH)
    x = net.dense(x, 6, 12)
    gate = net.softmax(net.op("MatMul", [x, net.weight(12, 4)]))
    best, which = net.node("TopK", [gate, net.ints(2)], None, {"axis": -1}, count=2).results
    nothing = net.op("Mul", [gate, net.const(np.float32(0))])
    weights = net.op("ScatterElements", [nothing, which, best], attrs={"axis": -1})
    x = net.op("Add", [x, _experts(net, x, weights, 4, 10)])
    return net.done(net.dense(x, 12, 3)), feeds


def experts_apart() -> Built:
    """Three experts with matrices and widths of their own, combined by Einsum and picked weights."""
    net = Layers()
    x, feeds = tokens(net, 6, LENGTH)
    x = net.dense(x, 6, 12)
    gate = net.softmax(net.op("MatMul", [x, net.weight(12, 3)]))
    total = x
    for number, hidden in enumerate((7, 8, 9)):
        inner = net.relu(net.op("Einsum", [x, net.weight(12, hidden)], attrs={"equation": "nld,dh->nlh"}))
        outer = net.op("Einsum", [inner, net.weight(hidden, 12)], attrs={"equation": "nlh,hd->nld"})
        share = net.op("Unsqueeze", [net.gather(gate, number, -1), net.ints(-1)])
        total = net.op("Add", [total, net.op("Mul", [outer, share])])
    return net.done(net.dense(total, 12, 3)), feeds
