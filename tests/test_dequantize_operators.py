"""`dequantize`, one operator at a time: what works on codes and what is known of ranges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from kit.codes import (
    IMAGE,
    IN,
    binary,
    concat,
    conv,
    given_grid,
    left,
    matmul,
    only,
    qgemm,
    rng,
    s8,
    scalar,
    skips,
    through,
    u8,
    unary,
    where,
)
from kit.net import Net

from mlc.backends.ort import Session
from mlc.ir.core import Ints, Value
from mlc.ir.dtypes import DType
from mlc.ir.ops.opdef import Trait
from mlc.ir.ops.table import lookup
from mlc.passes.quantize.dequantize.step import Dequantize

F32, U8, I8, I32, I64 = DType.F32, DType.U8, DType.I8, DType.I32, DType.I64
Array = np.ndarray[Any, Any]


# -- one operator at a time --------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A net on codes: what it is made of, the operators that it becomes, steps of the result that it may move by."""

    build: Callable[[Net, Value], Value]
    becomes: set[str]
    scale: float = 0.05
    steps: float = 1.5
    shape: tuple[int, ...] = (2, 6)


CASES: dict[str, Case] = {
    "conv": Case(conv, {"Conv", "Clip"}, shape=IMAGE),
    "matmul": Case(matmul, {"MatMul"}),
    "gemm": Case(qgemm(transposed=False, alpha=1.0), {"Gemm"}),
    "gemm_scaled": Case(qgemm(transposed=True, alpha=0.5), {"Gemm"}),
    "add": Case(binary("QLinearAdd"), {"Add"}),
    "mul": Case(binary("QLinearMul"), {"Mul"}),
    "sigmoid": Case(unary("QLinearSigmoid", 1 / 255, 0), {"Sigmoid"}, scale=1 / 255),
    "leaky": Case(unary("QLinearLeakyRelu", 0.02, 60, alpha=0.3), {"LeakyRelu"}, scale=0.02),
    "softmax": Case(unary("QLinearSoftmax", 1 / 256, 0, axis=-1, opset=13), {"Softmax"}, scale=1 / 256),
    "softmax_old": Case(
        unary("QLinearSoftmax", 1 / 256, 0, axis=1, opset=11), {"Softmax", "Flatten", "Reshape", "Shape"},
        scale=1 / 256, shape=(2, 3, 4),
    ),
    "average": Case(
        unary("QLinearAveragePool", 0.02, 120, kernel_shape=Ints((2, 2))), {"AveragePool"}, scale=0.02, shape=IMAGE
    ),
    "mean": Case(unary("QLinearGlobalAveragePool", 0.02, 120), {"GlobalAveragePool"}, scale=0.02, shape=IMAGE),
    "mean_last": Case(
        unary("QLinearGlobalAveragePool", 0.02, 120, channels_last=1), {"ReduceMean"}, scale=0.02, shape=IMAGE
    ),
    "concat": Case(concat, {"Concat"}),
    "where": Case(where, {"Where"}),
    "pool": Case(through(("MaxPool", {"kernel_shape": Ints((2, 2))})), {"Add", "MaxPool"}, shape=IMAGE),
    "pads": Case(through(("Pad", {}), ("PadDefault", {})), {"Add", "Pad"}, shape=IMAGE),
    "moves": Case(
        through(("Transpose", {"perm": Ints((0, 2, 3, 1))}), ("Gather", {"axis": 2}), ("Concat", {"axis": 1})),
        {"Add", "Transpose", "Gather", "Concat"}, shape=IMAGE,
    ),
    "resize": Case(through(("Resize", {"mode": "nearest"})), {"Add", "Resize"}, shape=IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ranges", ["folded", "all"])
def test_operators_on_codes(name: str, ranges: str) -> None:
    """Between a QuantizeLinear and a DequantizeLinear; the result moves by about a step where nothing saturates."""
    case = CASES[name]
    net = Net()
    x = net.input("x", F32, *case.shape)
    made = case.build(net, net.op("QuantizeLinear", [x, *given_grid(net)]))
    out = _grid_of_result(made)
    module = net.done(net.op("DequantizeLinear", [made, *out]))
    floats = Dequantize(ranges=ranges)(module)
    assert not left(floats)
    assert not skips(floats)
    kinds = {op.kind for op in floats.walk()} - ({"Clip", "Relu"} if ranges == "all" else set())
    assert kinds == (case.becomes - {"Clip"} if ranges == "all" else case.becomes)
    feeds = {"x": rng(7).uniform(-1.5, 1.5, case.shape).astype(np.float32)}
    wanted, found = only(Session(module).run(feeds)), only(Session(floats).run(feeds))
    inside = (np.abs(wanted - wanted.min()) > 1e-6) & (np.abs(wanted - wanted.max()) > 1e-6)
    apart = np.abs(wanted - found)
    assert apart[inside].max() <= case.steps * case.scale + 2 * IN[0]
    if ranges == "all":
        assert apart.max() <= case.steps * case.scale + 2 * IN[0]


def _grid_of_result(made: Value) -> list[Value]:
    """The scale and zero point that the last operator on codes rounds to."""
    op = made.op
    while op is not None and not lookup(op.kind).has(Trait.QUANTIZED):
        op = op.operands[0].op if op.operands[0] is not None else None
    assert op is not None
    if op.op_type == "QLinearConcat":
        return [op.operands[0], op.operands[1]]  # type: ignore[list-item]
    slots = {"QGemm": (7, 8), "QLinearWhere": (7, 8)}.get(op.op_type, (6, 7) if len(op.operands) > 6 else (3, 4))
    return [op.operands[s] for s in slots]  # type: ignore[misc]


def test_a_relu_that_the_range_stood_for_comes_back() -> None:
    """Only where the operators before it can go below zero."""
    for kind, wanted in (("Neg", {"Neg", "Relu"}), ("Sigmoid", {"Sigmoid"})):
        net = Net()
        x = net.input("x", F32, 2, 6)
        made = net.op(
            "QuantizeLinear", [net.op(kind, [x]), scalar(net, 1e30 if kind == "Neg" else 1 / 200), u8(net, 0)]
        )
        module = net.done(net.op("DequantizeLinear", [made, *made.op.operands[1:]]))  # type: ignore[union-attr]
        floats = Dequantize()(module)
        found = {op.kind for op in floats.walk()}
        assert found == ({"Neg", "Clip"} if kind == "Neg" else wanted)


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (lambda net, x: net.op("Concat", [net.op("Relu", [x]), net.op("Neg", [x])], attrs={"axis": 0}), "Clip"),
        (lambda net, x: net.op("Concat", [net.op("Relu", [x]), net.op("Sigmoid", [x])], attrs={"axis": 0}), ""),
        (lambda net, x: net.op("Clip", [x, scalar(net, 0), scalar(net, 3)]), ""),
        (lambda net, x: net.op("Clip", [x, scalar(net, -1), scalar(net, 3)]), "Relu"),
        (lambda net, x: net.op("Transpose", [net.op("Softmax", [x])]), ""),
    ],
)
def test_what_is_known_of_a_range(build: Callable[[Net, Value], Value], wanted: str) -> None:
    """A range that starts at 0 needs an operator only where values can be below."""
    net = Net()
    y = build(net, net.input("x", F32, 2, 6))
    before = {op.kind for op in net.module.walk()}
    q = net.op("QuantizeLinear", [y, scalar(net, 0.02), u8(net, 0)])
    module = net.done(net.op("DequantizeLinear", [q, scalar(net, 0.02), u8(net, 0)]))
    found = [op.kind for op in Dequantize()(module).walk()]
    assert len(found) == len(list(net.module.walk())) - 2 + bool(wanted)
    assert not wanted or found.count(wanted) == 1 + (wanted in before)


