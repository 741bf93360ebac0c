"""The inference engine: bodies, what is already known, contradictions, operators nobody knows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from kit.single import infer, make
from onnx import TensorProto, helper

from mlc.frontends.onnx import load
from mlc.ir import dims
from mlc.ir.core import Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.infer import infer_module
from mlc.ir.types import SequenceType, TensorType, UnrankedTensor, tensor

FLOAT = TensorProto.FLOAT


def module(text: str, **attributes: onnx.GraphProto) -> Module:
    """A module from ONNX's text syntax."""
    return load(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21, "com.acme": 1]>\n{text}'))


def named(module: Module, name: str) -> Value:
    return next(v for v in module.values() if v.name == name)


def test_branches_of_one_rank_join() -> None:
    m = module(
        """g (bool c, float[N, 4] x) => (float[A, B] y) {
             y = If (c) <then_branch = t () => (float[A, B] a) { a = Relu (x) },
                         else_branch = e () => (float[A, B] b) { b = Concat <axis = 0> (x, x) }> }"""
    )
    (y,) = m.graph.outputs
    assert isinstance(y.type, TensorType)
    assert y.type.shape[1] == 4
    assert dims.is_fresh(y.type.shape[0])


def test_branches_of_different_rank_have_no_rank_but_weights_still_speak() -> None:
    m = module(
        """g (bool c, float[N, 4] x, float[8, 4, 3] w) => (float[A, B, C] z) {
             one = Constant <value_ints = [0]> ()
             y = If (c) <then_branch = t () => (float[?] a) { a = Unsqueeze (x, one) },
                         else_branch = e () => (float[?] b) { b = Relu (x) }>
             z = Conv (y, w) }"""
    )
    assert named(m, "y").type == UnrankedTensor(DType.F32)
    z = named(m, "z").type
    assert isinstance(z, TensorType)
    assert z.shape[1] == 8


@pytest.mark.parametrize(("flag", "wanted"), [(1, tensor(DType.F32, 1, "N")), (0, tensor(DType.F32, "N"))])
def test_a_known_condition_chooses(flag: int, wanted: TensorType) -> None:
    m = module(
        f"""g (float[N] x) => (float[A] y) {{
             zero = Constant <value_ints = [0]> ()
             n = Constant <value_int = {flag}> ()
             c = Cast <to = 9> (n)
             y = If (c) <then_branch = t () => (float[A, B] a) {{ a = Unsqueeze (x, zero) }},
                         else_branch = e () => (float[A] b) {{ b = Relu (x) }}> }}"""
    )
    assert m.graph.outputs[0].type == wanted


def test_branches_of_different_dtype_are_refused() -> None:
    with pytest.raises(MlcError, match="branches yield"):
        module(
            """g (bool c, float[N] x) => (float[N] y) {
                 y = If (c) <then_branch = t () => (float[N] a) { a = Relu (x) },
                             else_branch = e () => (int64[N] b) { b = Cast <to = 7> (x) }> }"""
        )


LOOP = """g (int64 n, bool c, float[2, 3] x) => (float[A, B] y, float[R, A, B] s) {{
    y, s = Loop (n, c, x) <body = b (int64 i, bool on, float[A, B] v) => (bool still, float[A, B] w, float[A, B] u) {{
        still = Identity (on)
        w = {step}
        u = Relu (v) }}> }}"""


def test_a_loop_keeps_what_every_round_keeps() -> None:
    m = module(LOOP.format(step="Relu (v)"))
    y, s = m.graph.outputs
    assert y.type == tensor(DType.F32, 2, 3)
    assert isinstance(s.type, TensorType)
    assert s.type.shape[1:] == (2, 3)
    assert dims.is_fresh(s.type.shape[0])


def test_a_loop_widens_what_grows() -> None:
    m = module(LOOP.format(step="Concat <axis = 0> (v, v)"))
    y, s = m.graph.outputs
    assert isinstance(y.type, TensorType)
    assert isinstance(s.type, TensorType)
    assert dims.is_fresh(y.type.shape[0])
    assert y.type.shape[1] == s.type.shape[2] == 3
    body = next(m.walk()).regions["body"]
    assert isinstance(body.inputs[2].type, TensorType)
    assert dims.is_fresh(body.inputs[2].type.shape[0]), "the body must hold for every round, not for the first one"


def test_a_counted_loop_stacks_as_often_as_it_runs() -> None:
    m = module(
        """g (float[2] x) => (float[A, B] s) {
             n = Constant <value_int = 5> ()
             none, s = Loop (n, , x) <body = b (int64 i, bool going, float[2] v) => (bool t, float[2] w, float[2] u) {
                 t = Constant <value = bool {1}> ()
                 w = Identity (v)
                 u = Relu (v) }> }"""
    )
    assert m.graph.outputs[0].type == tensor(DType.F32, 5, 2)


def test_scan_moves_its_axis() -> None:
    m = module(
        """g (float[3] h, float[N, T, 3] x) => (float[3] last, float[A, B] all) {
             last, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                 body = b (float[3] s, float[N, 3] r) => (float[3] s2, float[N] o) {
                     one = Constant <value_ints = [1]> ()
                     s2 = Relu (s)
                     o = ReduceSum <keepdims = 0> (r, one) }> (h, x) }"""
    )
    last, every = m.graph.outputs
    assert last.type == tensor(DType.F32, 3)
    assert every.type == tensor(DType.F32, "N", "T")


