"""The verifier: each invariant is broken by hand, and is the one that complains."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from kit.graphs import modules
from kit.net import Net
from kit.real import real_models

from mlc.ir import dims
from mlc.ir.constants import ArrayPayload, Constant, PackedPayload
from mlc.ir.core import TERMINATOR, Graph, Ints, Module, Op, Value
from mlc.ir.dims import Sym
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.survey import Survey
from mlc.ir.types import SequenceType, TensorType, UnrankedTensor, tensor
from mlc.ir.verify import INVARIANTS, verify

F32, I64, I8, BOOL = DType.F32, DType.I64, DType.I8, DType.BOOL
ROOT = "/block/MatMul"


def build() -> Module:
    """MatMul, Relu, If (Abs | captured), Loop, QuantizeLinear, DequantizeLinear."""
    net = Net()
    x = net.input("x", F32, "N", 4)
    product = net.node("MatMul", [x, net.const(np.ones((4, 4), np.float32), "w")])
    product.loc = product.loc.__class__(ROOT, ("prune",))
    relu = net.op("Relu", [product.result])
    then, other = net.body("then_branch"), net.body("else_branch")
    then.output(then.op("Abs", [relu]))
    other.output(relu)
    flag = net.input("flag", BOOL)
    regions = {"then_branch": then.graph, "else_branch": other.graph}
    branch = net.node("If", [flag], [relu.type], regions=regions)
    body = net.body("body")
    body.argument(tensor(I64))
    going, carried = body.argument(tensor(BOOL)), body.argument(relu.type)
    for value in (going, body.op("Neg", [carried]), carried):
        body.output(value)
    stacked = TensorType(F32, (dims.fresh(), Sym("N"), 4))
    operands = [net.const(np.int64(2), "trips"), None, branch.result]
    loop = net.node("Loop", operands, [relu.type, stacked], regions={"body": body.graph})
    scale, zero = net.const(np.ones(4, np.float32), "scale"), net.const(np.zeros(4, np.int8), "zero")
    q = net.op("QuantizeLinear", [loop.results[0], scale, zero], [tensor(I8, "N", 4)], {"axis": -1})
    return net.done(net.op("DequantizeLinear", [q, scale, zero], [relu.type], {"axis": 1}))


def find(module: Module, kind: str) -> Op:
    return next(op for op in module.walk() if op.kind == kind)


def spare() -> Value:
    value = Value(tensor(F32, 4, 4), "spare")
    value.constant = Constant.of(np.zeros((4, 4), np.float32))
    return value


def set_types(value: Value, **given: object) -> None:
    for name, item in given.items():
        setattr(value, name, item)


def swap(m: Module) -> None:
    """Relu in front of the MatMul that it reads."""
    relu, product = find(m, "Relu"), find(m, "MatMul")
    m.graph._unlink(relu)
    m.graph._insert(relu, product)


def leak(m: Module) -> None:
    """The main graph reads a value of a branch."""
    find(m, "QuantizeLinear")._set_operand(0, find(m, "Abs").result)


def orphan(m: Module) -> None:
    find(m, "MatMul")._set_operand(1, spare())


def dangle(m: Module) -> None:
    """An op that was never inserted reads the input."""
    Op("Relu", [m.graph.inputs[0]], results=[Value(tensor(F32), "r")], name="stray")


def share(m: Module) -> None:
    """Another module reads this one's input."""
    other = m.clone()
    find(other, "MatMul")._set_operand(0, m.graph.inputs[0])


def unlink_badly(m: Module) -> None:
    find(m, "Relu")._prev = None


def drop_constant(m: Module) -> None:
    del m.constants["w"]


def retag(m: Module) -> None:
    m.constants["other"] = m.constants.pop("w")


def steal_region(m: Module) -> None:
    find(m, "If").regions["then_branch"].owner = find(m, "Relu")


def false_terminator(m: Module) -> None:
    m.graph._insert(Op(TERMINATOR))


def two_definitions(m: Module) -> None:
    relu = find(m, "Relu")
    relu.results = (*relu.results, find(m, "MatMul").result)


def no_then(m: Module) -> None:
    region = find(m, "If").regions.pop("then_branch")
    for op in (*region.ops, region.ret):
        op._drop_operands()


def extra_yield(m: Module) -> None:
    find(m, "If").regions["then_branch"]._add_output(m.graph.inputs[0], "more")


def extra_argument(m: Module) -> None:
    find(m, "Loop").regions["body"]._add_input(Value(tensor(F32), "surplus"))


def short_loop(m: Module) -> None:
    find(m, "Loop")._drop_operands(keep=1)