@pytest.mark.parametrize("grid", [(0.2, 100), (0.1, 130), (0.04, 128)])
def test_codes_that_are_read_on_another_grid(grid: tuple[float, int]) -> None:
    """A product with a number and a shift; the ends of the range they were made on count."""
    net = Net()
    x = net.input("x", F32, 2, 30)
    q = net.op("QuantizeLinear", [x, scalar(net, 0.1), u8(net, 100)])
    module = net.done(net.op("DequantizeLinear", [q, scalar(net, grid[0]), u8(net, grid[1])]))
    floats = Dequantize()(module)
    assert not left(floats)
    feeds = {"x": np.linspace(-20, 30, 60, dtype=np.float32).reshape(2, 30)}
    wanted, found = (only(Session(m).run(feeds)) for m in (module, floats))
    np.testing.assert_allclose(wanted, found, atol=grid[0] / 2 + 1e-4)


def test_a_symmetric_range_is_cut_only_on_request() -> None:
    net = Net()
    x = net.input("x", F32, 2, 6)
    made = net.op("QuantizeLinear", [x, scalar(net, 0.01), s8(net)])
    module = net.done(net.op("DequantizeLinear", [made, *made.op.operands[1:]]))  # type: ignore[union-attr]
    assert not list(Dequantize()(module).walk())
    cut = Dequantize(ranges="all")(module)
    feeds = {"x": np.linspace(-3, 3, 12, dtype=np.float32).reshape(2, 6)}
    np.testing.assert_allclose(only(Session(cut).run(feeds)), only(Session(module).run(feeds)), atol=0.0051)
