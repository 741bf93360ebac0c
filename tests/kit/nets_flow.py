"""Networks with bodies: If, Loop and Scan, nested, with weights that are captured or read in several places."""

from __future__ import annotations

import numpy as np
from kit.layers import F32, Built, Layers, rows

from mlc.ir.core import Value
from mlc.ir.dtypes import DType
from mlc.ir.types import tensor


def _choice(net: Layers, flag: Value, then: Layers, other: Layers) -> Value:
    return net.node("If", [flag], None, regions={"then_branch": then.graph, "else_branch": other.graph}).result


def branches() -> Built:
    """An If whose branches read captured values and yield the same width."""
    net = Layers()
    x, feeds = rows(net, 6)
    flag = net.input("flag", DType.BOOL)
    h = net.relu(net.linear(x, 6, 10))
    then, other = net.body("then_branch"), net.body("else_branch")
    for body in (then, other):
        body.output(body.relu(body.linear(h, 10, 12)))
    return net.done(net.linear(_choice(net, flag, then, other), 12, 5)), feeds | {"flag": np.array(True)}


def captured() -> Built:
    """Both branches of an If read one weight, which is transposed behind it: one tensor, three uses."""
    net = Layers()
    x, feeds = rows(net, 6)
    flag = net.input("flag", DType.BOOL)
    h, w = net.relu(net.linear(x, 6, 10)), net.weight(10, 12)
    then, other = net.body("then_branch"), net.body("else_branch")
    for body, kind in ((then, "Relu"), (other, "Tanh")):
        body.output(body.op(kind, [body.op("MatMul", [h, w])]))
    y = net.op("MatMul", [_choice(net, flag, then, other), net.transpose(w, 1, 0)])
    return net.done(net.linear(net.relu(y), 10, 5)), feeds | {"flag": np.array(True)}


def loops() -> Built:
    """A Loop that carries a hidden state and collects it."""
    net = Layers()
    x = net.input("x", F32, 4, 6)
    h = net.dense(x, 6, 8)
    body = net.body()
    body.argument(tensor(DType.I64))
    going = body.argument(tensor(DType.BOOL))
    state = body.argument(h.type)
    following = body.op("Tanh", [body.dense(state, 8, 8)])
    for value in (going, following, following):
        body.output(value)
    op = net.node("Loop", [net.const(np.int64(3)), None, h], None, regions={"body": body.graph}, count=2)
    last, every = op.results
    collected = net.op("ReduceSum", [net.dense(every, 8, 4), net.ints(0)], attrs={"keepdims": 0})
    feeds = {"x": np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)}
    return net.done(net.op("Add", [net.dense(last, 8, 4), collected])), feeds


def scans() -> Built:
    """A recurrent layer by hand: a Scan over time whose weights are captured, its states collected."""
    net = Layers()
    x = net.input("x", F32, 5, 2, 6)
    start, w, r, b = net.const(net.draw(2, 8), "h0"), net.weight(6, 8), net.weight(8, 8), net.vector(8)
    body = net.body()
    state, step = body.argument(tensor(F32, 2, 8)), body.argument(tensor(F32, 2, 6))
    total = body.op("Add", [body.op("MatMul", [step, w]), body.op("MatMul", [state, r])])
    following = body.op("Tanh", [body.op("Add", [total, b])])
    for value in (following, following):
        body.output(value)
    regions = {"body": body.graph}
    every = net.node("Scan", [start, x], None, {"num_scan_inputs": 1}, regions=regions, count=2).results[1]
    feeds = {"x": np.random.default_rng(1).standard_normal((5, 2, 6)).astype(np.float32)}
    return net.done(net.dense(every, 8, 4)), feeds


def nested() -> Built:
    """A Loop whose body holds an If: even steps take one layer, odd ones another; both read a bias from outside."""
    net = Layers()
    x = net.input("x", F32, 4, 6)
    h, bias = net.dense(x, 6, 8), net.vector(8)
    body = net.body()
    step, going, state = body.argument(tensor(DType.I64)), body.argument(tensor(DType.BOOL)), body.argument(h.type)
    even = body.op("Equal", [body.op("Mod", [step, body.const(np.int64(2))]), body.const(np.int64(0))])
    then, other = body.body("then_branch"), body.body("else_branch")
    for branch in (then, other):
        inner = branch.relu(branch.dense(state, 8, 9 if branch is then else 11))
        branch.output(branch.op("Add", [branch.dense(inner, 9 if branch is then else 11, 8), bias]))
    for value in (going, body.op("Tanh", [_choice(body, even, then, other)])):
        body.output(value)
    last = net.node("Loop", [net.const(np.int64(3)), None, h], None, regions={"body": body.graph}).result
    feeds = {"x": np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)}
    return net.done(net.dense(last, 8, 4)), feeds


def tied() -> Built:
    """An autoencoder whose decoder is its encoder transposed."""
    net = Layers()
    x, feeds = rows(net, 6)
    w = net.weight(6, 10)
    return net.done(net.op("MatMul", [net.op("Tanh", [net.op("MatMul", [x, w])]), net.transpose(w, 1, 0)])), feeds


def siamese() -> Built:
    """Two inputs through the same layers, one of them twice: a square weight whose two axes are one class."""
    net = Layers()
    first, feeds = rows(net, 6, name="a")
    second, more = rows(net, 6, name="b")
    w, bias, square = net.weight(6, 10), net.vector(10), net.weight(10, 10)

    def tower(x: Value) -> Value:
        x = net.relu(net.op("Add", [net.op("MatMul", [x, w]), bias]))
        for _ in range(2):
            x = net.op("Tanh", [net.op("MatMul", [x, square])])
        return x

    more = {name: values + 1 for name, values in more.items()}
    return net.done(net.linear(net.concat([tower(first), tower(second)], 1), 20, 3)), feeds | more
