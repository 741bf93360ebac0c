"""Every row of the target's table against ONNX Runtime: what it says has a kernel for codes is computed from codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from kit.net import Net

from mlc.backends.legalize import legalize
from mlc.backends.ort import Session
from mlc.backends.targets import ORT_CPU, OrtTarget, Row
from mlc.ir.core import Attr, Ints, Op, Value
from mlc.ir.dtypes import DType
from mlc.ir.types import TensorType, tensor

F32, I64 = DType.F32, DType.I64
SHAPE = (1, 4, 8, 8)
#: HardSigmoid is an Add by then: tests/test_int8.py.
STATIC = [row for row in ORT_CPU if row.form == "static" and row.op not in ("*", "HardSigmoid")]
DYNAMIC = [row for row in ORT_CPU if row.form == "dynamic" and row.level == "native"]
BLOCKS = [row for row in ORT_CPU if row.form == "blocks" and row.level == "native"]

#: Attributes, and further operands: arrays, or "data" for a second activation.
ATTRS: dict[str, dict[str, Attr]] = {
    "AveragePool": {"kernel_shape": Ints((2, 2))},
    "Concat": {"axis": 1},
    "DepthToSpace": {"blocksize": 2},
    "Gather": {"axis": 1},
    "MaxPool": {"kernel_shape": Ints((2, 2))},
    "Resize": {"mode": "nearest"},
    "Transpose": {"perm": Ints((0, 2, 3, 1))},
}
OPERANDS: dict[str, list[object]] = {
    "Add": ["data"],
    "Clip": [np.float32(0), np.float32(5.1)],
    "Concat": ["data"],
    "Expand": [[2, 4, 8, 8]],
    "Gather": [[0, 2]],
    "GatherElements": [np.zeros((1, 2, 8, 8), np.int64)],
    "Mul": ["data"],
    "Pad": [[0, 0, 1, 1, 0, 0, 1, 1]],
    "ReduceMax": [[3]],
    "ReduceMin": [[3]],
    "Reshape": [[1, -1]],
    "Resize": [None, np.array([1, 1, 2, 2], np.float32)],
    "Slice": [[0, 0], [1, 2]],
    "Split": [[2, 2]],
    "Squeeze": [[0]],
    "Tile": [[2, 1, 1, 1]],
    "Unsqueeze": [[0]],
}
ATTRS["Split"] = {"axis": 1}


def codes(net: Net, value: Value, scale: float = 0.02, zero: int = 0) -> Value:
    parameters = [net.const(np.float32(scale)), net.const(np.uint8(zero))]
    return net.op("DequantizeLinear", [net.op("QuantizeLinear", [value, *parameters]), *parameters])


def weight(net: Net, *shape: int, axis: int) -> Value:
    rng = np.random.default_rng(0)
    quantized = net.const(rng.integers(-127, 128, shape).astype(np.int8), net.fresh("w_quantized"))
    scale = net.const(np.full(shape[axis], 0.01, np.float32))
    return net.op("DequantizeLinear", [quantized, scale], [tensor(F32, *shape)], {"axis": axis})


def kinds(net: Net, result: Value, folder: Path) -> list[str]:
    module = legalize(net.done(result)).module
    Session(module, optimized_path=folder / "optimized.onnx")
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def unit(row: Row) -> tuple[Net, Value]:
    """One operator between codes."""
    net = Net()
    matrix = row.op in ("MatMul", "Gemm")
    x = codes(net, net.input("x", F32, *((3, 16) if matrix else SHAPE)))
    if matrix:
        return net, net.op(row.op, [x, weight(net, 16, 8, axis=1)])
    if row.op in ("Conv", "ConvTranspose"):
        y = net.op(row.op, [x, weight(net, 4, 4, 3, 3, axis=0 if row.op == "Conv" else 1)])
    elif row.op == "Where":
        y = net.op("Where", [net.const(np.ones((8, 8), np.bool_)), x, codes(net, net.input("z", F32, *SHAPE))])
    else:
        operands = [x, *(operand(net, o) for o in OPERANDS.get(row.op, []))]
        made = net.node(row.op, operands, attrs=ATTRS.get(row.op, {}), count=2 if row.op == "Split" else 1)
        y, *others = made.results
        for other in others:
            net.output(codes(net, other))
    return net, codes(net, y)


def operand(net: Net, given: object) -> Value | None:
    if isinstance(given, str):
        return codes(net, net.input("z", F32, *SHAPE), 0.03)
    return None if given is None else net.const(np.array(given) if isinstance(given, list) else given)


@pytest.mark.parametrize("row", STATIC, ids=lambda row: row.op)
def test_static_rows(row: Row, tmp_path: Path) -> None:
    found = kinds(*unit(row), tmp_path)
    if row.level == "no":
        if row.op != "Softmax":  # which has a kernel, a slow one
            assert row.op in found
            assert found.count("DequantizeLinear") >= 2
        return
    kernel = row.kernel.removeprefix("com.microsoft::").split(" ")[0]
    assert kernel in found or kernel == "none:" or row.op == "Identity"
    assert found.count("QuantizeLinear") == (2 if row.op in ("Add", "Mul", "Where", "Concat") else 1)  # of the inputs
    results = {"MatMul": 0, "Gemm": 0, "Split": 2}
    assert found.count("DequantizeLinear") == results.get(row.op, 1)


@pytest.mark.parametrize("row", DYNAMIC, ids=lambda row: row.op)
def test_dynamic_rows(row: Row, tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", F32, 3, 16)
    found = net.node("DynamicQuantizeLinear", [x], [tensor(DType.U8, 3, 16), tensor(F32), tensor(DType.U8)])
    data = net.op("DequantizeLinear", list(found.results))
    assert kinds(net, net.op(row.op, [data, weight(net, 16, 8, axis=1)]), tmp_path) == ["DynamicQuantizeMatMul"]


def lookup(kind: str, net: Net, table: Value) -> Value:
    if kind == "Gather":
        return net.op("Gather", [table, net.input("ids", I64, 3)])
    return net.op("Slice", [table, net.ints(0), net.ints(3), net.ints(0)])


@pytest.mark.parametrize("row", BLOCKS, ids=lambda row: row.op)
def test_blocks_rows(row: Row, tmp_path: Path) -> None:
    """Every width and block that the target says it serves, and one block that it does not."""
    target = OrtTarget(isa="vnni")
    for bits in row.bits:
        for block in (16, 256, 24):
            net = Net()
            products = row.op in ("MatMul", "Gemm")
            table = blocks(net, bits, block, axis=0 if products else 1)
            y = net.op(row.op, [net.input("x", F32, 3, 256), table]) if products else lookup(row.op, net, table)
            assert y.op is not None
            serves = bool(target.supports(y.op, "blocks", bits=bits, block=block))
            assert serves is (block != 24)
            wanted = row.kernel.removeprefix("com.microsoft::").split(" ")[0]
            assert (wanted in kinds(net, y, tmp_path)) is serves
    assert not target.supports(y.op, "blocks", bits=5, block=32)


def blocks(net: Net, bits: int, block: int, axis: int) -> Value:
    shape, storage = (256, 256), {2: DType.U2, 3: DType.U4, 4: DType.U4}.get(bits, DType.U8)
    values = np.random.default_rng(0).integers(0, 1 << bits, shape).astype(storage.numpy)
    scales = [-(-n // block) if i == axis else n for i, n in enumerate(shape)]
    operands = [
        net.const(values, net.fresh("w_quantized"), dtype=storage),
        net.const(np.full(scales, 0.01, np.float32)),
        net.const(np.full(scales, 1 << (bits - 1)).astype(storage.numpy), dtype=storage),
    ]
    return net.op("DequantizeLinear", operands, [TensorType(F32, shape)], {"axis": axis, "block_size": block})


def test_what_has_no_row_has_no_kernel() -> None:
    relu6 = Op("HardSwish")
    for form in ("blocks", "static", "dynamic"):
        support = OrtTarget().supports(relu6, form, bits=4, block=32)
        assert not support
        assert support.reason
    assert OrtTarget().supports(relu6, "stored")


@pytest.mark.parametrize("kind", ["Tanh", "HardSwish", "Erf", "InstanceNormalization", "Sub", "Relu", "SpaceToDepth"])
def test_what_has_no_row_is_computed_from_floats(kind: str, tmp_path: Path) -> None:
    """`Relu` stands for a clamp that the codes of its result do not make redundant."""
    net = Net()
    operands = [codes(net, net.input("x", F32, *SHAPE))]
    if kind == "Sub":
        operands.append(codes(net, net.input("z", F32, *SHAPE)))
    if kind == "InstanceNormalization":
        operands += [net.const(np.ones(4, np.float32))] * 2
    attrs: dict[str, Attr] = {"blocksize": 2} if kind == "SpaceToDepth" else {}
    found = kinds(net, codes(net, net.op(kind, operands, attrs=attrs), zero=9), tmp_path)
    assert found.count("DequantizeLinear") == len(operands if kind != "InstanceNormalization" else operands[:1]) + 1
