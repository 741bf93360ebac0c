"""`dequantize`, one operator at a time: sums of products, recurrent layers, attention, tables and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.codes import MS, array_of, codes, given_grid, left, only, rng, s8, scalar, skips, u8
from kit.net import Net

from mlc.backends.ort import Session
from mlc.ir.core import Ints, Value
from mlc.ir.dtypes import DType
from mlc.ir.evaluate import evaluate
from mlc.ir.text import print_module
from mlc.ir.types import tensor
from mlc.passes.base import SkipCode
from mlc.passes.quantize.dequantize.step import Dequantize

F32, U8, I8, I32, I64 = DType.F32, DType.U8, DType.I8, DType.I32, DType.I64
Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("kind", ["MatMulIntegerToFloat", "DynamicQuantizeMatMul"])
@pytest.mark.parametrize("bias", [False, True])
def test_products_that_the_runtime_fuses(kind: str, bias: bool) -> None:
    net = Net()
    x = net.input("x", F32, 3, 6)
    weight, per_column = codes(net, 1, 6, 5), net.const(rng(3).uniform(0.001, 0.01, 5).astype(np.float32))
    last = [net.const(rng(4).normal(size=5).astype(np.float32))] if bias else []
    if kind == "DynamicQuantizeMatMul":
        made = net.op(MS + kind, [x, weight, per_column, net.const(np.zeros(5, np.int8)), *last])
    else:
        parts = net.node("DynamicQuantizeLinear", [x], None, count=3).results
        made = net.op(MS + kind, [parts[0], weight, parts[1], per_column, parts[2], None, *last])
    module = net.done(made)
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == ["MatMul", *(["Add"] if bias else [])]
    weights = next(v.constant for v in floats.constants.values() if v.constant and v.constant.shape == (6, 5))
    assert np.array_equal(weights.array(), array_of(weight).astype(np.float32) * array_of(per_column))
    feeds = {"x": rng(5).normal(size=(3, 6)).astype(np.float32)}
    np.testing.assert_allclose(*(only(Session(m).run(feeds)) for m in (module, floats)), atol=0.05)


@pytest.mark.parametrize("form", ["joined", "apart", "column", "weight_first"])
def test_sums_of_products_and_their_factors(form: str) -> None:
    """The scale of the weight is what is left of the factors."""
    net = Net()
    x = net.input("x", F32, 3, 6)
    parts = net.node("DynamicQuantizeLinear", [x], None, count=3).results
    shape = (5,) if form == "column" else ()
    scale = net.const(rng(3).uniform(0.001, 0.01, shape).astype(np.float32))
    weight = codes(net, 1, 6, 5) if form != "weight_first" else codes(net, 1, 4, 3)
    operands = [parts[0], weight, parts[2], s8(net, 3)]
    if form == "weight_first":
        operands = [weight, parts[0], s8(net, 3), parts[2]]
    total = net.op("Cast", [net.op("MatMulInteger", operands)], attrs={"to": 1})
    if form == "apart":
        made = net.op("Mul", [net.op("Mul", [total, parts[1]]), scale])
    else:
        made = net.op("Mul", [total, net.op("Mul", [parts[1], scale])])
    module = net.done(made)
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == ["MatMul"]
    wanted = (array_of(weight).astype(np.int32) - 3).astype(np.float32) * array_of(scale)
    found = [v.constant.array() for v in floats.constants.values() if v.constant]
    assert len(found) == 1
    assert np.array_equal(found[0], wanted)
    feeds = {"x": rng(5).normal(size=(3, 6)).astype(np.float32)}
    np.testing.assert_allclose(only(Session(floats).run(feeds)), evaluate(module, feeds)[0], atol=0.08)


def test_a_table_on_two_grids() -> None:
    """Codes that are read with two scales are two tensors of numbers; read twice with one, they are one."""
    net = Net()
    x = net.input("x", F32, 2, 6)
    weight = codes(net, 0, 6, 6)
    for scale in (0.1, 0.2, 0.1):
        x = net.op("MatMul", [x, net.op("DequantizeLinear", [weight, scalar(net, scale), s8(net)])])
    floats = Dequantize()(net.done(x))
    made = [v.constant.array() for v in floats.constants.values() if v.constant]
    assert [np.array_equal(m, array_of(weight) * np.float32(s)) for m, s in zip(made, (0.1, 0.2))] == [True, True]


def test_codes_that_move_along_the_axis_of_their_scales() -> None:
    """Transposed codes are no longer on the same grid: the operators stay."""
    net = Net()
    x = net.input("x", F32, 6, 6)
    scales, zeros = net.const(rng(0).uniform(0.01, 0.1, 6).astype(np.float32)), net.const(np.zeros(6, np.int8))
    q = net.op("QuantizeLinear", [x, scales, zeros], attrs={"axis": 0})
    turned = net.op("Transpose", [q])
    module = net.done(net.op("DequantizeLinear", [turned, scales, zeros], attrs={"axis": 0}))
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == ["QuantizeLinear", "Transpose", "DequantizeLinear"]
    straight = Net()
    x = straight.input("x", F32, 6, 6)
    grid = [straight.const(array_of(scales)), straight.const(array_of(zeros))]
    q = straight.op("QuantizeLinear", [x, *grid], attrs={"axis": 0})
    module = straight.done(straight.op("DequantizeLinear", [q, *grid], attrs={"axis": 0}))
    feeds = {"x": rng(1).normal(size=(6, 6)).astype(np.float32) * 5}
    cut = Dequantize(ranges="all")(module)
    assert [op.kind for op in cut.walk()] == ["Max", "Min"]
    np.testing.assert_allclose(only(Session(cut).run(feeds)), evaluate(module, feeds)[0], atol=0.051)


@pytest.mark.parametrize("wrong", ["zero", "place"])
def test_sums_that_are_read_otherwise(wrong: str) -> None:
    """With another zero point than the codes were made with; with factors that are not one for each output."""
    net = Net()
    x = net.input("x", F32, 5, 6)
    parts = net.node("DynamicQuantizeLinear", [x], None, count=3).results
    zero = u8(net, 3) if wrong == "zero" else parts[2]
    scale = net.const(rng(3).uniform(0.001, 0.01, (5, 1) if wrong == "place" else ()).astype(np.float32))
    total = net.op("Cast", [net.op("MatMulInteger", [parts[0], codes(net, 1, 6, 5), zero])], attrs={"to": 1})
    module = net.done(net.op("Mul", [total, net.op("Mul", [parts[1], scale])]))
    floats = Dequantize()(module)
    assert "MatMulInteger" in left(floats)
    feeds = {"x": rng(5).normal(size=(5, 6)).astype(np.float32)}
    np.testing.assert_allclose(*(only(Session(m).run(feeds)) for m in (module, floats)), atol=1e-6)


def test_factors_that_are_not_found() -> None:
    net = Net()
    x, other = net.input("x", F32, 3, 6), net.input("other", F32)
    parts = net.node("DynamicQuantizeLinear", [x], None, count=3).results
    total = net.op("Cast", [net.op("MatMulInteger", [parts[0], codes(net, 1, 6, 5), parts[2]])], attrs={"to": 1})
    module = net.done(net.op("Mul", [total, other]))
    floats = Dequantize()(module)
    assert sorted(left(floats)) == ["DynamicQuantizeLinear", "MatMulInteger"]
    assert set(skips(floats).values()) == {SkipCode.NOT_FOLLOWED, SkipCode.DTYPE}
    assert not floats.history[-1].done  # type: ignore[attr-defined]


def test_dynamic_convolution() -> None:
    net = Net()
    x = net.input("x", F32, 1, 3, 6, 6)
    parts = net.node("DynamicQuantizeLinear", [x], None, count=3).results
    per_channel = net.const(rng(3).uniform(0.001, 0.01, (1, 4, 1, 1)).astype(np.float32))
    weight = net.const(rng(1).integers(0, 256, (4, 3, 3, 3)).astype(np.uint8))
    total = net.op("ConvInteger", [parts[0], weight, parts[2], u8(net, 128)], attrs={"strides": Ints((2, 2))})
    cast = net.op("Cast", [total], attrs={"to": 1})
    module = net.done(net.op("Mul", [cast, net.op("Mul", [parts[1], per_channel])]))
    floats = Dequantize()(module)
    (op,) = floats.walk()
    assert op.kind == "Conv"
    assert op.attrs["strides"] == (2, 2)
    feeds = {"x": rng(5).normal(size=(1, 3, 6, 6)).astype(np.float32)}
    np.testing.assert_allclose(*(only(Session(m).run(feeds)) for m in (module, floats)), atol=0.1)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_bias_that_is_added_to_the_sums(wrong: bool) -> None:
    """Divided by the factors and rounded on the run; followed only if these are the factors of the sums."""
    net = Net()
    x = net.input("x", F32, 1, 3, 6, 6)
    parts = net.node("DynamicQuantizeLinear", [x], None, count=3).results
    scale = scalar(net, 0.004)
    bias = net.const(rng(2).normal(size=4).astype(np.float32))
    by = net.op("Mul", [parts[1], scalar(net, 0.005) if wrong else scale])
    rounded = net.op("Cast", [net.op("Floor", [net.op("Div", [bias, by])])], attrs={"to": I32.onnx})
    total = net.op("ConvInteger", [parts[0], codes(net, 1, 4, 3, 3, 3), parts[2]], attrs={"pads": Ints((1, 1, 1, 1))})
    total = net.op("Add", [total, net.op("Reshape", [rounded, net.ints(1, 4, 1, 1)])])
    made = net.op("Mul", [net.op("Cast", [total], attrs={"to": 1}), net.op("Mul", [parts[1], scale])])
    module = net.done(made)
    floats = Dequantize()(module)
    feeds = {"x": rng(5).normal(size=(1, 3, 6, 6)).astype(np.float32)}
    if wrong:
        assert "ConvInteger" in left(floats)
    else:
        assert [op.kind for op in floats.walk()] == ["Conv"]
        wanted = Session(module, optimize=False).run(feeds)
        np.testing.assert_allclose(only(wanted), only(Session(floats).run(feeds)), atol=0.15)


@pytest.mark.parametrize("per_gate", [False, True])
def test_a_recurrent_network(per_gate: bool) -> None:
    net = Net()
    x = net.input("x", F32, 5, 2, 3)
    hidden = 4
    shape = (2, 4 * hidden) if per_gate else (2,)
    operands: list[Value | None] = [x, codes(net, 1, 2, 3, 16), codes(net, 2, 2, hidden, 16)]
    operands += [net.const(rng(3).normal(size=(2, 8 * hidden)).astype(np.float32)), None, None, None, None]
    for seed in (4, 5):
        operands.append(net.const(rng(seed).uniform(0.001, 0.01, shape).astype(np.float32)))
        operands.append(net.const(np.full(shape, 0 if per_gate else 20, np.int8)))
    attrs = {"hidden_size": hidden, "direction": "bidirectional"}
    module = net.done(*net.node(f"{MS}DynamicQuantizeLSTM", operands, None, attrs, count=3).results)
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == ["LSTM"]
    feeds = {"x": rng(6).normal(size=(5, 2, 3)).astype(np.float32)}
    for a, b in zip(Session(module).run(feeds).values(), Session(floats).run(feeds).values()):
        np.testing.assert_allclose(a, b, atol=0.02)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_codes(masked: bool) -> None:
    net = Net()
    x = net.input("x", F32, 1, 3, 8)
    q = net.op("QuantizeLinear", [x, *given_grid(net)])
    per_column = net.const(rng(3).uniform(0.001, 0.01, 24).astype(np.float32))
    bias = net.const(rng(4).normal(size=24).astype(np.float32))
    zeros = net.const(np.zeros(24, np.int8))
    grid = given_grid(net)
    mask = net.const(np.array([[1, 0, 1]], np.int32)) if masked else None
    operands = [q, codes(net, 1, 8, 24), bias, grid[0], per_column, mask, grid[1], zeros]
    module = net.done(net.node(f"{MS}QAttention", operands, None, {"num_heads": 2}, count=1).results[0])
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == [f"{MS}Attention"]
    feeds = {"x": rng(5).normal(size=(1, 3, 8)).astype(np.float32)}
    np.testing.assert_allclose(*(only(Session(m).run(feeds)) for m in (module, floats)), atol=0.05)


@pytest.mark.parametrize("kind", [I8, U8, DType.I4])
@pytest.mark.parametrize("form", ["whole", "axis", "blocks", "zero"])
def test_codes_behind_a_cast(kind: DType, form: str) -> None:
    """The form that a runtime widens when it loads the model."""
    net = Net()
    x = net.input("x", F32, 3, 8)
    values = rng(1).integers(*((0, 200) if kind is U8 else (-7, 7)), (8, 5)).astype(kind.numpy)
    stored = values.reshape(2, 4, 5) if form == "blocks" else values
    shape = {"whole": (), "axis": (1, 5), "zero": (8, 1), "blocks": (2, 1, 5)}[form]
    scale = rng(2).uniform(0.1, 1, shape).astype(np.float32)
    wide = net.op("Cast", [net.const(stored, dtype=kind)], attrs={"to": 1})
    wanted = stored.astype(np.float32)
    if form == "zero":
        wide = net.op("Sub", [wide, net.const(np.full((8, 1), 3, np.float32))])
        wanted = wanted - 3
    weight = net.op("Mul", [net.const(scale), wide])
    if form == "blocks":
        weight = net.op("Reshape", [weight, net.ints(8, 5)])
    module = net.done(net.op("MatMul", [x, weight]))
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == ["MatMul"]
    (made,) = (v.constant for v in floats.constants.values() if v.constant)
    assert np.array_equal(made.array(), (wanted * scale).reshape(8, 5))


@pytest.mark.parametrize("kind", [np.int64, np.int8])
def test_zero_points_that_are_no_codes(kind: type) -> None:
    """Narrow integers are codes, whatever is taken off; numbers in a wide type are arithmetic of the model."""
    net = Net()
    x = net.input("x", F32, 3, 8)
    values = rng(1).integers(-7, 7, (8, 5)).astype(kind)
    zero = 3 if kind is np.int64 else 0.3
    wide = net.op("Sub", [net.op("Cast", [net.const(values)], attrs={"to": 1}), scalar(net, zero)])
    module = net.done(net.op("MatMul", [x, net.op("Mul", [wide, scalar(net, 0.1)])]))
    floats = Dequantize()(module)
    if kind is np.int64:
        assert print_module(floats) == print_module(module)
    else:
        (made,) = (v.constant.array() for v in floats.constants.values() if v.constant)
        assert np.array_equal(made, (values.astype(np.float32) - np.float32(0.3)) * np.float32(0.1))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_table_in_blocks(packed: bool, zeros: bool) -> None:
    """4-bit codes in a type of their own (zero point 0), or two a byte (zero point 8)."""
    net = Net()
    ids = net.input("ids", I64, "N")
    rows, width, block = 7, 64, 32
    draw = rng(1)
    if packed:
        data = net.const(draw.integers(0, 256, (rows, width // 2)).astype(np.uint8))
        zero = net.const(draw.integers(0, 256, (rows, 1)).astype(np.uint8)) if zeros else None
    else:
        data = net.const(draw.integers(-8, 8, (rows, width)).astype(DType.I4.numpy), dtype=DType.I4)
        zero = net.const(draw.integers(-8, 8, (rows, 2)).astype(DType.I4.numpy), dtype=DType.I4) if zeros else None
    scale = net.const(draw.uniform(0.1, 1, (rows, width // block)).astype(np.float32))
    attrs = {"bits": 4, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    operands = [data, ids, scale, *([zero] if zero is not None else [])]
    module = net.done(net.op(f"{MS}GatherBlockQuantized", operands, attrs=attrs))
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == ["Gather"]
    feeds = {"ids": np.array([6, 0, 3])}
    assert np.array_equal(only(Session(module).run(feeds)), only(Session(floats).run(feeds)))


@pytest.mark.parametrize("zeros", ["none", "codes", "floats"])
def test_a_matrix_in_blocks(zeros: str) -> None:
    net = Net()
    x = net.input("x", F32, 3, 40)
    draw = rng(2)
    packed = net.const(draw.integers(0, 256, (5, 2, 16)).astype(np.uint8))
    scale = net.const(draw.uniform(0.1, 1, (5, 2)).astype(np.float32))
    zero = {"codes": draw.integers(0, 256, (5, 1)).astype(np.uint8), "floats": draw.uniform(0, 15, (5, 2)).astype("f4")}
    operands = [x, packed, scale, *([net.const(zero[zeros])] if zeros != "none" else [])]
    attrs = {"K": 40, "N": 5, "bits": 4, "block_size": 32}
    module = net.done(net.op(f"{MS}MatMulNBits", operands, attrs=attrs))
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == ["MatMul"]
    feeds = {"x": draw.normal(size=(3, 40)).astype(np.float32)}
    np.testing.assert_allclose(*(only(Session(m).run(feeds)) for m in (module, floats)), atol=2e-4)


def test_rows_of_a_table_of_codes() -> None:
    """Gathered first, widened later; twice, from one table."""
    net = Net()
    ids = net.input("ids", I64, "N")
    table = net.const(rng(0).integers(0, 256, (20, 6)).astype(np.uint8), "table_quantized")
    grid = [scalar(net, 0.02), u8(net, 100)]
    rows = [net.op("Gather", [table, ids], attrs={"axis": 0}) for _ in range(2)]
    module = net.done(*(net.op("DequantizeLinear", [r, *grid]) for r in rows))
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == ["Gather", "Gather"]
    assert [n for n, v in floats.constants.items() if v.type == tensor(F32, 20, 6)] == ["table"]
    feeds = {"ids": np.array([3, 0, 19])}
    for a, b in zip(evaluate(module, feeds), evaluate(floats, feeds)):
        assert np.array_equal(a, b)


def test_a_weight_that_is_rounded_inside_the_graph() -> None:
    """Some exporters keep floats and a pair; what counts is what the codes stand for."""
    net = Net()
    x = net.input("x", F32, 3, 8)
    weight = net.const(rng(0).normal(size=(8, 5)).astype(np.float32))
    grid = [net.const(np.full(5, 0.05, np.float32)), net.const(np.zeros(5, np.int8))]
    q = net.op("QuantizeLinear", [weight, *grid], attrs={"axis": 1})
    module = net.done(net.op("MatMul", [x, net.op("DequantizeLinear", [q, *grid], attrs={"axis": 1})]))
    for step in (Dequantize(), Dequantize(activations="keep")):
        floats = step(module)
        assert [op.kind for op in floats.walk()] == ["MatMul"]
        (made,) = (v.constant.array() for v in floats.constants.values() if v.constant)
        assert np.array_equal(made, np.rint(array_of(weight) / np.float32(0.05)) * np.float32(0.05))
