"""The text form: parse(print(m)) == m, printing is canonical, mistakes are shown with a caret."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kit.graphs import modules
from kit.net import Net
from kit.real import real_models

from mlc.ir import dims
from mlc.ir.constants import Constant, FilePayload
from mlc.ir.core import Attr, Constants, Floats, Ints, Loc, Module, Strings, Types, Value
from mlc.ir.dims import Sym
from mlc.ir.dtypes import DType
from mlc.ir.equal import difference, equal
from mlc.ir.errors import Code, MlcError
from mlc.ir.parse import parse_module
from mlc.ir.text import payloads, print_module, print_op
from mlc.ir.types import OptionalType, SequenceType, TensorType, UnrankedTensor, tensor

F32, I64 = DType.F32, DType.I64


def round_trip(module: Module) -> str:
    printed = print_module(module)
    back = parse_module(printed, payloads(module))
    assert difference(module, back) is None
    assert print_module(back) == printed
    return printed


def rich() -> Module:
    """A bit of everything that text can say."""
    net = Net("main graph")
    module = net.module
    module.opsets["com.microsoft"] = 1
    meta = module.meta
    meta.producer_name, meta.model_version, meta.doc = "pytorch", 3, 'two\nlines "quoted"'
    meta.properties["alphabet"] = "äöü \\ \u2028"
    meta.graph_properties["k"] = ""
    net.graph.doc = "a graph"
    unknown = dims.fresh()
    x = net.input("x", F32, "N", 2 * Sym("N") + unknown, "past + now", 3)
    x.declared, x.doc = x.type, "the input"
    ids = net.input("input:0", I64, unknown)
    module.defaults["input:0"] = Constant.of(np.zeros(0, np.int64))
    w = net.const(np.ones((3, 8), np.float32), "w/kernel")
    w.declared = tensor(F32, 3, "eight")
    product = net.node("MatMul", [x, w], [TensorType(F32, (*x.type.shape[:3], 8))])  # type: ignore[union-attr]
    product.name, product.loc, product.doc = "/layer/MatMul", Loc("/layer/MatMul", ("prune", "int4(32)")), "doc"
    product.meta, product.overload = {"namespace": ": __main__"}, "v2"
    shape = net.node("Shape", [product.result], [tensor(I64, 4)])
    shape.result.dims, shape.loc = product.result.type.shape, Loc("elsewhere")  # type: ignore[union-attr]
    body = net.body("then")
    body.output(body.op("Clip", [product.result, None, net.const(np.float32(1))], [product.result.type]), "inner")
    other = net.body("")
    other.output(product.result)
    regions = {"then_branch": body.graph, "else_branch": other.graph}
    branch = net.node("If", [net.input("flag", DType.BOOL)], [UnrankedTensor(F32)], regions=regions)
    sequence = net.node("SequenceConstruct", [ids], [SequenceType(OptionalType(UnrankedTensor(I64)))])
    first = net.node("my-domain::Two Results", [sequence.result], [tensor(F32), tensor(F32, 0)])
    first.results[1].name = ""
    net.node("their::Sink", [ids], [])
    net.output(branch.result, "probabilities")
    net.output(x, "x")
    net.output(w, "x again")
    net.graph.output_docs["probabilities"] = "softmaxed"
    return module


def test_everything_makes_the_round_trip() -> None:
    round_trip(rich())


def test_golden() -> None:
    """The canonical form itself; a change of it is a change of the format."""
    golden = Path(__file__).parent / "golden" / "module.ir"
    assert round_trip(rich()) == golden.read_text(encoding="utf-8")


@given(modules())
def test_random_modules_make_the_round_trip(module: Module) -> None:
    round_trip(module)


FINITE_KINDS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.lists(st.integers(-9, 9), max_size=3).map(Ints),
    st.lists(st.floats(width=32), max_size=3).map(Floats),
    st.lists(st.one_of(st.text(max_size=2), st.binary(max_size=2)), max_size=3).map(Strings),
    st.sampled_from([tensor(F32, "N", dims.fresh()), SequenceType(UnrankedTensor(I64)), Types(), Constants()]),
    st.lists(st.sampled_from([tensor(F32), OptionalType(tensor(I64, "a b"))]), max_size=2).map(Types),
)


@st.composite
def tensors(draw: st.DrawFn) -> Constant:
    dtype = draw(st.sampled_from(list(DType)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = math.prod(shape)
    if dtype is DType.STR:
        items = draw(st.lists(st.one_of(st.text(max_size=3), st.binary(max_size=3)), min_size=count, max_size=count))
        array = np.empty(count, object)
        array[:] = items
        return Constant.of(array.reshape(shape), dtype)
    raw = draw(st.binary(min_size=count * dtype.numpy.itemsize, max_size=count * dtype.numpy.itemsize))
    values = np.frombuffer(raw, np.uint8)
    if dtype is DType.BOOL or dtype.bits < 8:
        values = values % (1 << min(dtype.bits, 1 if dtype is DType.BOOL else 8))
        if dtype.kind == "int":
            return Constant.of((values.astype(np.int8) - (1 << (dtype.bits - 1))).reshape(shape), dtype)
    return Constant.of(values.view(dtype.numpy).reshape(shape), dtype)


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.one_of(FINITE_KINDS, tensors()), max_size=4))
@example({"negative": -math.nan})
def test_attributes_make_the_round_trip_bit_for_bit(attrs: dict[str, Attr]) -> None:
    net = Net()
    x = net.input("x", F32, 2)
    round_trip(net.done(net.op("their::Op", [x], [x.type], attrs)))


@given(st.lists(tensors(), max_size=2), st.text(max_size=8), st.text(max_size=8))
def test_names_and_lists_of_tensors(held: list[Constant], name: str, node: str) -> None:
    net = Net()
    x = net.input(name or "x", F32, name, 2)
    op = net.node("their::Op", [x], [x.type], {"tensors": Constants(held)})
    op.name, op.loc = node, Loc(name, (node,))
    net.output(op.result, name)
    round_trip(net.module)


def test_unknown_sizes_are_numbered_in_order_of_appearance() -> None:
    net = Net()
    # Many, so that numbers of one and two digits meet in one expression.
    unknown = [dims.fresh() for _ in range(12)]
    x = net.input("x", F32, unknown[10] * unknown[1] + unknown[9], unknown[2] + unknown[11])
    y = net.input("y", F32, *unknown[::-1])
    printed = round_trip(net.done(x, y))
    assert "%x : f32[?0*?2 + ?1, ?3 + ?4], %y : f32[?4, ?2, ?1, ?5, ?6, ?7, ?8, ?9, ?10, ?3, ?0, ?11]" in printed


def test_two_builds_print_the_same_and_are_equal() -> None:
    a, b = rich(), rich()
    assert print_module(a) == print_module(b)
    assert equal(a, b)


def test_a_name_that_looks_like_an_unknown_stays_a_name() -> None:
    net = Net()
    x = net.input("x", F32, "?", "?0", dims.fresh())
    assert '%x : f32["?", "?0", ?0]' in round_trip(net.done(x))


def test_constants_are_not_read(tmp_path: Path) -> None:
    net = Net()
    lost = FilePayload(tmp_path / "lost", 0, F32, (1 << 20, 1 << 12))
    value = net.module._add_constant("w", Constant(tensor(F32, 1 << 20, 1 << 12), lost))
    module = net.done(value)
    assert "const %w : f32[1048576, 4096]" in round_trip(module)
    with pytest.raises(MlcError, match="cannot read"):
        print_module(module, digests=True)


def test_digests_are_checked() -> None:
    net = Net()
    module = net.done(net.const(np.ones(3, np.float32), "w"))
    printed = print_module(module, digests=True)
    assert module.constants["w"].constant.digest() in printed  # type: ignore[union-attr]
    assert equal(parse_module(printed, module.constants), module)
    with pytest.raises(MlcError, match="another SHA-256"):
        parse_module(printed, {"w": Constant.of(np.zeros(3, np.float32))})


def test_big_tensors_of_attributes_and_defaults_go_by_name() -> None:
    net = Net()
    x = net.input("x", F32, 20_000)
    big = Constant.of(np.arange(20_000, dtype=np.float32))
    net.module.defaults["x"] = big
    op = net.node("their::Op", [x], [x.type], {"value": big, "more": Constants([big, Constant.of(1.0)])})
    printed = round_trip(net.done(op.result))
    assert len(printed) < 600
    assert set(payloads(net.module)) == {"x", f"{op.result.name}@value", f"{op.result.name}@more.0"}


def test_constants_may_be_given_as_values_or_payloads() -> None:
    module = rich()
    assert equal(parse_module(print_module(module), module.constants), module)


# -- differences that equality must see ------------------------------------------------------------------------------


def first_op(m: Module) -> Any:
    return next(iter(m.graph.ops))


CHANGES: list[Callable[[Module], Any]] = [
    lambda m: setattr(m, "opset", 22),
    lambda m: m.opsets.update({"com.microsoft": 2}),
    lambda m: setattr(m.meta, "doc", "other"),
    lambda m: m.meta.properties.clear(),
    lambda m: m.defaults.clear(),
    lambda m: m.defaults.update({"input:0": Constant.of(np.zeros(0, np.float32))}),
    lambda m: setattr(m.graph, "name", "other"),
    lambda m: setattr(m.graph, "doc", ""),
    lambda m: m.graph.output_docs.clear(),
    lambda m: m.graph.output_names.__setitem__(0, "other"),
    lambda m: m.graph.ret._set_operand(0, m.graph.inputs[0]),
    lambda m: m.graph._unlink(m.graph._last),  # type: ignore[arg-type]
    lambda m: setattr(m.graph.inputs[0], "declared", None),
    lambda m: setattr(m.graph.inputs[0], "doc", ""),
    lambda m: setattr(m.graph.inputs[1], "type", tensor(I64, dims.fresh())),  # no longer the same unknown
    lambda m: setattr(m.graph.inputs[1], "type", UnrankedTensor(I64)),
    lambda m: setattr(m.constants["w/kernel"], "constant", Constant.of(np.zeros((3, 8), np.float32))),
    lambda m: setattr(first_op(m), "kind", "Gemm"),
    lambda m: setattr(first_op(m), "name", "other"),
    lambda m: setattr(first_op(m), "loc", Loc("other")),
    lambda m: setattr(first_op(m), "doc", ""),
    lambda m: setattr(first_op(m), "overload", ""),
    lambda m: first_op(m).meta.clear(),
    lambda m: first_op(m)._attrs.update(alpha=1),
    lambda m: first_op(m)._append_operand(None),
    lambda m: setattr(first_op(m).result, "name", "other"),
    lambda m: setattr(list(m.graph.ops)[1].result, "dims", None),
    lambda m: list(m.graph.ops)[2].regions["then_branch"].ret._drop_operands(),
]


@pytest.mark.parametrize("index", range(len(CHANGES)))
def test_equality_and_text_see_every_change(index: int) -> None:
    module, changed = rich(), rich()
    CHANGES[index](changed)
    assert difference(module, changed) is not None
    assert difference(changed, module) is not None
    elements = index == 16  # what constants hold is not printed
    assert (print_module(changed) == print_module(module)) == elements


@pytest.mark.parametrize(
    ("a", "b"),
    [(1, 1.0), (0.0, -0.0), (Ints((1,)), Floats((1.0,))), (Ints(), Floats()), ("a", b"a"), (1, True), (Ints((1,)), 1)],
)
def test_attributes_are_told_apart_by_kind_and_bits(a: Attr, b: Attr) -> None:
    made = []
    for value in (a, b):
        net = Net()
        x = net.input("x", F32, 2)
        made.append(net.done(net.op("their::Op", [x], [x.type], {"k": value})))
    assert difference(*made) is not None


def test_nan_is_equal_to_itself() -> None:
    net = Net()
    x = net.input("x", F32, 2)
    module = net.done(net.op("their::Op", [x], [x.type], {"k": math.nan, "l": Floats((math.nan, -math.inf))}))
    printed = round_trip(module)
    assert "{k = nan, l = [nan, -inf]}" in printed


# -- mistakes --------------------------------------------------------------------------------------------------------

GOOD = """\
format: 1
opset: 21

