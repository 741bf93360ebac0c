"""What rounding and scaling passes fold first: the same in a plan and in its application, scopes kept, never silent."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from kit.layers import Layers
from kit.net import Net
from kit.nets import NETS

from mlc.backends.ort import Session
from mlc.ir.core import Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.rewrite import Rewriter
from mlc.ir.text import print_module
from mlc.ir.verify import verify
from mlc.passes.base import Context, Scope
from mlc.passes.quantize.int4 import Int4
from mlc.passes.quantize.prepare import Prepared, prepare
from mlc.passes.quantize.weight_only import Weights
from mlc.passes.quantize.weights import computed_weights


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def normalized() -> Module:
    """Two convolutions, a batch normalization behind each."""
    net = Net()
    x = net.input("x", DType.F32, "N", 3, 8, 8)
    for index in range(2):
        x = net.op("Conv", [x, net.const(floats(index, 3, 3, 3, 3))])
        statistics = [net.const(floats(i, 3)) for i in (7, 8, 9)]
        x = net.op("BatchNormalization", [x, *statistics, net.const(np.abs(floats(10, 3)) + 1)])
    return net.done(x)


@pytest.mark.parametrize("name", NETS)
def test_a_plan_sees_what_its_application_makes(name: str) -> None:
    module, feeds = NETS[name]()
    before = print_module(module)
    planned = Prepared.of(module, Context(), by="int8")
    assert print_module(module) == before
    applied = module.clone()
    prepare(Rewriter(applied, by="int8"), Context())
    assert print_module(applied) == print_module(planned.module)
    verify(applied)
    found = Session(applied, optimize=False).run(feeds)
    for output, wanted in Session(module, optimize=False).run(feeds).items():
        np.testing.assert_allclose(found[output], wanted, rtol=1e-3, atol=1e-4)
    again = Prepared.of(planned.module, Context(), by="int8")
    assert not again.notes


def test_batch_normalizations_are_folded_and_it_says_so() -> None:
    prepared = Prepared.of(normalized(), Context(), by="int8")
    assert [op.kind for op in prepared.module.walk()] == ["Conv", "Conv"]
    assert prepared.notes == ("folded first, 4 -> 2 ops: fold-affine x2",)


def test_what_replaces_an_op_is_in_the_scope_of_that_op() -> None:
    module = normalized()
    first, norm, second, last = (op.name for op in module.walk())
    on = Prepared.of(module, Context(scope=Scope(on=frozenset({first, norm}))), by="int8")
    assert [op.kind for op in on.module.walk()] == ["Conv", "Conv", "BatchNormalization"]
    assert [on.ctx.scope.allows(op) for op in on.module.walk()] == [True, False, False]
    but = Prepared.of(module, Context(scope=Scope(but=frozenset({second, last}))), by="int8")
    assert [but.ctx.scope.allows(op) for op in but.module.walk()] == [True, False, False]
    assert [but.ctx.scope.excludes(op) for op in but.module.walk()] == [False, True, True]


GATES = (1, 0, 2, 3)  # the order of gates in one framework, by that in another


def reordered(net: Layers, weight: Value, size: int) -> Value:
    """Gates in another order, as exports of recurrent layers hold them: Slices, joined, with an axis in front."""
    parts = [net.slice(weight, g * size, (g + 1) * size, 0) for g in GATES]
    return net.op("Unsqueeze", [net.concat(parts, 0), net.ints(0)])


def recurrent(*, shared: bool) -> Module:
    """An LSTM whose weights are computed from constants. `shared`: those go elsewhere, too."""
    net, size = Layers(), 64
    x = net.input("x", DType.F32, 5, "N", size)
    weights = [net.weight(4 * size, size) for _ in range(2)]
    operands = [reordered(net, w, size) for w in weights]
    bias = net.const(floats(3, 1, 8 * size))
    y = net.node("LSTM", [x, *operands, bias], attrs={"hidden_size": size}).results[0]
    if not shared:
        return net.done(y)
    other = net.input("other", DType.F32, 4 * size, size)
    return net.done(y, *(net.op("Add", [other, w]) for w in weights))


FEEDS = {"x": floats(5, 5, 64 * 4, 64)}


@pytest.mark.parametrize("step", [Int4(scale="f32"), Weights(bits=(4, 8), saving=1.0, scale="f32")], ids=str)
def test_weights_that_are_computed_from_constants_are_folded_first(step: Int4) -> None:
    module = recurrent(shared=False)
    before = print_module(module)
    made = step(module)
    assert print_module(module) == before
    verify(made)
    report = made.history[-1]
    assert len(report.done) == 2
    assert any(note.startswith("folded first") for note in report.notes)
    assert [op.kind for op in made.walk()] == ["DequantizeLinear", "DequantizeLinear", "LSTM"]
    found, wanted = (Session(m, optimize=False).run(FEEDS) for m in (made, module))
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=0.05)


def test_what_leads_to_no_weight_stays() -> None:
    """A batch normalization behind a convolution, and a weight of an operator out of scope, are left as they are."""
    net = Net()
    halves = [net.const(floats(i, 8, 64)) for i in range(4)]
    made = net.op("Conv", [net.input("x", DType.F32, "N", 3, 8, 8), net.const(floats(5, 3, 3, 3, 3))])
    statistics = [net.const(floats(i, 3)) for i in (7, 8, 9)]
    made = net.op("BatchNormalization", [made, *statistics, net.const(np.abs(floats(10, 3)) + 1)])
    chosen = []
    for index in (0, 2):
        weight = net.op("Concat", halves[index : index + 2], attrs={"axis": 0})
        product = net.op("MatMul", [net.input(f"h{index}", DType.F32, 2, 16), weight])
        net.output(product)
        chosen.append([value.op.name for value in (weight, product) if value.op is not None])
    module = net.done(made)
    step, scope = Weights(bits=8, scale="f32"), Context(scope=Scope(on=frozenset(chosen[0])))
    for ctx, concats in ((Context(), 0), (scope, 1)):
        result = step(module, ctx)
        kinds = Counter(op.kind for op in result.walk())
        assert kinds["BatchNormalization"] == kinds["Conv"] == 1
        assert kinds["Concat"] == concats
        verify(result)


def test_what_is_computed_from_data_or_grows_is_no_weight() -> None:
    assert not list(computed_weights(NETS["bert"]()[0]))
    assert list(computed_weights(recurrent(shared=False)))
    plan = Int4().plan(recurrent(shared=True), Context())
    assert not plan.folded
    assert not plan.sites


@pytest.mark.parametrize("name", NETS)
def test_without_such_weights_nothing_is_folded(name: str) -> None:
    module, _ = NETS[name]()
    made = Weights(bits=8, scale="f32")(module)
    assert not list(computed_weights(made))  # codes that are widened are none
    if not list(computed_weights(module)):
        assert not made.history[-1].plan.folded
        kept = {op.name: op.kind for op in made.walk()}
        assert all(kept.get(op.name) == op.kind for op in module.walk())