def payload(m: Module, held: object) -> None:
    m.constants["w"].constant.payload = held  # type: ignore[union-attr, assignment]


def type_of(m: Module, kind: str, type: object) -> None:
    find(m, kind).results[0].type = type  # type: ignore[assignment]


def zero_point(m: Module, array: np.ndarray) -> None:
    value = m._add_constant("z2", Constant.of(array))
    find(m, "DequantizeLinear")._set_operand(2, value)


def scale(m: Module, array: np.ndarray, block: int = 0) -> None:
    op = find(m, "DequantizeLinear")
    op._set_operand(1, m._add_constant("s2", Constant.of(array)))
    op._set_operand(2, None)
    if block:
        op._attrs["block_size"] = block


def attr(m: Module, value: object) -> None:
    find(m, "Relu")._attrs["alpha"] = value  # type: ignore[assignment]


BREAKS: list[tuple[str, Callable[[Module], None], str]] = [
    ("linked-graphs", unlink_badly, "links between neighbouring ops"),
    ("linked-graphs", steal_region, "body 'then_branch' belongs to"),
    ("linked-graphs", false_terminator, "a terminator stands among the ops"),
    ("linked-graphs", lambda m: setattr(m.graph.ret, "parent", None), "broken terminator"),
    ("linked-graphs", lambda m: setattr(m.graph, "_last", find(m, "Relu")), "not the last in its list"),
    ("linked-graphs", lambda m: setattr(m.graph, "owner", find(m, "Relu")), "main graph is the body of an op"),
    ("single-definition", two_definitions, "is defined twice"),
    ("single-definition", lambda m: setattr(find(m, "Relu").result, "op", None), "does not know its definition"),
    ("single-definition", lambda m: setattr(m.graph.inputs[1], "index", 0), "does not know its definition"),
    ("single-definition", lambda m: setattr(m.constants["w"], "constant", None), "does not know its definition"),
    ("defined-before-use", swap, "is not defined before this op"),
    ("defined-before-use", leak, "is not defined before this op"),
    ("defined-before-use", lambda m: m.graph._unlink(find(m, "MatMul")), "an op that was erased"),
    ("defined-before-use", lambda m: m.graph.inputs.pop(), "operand 0 of If, 'flag'"),
    ("use-lists", lambda m: m.graph.inputs[0]._uses.clear(), "does not know its use as operand 0"),
    ("use-lists", lambda m: find(m, "Relu")._operands.append(m.graph.inputs[0]), "does not know its use as operand 1"),
    ("use-lists", lambda m: find(m, "Relu")._operands.clear(), "claims a use as operand 0"),
    ("use-lists", dangle, "which is not in this module"),
    ("use-lists", share, "which is not in this module"),
    ("typed-values", lambda m: type_of(m, "Relu", None), "no type but None"),
    ("typed-values", lambda m: type_of(m, "Relu", TensorType("f32", (4,))), "element type 'f32'"),  # type: ignore[arg-type]
    ("typed-values", lambda m: type_of(m, "Relu", tensor(F32, 4, -1)), "size -1 in its shape"),
    ("typed-values", lambda m: type_of(m, "Relu", SequenceType(tensor(F32, -1))), "size -1 in its shape"),
    ("typed-values", lambda m: type_of(m, "Relu", TensorType(F32, (np.int64(4), 4))), r"\(int64\) in its shape"),
    ("typed-values", lambda m: type_of(m, "Relu", TensorType(F32, (True, 4))), r"\(bool\) in its shape"),
    ("typed-values", lambda m: type_of(m, "Relu", TensorType(F32, [4])), "a shape that is a list"),  # type: ignore[arg-type]
    ("typed-values", lambda m: set_types(find(m, "Relu").result, dims=(1,)), "has 1 known elements"),
    ("typed-values", lambda m: set_types(m.constants["trips"], dims=(1, 2)), "has 2 known elements"),
    ("typed-values", lambda m: set_types(m.constants["trips"], dims=("N",)), "that are no sizes"),
    (
        "constants",
        lambda m: set_types(m.constants["w"], type=tensor(F32, 4, 2)),
        "is typed f32.4, 2.",
    ),
    ("constants", lambda m: payload(m, ArrayPayload(np.zeros((4, 2), np.float32))), "but its elements are"),
    ("constants", lambda m: payload(m, ArrayPayload(np.zeros((4, 4), np.int32))), "but its elements are"),
    ("constants", lambda m: payload(m, PackedPayload(np.zeros(16, np.uint8), I8, (4, 4))), "but its elements are"),
    ("constants", retag, "is no constant of that name"),
    ("no-orphan-constants", orphan, "operand 1 of MatMul, 'spare', is no constant of this module"),
    ("no-orphan-constants", drop_constant, "operand 1 of MatMul, 'w', is no constant of this module"),
    ("outputs", lambda m: m.graph.ret._set_operand(0, None), "an output is left out"),
    ("outputs", lambda m: m.graph.output_names.append("more"), "1 outputs have 2 names"),
    ("outputs", lambda m: m.graph._add_output(m.graph.inputs[0], m.graph.output_names[0]), "given to several outputs"),
    ("outputs", lambda m: m.graph.output_names.__setitem__(0, ""), "an output has no name"),
    ("outputs", lambda m: m.graph.output_names.__setitem__(0, "x"), "output 'x' has the name of an input, but is"),
    ("defaults", lambda m: m.defaults.update(y=Constant.of(np.ones(2))), "'y', which is no input"),
    ("defaults", lambda m: m.defaults.update(x=Constant.of(np.ones(2))), "but its default is f64"),
    ("value-names", lambda m: set_types(find(m, "Abs").result, name="x"), "two values are called 'x'"),
    ("value-names", lambda m: set_types(find(m, "Relu").result, name=""), "a value has no name"),
    ("node-names", lambda m: setattr(find(m, "Abs"), "name", find(m, "Relu").name), "two nodes are called"),
    ("attributes", lambda m: find(m, "Relu")._attrs.update(strids=1), "Relu has no attribute 'strids'"),
    ("attributes", lambda m: attr(m, True), r"True \(bool\)"),
    ("attributes", lambda m: attr(m, np.float32(1)), r"\(float32\)"),
    ("attributes", lambda m: attr(m, [1, 2]), r"\(list\)"),
    ("attributes", lambda m: attr(m, Ints((1, np.int64(2)))), r"\(Ints\)"),
    ("attributes", lambda m: find(m, "Relu")._attrs.update({"": 1}), "attribute ''"),
    ("mlc-operators", lambda m: setattr(find(m, "Relu"), "kind", "mlc::Nonsense"), "mlc::Nonsense is not known"),
    ("quantization", lambda m: zero_point(m, np.zeros(4, np.uint8)), "the zero point is u8.4., but the storage is i8"),
    ("quantization", lambda m: zero_point(m, np.zeros(2, np.int8)), "the zero point is i8.2., but the scale is f32.4."),
    ("quantization", lambda m: scale(m, np.ones(3, np.float32)), "the scale is f32.3."),
    ("quantization", lambda m: scale(m, np.ones((2, 3), np.float32), block=2), "and block size 2"),
    ("quantization", lambda m: find(m, "DequantizeLinear")._attrs.update(axis=5), "with axis 5"),
    ("quantization", lambda m: find(m, "QuantizeLinear")._drop_operands(keep=1), "lacks an operand"),
    ("result-types", lambda m: type_of(m, "Relu", tensor(F32, "N", 5)), r"typed f32\[N, 5\]"),
    ("result-types", lambda m: type_of(m, "MatMul", UnrankedTensor(I64)), r"typed i64\[\*\]"),
    ("result-types", lambda m: find(m, "MatMul")._set_operand(1, m.constants["trips"]), "."),
    ("bodies", no_then, "If has else_branch"),
    ("bodies", extra_yield, "takes 0 values and yields 2"),
    ("bodies", extra_argument, "takes 4 values and yields 3"),
    ("bodies", short_loop, "Loop has 1 operands and 2 results"),
    ("bodies", lambda m: type_of(m, "If", tensor(F32, 3)), "yields"),
    ("bodies", lambda m: find(m, "Loop")._set_operand(2, m.constants["scale"]), "the body of Loop takes"),
]


