"""The core: use lists, the list of ops under mutation, clones."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kit.graphs import modules
from kit.net import Net

from mlc.ir.core import Graph, Ints, Loc, Module, Op, Value
from mlc.ir.dtypes import DType
from mlc.ir.equal import difference
from mlc.ir.rewrite import Rewriter
from mlc.ir.types import tensor
from mlc.ir.verify import verify

F32 = DType.F32


def chain(length: int) -> tuple[Net, list[Op]]:
    net = Net()
    value = net.input("x", F32, 2)
    made = []
    for _ in range(length):
        made.append(net.node("Relu", [value], [value.type]))
        value = made[-1].result
    net.done(value)
    return net, made


def test_uses_follow_operands() -> None:
    net = Net()
    x, y = net.input("x", F32, 2), net.input("y", F32, 2)
    op = net.node("Add", [x, x], [x.type])
    net.done(op.result)
    assert [u.slot for u in x.uses] == [0, 1]
    assert x.users == (op,)
    op._set_operand(0, y)
    op._append_operand(None)
    assert [u.slot for u in x.uses] == [1]
    assert y.users == (op,)
    assert op.operands == (y, x, None)
    assert op.operand(7) is None
    assert op.result.is_output
    assert not x.is_output
    op._drop_operands(keep=1)
    assert op.operands == (y,)
    assert not x.uses


@given(st.data())
def test_iterating_survives_mutation(data: st.DataObject) -> None:
    """What is inserted behind the current op is visited, what is erased is not; every op at most once."""
    net, made = chain(data.draw(st.integers(0, 6)))
    graph, elsewhere = net.graph, Graph("elsewhere")
    due = dict.fromkeys(made)
    seen: list[Op] = []
    for op in graph.ops:
        assert op.parent is graph
        assert op not in seen
        seen.append(op)
        due.pop(op, None)
        behind: list[Op] = []  # inserted during this step
        for _ in range(data.draw(st.integers(0, 2)) if len(seen) < 20 else 0):
            living = list(graph.ops)
            action = data.draw(st.sampled_from(["insert", "erase", "move"]))
            if action == "insert":
                at = data.draw(st.integers(0, len(living)))
                new = Op("Relu")
                graph._insert(new, living[at] if at < len(living) else None)
                if op.parent is graph and at > living.index(op):
                    behind.append(new)
            elif living:
                gone = data.draw(st.sampled_from(living))
                graph._unlink(gone)
                due.pop(gone, None)
                behind = [o for o in behind if o is not gone]
                if gone is op and action == "move":
                    elsewhere._insert(gone)
                    behind.clear()
        due.update(dict.fromkeys(behind))
    assert not due


def test_walking_enters_bodies_in_order_and_skips_what_was_erased() -> None:
    net = Net()
    x = net.input("x", F32, 2)
    flag = net.const(np.bool_(True))
    regions = {}
    for name in ("then_branch", "else_branch"):
        body = net.body(name)
        body.output(body.op("Relu", [x], [x.type]))
        regions[name] = body.graph
    branch = net.node("If", [flag], [x.type], regions=regions)
    module = net.done(net.op("Neg", [x], [x.type]))
    assert [op.kind for op in module.walk()] == ["If", "Relu", "Relu", "Neg"]
    assert [g.name for g in module.graph.graphs()] == ["net", "then_branch", "else_branch"]
    assert module.graph.encloses(regions["then_branch"])
    assert not regions["then_branch"].encloses(module.graph)
    rw = Rewriter(module)
    seen = []
    for op in module.walk():
        seen.append(op.kind)
        if op is branch:
            rw.erase(op)
    assert seen == ["If", "Neg"]
    assert x.users == (next(module.graph.ops),)


@given(modules())
def test_a_clone_is_equal_and_independent(module: Module) -> None:
    before = module.clone()
    twin = module.clone()
    assert difference(module, twin) is None
    verify(twin)
    assert not {id(v) for v in module.values()} & {id(v) for v in twin.values()}
    assert all(twin.constants[n].constant is v.constant for n, v in module.constants.items())
    for op in list(twin.graph.ops):
        op._drop_operands()
        op._attrs["broken"] = 1
    twin.meta.properties["k"] = "v"
    twin.constants.clear()
    assert difference(before, module) is None
    verify(module)


def test_locations_grow_by_the_passes_that_touch() -> None:
    loc = Loc("/conv1").touched("prune").touched("prune").touched("").touched("int4")
    assert loc == Loc("/conv1", ("prune", "int4"))
    assert str(loc) == "/conv1 < prune < int4"
    assert str(Loc()) == "?"


def test_kinds_and_domains() -> None:
    op = Op("com.microsoft::MatMulNBits", [], {"pads": Ints((1, 2))}, [Value(tensor(F32), "y")])
    assert (op.domain, op.op_type) == ("com.microsoft", "MatMulNBits")
    assert Op("Relu").domain == ""
    assert op.attrs["pads"] == (1, 2)
    assert op.result.name == "y"


def test_building_is_linear() -> None:
    start = time.perf_counter()
    _, made = chain(20_000)
    built = time.perf_counter() - start
    assert len(made) == 20_000
    assert built < 2  # measured 0.15 s; a quadratic step would take minutes
