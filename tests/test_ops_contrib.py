"""Operators of com.microsoft: inferred shapes and references against ONNX Runtime itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.single import infer, make, shape_at
from onnx import helper
from onnxruntime import InferenceSession, SessionOptions

from mlc.ir.core import Ints, Op
from mlc.ir.dtypes import DType
from mlc.ir.evaluate import evaluate_op
from mlc.ir.onnx_attrs import node_proto
from mlc.ir.ops.table import lookup
from mlc.ir.types import tensor

MS = "com.microsoft::"
Array = np.ndarray[Any, Any]


def _rng() -> np.random.Generator:
    return np.random.default_rng(3)


def f32(*shape: int) -> Array:
    return _rng().uniform(-1, 1, shape).astype(np.float32)


def u8(*shape: int) -> Array:
    return _rng().integers(0, 256, shape).astype(np.uint8)


def i8(*shape: int) -> Array:
    return _rng().integers(-128, 128, shape).astype(np.int8)


def one(kind: type[np.generic], value: float) -> Array:
    return np.array(value, kind)


def nbits(bits: int, block: int, inner: int, *, zero: bool = False, bias: bool = False) -> list[Array | None]:
    blocks = -(-inner // block)
    packed = u8(5, blocks, block * bits // 8)
    zeros = u8(5, -(-blocks * bits // 8)) if zero else None
    return [f32(2, 3, inner), packed, f32(5, blocks), zeros, None, f32(5) if bias else None]


S, Z = one(np.float32, 0.05), one(np.uint8, 128)
LSTM = [f32(4, 2, 3), i8(1, 3, 16), i8(1, 4, 16), f32(1, 32), None, None, None, None]
LSTM += [f32(1) ** 2 + 0.01, np.zeros(1, np.int8), f32(1) ** 2 + 0.01, np.zeros(1, np.int8)]

ROWS: list[tuple[str, list[Array | None], dict[str, Any], int]] = [
    *(
        (
            "MatMulNBits",
            nbits(bits, block, inner, zero=zero),
            {"K": inner, "N": 5, "bits": bits, "block_size": block},
            1,
        )
        for bits in (2, 4, 8)
        for block, inner in ((32, 96), (16, 40))
        for zero in (False, True)
    ),
    ("MatMulNBits", nbits(4, 32, 64, bias=True), {"K": 64, "N": 5, "bits": 4, "block_size": 32}, 1),
    ("GatherBlockQuantized", [u8(9, 32), np.array([[1, 8, 0]]), f32(9, 4)], {"block_size": 16, "bits": 4}, 1),
    ("GatherBlockQuantized", [u8(9, 32), np.array([1, 8]), f32(9, 4), u8(9, 2)], {"block_size": 16, "bits": 4}, 1),
    ("GatherBlockQuantized", [u8(9, 32), np.array([1, 8]), f32(9, 1)], {"block_size": 32, "bits": 8}, 1),
    ("DynamicQuantizeLSTM", LSTM, {"hidden_size": 4}, 3),
    ("DynamicQuantizeMatMul", [f32(2, 6), i8(6, 5), S, None, f32(5)], {}, 1),
    ("DynamicQuantizeMatMul", [f32(2, 6), u8(6, 5), S, Z], {}, 1),
    ("MatMulIntegerToFloat", [u8(2, 6), u8(6, 5), S, S, Z, Z, f32(5)], {}, 1),
    ("Gelu", [f32(2, 6)], {}, 1),
    ("FastGelu", [f32(2, 6), f32(6)], {}, 1),
    ("QuickGelu", [f32(2, 6)], {"alpha": 1.5}, 1),
    ("BiasGelu", [f32(2, 6), f32(6)], {}, 1),
    ("FusedMatMul", [f32(2, 6, 3), f32(2, 5, 6)], {"transA": 1, "transB": 1, "alpha": 0.5}, 1),
    ("FusedMatMul", [f32(4, 2, 6), f32(2, 6, 5)], {"transBatchA": 1}, 1),
    ("TransposeMatMul", [f32(2, 6), f32(5, 6)], {"transB": 1, "alpha": 0.5}, 1),
    ("Inverse", [f32(2, 4, 4)], {}, 1),
    ("FusedGemm", [f32(2, 6), f32(6, 5), f32(5)], {"activation": "Relu"}, 1),
    ("FusedConv", [f32(1, 4, 6, 6), f32(8, 4, 3, 3)], {"activation": "Relu", "strides": Ints((2, 2))}, 1),
    ("SkipLayerNormalization", [f32(2, 3, 8), f32(2, 3, 8), f32(8), f32(8), f32(8)], {"epsilon": 1e-5}, 1),
    ("SkipSimplifiedLayerNormalization", [f32(2, 3, 8), f32(2, 3, 8), f32(8)], {"epsilon": 1e-5}, 1),
    ("Attention", [f32(2, 3, 8), f32(8, 24), f32(24)], {"num_heads": 2}, 1),
    ("MultiHeadAttention", [f32(2, 3, 8), f32(2, 5, 8), f32(2, 5, 8)], {"num_heads": 2}, 1),
    ("QLinearAdd", [u8(2, 6), S, Z, u8(6), S, Z, S, Z], {}, 1),
    ("QLinearMul", [u8(2, 6), S, Z, u8(6), S, Z, S, Z], {}, 1),
    ("QLinearSigmoid", [u8(2, 6), S, Z, S, Z], {}, 1),
    ("QLinearLeakyRelu", [u8(2, 6), S, Z, S, Z], {}, 1),
    ("QLinearConcat", [S, Z, u8(2, 6), S, Z, u8(2, 3), S, Z], {"axis": 1}, 1),
    ("QLinearWhere", [u8(2, 6) > 99, u8(2, 6), S, Z, u8(6), S, Z, S, Z], {}, 1),
    ("QLinearGlobalAveragePool", [u8(2, 3, 4, 4), S, Z, S, Z], {}, 1),
    ("QLinearAveragePool", [u8(2, 3, 5, 5), S, Z, S, Z], {"kernel_shape": Ints((3, 3)), "strides": Ints((2, 2))}, 1),
    ("QLinearSoftmax", [u8(2, 6), S, Z, one(np.float32, 1 / 256), one(np.uint8, 0)], {"opset": 13}, 1),
    ("QGemm", [u8(2, 6), S, Z, u8(6, 5), S, Z, None, S, Z], {}, 1),
    ("QGemm", [u8(2, 6), S, Z, u8(6, 5), S, Z], {}, 1),
    ("QAttention", [u8(2, 3, 8), u8(8, 24), f32(24), S, S, None, Z, Z], {"num_heads": 2}, 1),
    ("QuantizeLinear", [f32(2, 6), S, Z], {}, 1),
    ("DequantizeLinear", [u8(2, 6), S, Z], {}, 1),
]


def _session(op: Op, arrays: list[Array | None]) -> list[Array]:
    node = node_proto(op)
    fed = {f"x{i}": a for i, a in enumerate(arrays) if a is not None}
    # Weights are initializers: kernels insist on constant ones.
    first = min(fed)
    inputs = [helper.make_tensor_value_info(first, helper.np_dtype_to_tensor_dtype(fed[first].dtype), fed[first].shape)]
    weights = [
        helper.make_tensor(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape, a.tobytes(), raw=True)
        for n, a in fed.items()
        if n != first
    ]
    graph = helper.make_graph([node], "g", inputs, [], initializer=weights)
    for name in node.output:
        graph.output.add(name=name)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, ir_version=10, opset_imports=imports)
    options = SessionOptions()
    options.log_severity_level = 4
    found: list[Array] = InferenceSession(model.SerializeToString(), options).run(None, {first: fed[first]})
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_against_the_runtime(row: tuple[str, list[Array | None], dict[str, Any], int]) -> None:
    kind, arrays, attrs, results = row
    op = make(MS + kind, arrays, attrs, results)
    real = _session(op, arrays)
    for said, array in zip(infer(op, opsets={"com.microsoft": 1}), real, strict=True):
        assert shape_at(said, {}) == array.shape
        assert said.type.dtype.numpy == array.dtype
    if lookup(op.kind).reference is not None:
        for ours, theirs in zip(evaluate_op(op, arrays), real, strict=True):
            largest = np.abs(theirs.astype(np.float64)).max()
            np.testing.assert_allclose(ours.astype(np.float64), theirs.astype(np.float64), atol=1e-6 * largest + 1e-9)


@pytest.mark.parametrize(
    ("kind", "operands", "attrs", "wanted"),
    [
        ("MatMulNBits", [("N", "T", 64), u8(7, 2, 16), f32(7, 2)], {"K": 64, "N": 7}, ("N", "T", 7)),
        ("SkipLayerNormalization", [("N", "T", 8), ("N", "T", 8), (8,)], {}, ("N", "T", 8)),
        ("Attention", [("N", "T", 8), (8, 24)], {"num_heads": 2}, ("N", "T", 8)),
        ("GroupQueryAttention", [("N", "T", 96), None, None], {"num_heads": 4, "kv_num_heads": 1}, ("N", "T", 64)),
        ("FusedMatMul", [("N", 6, "T"), ("N", 6, 5)], {"transA": 1}, ("N", "T", 5)),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_symbolic(kind: str, operands: list[Any], attrs: dict[str, Any], wanted: tuple[int | str, ...]) -> None:
    assert infer(make(MS + kind, operands, attrs), opsets={"com.microsoft": 1})[0].type == tensor(DType.F32, *wanted)