def test_the_specimen_is_sound() -> None:
    verify(build())


@pytest.mark.parametrize(
    ("invariant", "damage", "message"), BREAKS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(BREAKS)]
)
def test_a_broken_invariant_is_found(invariant: str, damage: Callable[[Module], None], message: str) -> None:
    module = build()
    damage(module)
    with pytest.raises(MlcError, match=message) as caught:
        verify(module)
    first = caught.value.diagnostics[0]
    assert first.code is Code.VERIFY
    assert first.message.startswith(f"{invariant}: ")
    assert first.help.startswith("expected ")
    assert first.where


def test_every_invariant_has_a_break() -> None:
    assert [name for name, _ in INVARIANTS] == list(dict.fromkeys(name for name, _, _ in BREAKS))


def test_each_invariant_alone_accepts_what_it_should() -> None:
    survey = Survey(build())
    for _, check in INVARIANTS:
        assert list(check(survey)) == []


def test_a_message_says_what_where_and_shows_the_neighbours() -> None:
    module = build()
    relu = find(module, "Relu")
    relu.loc = relu.loc.__class__("/block/Relu", ("prune", "int4"))
    relu.result.type = tensor(F32, "N", 5)
    with pytest.raises(MlcError) as caught:
        verify(module)
    text = str(caught.value.diagnostics[0])
    assert "error[E0701]: result-types: result 'v2' of Relu is typed f32[N, 5]" in text
    assert "--> /block/Relu < prune < int4" in text
    assert "= help: expected f32[N, 4], which follows from the operands" in text
    shown = [line.strip() for line in text.splitlines() if " = " in line and "(" in line][-3:]
    assert shown[0].startswith("%v0 : f32[N, 4] = MatMul(%x : f32[N, 4], %w : f32[4, 4])")
    assert shown[1].startswith("-> %v2 : f32[N, 5] = Relu(%v0 : f32[N, 4])")
    assert "= If(%flag : bool[])" in shown[2]


