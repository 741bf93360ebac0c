"""What is written: names, placement of constants, element types, versions, external data, and nothing on failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from kit.broken_models import good, model, value
from kit.graphs import feeds, modules
from kit.lossless import content, difference, lost
from kit.net import Net
from onnx import helper

from mlc.backends.onnx import save, to_proto
from mlc.backends.onnx_versions import least_runtime
from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.frontends.onnx_weights import check_weights
from mlc.ir.constants import ArrayPayload, Constant, FilePayload
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.types import TensorType

F32 = DType.F32
node = helper.make_node


def linear(rows: int = 64, columns: int = 32) -> tuple[Net, Module]:
    """y = relu(x w) with a weight large enough to be streamed."""
    net = Net()
    x = net.input("x", F32, "N", rows)
    weight = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    y = net.op("Relu", [net.op("MatMul", [x, net.const(weight, "w")])])
    return net, net.done(y)


# -- bytes and files --------------------------------------------------------------------------------------------


def test_same_bytes_however_written(tmp_path: Path) -> None:
    _, module = linear()
    for name in ("a", "b"):
        save(module, tmp_path / f"{name}.onnx")
    first = (tmp_path / "a.onnx").read_bytes()
    assert first == (tmp_path / "b.onnx").read_bytes() == _saved(module.clone(), tmp_path / "c.onnx")
    assert onnx.ModelProto.FromString(first) == to_proto(module), "streamed and built in memory are one message"


def _saved(module: Module, path: Path) -> bytes:
    save(module, path)
    return path.read_bytes()


def test_external_data_is_aligned_and_equal(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", F32, 2, 150)
    for i, size in enumerate((150, 200, 90)):
        x = net.op("MatMul", [x, net.const(np.full((x.type.shape[-1], size), i + 0.5, np.float32), f"w{i}")])  # type: ignore[union-attr]
    module = net.done(x)
    save(module, tmp_path / "m.onnx", external="always")
    light = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    places = [{e.key: e.value for e in t.external_data} for t in light.graph.initializer]
    assert {p["location"] for p in places} == {"m.onnx.data"}
    assert all(int(p["offset"]) % 4096 == 0 for p in places), "large tensors can be mapped"
    written = {t.name: content(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert written == {t.name: content(t) for t in to_proto(module).graph.initializer}
    again = load(tmp_path / "m.onnx")
    assert all(isinstance(v.constant and v.constant.payload, FilePayload) for v in again.constants.values())
    feed = {"x": np.ones((2, 150), np.float32)}
    assert difference(*(next(iter(Session(s).run(feed).values())) for s in (module, tmp_path / "m.onnx"))) == 0.0
    assert again.source is not None
    assert again.source.nbytes == sum(f.stat().st_size for f in tmp_path.iterdir())


def test_an_existing_file_is_refused_and_overwritten_when_asked(tmp_path: Path) -> None:
    _, module = linear()
    save(module, tmp_path / "m.onnx")
    with pytest.raises(MlcError, match="E0801"):
        save(module, tmp_path / "m.onnx")
    save(module, tmp_path / "m.onnx", overwrite=True)


class _Failing:
    """A payload that breaks off in the middle, as a full disk or a lost file does."""

    def array(self) -> np.ndarray[Any, Any]:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("external", ["never", "always"])
def test_nothing_is_left_when_writing_fails(external: Any, tmp_path: Path) -> None:
    net, module = linear()
    net.module.constants["w"].constant = Constant(TensorType(F32, (64, 32)), _Failing())
    (tmp_path / "m.onnx").write_bytes(b"the old one")
    with pytest.raises(MlcError, match="is full") as caught:
        save(module, tmp_path / "m.onnx", external=external, overwrite=True)
    assert caught.value.exit_status == 4
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"m.onnx": b"the old one"}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    _, module = linear()
    with pytest.raises(MlcError, match="E0802"):
        save(module, tmp_path / "no" / "such" / "folder.onnx")


def test_two_gigabytes_do_not_fit_one_message(tmp_path: Path) -> None:
    net = Net()
    huge = np.broadcast_to(np.float32(0), (1 << 15, 1 << 14, 2))
    w = net.module._add_constant("w", Constant(TensorType(F32, huge.shape), ArrayPayload(huge)))
    x = net.input("x", F32, 1)
    module = net.done(net.op("Add", [x, w]))
    for write in (lambda: save(module, tmp_path / "m.onnx", external="never"), lambda: to_proto(module)):
        with pytest.raises(MlcError, match="2 GiB at most"):
            write()
    assert not list(tmp_path.iterdir())


def test_overwriting_the_file_that_holds_the_constants(tmp_path: Path) -> None:
    """The new file is right; the old module knows that its weights are gone."""
    path = tmp_path / "m.onnx"
    _, module = linear()
    save(module, path)
    loaded = load(path)
    wanted = loaded.constants["w"].constant
    assert wanted is not None
    before = wanted.array().copy()
    loaded.meta.doc = "longer, so that every offset moves"
    save(loaded, path, overwrite=True)
    after = load(path).constants["w"].constant
    assert after is not None
    assert np.array_equal(after.array(), before)
    with pytest.raises(MlcError, match="was changed"):
        wanted.array()


# -- names and interface ----------------------------------------------------------------------------------------


def interface_cases() -> dict[str, Callable[[Net], None]]:
    def one_value_two_names(net: Net) -> None:
        y = net.op("Relu", [net.graph.inputs[0]])
        net.output(y, "a")
        net.output(y, "b")

    def input_under_another_name(net: Net) -> None:
        net.output(net.graph.inputs[0], "a")

    def constant_under_another_name(net: Net) -> None:
        net.output(net.const(np.float32([1, 2]), "c"), "a")

    def output_named_like_an_inner_value(net: Net) -> None:
        y = net.op("Relu", [net.graph.inputs[0]])
        net.output(net.op("Neg", [y]), y.name)

    def result_under_the_name_of_the_interface(net: Net) -> None:
        net.output(net.op("Relu", [net.graph.inputs[0]]), "scores")

    return {k: v for k, v in locals().items() if callable(v)}


@pytest.mark.parametrize("case", interface_cases().values(), ids=interface_cases().keys())
def test_outputs_keep_their_names(case: Callable[[Net], None]) -> None:
    net = Net()
    net.input("x", F32, 2)
    case(net)
    proto = to_proto(net.module)
    onnx.checker.check_model(proto, full_check=True)
    x = np.float32([-1, 2])
    found = Session(net.module).run({"x": x})
    assert list(found) == net.graph.output_names
    if net.graph.output_names == ["a", "b"]:
        assert np.array_equal(found["a"], found["b"])


def test_no_identity_where_none_is_needed() -> None:
    net = Net()
    net.output(net.op("Relu", [net.input("x", F32, 2)]), "scores")
    assert [n.op_type for n in to_proto(net.module).graph.node] == ["Relu"]


def test_bodies_hand_out_only_values_of_their_own() -> None:
    """ONNX Runtime refuses captured outputs and computes garbage for one listed twice."""
    net = Net()
    x, flag = net.input("x", F32, 2), net.input("flag", DType.BOOL)
    inner = net.op("Abs", [x])
    then, other = net.body("then"), net.body("else")
    doubled = then.op("Add", [x, x])
    for v in (doubled, doubled, inner, x):
        then.output(v)
    for v in (inner, x, net.const(np.float32([7, 8]), "k"), inner):
        other.output(v)
    result = net.node("If", [flag], [x.type] * 4, regions={"then_branch": then.graph, "else_branch": other.graph})
    module = net.done(*result.results)
    onnx.checker.check_model(to_proto(module), full_check=True)
    x_data = np.float32([-1, 2])
    for flag_data, wanted in (
        (True, [2 * x_data, 2 * x_data, abs(x_data), x_data]),
        (False, [abs(x_data), x_data, [7, 8], abs(x_data)]),
    ):
        found = Session(module, optimize=False).run({"x": x_data, "flag": np.array(flag_data)})
        assert [list(v) for v in found.values()] == [list(w) for w in wanted]


def test_constants_lie_in_the_innermost_graph_that_encloses_their_uses() -> None:
    net = Net()
    x, flag = net.input("x", F32, 2), net.input("flag", DType.BOOL)
    shared, own = net.const(np.float32([1, 2]), "shared"), net.const(np.float32([3, 4]), "own")
    then, other = net.body("then"), net.body("else")
    then.output(then.op("Add", [then.op("Add", [x, shared]), own]))
    other.output(other.op("Mul", [x, shared]))
    module = net.done(
        net.node("If", [flag], [x.type], regions={"then_branch": then.graph, "else_branch": other.graph}).result
    )
    net.const(np.float32([9]), "unused")
    proto = to_proto(module)
    bodies = {a.name: a.g for a in proto.graph.node[0].attribute}
    assert [t.name for t in proto.graph.initializer] == ["shared", "unused"]
    assert [t.name for t in bodies["then_branch"].initializer] == ["own"]
    assert not bodies["else_branch"].initializer


def test_operators_of_mlc_never_reach_a_file(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", F32, 2)
    module = net.done(net.op("mlc::Dequantize", [x], [x.type]))
    with pytest.raises(MlcError, match="mlc::Dequantize"):
        save(module, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


# -- element types ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.STR], ids=lambda d: d.short)
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4), (70, 35)], ids=str)
def test_every_element_type_survives(dtype: DType, shape: tuple[int, ...], tmp_path: Path) -> None:
    net = Net()
    bits = np.random.default_rng(1).integers(0, 256, int(np.prod(shape)) * 16, dtype=np.uint8)
    constant = _from_bits(bits, dtype, shape)
    net.output(net.module._add_constant("w", constant), "w")
    for external in ("never", "always"):
        save(net.module, tmp_path / "m.onnx", external=external, overwrite=True)  # type: ignore[arg-type]
        found = load(tmp_path / "m.onnx").constants["w"].constant
        assert found is not None
        assert found.type == constant.type
        assert found.tobytes() == constant.tobytes()
        (stored,) = onnx.load(tmp_path / "m.onnx").graph.initializer
        array = onnx.numpy_helper.to_array(stored)
        assert array.tobytes() == constant.array().tobytes(), "ONNX itself reads the same elements"


def _from_bits(bits: np.ndarray[Any, Any], dtype: DType, shape: tuple[int, ...]) -> Constant:
    count = int(np.prod(shape))
    if dtype.bits < 8:
        codes = bits[:count] % (1 << dtype.bits)
        signed = codes.astype(np.int8) - (1 << (dtype.bits - 1)) if dtype.kind == "int" else codes
        values = codes.view(dtype.numpy) if dtype.is_float else signed.astype(dtype.numpy)
        return Constant.of(values.reshape(shape), dtype)
    if dtype is DType.BOOL:
        return Constant.of((bits[:count] % 2).astype(bool).reshape(shape))
    return Constant.of(bits[: count * dtype.bits // 8].view(dtype.numpy).reshape(shape), dtype)


def test_text_constants() -> None:
    net = Net()
    net.output(net.const(np.array([["a", "\u00e9"], ["", "long " * 500]], object), "w"), "w")
    module = load(to_proto(net.module))
    constant = module.constants["w"].constant
    assert constant is not None
    assert constant.array().tolist() == [["a", "\u00e9"], ["", "long " * 500]]


# -- versions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "dtype", "ir", "runtime"),
    [
        (21, DType.F32, 10, "1.18"),
        (22, DType.F32, 10, "1.21"),
        (23, DType.F4E2M1, 11, "1.23"),
        (21, DType.F8E8M0, 12, "1.24"),
        (25, DType.I2, 13, "1.24"),
        (26, DType.F32, 13, "1.25"),
        (28, DType.F32, 14, None),
    ],
)
def test_versions(opset: int, dtype: DType, ir: int, runtime: str | None) -> None:
    net = Net(opset=opset)
    net.output(net.module._add_constant("w", _from_bits(np.zeros(64, np.uint8), dtype, (2,))), "w")
    proto = to_proto(net.module)
    assert (proto.ir_version, least_runtime(proto)) == (ir, runtime)
    if runtime is not None and opset < 27:
        onnx.checker.check_model(proto)


def test_a_newer_ir_version_than_needed_is_kept_up_to_what_runtimes_read(tmp_path: Path) -> None:
    for ir, wanted in ((10, 10), (12, 12), (14, 13)):
        made = good()
        made.ir_version = ir
        (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
        assert to_proto(load(tmp_path / "m.onnx")).ir_version == wanted


@pytest.mark.parametrize("opset", [17, 19, 21, 22, 26])
def test_another_opset(opset: int, tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Constant", [], ["axes"], value_ints=[1]),
        node("ReduceMax", ["m", "axes"], ["r"], keepdims=1),
        node("Sub", ["m", "r"], ["d"]),
        node("Softmax", ["d"], ["y"], axis=-1),
    ]
    rng = np.random.default_rng(0)
    made = model(nodes, [value("x", shape=("N", 40))], [value("y", shape=("N", 40))])
    made.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=(40, 40)).astype(np.float32), "w"))
    made.doc_string = "kept"
    module = load(made)
    save(module, tmp_path / "m.onnx", opset=opset)
    written = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert written.opset_import[0].version == opset
    assert [p for p in lost(made, written) if "node" not in p] == []
    feed = {"x": rng.normal(size=(3, 40)).astype(np.float32)}
    assert difference(Session(module).run(feed)["y"], Session(tmp_path / "m.onnx").run(feed)["y"]) < 1e-6


@pytest.mark.parametrize(
    ("made", "opset", "names"),
    [
        (node("Gelu", ["x"], ["y"], "act"), 17, "act"),
        (node("LayerNormalization", ["x", "s"], ["y"], "norm"), 16, "norm"),
        (node("Sub", ["x", "x"], ["y"]), 13, "Sub of opset 14"),
        (node("Relu", ["x"], ["y"]), 3, "opset 3"),
        (node("Relu", ["x"], ["y"]), 99, "opset 99"),
    ],
)
def test_an_opset_that_cannot_be_written(made: onnx.NodeProto, opset: int, names: str, tmp_path: Path) -> None:
    scale = onnx.numpy_helper.from_array(np.ones(4, np.float32), "s")
    module = load(model([made], initializers=[scale]))
    with pytest.raises(MlcError, match=names):
        save(module, tmp_path / "m.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


def test_what_the_converter_leaves_behind_is_refused(tmp_path: Path) -> None:
    """It lowers this pool without a word and keeps an attribute that the older operator lacks."""
    pool = node("AveragePool", ["x"], ["y"], "pool", kernel_shape=[2], dilations=[2])
    module = load(model([pool], [value("x", shape=(1, 2, 8))], [value("y", shape=(1, 2, 6))]))
    with pytest.raises(MlcError, match=r"dilations(.|\n)*pool"):
        save(module, tmp_path / "m.onnx", opset=18)


def test_int4_has_no_older_form(tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"], "dq"), node("MatMul", ["x", "w"], ["y"])]
    made = model(nodes)
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), ml_dtypes.int4), "q"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "s"))
    with pytest.raises(MlcError, match=r"opset 19.*"):
        save(load(made), tmp_path / "m.onnx", opset=19)


# -- weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [d for d in DType if d.is_float and d.bits >= 8], ids=lambda d: d.short)
def test_nan_is_found_and_infinity_is_not(dtype: DType) -> None:
    def checked(*numbers: float) -> None:
        net = Net()
        net.output(net.const(np.array(numbers).astype(dtype.numpy), "w", dtype=dtype))
        check_weights(net.module)

    checked(1.0, 2.0, 0.5)
    if np.isinf(np.array(np.inf).astype(dtype.numpy).astype(np.float64)):
        checked(-np.inf, np.inf)
    with pytest.raises(MlcError, match=r"'w'.*\[2\]"):
        checked(1.0, 2.0, np.nan)


def test_nan_in_a_default_and_far_behind() -> None:
    made = good()
    array = np.zeros((4096, 4096), np.float32)
    array[-1, -2] = np.nan
    made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, "w"))
    made.graph.input[0].CopyFrom(value("x", shape=(2, 4096)))
    made.graph.output[0].CopyFrom(value("y", shape=(2, 4096)))
    made.graph.input.append(value("w", shape=(4096, 4096)))
    with pytest.raises(MlcError, match=r"\[4095, 4094\]"):
        check_weights(load(made))


# -- random graphs ----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(modules())
def test_random_modules_survive_the_trip(module: Module) -> None:
    proto = to_proto(module)
    again = load(proto)
    assert to_proto(load(to_proto(again))) == to_proto(again), "the second trip changes nothing"
    data = feeds(module)
    sessions = [Session(m, optimize=False) for m in (proto.SerializeToString(), again)]
    try:
        wanted = sessions[0].run(data)
    except MlcError:
        return  # a loop of no turns, say: the runtime makes its stacked results [0, 0, ...]
    found = sessions[1].run(data)
    assert list(wanted) == list(found)
    assert [difference(wanted[k], found[k]) for k in wanted] == [0.0] * len(wanted)