def _declared(shape: list[int | str | None] | None, elem: int = FLOAT) -> onnx.ModelProto:
    """x [N, 4] -> Relu -> mid (declared as given) -> Relu -> y."""
    nodes = [helper.make_node("Relu", ["x"], ["mid"]), helper.make_node("Relu", ["mid"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", FLOAT, ["N", 4])]
    outputs = [helper.make_tensor_value_info("y", FLOAT, None)]
    info = [helper.make_tensor_value_info("mid", elem, shape)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, value_info=info)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


@pytest.mark.parametrize("shape", [["N", 5], [1, 4], [4], None], ids=str)
def test_wrong_value_info_does_not_win(shape: list[int | str | None] | None) -> None:
    m = load(_declared(shape))
    assert named(m, "mid").type == named(m, "y").type == tensor(DType.F32, "N", 4)


def test_wrong_element_type_is_refused() -> None:
    with pytest.raises(MlcError) as caught:
        load(_declared(["N", 4], TensorProto.INT64))
    (problem,) = caught.value.diagnostics
    assert problem.code is Code.BROKEN_MODEL
    assert "f32" in problem.message
    assert "i64" in problem.message


def test_declared_numbers_help_where_inference_does_not_know() -> None:
    m = module(
        """g (float[N, 4] x, int64[2] s) => (float[A, B] y) <float[K, 8] r> {
             r = Reshape (x, s)
             y = Relu (r) }"""
    )
    found = m.graph.outputs[0].type
    assert isinstance(found, TensorType)
    assert found.shape[1] == 8
    assert found.shape[0] != dims.Sym("K"), "a declared name is only a claim"


def test_a_declared_rank_helps_where_none_is_known() -> None:
    m = module(
        """g (float[N, 4] x, int64[R] s) => (float[A, B] y) <float[K, 8] r> {
             r = Reshape (x, s)
             y = Relu (r) }"""
    )
    found = m.graph.outputs[0].type
    assert isinstance(found, TensorType)
    assert found.shape[1] == 8
    assert dims.is_fresh(found.shape[0]), "a declared name is only a claim"


def test_a_loop_that_may_stop_early_stacks_an_unknown_number() -> None:
    m = module(
        """g (float[2] x) => (float[A, B] s) {
             n = Constant <value_int = 5> ()
             none, s = Loop (n, , x) <body = b (int64 i, bool going, float[2] v) => (bool t, float[2] w, float[2] u) {
                 two = Constant <value_int = 2> ()
                 t = Less (i, two)
                 w = Identity (v)
                 u = Relu (v) }> }"""
    )
    found = m.graph.outputs[0].type
    assert isinstance(found, TensorType)
    assert dims.is_fresh(found.shape[0])


def test_inferring_twice_changes_nothing_in_loops() -> None:
    m = module(LOOP.format(step="Concat <axis = 0> (v, v)"))
    before = [(v.name, v.type) for v in m.values()]
    infer_module(m)
    assert [(v.name, v.type) for v in m.values()] == before


def test_inferring_twice_changes_nothing() -> None:
    m = module(
        """g (bool c, float[N, 4] x, int64[2] s) => (float[A, B] z) {
             r = Reshape (x, s)
             i = NonZero (r)
             z = If (c) <then_branch = t () => (float[A, B] a) { a = Relu (r) },
                         else_branch = e () => (float[A, B] b) { b = Concat <axis = 0> (r, x) }> }"""
    )
    before = [(v.name, v.type, v.dims) for v in m.values()]
    infer_module(m)
    assert [(v.name, v.type, v.dims) for v in m.values()] == before


def test_inference_forgets_on_request() -> None:
    m = load(_declared(["N", 4]))
    m.graph.inputs[0].type = tensor(DType.F32, 2, 7)
    infer_module(m, keep=False)
    assert m.graph.outputs[0].type == tensor(DType.F32, 2, 7)


def test_an_operator_nobody_knows() -> None:
    op = make("com.acme::Mystery", [("N", 3)])
    op.result.type = tensor(DType.I8, 7)
    (found,) = infer(op, require=False, opsets={"com.acme": 1})
    assert found.type == tensor(DType.I8, 7)
    with pytest.raises(MlcError) as caught:
        infer(op, opsets={"com.acme": 1})
    assert caught.value.diagnostics[0].code is Code.UNSUPPORTED_MODEL
    assert "com.acme::Mystery" in caught.value.diagnostics[0].message


def test_more_results_than_the_operator_has() -> None:
    with pytest.raises(MlcError, match="at most"):
        infer(make("Relu", [("N", 3)], results=2))


def test_onnx_reasons_reach_the_message() -> None:
    with pytest.raises(MlcError) as caught:
        infer(make("Compress", [("N", 3), tensor(DType.BOOL, 2)], {"axis": 7}))
    assert "Compress" in str(caught.value)
    assert "axis" in str(caught.value)


def test_sequences_pass() -> None:
    m = module(
        """g (float[N, 3] x, float[M, 3] z) => (float[A, B] y) {
             s = SequenceConstruct (x, z)
             i = Constant <value_int = 0> ()
             y = SequenceAt (s, i) }"""
    )
    assert isinstance(named(m, "s").type, SequenceType)
    y = m.graph.outputs[0].type
    assert isinstance(y, TensorType)
    assert y.shape[1] == 3


def test_zero_sized_and_scalar_tensors() -> None:
    assert infer(make("Relu", [(0, 3)]))[0].type == tensor(DType.F32, 0, 3)
    assert infer(make("Add", [(), ()]))[0].type == tensor(DType.F32)
    assert infer(make("Concat", [(0, 3), (2, 3)], {"axis": 0}))[0].type == tensor(DType.F32, 2, 3)
    assert infer(make("Gather", [(3,), np.zeros((0,), np.int64)]))[0].type == tensor(DType.F32, 0)
