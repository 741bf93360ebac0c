"""A state machine on the IR: build a random graph, mutate it through the rewriter, and after every step verify; at the
end print, parse, clone and compare, export, check with ONNX and run: ONNX Runtime must agree with the reference.

The default run takes seconds. `pytest -m slow tests/test_ir_machine.py` runs for ten minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from kit.graphs import feeds, modules

from mlc.ir.constants import Constant
from mlc.ir.core import Graph, Module, Op, Value
from mlc.ir.dtypes import DType
from mlc.ir.equal import difference
from mlc.ir.errors import MlcError
from mlc.ir.evaluate import evaluate
from mlc.ir.parse import parse_module
from mlc.ir.rewrite import Rewriter
from mlc.ir.text import payloads, print_module
from mlc.ir.types import TensorType, tensor
from mlc.ir.verify import verify

F32 = DType.F32
UNARY = ("Relu", "Neg", "Abs", "Tanh", "Identity", "Sigmoid")


def scope_at(graph: Graph, anchor: Op) -> Iterator[Value]:
    """The values that an op in front of `anchor` may read, constants aside."""
    here: Graph | None = graph
    while here is not None:
        yield from here.inputs
        for op in here.ops:
            if op is anchor:
                break
            yield from op.results
        owner = here.owner
        here, anchor = (owner.parent, owner) if owner is not None else (None, anchor)


def is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype is F32 and bool(value.name)


class IrMachine(RuleBasedStateMachine):
    """Random modules under random sequences of rewriter calls."""

    def __init__(self) -> None:
        super().__init__()
        self.module: Module | None = None

    @initialize(module=modules(max_ops=6))
    def build(self, module: Module) -> None:
        self.module = module
        self.rw = Rewriter(module, by="machine")

    def place(self, data: st.DataObject) -> tuple[Graph, Op, list[Value]]:
        """A graph, an op in it (or its terminator), and the float values readable there."""
        assert self.module is not None
        graph = data.draw(st.sampled_from(list(self.module.graph.graphs())))
        anchor = data.draw(st.sampled_from([*graph.ops, graph.ret]))
        values = [v for v in (*scope_at(graph, anchor), *self.module.constants.values()) if is_float(v)]
        return graph, anchor, values

    @rule(data=st.data(), kind=st.sampled_from(UNARY))
    def insert(self, data: st.DataObject, kind: str) -> None:
        _, anchor, values = self.place(data)
        if values:
            self.rw.insert(kind, [data.draw(st.sampled_from(values))], before=anchor)

    @rule(data=st.data(), array=st.sampled_from([0.5, -1.0]))
    def insert_with_a_constant(self, data: st.DataObject, array: float) -> None:
        _, anchor, values = self.place(data)
        if values:
            x = data.draw(st.sampled_from(values))
            self.rw.insert("Add", [x, self.rw.constant(np.float32(array), "k")], before=anchor)

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """Operands that do not fit: nothing may be left behind."""
        _, anchor, _ = self.place(data)
        a = self.rw.constant(np.ones((2, 3), np.float32), "odd")
        before = self.module.clone()  # type: ignore[union-attr]
        with pytest.raises(MlcError):
            self.rw.insert("MatMul", [a, a], before=anchor)
        with pytest.raises(MlcError):
            self.rw.insert("Relu", [a], before=anchor, results=[tensor(F32, 2, 4)])
        assert difference(before, self.module) is None  # type: ignore[arg-type]
        self.rw.drop_constant(a)

    @rule(data=st.data())
    def redirect(self, data: st.DataObject) -> None:
        """Let one operand read another value of the same type."""
        _, anchor, values = self.place(data)
        slots = [i for i, v in enumerate(anchor.operands) if v is not None and is_float(v)]
        if anchor is self.module.graph.ret:  # type: ignore[union-attr]
            slots = [i for i in slots if not self.passes_on(i)]
        if slots:
            slot = data.draw(st.sampled_from(slots))
            old = anchor.operands[slot]
            assert old is not None
            self.rw.set_operand(anchor, slot, data.draw(st.sampled_from([v for v in values if v.type == old.type])))

    def passes_on(self, index: int) -> bool:
        """Whether an output is an input under its own name: fixed by the interface."""
        graph = self.module.graph  # type: ignore[union-attr]
        return graph.output_names[index] in [v.name for v in graph.inputs]

    @rule(data=st.data())
    def duplicate(self, data: st.DataObject) -> None:
        """Put an equal op in the place of an op."""
        _, anchor, _ = self.place(data)
        if not anchor.is_terminator and not anchor.regions:
            types = [v.type for v in anchor.results]
            twin = self.rw.insert(anchor.kind, anchor.operands, anchor.attrs, before=anchor, results=types)
            self.rw.replace(anchor, twin.results)

    @rule(data=st.data())
    def substitute(self, data: st.DataObject) -> None:
        """Let everything read an earlier value of the same type."""
        _, anchor, values = self.place(data)
        if len(anchor.results) == 1:
            fitting = [v for v in values if v.type == anchor.result.type]
            if fitting:
                self.rw.replace(anchor, [data.draw(st.sampled_from(fitting))])

    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        dead = [op for op in self.module.walk() if not any(v.uses for v in op.results)]  # type: ignore[union-attr]
        if dead:
            self.rw.erase(data.draw(st.sampled_from(dead)))

    @rule()
    def drop_constants(self) -> None:
        for value in list(self.module.constants.values()):  # type: ignore[union-attr]
            if not value.uses:
                self.rw.drop_constant(value)

    @rule(data=st.data(), name=st.text(max_size=6))
    def rename(self, data: st.DataObject, name: str) -> None:
        values = [v for v in self.module.values() if v.graph is not self.module.graph]  # type: ignore[union-attr]
        if values:
            self.rw.rename(data.draw(st.sampled_from(values)), self.rw.fresh_name(name))

    @rule(data=st.data(), slope=st.sampled_from([0.0, 0.25, None]))
    def set_attribute(self, data: st.DataObject, slope: float | None) -> None:
        _, anchor, values = self.place(data)
        if values:
            made = self.rw.insert("LeakyRelu", [data.draw(st.sampled_from(values))], {"alpha": 0.5}, before=anchor)
            self.rw.set_attr(made, "alpha", slope)

    @rule(data=st.data(), scale=st.sampled_from([0.0, 0.5]))
    def change_a_constant(self, data: st.DataObject, scale: float) -> None:
        held = [v for v in self.module.constants.values() if is_float(v)]  # type: ignore[union-attr]
        if held:
            value = data.draw(st.sampled_from(held))
            assert value.constant is not None
            self.rw.set_constant(value, Constant.of((value.constant.array() * scale).astype(np.float32)))

    @rule(data=st.data(), decided=st.booleans())
    def branch(self, data: st.DataObject, decided: bool) -> None:
        """Put an If in the place of an op: it computes the same in one branch and something else in the other."""
        _, anchor, _ = self.place(data)
        if anchor.is_terminator or anchor.regions or len(anchor.results) != 1 or not is_float(anchor.result):
            return
        regions = {}
        for name in ("then_branch", "else_branch"):
            body = self.rw.body(name=name)
            inner = self.rw.insert(
                anchor.kind, anchor.operands, anchor.attrs, before=body, origin=anchor, results=[anchor.result.type]
            )
            if name == "else_branch":
                inner = self.rw.insert("Neg", [inner.result], before=body, origin=anchor)
            regions[name] = self.rw.yields(body, [inner.result])
        condition = self.rw.constant(np.bool_(decided), "condition")
        made = self.rw.insert("If", [condition], before=anchor, regions=regions, results=[anchor.result.type])
        self.rw.replace(anchor, [made.result])

    @rule(data=st.data())
    def inline(self, data: st.DataObject) -> None:
        branches = [op for op in self.module.walk() if op.kind == "If"]  # type: ignore[union-attr]
        if branches:
            op = data.draw(st.sampled_from(branches))
            region = op.regions[data.draw(st.sampled_from(sorted(op.regions)))]
            self.rw.replace(op, self.rw.inline(region, [], before=op))

    @rule()
    def through_text(self) -> None:
        """Go on with what was printed and parsed."""
        assert self.module is not None
        printed = print_module(self.module)
        parsed = parse_module(printed, payloads(self.module))
        assert difference(self.module, parsed) is None
        assert print_module(parsed) == printed
        self.module, self.rw = parsed, Rewriter(parsed, by="parsed")

    @rule()
    def through_a_clone(self) -> None:
        """Go on with a copy; what happens to it must not reach the original."""
        assert self.module is not None
        twin = self.module.clone()
        assert difference(self.module, twin) is None
        self.module, self.rw = twin, Rewriter(twin, by="cloned")

    @precondition(lambda self: self.module is not None)
    @invariant()
    def sound(self) -> None:
        assert self.module is not None
        verify(self.module)

    def teardown(self) -> None:
        if self.module is not None:
            self.through_text()
            self.through_a_clone()
            check_export(self.module)


def check_export(module: Module) -> None:
    """The exported file is valid, loads again, and ONNX Runtime computes what the reference does."""
    import onnx

    from mlc.backends.onnx import to_proto
    from mlc.backends.ort import Session
    from mlc.frontends.onnx import load

    proto = to_proto(module)
    onnx.checker.check_model(proto)
    verify(load(proto))
    given = feeds(module)
    expected = evaluate(module, given)
    if sums_nothing(module, given):
        return
    found = Session(proto.SerializeToString(), optimize=False).run(given)
    for name, wanted in zip(module.graph.output_names, expected):
        assert same(found[name], wanted), f"{name}: {found[name]!r} against {wanted!r}"


def sums_nothing(module: Module, given: Mapping[str, np.ndarray[Any, Any]]) -> bool:
    """Whether a ReduceSum may get a tensor without elements: ONNX Runtime 1.31.1 returns that as it is."""
    sums = [op for op in module.walk() if op.kind == "ReduceSum"]
    known = (op.operands[0].type for op in sums if op.operands[0] is not None)
    return bool(sums) and (
        any(0 in getattr(kind, "shape", ()) for kind in known) or any(a.size == 0 for a in given.values())
    )


def same(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(found, wanted))
    scale = float(np.max(np.abs(wanted[np.isfinite(wanted)]), initial=1.0))
    return bool(np.allclose(found, wanted, rtol=0, atol=1e-5 * scale, equal_nan=True))


QUIET = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)


def test_random_rewriting_breaks_nothing() -> None:
    fast = settings(max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=QUIET)
    run_state_machine_as_test(IrMachine, settings=fast)


@pytest.mark.slow
def test_random_rewriting_breaks_nothing_in_ten_minutes() -> None:
    end = time.monotonic() + 600
    long = settings(
        max_examples=200,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=QUIET,
        phases=(Phase.generate, Phase.shrink),
    )
    while time.monotonic() < end:
        run_state_machine_as_test(IrMachine, settings=long)
