"""Weights stored as codes and widened at load: the numbers of DequantizeLinear, the graph of the float model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kit.net import Net

from mlc.backends.legalize import legalize
from mlc.backends.legalize_stored import KERNEL, fused_by_runtime
from mlc.backends.onnx import to_proto
from mlc.backends.ort import Session
from mlc.ir.constants import Constant
from mlc.ir.core import Ints, Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.evaluate import evaluate
from mlc.ir.quant import QSpec, min_max, quantize
from mlc.ir.quant_blocks import Quantized, quantize_constant
from mlc.ir.types import tensor
from mlc.ir.verify import verify

F32, F16 = DType.F32, DType.F16
BITS = (2, 3, 4, 6, 8)


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1, size=shape).astype(np.float32)


def whole(array: np.ndarray, spec: QSpec, scale_type: DType) -> Quantized:
    """A tensor on one grid."""
    scale, zero = (p.reshape(()) for p in min_max(array.reshape(-1, 1), spec, scale_type=scale_type))
    codes = Constant.of(quantize(array, scale, zero, spec), spec.storage)
    zeros = None if spec.symmetric and spec.signed else Constant.of(zero.astype(spec.storage.numpy), spec.storage)
    return Quantized(codes, Constant.of(scale.astype(scale_type.numpy)), zeros, 0.0, 0.0)


def stored(net: Net, array: np.ndarray, spec: QSpec, *, scale: DType = F16, dtype: DType = F32) -> Value:
    """A tensor as passes leave it: codes, scales and zero points of a grid, and a DequantizeLinear."""
    made = (
        quantize_constant(Constant.of(array), spec, scale_type=scale)
        if spec.axis is not None
        else whole(array, spec, scale)
    )
    scales = net.module._add_constant(net.fresh("w_scale"), made.scale)
    if scale is not dtype:
        scales = net.op("Cast", [scales], [tensor(dtype, *made.scale.shape)], {"to": dtype.onnx})
    operands = [net.module._add_constant(net.fresh("w_quantized"), made.codes), scales]
    if made.zero is not None:
        operands.append(net.module._add_constant(net.fresh("w_zero_point"), made.zero))
    attrs = {"axis": spec.axis or 0, "block_size": spec.block}
    return net.op("DequantizeLinear", operands, [tensor(dtype, *array.shape)], attrs)


def optimized(module: Module, folder: Path) -> list[str]:
    """Kinds of the nodes that ONNX Runtime has left after loading, those of bodies included."""
    path = folder / "optimized.onnx"
    Session(module, optimized_path=path)

    def walk(graph: onnx.GraphProto) -> list[str]:
        inner = [a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
        return [n.op_type for n in graph.node] + [kind for g in inner for kind in walk(g)]

    return walk(onnx.load(path).graph)


def lowered_exactly(module: Module, feeds: dict[str, Any]) -> Module:
    """The lowered module, whose outputs are those of the reference bit for bit."""
    made = legalize(module).module
    verify(made)
    assert "DequantizeLinear" not in [op.kind for op in made.walk()]
    for found, wanted in zip(Session(made).run(feeds).values(), evaluate(module, feeds)):
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)
    return made


SPECS = [
    *(QSpec(b, s, sym, axis, block)
      for b in BITS for s in (True, False) for sym in (True, False) for axis, block in ((None, 0), (1, 0), (1, 4))),
    QSpec(4, False, False, 0, 8),
    QSpec(4, False, False, 2, 2),
    QSpec(8, True, True, 0, 0),
    QSpec(2, True, False, 1, 5),  # a short block
    QSpec(8, True, False, -1, 2),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_numbers_are_those_of_dequantize_linear(spec: QSpec, tmp_path: Path) -> None:
    """Behind an output of the model they can be seen bit for bit; nothing is computed on a run."""
    for scale, dtype in ((F32, F32), (F16, F32), (F16, F16)):
        net = Net()
        net.input("unused", F32, 1)
        module = net.done(stored(net, floats(0, 6, 12, 3), spec, scale=scale, dtype=dtype))
        made = lowered_exactly(module, {"unused": np.zeros(1, np.float32)})
        assert optimized(made, tmp_path) == []
        assert len(legalize(module).sites) == 1
        _refuse_floats(made)


def _refuse_floats(module: Module) -> None:
    """The file holds codes, not the floats they stand for."""
    big = [c for v in module.constants.values() if (c := v.constant) is not None and c.elements >= 6 * 12 * 3]
    assert all(c.dtype.bits <= 8 for c in big)


@pytest.mark.parametrize("count", [4, 5, 6, 7])
def test_2_bit_codes_of_any_number(count: int) -> None:
    net = Net()
    net.input("unused", F32, 1)
    module = net.done(stored(net, floats(1, count), QSpec(2, False, False)))
    lowered_exactly(module, {"unused": np.zeros(1, np.float32)})


def conv(net: Net, spec: QSpec) -> Value:
    w = stored(net, floats(0, 8, 4, 3, 3), spec)
    return net.op("Conv", [net.input("x", F32, 1, 4, 8, 8), w], attrs={"pads": Ints((1, 1, 1, 1))})


def batched(net: Net, spec: QSpec) -> Value:
    return net.op("MatMul", [net.input("x", F32, 2, 3, 16), stored(net, floats(0, 2, 16, 8), spec)])


def table(net: Net, spec: QSpec) -> Value:
    return net.op("Gather", [stored(net, floats(0, 5, 8), spec), net.input("x", DType.I64, 3)])


def recurrent(net: Net, spec: QSpec) -> Value:
    x = net.input("x", F32, 4, 1, 6)
    w, r = stored(net, floats(0, 1, 20, 6), spec), stored(net, floats(1, 1, 20, 5), spec)
    return net.node("LSTM", [x, w, r], attrs={"hidden_size": 5}, count=1).result


@pytest.mark.parametrize("spec", [QSpec(8, True, True, 0), QSpec(4, False, False, 1, 4), QSpec(2, True, True, 1)])
@pytest.mark.parametrize(
    ("build", "left"), [(conv, "Conv"), (batched, "MatMul"), (table, "Gather"), (recurrent, "LSTM")]
)
def test_readers_see_floats(build: Any, left: str, spec: QSpec, tmp_path: Path) -> None:
    net = Net()
    module = net.done(build(net, spec))
    made = legalize(module)
    kinds = optimized(made.module, tmp_path)
    assert left in kinds
    assert not {"DequantizeLinear", "Cast", "Mul", "Sub", "Reshape"} & set(kinds)
    assert made.sites[0].kind == left
    assert made.sites[0].kernel == KERNEL


def test_an_operator_with_several_weights_is_told_once() -> None:
    net = Net()
    assert legalize(net.done(recurrent(net, QSpec(8, True, True, 1)))).lines == (f"1 LSTM -> {KERNEL}",)


def test_bodies_see_floats(tmp_path: Path) -> None:
    """A constant dequantized inside a branch, and one dequantized around it."""
    net = Net()
    x, cond = net.input("x", F32, 1, 4, 8, 8), net.input("cond", DType.BOOL)
    outer = stored(net, floats(0, 8, 4, 1, 1), QSpec(8, True, True, 0))
    then, other = net.body("then_branch"), net.body("else_branch")
    inner = stored(then, floats(1, 8, 4, 1, 1), QSpec(4, False, False, 0))
    then.output(then.op("Conv", [x, inner]))
    other.output(other.op("Conv", [x, outer]))
    y = net.node("If", [cond], None, regions={"then_branch": then.graph, "else_branch": other.graph}).result
    module = net.done(y)
    for branch in (True, False):
        feeds = {"x": floats(2, 1, 4, 8, 8), "cond": np.array(branch)}
        made = legalize(module).module
        wanted = evaluate(module, feeds)[0]
        assert np.allclose(Session(made).run(feeds)[module.graph.output_names[0]], wanted, atol=1e-4)
    kinds = optimized(made, tmp_path)
    assert kinds.count("Conv") == 2
    assert not {"DequantizeLinear", "Cast", "Mul", "Sub"} & set(kinds)


def quantized(net: Net, value: Value, scale: float = 0.05, zero: int = 100) -> Value:
    parameters = [net.const(np.float32(scale)), net.const(np.uint8(zero))]
    codes = net.op("QuantizeLinear", [value, *parameters])
    return net.op("DequantizeLinear", [codes, *parameters])


@pytest.mark.parametrize("clamp", [None, "Relu"])
def test_units_of_the_runtime_stay(clamp: str | None, tmp_path: Path) -> None:
    net = Net()
    x = quantized(net, net.input("x", F32, 1, 4, 8, 8))
    y = net.op("Conv", [x, stored(net, floats(0, 8, 4, 3, 3), QSpec(8, True, True, 0), scale=F32)])
    if clamp is not None:
        y = net.op(clamp, [y])
    module = net.done(quantized(net, y, zero=0))
    made = legalize(module)
    assert made.sites == ()
    assert "QLinearConv" in optimized(made.module, tmp_path)


def test_a_conv_with_float_results_is_no_unit(tmp_path: Path) -> None:
    net = Net()
    x = quantized(net, net.input("x", F32, 1, 4, 8, 8))
    y = net.op("Conv", [x, stored(net, floats(0, 8, 4, 3, 3), QSpec(8, True, True, 0))])
    kinds = optimized(legalize(net.done(y)).module, tmp_path)
    assert kinds[:3] == ["QuantizeLinear", "DequantizeLinear", "Conv"]
    assert kinds.count("DequantizeLinear") == 1


def test_products_of_codes_stay() -> None:
    net = Net()
    x = quantized(net, net.input("x", F32, 4, 16))
    spec = QSpec(8, True, True, 1)
    a = net.op("MatMul", [x, stored(net, floats(0, 16, 8), spec)])
    b = net.op("Gemm", [x, stored(net, floats(1, 16, 8), spec)])
    float_bias = net.op("Gemm", [x, stored(net, floats(2, 16, 8), spec), net.const(floats(3, 8))])
    net.done(a, b, float_bias)
    fused = {value: fused_by_runtime(value.op) for value in (a, b, float_bias) if value.op is not None}
    assert list(fused.values()) == [True, True, False]


def test_what_several_ops_dequantize_is_widened_once() -> None:
    net = Net()
    x = net.input("x", F32, 1, 4, 8, 8)
    w = stored(net, floats(0, 8, 4, 3, 3), QSpec(8, True, True, 0))
    assert w.op is not None
    again = net.op("DequantizeLinear", w.op.operands, [w.type], dict(w.op.attrs))
    made = legalize(net.done(net.op("Conv", [x, w]), net.op("Conv", [x, again]))).module
    assert [op.kind for op in made.walk()].count("Mul") == 1


def test_a_unit_and_a_float_reader_share_codes(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", F32, 1, 4, 8, 8)
    w = stored(net, floats(0, 8, 4, 3, 3), QSpec(8, True, True, 0), scale=F32)
    unit = quantized(net, net.op("Conv", [quantized(net, x), w]))
    made = legalize(net.done(unit, net.op("Conv", [x, w]))).module
    kinds = optimized(made, tmp_path)
    assert {"QLinearConv", "Conv"} <= set(kinds)
    assert len([v for v in made.constants.values() if v.constant and v.constant.dtype is DType.I8]) == 1


def test_32_bit_codes_with_a_zero_point_stay() -> None:
    """Their differences do not fit in float32."""
    for zero, stays in ((0, False), (1, True)):
        net = Net()
        net.input("unused", F32, 1)
        operands = [net.const(np.array([1 << 24, 3], np.int32)), net.const(np.float32(0.5)), net.const(np.int32(zero))]
        made = legalize(net.done(net.op("DequantizeLinear", operands, [tensor(F32, 2)]))).module
        assert ("DequantizeLinear" in [op.kind for op in made.walk()]) is stays


def test_the_file_says_4_bits() -> None:
    net = Net()
    module = net.done(conv(net, QSpec(4, True, True, 0)))
    proto = to_proto(legalize(module).module)
    assert onnx.TensorProto.INT4 in [t.data_type for t in proto.graph.initializer]