const %w : f32[4, 4]

graph main(%x : f32[N, 4]) {
  %y : f32[N, 4] = MatMul(%x, %w) {alpha = 0.5, pads = [1, 2]} @m
  return %y
}
"""
GIVEN = {"w": Constant.of(np.ones((4, 4), np.float32))}

MISTAKES = [
    ("format: 1", "format: 2", "format 2 was written by a newer version of mlc"),
    ("format: 1", "format: 0", "expected 'format: 1'"),
    ("format: 1", "version: 1", "expected 'format'"),
    ("opset: 21\n", "", "expected 'opset: N'"),
    ("opset: 21", "opset: many", "expected an integer"),
    ("opset: 21", "opset: 21\nmeta color: 1", "expected one of producer_name"),
    ("%w : f32[4, 4]", "%v : f32[4, 4]", "constant 'v' is not among those given"),
    ("%w : f32[4, 4]", "%w : f32[4, 5]", r"constant 'w' is f32\[4, 4\], not f32\[4, 5\]"),
    ("f32[N, 4]) {", "f33[N, 4]) {", "unknown element type 'f33'"),
    ("f32[N, 4]) {", "f32[N 4]) {", "expected ','"),
    ("f32[N, 4]) {", "f32[N, 4) {", "expected ','"),
    ("f32[N, 4]) {", "f32[N, floordiv(N, 0)]) {", "divided by zero"),
    ("f32[N, 4]) {", "f32[N, ?99999999999]) {", "numbered from 0 on"),
    ("f32[N, 4]) {", "f32) {", r"expected '\['"),
    ("f32[N, 4]) {", "17) {", "expected a type"),
    ("f32[N, 4]) {", "f32[N, =]) {", "expected a size"),
    ("(%x, %w)", "(%z, %w)", "value 'z' is not defined here"),
    ("(%x, %w)", "(%y, %w)", "value 'y' is not defined here"),
    ("(%x, %w)", "(%x %w)", "expected ','"),
    ("(%x, %w)", "(7)", "expected a value such as %x, or none"),
    ("%y : f32[N, 4] =", "%x : f32[N, 4] =", "value 'x' is defined twice"),
    ("%y : f32[N, 4] =", '%"" : f32[N, 4] =', "a value needs a name"),
    ("alpha = 0.5", "alpha = ", "expected the value of an attribute"),
    ("alpha = 0.5", "pads = 1", "this attribute is given twice"),
    ("[1, 2]", "[1, 2.0]", "the items of a list are of one kind"),
    ("[1, 2]", "[]", "an empty list needs its kind"),
    ("[1, 2]", 'x"0"', "expected hexadecimal digits"),
    ("[1, 2]", "tensor f32[N] [1.0]", "a shape of integers"),
    ("[1, 2]", "tensor f32[2] [1.0]", r"f32\[2\] has 2 elements, not 1"),
    ("[1, 2]", "tensor i8[1] [200]", "i8 ranges from -128 to 127"),
    ("[1, 2]", "tensor u4[1] [16]", "u4 ranges from 0 to 15"),
    ("[1, 2]", "tensor i8[1] [1.5]", "expected an integer"),
    ("[1, 2]", "tensor f32[1] [x]", "expected a number"),
    ("[1, 2]", 'tensor f32[1] b64"AAAA"', "expected 4 bytes in base64"),
    ("[1, 2]", 'tensor f32[1] b64"!"', "expected 4 bytes in base64"),
    ("[1, 2]", 'tensor f32[1] named "t"', "constant 't' is not among those given"),
    ("[1, 2]", "[" * 5000, "nested too deeply"),
    ("return %y", "return none", "an output cannot be left out"),
    ("return %y", "return %y as 3", "expected a text in double quotes"),
    ("return %y", "return %y doc \"\\q\"", "unknown escape"),
    ("return %y\n}", "return %y\n", "expected '}'"),
    ("return %y\n}", "return %y\n} }", "expected the end of the text"),
    ("@m", "@m ~", "unexpected character"),
    ("MatMul(", "7(", "expected a text in double quotes"),
]  # fmt: skip


def test_the_good_text_is_good() -> None:
    module = parse_module(GOOD, GIVEN)
    assert print_module(module) == GOOD
    assert equal(parse_module(GOOD.replace("{\n", "{  # a comment\n"), GIVEN), module)


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_is_shown_with_a_caret(old: str, new: str, message: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(MlcError, match=message) as caught:
        parse_module(GOOD.replace(old, new), GIVEN, name="model.ir")
    found = caught.value.diagnostics[0]
    assert found.code is Code.TEXT
    assert found.span is not None
    assert "--> model.ir:" in str(found)
    assert "^" in str(found)


def test_the_caret_points_at_the_mistake() -> None:
    with pytest.raises(MlcError) as caught:
        parse_module(GOOD.replace("(%x, %w)", "(%x, %later)").replace("return", "%later : f32[] = A() return"), GIVEN)
    shown = str(caught.value).splitlines()
    assert shown[1].endswith("--> <ir>:7:31")
    assert shown[4].index("^") == shown[3].index("%later")
    assert shown[4].count("^") == len("%later")


def test_a_name_of_a_body_ends_with_it() -> None:
    body = "%z : f32[] = If(%x)\n region a g() {\n %i : f32[] = A()\n return %i\n }\n return %i"
    with pytest.raises(MlcError, match="value 'i' is not defined here"):
        parse_module(GOOD.replace("return %y", body), GIVEN)


@given(st.integers(0, len(GOOD) - 1), st.text(alphabet='%@"[]{}(),:=+*<>?_ abcNx019\n', max_size=3))
def test_damaged_text_never_ends_in_a_traceback(position: int, noise: str) -> None:
    damaged = GOOD[:position] + noise + GOOD[position + 1 :]
    try:
        module = parse_module(damaged, GIVEN)
    except MlcError as problem:
        codes = {d.code for d in problem.diagnostics}
    else:
        codes = {Code.TEXT}
        print_module(module)
    assert codes == {Code.TEXT}


def test_an_op_in_one_line() -> None:
    module = rich()
    product, _, branch = list(module.graph.ops)[:3]
    assert print_op(product).startswith("%v0 : f32[N, ?0 + 2*N, ")
    assert "= MatMul(%x : f32[N, ?0 + 2*N, " in print_op(product)
    assert '@/layer/MatMul loc("/layer/MatMul", prune, "int4(32)")' in print_op(product)
    assert print_op(branch).endswith("region then_branch {...} region else_branch {...}")
    assert "\n" not in print_op(branch)
    assert print_op(module.graph.ret).startswith("return %")


def test_large_texts_are_quick() -> None:
    net = Net()
    value: Value = net.input("x", F32, "N", 4)
    weight = net.const(np.ones((4, 4), np.float32))
    for index in range(5_000):
        op = net.node("MatMul", [value, weight], [value.type], {"alpha": 1.0, "pads": Ints((1, 1, 1, 1))})
        op.name, op.loc = f"/model/layers.{index}/MatMul", Loc(f"/model/layers.{index}/MatMul", ("prune",))
        value = op.result
    module = net.done(value)
    start = time.process_time()
    printed = print_module(module)
    back = parse_module(printed, payloads(module))
    spent = time.process_time() - start
    assert equal(module, back)
    assert len(printed) > 600_000
    assert spent < 5  # measured 0.7 s


@real_models()
def test_real_models_make_the_round_trip(model) -> None:
    from mlc.frontends.onnx import load

    round_trip(load(model.path))


def test_a_clone_keeps_all_that_text_can_say_and_shares_none_of_it() -> None:
    module, before = rich(), rich()
    twin = module.clone()
    assert difference(module, twin) is None
    for change in CHANGES:
        change(module.clone())
    twin.meta.properties.clear()
    twin.opsets.clear()
    twin.defaults.clear()
    twin.graph.output_docs.clear()
    first_op(twin).meta.clear()
    assert difference(module, before) is None