def test_at_most_five_faults_are_shown() -> None:
    net = Net()
    x = net.input("x", F32, 2)
    module = net.done(*(net.op("Relu", [x], [tensor(F32, 3)]) for _ in range(9)))
    with pytest.raises(MlcError) as caught:
        verify(module)
    assert len(caught.value.diagnostics) == 5


@pytest.mark.parametrize(
    ("scale_shape", "zero_shape", "attrs"),
    [
        ((), (), {}),
        ((1,), (), {}),
        ((1,), (1,), {"axis": 0}),
        ((4,), (4,), {"axis": 0}),
        ((6,), (6,), {"axis": -1}),
        ((2, 6), (2, 6), {"axis": 0, "block_size": 2}),
        ((4, 2), (4, 2), {"axis": 1, "block_size": 4}),
    ],
)
def test_every_form_of_quantization_parameters_is_accepted(
    scale_shape: tuple[int, ...], zero_shape: tuple[int, ...], attrs: dict[str, int]
) -> None:
    net = Net()
    q = net.const(np.zeros((4, 6), np.int8))
    scale_value, zero = net.const(np.ones(scale_shape, np.float32)), net.const(np.zeros(zero_shape, np.int8))
    verify(net.done(net.op("DequantizeLinear", [q, scale_value, zero], [tensor(F32, 4, 6)], attrs)))


def test_an_optional_result_may_go_without_a_name() -> None:
    net = Net()
    x = net.input("x", F32, 3, 1, 4)
    w, r = net.const(np.ones((1, 8, 4), np.float32)), net.const(np.ones((1, 8, 2), np.float32))
    op = net.node("LSTM", [x, w, r], count=3, attrs={"hidden_size": 2})
    op.results[1].name = ""
    module = net.done(op.results[0])
    verify(module)
    module.graph._add_output(op.results[1], "second")
    with pytest.raises(MlcError, match="value-names: a value has no name"):
        verify(module)


def test_a_decided_if_may_differ_in_the_other_branch() -> None:
    net = Net()
    x = net.input("x", F32, 2, 3)
    flag = net.const(np.bool_(True))
    flag.dims = (1,)
    regions: dict[str, Graph] = {}
    for name, axis in (("then_branch", 0), ("else_branch", 1)):
        body = net.body(name)
        body.output(body.op("Flatten", [x], attrs={"axis": axis}))
        regions[name] = body.graph
    module = net.done(net.node("If", [flag], [tensor(F32, 1, 6)], regions=regions).result)
    verify(module)
    flag.dims = None
    with pytest.raises(MlcError, match="bodies: body 'else_branch' yields"):
        verify(module)


@given(modules())
def test_random_modules_are_sound(module: Module) -> None:
    verify(module)


def test_the_structural_invariants_are_quick() -> None:
    net = Net()
    value = net.input("x", F32, "N", 4)
    weight = net.const(np.ones((4, 4), np.float32))
    for _ in range(5_000):
        value = net.op("Gemm", [value, weight], [value.type], {"alpha": 1.0, "transB": 1})
    survey = Survey(net.done(value))
    start = time.process_time()
    for name, check in INVARIANTS:
        if name != "result-types":
            assert not list(check(survey))
    assert (time.process_time() - start) / 5_000 < 60e-6  # measured 8 us an op


@real_models()
def test_real_models_are_sound(model) -> None:
    from mlc.frontends.onnx import load

    verify(load(model.path))
