"""Owners of values in codes: a value leaves its codes exactly when all of its owners have left theirs."""

from __future__ import annotations

import itertools

import pytest
from kit.layers import Layers

from mlc.ir.core import Ints, Module, Op
from mlc.ir.dtypes import DType
from mlc.passes.quantize.int8.owners import owners
from mlc.passes.quantize.int8.placement import place


def residual() -> Module:
    """conv -> relu -> (conv -> conv) + skip -> conv -> sigmoid, and a pool between."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 3, 8, 8)
    h = net.relu(net.conv(x, 3, 4))
    y = net.conv(net.relu(net.conv(h, 4, 4)), 4, 4)
    joined = net.op("Add", [y, h])
    pooled = net.op("MaxPool", [joined], attrs={"kernel_shape": Ints((2, 2))})
    return net.done(net.op("Tanh", [net.conv(pooled, 4, 5)]))


def blocks() -> Module:
    """Two residual additions in a row, each with a Relu behind it, before a convolution."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 3, 8, 8)
    a, b, c = (net.conv(x, 3, 4) for _ in range(3))
    inner = net.relu(net.op("Add", [a, b]))
    outer = net.relu(net.op("Add", [inner, c]))
    return net.done(net.op("Tanh", [net.conv(outer, 4, 5)]))


def chain() -> Module:
    net = Layers()
    x = net.input("x", DType.F32, "N", 8)
    return net.done(net.dense(net.op("Tanh", [net.dense(x, 8, 8)]), 8, 4))


def weighted(module: Module) -> list[Op]:
    return [op for op in module.graph.ops if op.kind in ("Conv", "MatMul", "Gemm")]


def in_codes(module: Module, static: list[Op]) -> set[str]:
    return {v.name for c in place(module.graph, static, lambda op: True).classes for v in c.values}


@pytest.mark.parametrize("make", [residual, blocks, chain])
def test_a_value_that_leaves_its_codes_has_no_owner_left(make: object) -> None:
    module: Module = make()  # type: ignore[operator]
    ops = weighted(module)
    placement = place(module.graph, ops, lambda op: True)
    found = {v.name: set(o) for v, o in owners(placement, ops).items()}
    assert set(found) == in_codes(module, ops)
    assert all(found.values()), "somebody is behind every value"
    for count in range(len(ops) + 1):
        for static in itertools.combinations(ops, count):
            left = in_codes(module, list(static))
            for value in left:
                assert found[value] & set(static), f"{value} is in codes for {static}, and none of them owns it"


def test_what_is_read_or_made_directly_has_these_owners() -> None:
    module = residual()
    ops = weighted(module)
    found = owners(place(module.graph, ops, lambda op: True), ops)
    first, second, third, last = ops
    names = {v.name: o for v, o in found.items()}
    assert names["x"] == (first,)
    assert set(names[second.operands[0].name]) == {first, second}  # type: ignore[union-attr]
    pooled = last.operands[0]
    assert pooled is not None
    assert names[pooled.name] == (last,)
    joined = pooled.op.operands[0]  # type: ignore[union-attr]
    assert names[joined.name] == (last,), "what lies between others belongs to those behind"  # type: ignore[union-attr]
    assert set(names[third.results[0].name]) == {third, last}
    assert set(names[last.results[0].name]) == {last}


def test_what_an_addition_with_a_clamp_behind_it_reads_belongs_to_those_behind_the_clamp() -> None:
    module = blocks()
    ops = weighted(module)
    first, second, third, last = ops
    found = {v.name: o for v, o in owners(place(module.graph, ops, lambda op: True), ops).items()}
    inner, outer = (op.results[0].name for op in module.graph.ops if op.kind == "Relu")
    assert found[inner] == found[outer] == (last,)
    assert [set(found[op.results[0].name]) for op in (first, second, third)] == [
        {op, last} for op in (first, second, third)
    ]
