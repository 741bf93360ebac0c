"""The simplify pass: sharing, dead code, layouts, control flow, scope, and the laws that hold for every module."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from kit.graphs import feeds, modules
from kit.net import Net

from mlc.backends.onnx import to_proto
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.ir.evaluate import evaluate
from mlc.ir.rewrite import Rewriter
from mlc.ir.text import print_module
from mlc.passes.base import Context, Scope
from mlc.passes.rewrite.catalogue import RULES
from mlc.passes.rewrite.driver import Driver
from mlc.passes.rewrite.pattern import anything, node
from mlc.passes.rewrite.rule import Rule
from mlc.passes.rewrite.simplify import Simplify

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
GOLDEN = Path(__file__).parent / "golden" / "simplify"


def kinds(module: Module) -> list[str]:
    return [op.kind for op in module.walk()]


def rewrites(module: Module, **options: bool) -> dict[str, int]:
    return {r.rule: r.times for r in Simplify(**options).plan(module, Context()).rewrites}


# -- laws ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(module=modules())
def test_random_modules_stay_equal(module: Module) -> None:
    feed = feeds(module, seed=1)
    expected = evaluate(module, feed)
    text, size = print_module(module), to_proto(module).ByteSize()
    simple = Simplify()(module)
    assert print_module(module) == text, "the pass works on a copy"
    for got, wanted in zip(evaluate(simple, feed), expected, strict=True):
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert simple.graph.output_names == module.graph.output_names
    assert [v.name for v in simple.graph.inputs] == [v.name for v in module.graph.inputs]
    # An output that becomes an input or the twin of another is written as an Identity, whose name is a little longer.
    assert to_proto(simple).ByteSize() <= size + 48 * len(module.graph.outputs)
    assert rewrites(simple) == {}
    assert print_module(Simplify()(module)) == print_module(simple)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(module=modules())
def test_nothing_in_scope_changes_nothing_but_dead_code(module: Module) -> None:
    nothing = Context(scope=Scope(on=frozenset()))
    assert {r.rule for r in Simplify().plan(module, nothing).rewrites} <= {"dead-code", "equal-constants"}


def test_a_plan_is_plain_data_and_counts_what_is_done() -> None:
    net = Net()
    x = net.input("x", F32, 4)
    module = net.done(net.op("Relu", [net.op("Identity", [net.op("Identity", [x])])]))
    plan = Simplify().plan(module, Context())
    data = json.loads(json.dumps(plan.to_json()))
    assert (data["ops_before"], data["ops_after"]) == (3, 1)
    assert data["rewrites"] == [{"rule": "identity", "times": 2, "removed": 2, "added": 0, "saved_bytes": 0}]
    report = Simplify()(module).history[-1]
    assert [(d.site, d.before) for d in report.done] == [("identity", "2 ops at 2 sites")]


def test_rules_that_undo_each_other_are_named() -> None:
    there = Rule("there", "", node("Relu", anything("x")), lambda s: [s.new("Abs", [s["x"]])])
    back = Rule("back", "", node("Abs", anything("x")), lambda s: [s.new("Relu", [s["x"]])])
    net = Net()
    module = net.done(net.op("Relu", [net.input("x", F32, 4)]))
    driver = Driver(Rewriter(module), [there, back], lambda op: True)
    with pytest.raises(RuntimeError, match=r"does not come to an end: rule '(there|back)'"):
        driver.settle()


def test_rule_names_and_docs() -> None:
    for rule in RULES:
        assert rule.name == rule.name.lower()
        assert rule.doc.endswith(".")
        assert not rule.asks or hasattr(Simplify(), rule.asks)


def test_the_page_lists_every_rule() -> None:
    page = (Path(__file__).parent.parent / "docs" / "passes" / "simplify.md").read_text()
    for rule in RULES:
        assert f"| `{rule.name}` | {rule.doc}" in page, rule.name
    assert all(f"| `{field}` |" in page for field in (f.name for f in fields(Simplify)))


# -- sharing -----------------------------------------------------------------------------------------------------------


def test_equal_ops_are_shared_into_bodies_but_not_between_them() -> None:
    net = Net()
    x = net.input("x", F32, 4)
    outside = net.op("Exp", [x])
    bodies = {}
    for name in ("then_branch", "else_branch"):
        body = net.body(name)
        own = body.op("Tanh", [x])
        body.output(body.op("Add", [body.op("Exp", [x]), own]))
        bodies[name] = body.graph
    chosen = net.node("If", [net.input("flag", BOOL)], [x.type], regions=bodies).result
    module = Simplify()(net.done(outside, chosen))
    assert sorted(kinds(module)) == ["Add", "Add", "Exp", "If", "Tanh", "Tanh"]


def test_an_op_outside_does_not_use_its_twin_in_a_body() -> None:
    net = Net()
    x = net.input("x", F32, 4)
    bodies = {}
    for name in ("then_branch", "else_branch"):
        body = net.body(name)
        body.output(body.op("Exp", [x]))
        bodies[name] = body.graph
    chosen = net.node("If", [net.input("flag", BOOL)], [x.type], regions=bodies).result
    module = Simplify()(net.done(chosen, net.op("Exp", [x])))
    assert sorted(kinds(module)) == ["Exp", "Exp", "Exp", "If"]


def test_random_numbers_are_neither_shared_nor_folded() -> None:
    net = Net()
    draws = [net.op("RandomNormal", [], attrs={"shape": Ints((3,))}) for _ in range(2)]
    module = Simplify()(net.done(net.op("Sub", draws)))
    assert kinds(module) == ["RandomNormal", "RandomNormal", "Sub"]


def test_equal_attributes_of_another_type_are_not_equal_ops() -> None:
    net = Net()
    x = net.input("x", F32, 4)
    a, b = (net.op("LeakyRelu", [x], attrs={"alpha": alpha}) for alpha in (0.5, 0.25))
    assert kinds(Simplify()(net.done(a, b))) == ["LeakyRelu", "LeakyRelu"]


def test_small_float_vectors_stay_apart_and_tied_weights_become_one() -> None:
    net = Net()
    x = net.input("x", F32, 64, 64)
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    y = x
    for _ in range(2):
        y = net.op("Add", [net.op("MatMul", [y, net.const(weight)]), net.const(np.full(64, 0.5, np.float32))])
    module = Simplify()(net.done(y))
    assert sorted(v.constant.elements for v in module.constants.values() if v.constant) == [64, 64, 4096]


def test_nan_and_minus_zero_are_told_apart() -> None:
    net = Net()
    x = net.input("x", F32)
    values = (0.0, -0.0, np.nan, np.nan)
    module = net.done(*(net.op("Div", [x, net.const(np.float32(v))]) for v in values))
    assert len(Simplify()(module).constants) == 3


# -- folding -----------------------------------------------------------------------------------------------------------


def test_quantized_weights_are_not_folded() -> None:
    net = Net()
    scale = net.const(np.float32(0.5))
    weight = net.op("DequantizeLinear", [net.const(np.arange(4, dtype=np.int8)), scale])
    bias = net.op("DequantizeLinear", [net.const(np.arange(4, dtype=np.int32)), scale])
    module = net.done(net.op("Add", [net.op("Mul", [net.input("x", F32, 4), weight]), bias]))
    assert kinds(Simplify()(module)) == ["DequantizeLinear", "DequantizeLinear", "Mul", "Add"]


def test_a_large_moved_constant_is_computed_when_read() -> None:
    net = Net()
    weight = np.random.default_rng(0).normal(size=(1100, 1000)).astype(np.float32)
    turned = net.op("Transpose", [net.const(weight, "w")], attrs={"perm": Ints((1, 0))})
    module = Simplify()(net.done(net.op("MatMul", [net.input("x", F32, 2, 1000), turned])))
    (constant,) = (v.constant for v in module.constants.values() if v.constant)
    assert type(constant.payload).__name__ == "LazyPayload"
    np.testing.assert_array_equal(constant.array(), weight.T)


def test_a_tied_weight_is_not_transposed_into_a_second_copy() -> None:
    net = Net()
    table = net.const(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32))
    embedded = net.op("Gather", [table, net.input("ids", I64, 3)])
    module = net.done(net.op("MatMul", [embedded, net.op("Transpose", [table], attrs={"perm": Ints((1, 0))})]))
    simple = Simplify()(module)
    assert kinds(simple) == ["Gather", "Transpose", "MatMul"]
    (skip,) = simple.history[-1].skipped
    assert (skip.code.value, skip.why.split(":")[0]) == ("grows", "constants")


# -- layouts -----------------------------------------------------------------------------------------------------------


def channels_last(net: Net) -> Module:
    """Two convolutions with a residual addition, as a channels-last framework exports them."""
    rng = np.random.default_rng(0)

    def conv(x, k):
        weight = net.const(rng.normal(size=(4, 4, k, k)).astype(np.float32))
        inside = net.op("Transpose", [x], attrs={"perm": Ints((0, 3, 1, 2))})
        pads = {"pads": Ints((k // 2,) * 4)}
        return net.op("Transpose", [net.op("Conv", [inside, weight], attrs=pads)], attrs={"perm": Ints((0, 2, 3, 1))})

    x = net.input("x", F32, "N", 6, 6, 4)
    y = net.op("Relu", [net.op("Add", [conv(x, 3), net.const(rng.normal(size=(1, 1, 1, 4)).astype(np.float32))])])
    z = net.op("Relu", [net.op("Add", [y, conv(y, 1)])])
    return net.done(net.op("ReduceMean", [z, net.ints(1, 2)], attrs={"keepdims": 0}))


def test_transposes_cancel_through_residual_blocks() -> None:
    module = channels_last(Net())
    simple = Simplify()(module)
    assert kinds(simple).count("Transpose") == 1
    feed = feeds(module)
    np.testing.assert_allclose(evaluate(simple, feed)[0], evaluate(module, feed)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["Concat", "Softmax", "Pad", "ReduceSum", "Where", "Split"])
def test_transposes_pass_through(kind: str) -> None:
    """Transpose, op, Transpose back: only ops that do not care about the order let the pair cancel."""
    net = Net()
    x = net.input("x", F32, 2, 3, 4, 5)
    t = net.op("Transpose", [x], attrs={"perm": Ints((0, 2, 3, 1))})
    y = {
        "Concat": lambda: net.op("Concat", [t, t], attrs={"axis": 3}),
        "Softmax": lambda: net.op("Softmax", [t]),
        "Pad": lambda: net.op("Pad", [t, net.ints(0, 1, 0, 2, 0, 0, 3, 0)]),
        "ReduceSum": lambda: net.op("ReduceSum", [t, net.ints(1, -1)], attrs={"keepdims": 1}),
        "Where": lambda: net.op("Where", [net.const(np.array([True, False, True])), t, net.const(np.float32(7))]),
        "Split": lambda: net.node("Split", [t, net.ints(1, 2)], attrs={"axis": 3}, count=2).results[1],
    }[kind]()
    module = net.done(net.op("Transpose", [y], attrs={"perm": Ints((0, 3, 1, 2))}))
    simple = Simplify()(module)
    assert ("Transpose" in kinds(simple)) == (kind == "Split"), "Split is not turned"
    feed = feeds(module)
    np.testing.assert_array_equal(evaluate(simple, feed)[0], evaluate(module, feed)[0])


@pytest.mark.parametrize(("axes", "left"), [((0,), 1), ((0, 3), 0), ((1, 2), 0), ((2,), 1)])
def test_a_reduction_takes_a_transpose_in_if_the_rest_is_in_order(axes: tuple[int, ...], left: int) -> None:
    net = Net()
    t = net.op("Transpose", [net.input("x", F32, 2, 3, 4, 5)], attrs={"perm": Ints((0, 2, 3, 1))})
    y = net.op("Relu", [t])
    back = net.op("Transpose", [y], attrs={"perm": Ints((0, 3, 1, 2))})
    module = net.done(back, net.op("ReduceSum", [y, net.ints(*axes)], attrs={"keepdims": 0}))
    simple = Simplify()(module)
    assert kinds(simple).count("Transpose") == left
    feed = feeds(module)
    for got, wanted in zip(evaluate(simple, feed), evaluate(module, feed), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_lone_transpose_does_not_move() -> None:
    net = Net()
    t = net.op("Transpose", [net.input("x", F32, 2, 3)], attrs={"perm": Ints((1, 0))})
    module = net.done(net.op("Relu", [net.op("Exp", [t])]))
    assert print_module(Simplify()(module)) == print_module(module)


# -- control flow and scope --------------------------------------------------------------------------------------------


def test_a_body_is_simplified_and_keeps_what_it_captures() -> None:
    net = Net()
    x, count = net.input("x", F32, 4), net.input("count", I64)
    body = net.body()
    step, going, carried = (body.argument(t) for t in (count.type, net.const(np.array(True)).type, x.type))
    hidden = body.op("Identity", [net.op("Identity", [x])])
    body.output(body.op("Identity", [going]))
    body.output(body.op("Add", [carried, body.op("Mul", [hidden, net.const(np.float32(1))])]))
    loop = net.node("Loop", [count, None, x], [x.type], regions={"body": body.graph}).result
    module = net.done(loop)
    simple = Simplify()(module)
    assert kinds(simple) == ["Loop", "Add"]
    feed = {"x": np.arange(4, dtype=np.float32), "count": np.array(3)}
    np.testing.assert_array_equal(evaluate(simple, feed)[0], evaluate(module, feed)[0])
    assert step.op is None


def test_what_a_body_assumes_of_an_outer_value_stays_in_the_body() -> None:
    """The Identity is typed in a body that need not run; dropping it must not type the value around it."""
    net = Net()
    x, flag = net.input("x", F32, 1, 4), net.input("flag", BOOL)
    first = {}
    for name, kind in (("then_branch", "Squeeze"), ("else_branch", "Relu")):
        body = net.body(name)
        body.output(body.op(kind, [x, net.ints(0)][: 2 if kind == "Squeeze" else 1]))
        first[name] = body.graph
    either = net.node("If", [flag], regions=first).result
    second = {}
    for name in ("then_branch", "else_branch"):
        body = net.body(name)
        assumed = body.op("Identity", [either], [x.type]) if name == "then_branch" else either
        body.output(body.op("Relu", [assumed], [assumed.type]))
        second[name] = body.graph
    module = net.done(net.node("If", [flag], regions=second).result)
    assert "Identity" not in kinds(Simplify()(module))


def test_scope_protects_ops() -> None:
    net = Net()
    x = net.input("x", F32, 4)
    first = net.node("Identity", [x])
    second = net.node("Identity", [first.result])
    module = net.done(net.op("Relu", [second.result]))
    kept = Simplify()(module, Context(scope=Scope(but=frozenset({second.name}))))
    assert [op.name for op in kept.graph.ops if op.kind == "Identity"] == [second.name]


def test_outputs_keep_their_names_and_declared_types() -> None:
    net = Net()
    x = net.input("x", F32, "N", 4)
    y = net.op("Identity", [net.op("Relu", [x])])
    y.declared = y.type
    net.output(y, "scores")
    net.output(net.op("Identity", [x]), "same")
    net.output(y, "twice")
    proto = to_proto(Simplify()(net.module))
    assert [o.name for o in proto.graph.output] == ["scores", "same", "twice"]
    assert [o.type.tensor_type.shape.dim[0].dim_param for o in proto.graph.output] == ["N", "N", "N"]


# -- golden text -------------------------------------------------------------------------------------------------------


def shape_chain(net: Net) -> Module:
    """The head split of an attention export: Shape, Gather, Concat, Reshape, Transpose."""
    x = net.input("x", F32, "N", "T", 12)
    sizes = [net.op("Gather", [net.op("Shape", [x]), net.ints(axis)]) for axis in (0, 1)]
    shape = net.op("Concat", [*sizes, net.ints(-1), net.ints(4)], attrs={"axis": 0})
    return net.done(net.op("Transpose", [net.op("Reshape", [x, shape])], attrs={"perm": Ints((0, 2, 1, 3))}))


def conv_block(net: Net) -> Module:
    """Pad, Conv, BatchNormalization, Clip, Relu."""
    rng = np.random.default_rng(0)
    x = net.input("x", F32, "N", 3, 8, 8)
    padded = net.op("Pad", [x, net.ints(0, 0, 1, 1, 0, 0, 1, 1)])
    conv = net.op("Conv", [padded, net.const(rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "weight")])
    numbers = [net.const(rng.uniform(0.5, 1, 4).astype(np.float32), n) for n in ("gamma", "beta", "mean", "variance")]
    normal = net.op("BatchNormalization", [conv, *numbers])
    clipped = net.op("Clip", [normal, net.const(np.float32(-1)), net.const(np.float32(6))])
    return net.done(net.op("Relu", [clipped]))


@pytest.mark.parametrize("build", [shape_chain, conv_block, channels_last], ids=lambda b: b.__name__)
@pytest.mark.parametrize("fold", [False, True], ids=["plain", "fold_affine"])
def test_golden(build, fold: bool, update_golden: bool) -> None:
    module = build(Net())
    text = f"{print_module(module)}\n// simplify\n{print_module(Simplify(fold_affine=fold)(module))}"
    path = GOLDEN / f"{build.__name__}_{'fold' if fold else 'plain'}.ir"
    if update_golden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
