"""Costs: textbook numbers, symbolic sizes, bodies, quantized weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from kit.real import RealModel, real_models
from kit.single import infer, make

from mlc.frontends.onnx import load
from mlc.ir import dims
from mlc.ir.core import Graph, Ints, Module, Op, Value
from mlc.ir.cost import bind, cost_of, module_cost
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.rewrite import Rewriter
from mlc.ir.types import TensorType, tensor


def typed(op: Op, **versions: int) -> Op:
    for value, found in zip(op.results, infer(op, opset=23, opsets=versions)):
        value.type, value.dims = found.type, found.dims
    return op


X4 = ("N", 6, 8, 8)
LSTM = [("T", "N", 5), (2, 16, 5), (2, 16, 4)]
MS = "com.microsoft::"
U8 = DType.U8
ROWS: list[tuple[str, list[Any], dict[str, Any], int]] = [  # MACs at N = 2, T = 3
    ("Conv", [X4, (12, 2, 3, 3)], {"group": 3, "pads": Ints((1, 1, 1, 1))}, 2 * 12 * 64 * 2 * 9),
    ("ConvTranspose", [X4, (6, 4, 3, 3)], {"strides": Ints((2, 2))}, 2 * 6 * 64 * 4 * 9),
    ("MatMul", [("N", 4, "T", 5), (5, 7)], {}, 2 * 4 * 3 * 5 * 7),
    ("MatMul", [(5,), (5,)], {}, 5),
    ("Gemm", [(5, "N"), (7, 5)], {"transA": 1, "transB": 1}, 2 * 5 * 7),
    ("Einsum", [("N", "T", 5), (5, 7)], {"equation": "bti,io->bto"}, 2 * 3 * 5 * 7),
    ("Einsum", [("T", "T")], {"equation": "ii->i"}, 0),
    ("LSTM", LSTM, {"hidden_size": 4, "direction": "bidirectional"}, 3 * 2 * 2 * (16 * 5 + 16 * 4)),
    ("GRU", [("T", "N", 5), (1, 12, 5), (1, 12, 4)], {"hidden_size": 4}, 3 * 2 * (12 * 5 + 12 * 4)),
    ("MatMulInteger", [tensor(U8, "N", 5), tensor(U8, 5, 7)], {}, 2 * 5 * 7),
    ("ConvInteger", [tensor(U8, *X4), tensor(U8, 4, 6, 3, 3)], {}, 2 * 4 * 36 * 6 * 9),
    ("Attention", [("N", 4, "T", 8), ("N", 4, 10, 8), ("N", 4, 10, 6)], {}, 2 * 4 * 3 * 10 * (8 + 6)),
    ("Relu", [X4], {}, 0),
    ("Add", [X4, X4], {}, 0),
    (MS + "MatMulNBits", [("N", 64), tensor(U8, 7, 2, 16), (7, 2)], {"K": 64, "N": 7, "bits": 4}, 2 * 64 * 7),
    (MS + "FusedMatMul", [(5, "N"), (5, 7)], {"transA": 1}, 2 * 5 * 7),
    (MS + "DynamicQuantizeMatMul", [("N", 5), tensor(U8, 5, 7), ()], {}, 2 * 5 * 7),
    (MS + "MultiHeadAttention", [("N", "T", 8), ("N", 9, 8), ("N", 9, 8)], {"num_heads": 2}, 2 * 3 * 9 * 16),
    (MS + "Attention", [("N", "T", 8), (8, 24)], {"num_heads": 2}, 2 * 3 * 8 * 24 + 2 * 3 * 3 * 16),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_macs(row: tuple[str, list[Any], dict[str, Any], int]) -> None:
    kind, operands, attrs, wanted = row
    found = cost_of(typed(make(kind, operands, attrs), **{"com.microsoft": 1}))
    assert bind(found.macs, {"N": 2, "T": 3}) == wanted


def test_bytes_and_bit_operations() -> None:
    op = typed(make("MatMul", [("N", 64), np.ones((64, 8), np.float32)]))
    cost = cost_of(op)
    n = dims.Sym("N")
    assert cost.macs == 512 * n
    assert cost.bytes_read == 256 * n + 2048
    assert cost.bytes_written == 32 * n
    assert cost.bit_ops == 512 * 32 * 32 * n


def test_bit_operations_look_behind_dequantize_linear() -> None:
    weight = typed(make("DequantizeLinear", [np.ones((64, 8), np.int8), np.float32(0.1)])).result
    source = typed(make("DequantizeLinear", [tensor(U8, "N", 64), ()])).result
    assert cost_of(typed(make("MatMul", [source, weight]))).bit_ops == 512 * 8 * 8 * dims.Sym("N")
    assert cost_of(typed(make("MatMul", [("N", 64), weight]))).bit_ops == 512 * 32 * 8 * dims.Sym("N")
    packed = make(MS + "MatMulNBits", [("N", 64), tensor(U8, 8, 2, 16), (8, 2)], {"K": 64, "N": 8, "bits": 4})
    assert cost_of(typed(packed, **{"com.microsoft": 1})).bit_ops == 512 * 32 * 4 * dims.Sym("N")


def test_gather_reads_only_its_rows() -> None:
    op = typed(make("Gather", [np.ones((30000, 384), np.float32), tensor(DType.I64, 1, 16)]))
    assert cost_of(op).bytes_read == 16 * 384 * 4 + 16 * 8


def test_packed_elements_take_their_bits() -> None:
    op = typed(make("DequantizeLinear", [tensor(DType.I4, 3, 5), ()]))
    assert cost_of(op).bytes_read == 8 + 4


def test_unbound_sizes_are_named() -> None:
    with pytest.raises(MlcError, match="--dims H=1,N=1") as caught:
        bind(dims.Sym("N") * dims.Sym("H"), {})
    assert caught.value.diagnostics[0].code is Code.BAD_DIMS
    with pytest.raises(MlcError, match="only known when the model runs"):
        bind(3 * dims.fresh(), {"N": 2})


LOOP = """<ir_version: 10, opset_import: ["": 21]>
g (int64 n, float[2, 3] x, float[3, 3] w) => (float[2, 3] y) {{
    k = Constant <value_int = 5> ()
    y = Loop ({trip}, , x) <body = b (int64 i, bool on, float[2, 3] v) => (bool t, float[2, 3] z) {{
        t = Constant <value = bool {{1}}> ()
        z = MatMul (v, w) }}> }}"""


def test_a_loop_costs_its_rounds() -> None:
    module = load(onnx.parser.parse_model(LOOP.format(trip="k")))
    assert module_cost(module).macs == 5 * 18
    assert module_cost(module).unknown == ()


def test_a_loop_of_unknown_length_is_flagged() -> None:
    module = load(onnx.parser.parse_model(LOOP.format(trip="n")))
    cost = module_cost(module)
    assert [op.kind for op in cost.unknown] == ["Loop"]
    assert dims.is_fresh(cost.macs)
    assert dims.exact_div(cost.macs, 18) is not None


def test_a_loop_that_may_stop_early_is_flagged() -> None:
    early = LOOP.format(trip="k").replace("t = Constant <value = bool {1}> ()", "t = Less (i, n)")
    assert [op.kind for op in module_cost(load(onnx.parser.parse_model(early))).unknown] == ["Loop"]


def test_an_if_costs_its_dearer_branch() -> None:
    module = load(
        onnx.parser.parse_model(
            """<ir_version: 10, opset_import: ["": 21]>
            g (bool c, float[N, 3] x, float[3, 3] w) => (float[N, 3] y) {
                y = If (c) <then_branch = t () => (float[N, 3] a) { a = MatMul (x, w) },
                            else_branch = e () => (float[N, 3] b) { b = Relu (x) }> }"""
        )
    )
    assert module_cost(module).macs == 9 * dims.Sym("N")


# -- whole networks ----------------------------------------------------------------------------------------------------


class Builder:
    """Just enough to write down a ResNet."""

    def __init__(self, *shape: int | str) -> None:
        self.module = Module(Graph("net", [Value(tensor(DType.F32, *shape), "x")]), opset=21)
        self.rewriter = Rewriter(self.module)
        self.value = self.module.graph.inputs[0]

    def op(self, kind: str, *operands: Value, **attrs: Any) -> Value:
        return self.rewriter.insert(kind, operands, attrs, before=self.module.graph).result

    def conv(self, x: Value, width: int, kernel: int, stride: int) -> Value:
        assert isinstance(x.type, TensorType)
        weight = self.constant(width, x.type.shape[1], kernel, kernel)
        pads = Ints((kernel // 2,) * 4)
        y = self.op("Conv", x, weight, pads=pads, strides=Ints((stride, stride)))
        return self.op("BatchNormalization", y, *(self.constant(width) for _ in range(4)))

    def constant(self, *shape: Any) -> Value:
        return self.rewriter.constant(np.broadcast_to(np.float32(0), shape), "w")

    def bottleneck(self, x: Value, width: int, stride: int) -> Value:
        assert isinstance(x.type, TensorType)
        y = self.op("Relu", self.conv(x, width, 1, 1))
        y = self.op("Relu", self.conv(y, width, 3, stride))
        y = self.conv(y, 4 * width, 1, 1)
        skip = x if x.type.shape[1] == 4 * width else self.conv(x, 4 * width, 1, stride)
        return self.op("Relu", self.op("Add", y, skip))


def resnet50() -> Module:
    net = Builder("N", 3, 224, 224)
    x = net.op("Relu", net.conv(net.value, 64, 7, 2))
    x = net.op("MaxPool", x, kernel_shape=Ints((3, 3)), strides=Ints((2, 2)), pads=Ints((1, 1, 1, 1)))
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            x = net.bottleneck(x, width, stride if block == 0 else 1)
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    x = net.op("Gemm", x, net.constant(1000, 2048), net.constant(1000), transB=1)
    net.module.graph._add_output(x, "y")
    return net.module


def test_resnet50() -> None:
    """4.09 G multiply-accumulates and 25.6 M parameters; the textbook does not count 53 k running statistics."""
    cost = module_cost(resnet50())
    assert bind(cost.macs, {"N": 1}) == 4_089_184_256
    assert cost.parameters == 25_557_032 + 53_120
    assert cost.weight_bytes == 4 * cost.parameters
    assert bind(cost.macs, {"N": 7}) == 7 * 4_089_184_256


@real_models("mobilenet_v2")
def test_mobilenet_v2(model: RealModel) -> None:
    """About 300 M multiply-accumulates and 3.5 M parameters."""
    cost = module_cost(load(model.path))
    assert bind(cost.macs, {"batch": 1}) == 300_774_272
    assert abs(cost.parameters - 3_504_872) < 40_000  # folded statistics aside


@real_models("minilm")
def test_minilm(model: RealModel) -> None:
    cost = module_cost(load(model.path))
    assert abs(cost.parameters - 22_713_216) < 300_000
    at = bind(cost.macs, {"batch": 1, "sequence": 128})
    per_layer = 128 * (4 * 384 * 384 + 2 * 384 * 1536) + 2 * 128 * 128 * 384
    assert 6 * per_layer <= at <= 6.1 * per_layer
    assert cost.unknown == ()
