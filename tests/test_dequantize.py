"""`dequantize`: weights are what their codes stand for, outputs agree within the rounding that went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.lossless import compare
from kit.net import Net
from kit.nets import NETS
from kit.ort_quantized import FORMATS, quantized
from kit.real import RealModel, real_models
from kit.samples import Samples

from mlc.backends.legalize import legalize
from mlc.backends.onnx import save
from mlc.backends.ort import Session
from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.frontends.onnx import load
from mlc.ir.constants import Constant, PackedPayload, RawPayload, pack
from mlc.ir.core import Ints, Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.evaluate import evaluate
from mlc.ir.ops.opdef import Trait
from mlc.ir.ops.table import lookup
from mlc.ir.quant import QSpec, dequantize, expand
from mlc.ir.text import print_module
from mlc.ir.types import tensor
from mlc.passes.base import Context, Scope, SkipCode
from mlc.passes.quantize.dequantize.payloads import DequantizedPayload, NBitsPayload, viewed
from mlc.passes.quantize.dequantize.step import Dequantize
from mlc.passes.quantize.int4 import Int4
from mlc.passes.quantize.int8.int8 import Int8

F32, U8, I8, I32, I64 = DType.F32, DType.U8, DType.I8, DType.I32, DType.I64
Array = np.ndarray[Any, Any]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def left(module: Module) -> list[str]:
    """Quantizing operators that are still there."""
    return [op.kind for op in module.walk() if lookup(op.kind).has(Trait.QUANTIZED)]


def skips(module: Module) -> dict[str, SkipCode]:
    return {s.site: s.code for s in module.history[-1].skipped}  # type: ignore[attr-defined]


def only(outputs: dict[str, Array]) -> Array:
    (found,) = outputs.values()
    return found


# -- the numbers -------------------------------------------------------------------------------------------------------

_CODES = [DType.U2, DType.I2, DType.U4, DType.I4, DType.U8, DType.I8, DType.U16, DType.I16, DType.I32]


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(_CODES),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    axis=st.one_of(st.none(), st.integers(0, 3)),
    block=st.integers(0, 5),
    zeros=st.booleans(),
    made=st.sampled_from([DType.F32, DType.F16]),
    data=st.data(),
)
def test_codes_are_widened_exactly(
    kind: DType, shape: list[int], axis: int | None, block: int, zeros: bool, made: DType, data: st.DataObject
) -> None:
    """Whole and in any stretch of bytes, the numbers are those of the reference."""
    axis = None if axis is None else axis % len(shape)
    spec = QSpec(min(8, kind.bits), kind.kind == "int", False, axis, block if axis is not None else 0)
    low, high = (-(1 << (kind.bits - 1)), 1 << (kind.bits - 1)) if kind.kind == "int" else (0, 1 << kind.bits)
    draw = rng(data.draw(st.integers(0, 99)))
    loose = draw.integers(low, high, shape).astype(kind.numpy)
    raw = np.frombuffer(pack(loose.reshape(-1), kind), np.uint8)
    codes = Constant(tensor(kind, *shape), PackedPayload(raw, kind, tuple(shape)))  # as in a file
    scale = draw.uniform(0.1, 2, spec.scale_shape(codes.shape)).astype(np.float32)
    zero = draw.integers(low, high, scale.shape).astype(np.int32) if zeros else np.zeros(scale.shape, np.int32)
    payload = DequantizedPayload(codes, scale, zero, made, axis, spec.block)
    wide = codes.array().astype(np.int32) - expand(zero, codes.shape, spec)
    with np.errstate(over="ignore"):
        wanted = (wide.astype(np.float32) * expand(scale, codes.shape, spec)).astype(made.numpy)
    assert np.array_equal(payload.array(), wanted)
    if kind.bits <= 8 and zeros:
        assert np.array_equal(wanted, dequantize(codes.array(), scale, zero, spec).astype(made.numpy))
    stored = wanted.tobytes()
    start = data.draw(st.integers(0, len(stored)))
    stop = data.draw(st.integers(start, len(stored)))
    assert payload.raw(start, stop).tobytes() == stored[start:stop]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("ordered", [False, True])
def test_blocks_of_a_matrix_are_widened_exactly(bits: int, ordered: bool) -> None:
    draw = rng(bits)
    depth, width, block = 70, 5, 16
    blocks = -(-depth // block)
    packed = Constant.of(draw.integers(0, 256, (width, blocks, block * bits // 8)).astype(np.uint8))
    scale, zero = draw.uniform(0.1, 1, (width, blocks)).astype(np.float32), draw.integers(0, 1 << bits, (width, blocks))
    order = draw.integers(0, blocks, blocks * block) if ordered else None
    payload = NBitsPayload(packed, scale, zero, F32, depth, bits, block, order)
    codes = viewed(packed, {2: DType.U2, 4: DType.U4, 8: U8}[bits], (width, blocks * block)).array().astype(np.int32)
    part = np.arange(blocks * block) // block if order is None else order
    wanted = ((codes - zero[:, part]) * scale[:, part]).astype(np.float32)[:, :depth].T
    assert np.array_equal(payload.array(), wanted)
    assert payload.raw(123, 777).tobytes() == wanted.tobytes()[123:777]


def test_nothing_is_widened_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    module = legalize(Int4()(NETS["bert"]()[0])).module
    read: list[int] = []
    for payload in (DequantizedPayload, NBitsPayload):
        monkeypatch.setattr(payload, "rows", lambda self, first, stop: read.append(stop - first))
    floats = Dequantize()(module)
    assert not read
    made = [v.constant for v in floats.constants.values() if v.constant is not None]
    payloads = [c.payload for c in made if isinstance(c.payload, DequantizedPayload | NBitsPayload)]
    assert len(payloads) == len(floats.history[-1].done)  # type: ignore[attr-defined]
    assert all(isinstance(p, RawPayload) for p in payloads)


# -- models as the tools write them ------------------------------------------------------------------------------------

_TOOL_NETS = ("mlp", "resnet20_pad", "mobilenet", "bert", "lstm", "gru", "siamese", "loops")


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("name", _TOOL_NETS)
def test_what_the_runtime_s_tools_write(name: str, how: str, tmp_path: Path) -> None:
    """Imported without loss; as floats within the rounding of the quantized network."""
    path, samples = quantized(name, how, tmp_path)
    module = load(path)
    save(module, tmp_path / "again.onnx")
    assert compare(path, tmp_path / "again.onnx", samples[0]).holds
    floats = Dequantize()(module)
    assert not left(floats)
    assert not skips(floats)
    original = NETS[name]()[0]
    runs = [Session(m) for m in (original, module, floats)]
    for feeds in samples:
        outputs = [
            np.concatenate([x.ravel() for x in run.run(feeds).values() if x.dtype == np.float32]) for run in runs
        ]
        rounding, rest = (np.linalg.norm(outputs[1] - outputs[i]) for i in (0, 2))
        assert rest <= 1.5 * rounding + 1e-5 * np.linalg.norm(outputs[0])
        assert how == "nbits" or rest < 0.05 * np.linalg.norm(outputs[0])


@pytest.mark.parametrize("name", NETS)
def test_floats_stay_as_they_are(name: str) -> None:
    """Every net without codes, and every net that lost them."""
    module = NETS[name]()[0]
    floats = Dequantize()(module)
    if not left(module):
        assert not floats.history[-1].done  # type: ignore[attr-defined]
        assert print_module(floats) == print_module(module)
    again = Dequantize()(floats)
    assert not again.history[-1].done  # type: ignore[attr-defined]
    assert print_module(again) == print_module(floats)


@pytest.mark.parametrize("lowered", [False, True])
@pytest.mark.parametrize("name", ["mlp", "bert", "tied", "gqa_decoder", "captured", "scans", "block_quantized"])
def test_four_bits_and_back(name: str, lowered: bool) -> None:
    """The weights are those that the codes stand for, so nothing but the order of sums differs."""
    module, feeds = NETS[name]()
    small = Int4()(module)
    form = legalize(small).module if lowered else small
    floats = Dequantize()(form)
    assert not left(floats)
    wanted, found = evaluate(small, feeds), evaluate(floats, feeds)
    for a, b in zip(wanted, found):
        np.testing.assert_allclose(a, b, atol=2e-5 * (1 + float(np.abs(a.astype(np.float64)).max())))


@pytest.mark.parametrize(("mode", "lowered"), [("static", False), ("auto", True)])
@pytest.mark.parametrize("name", ["mobilenet", "excited", "unet", "bert", "gru"])
def test_eight_bits_and_back(name: str, mode: str, lowered: bool) -> None:
    """Without its rounding an 8-bit network is the float one but for what its weights lost: a test of its structure."""
    module, feeds = NETS[name]()
    data = Samples({key: x[None] for key, x in feeds.items()}, whole=True)
    ctx = Context(target=parse_target("ort(cpu, isa=vnni)"), data=data, runner=OrtRunner())
    small = Int8(mode=mode)(module, ctx)
    floats = Dequantize()(legalize(small).module if lowered else small)
    assert not left(floats)
    assert not skips(floats)
    wanted, found = Session(module).run(feeds), Session(floats).run(feeds)
    for key, x in wanted.items():
        assert np.linalg.norm(found[key] - x) <= 0.04 * np.linalg.norm(x), key


# -- one operator at a time --------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A net on codes: what it is made of, the operators that it becomes, steps of the result that it may move by."""

    build: Callable[[Net, Value], Value]
    becomes: set[str]
    scale: float = 0.05
    steps: float = 1.5
    shape: tuple[int, ...] = (2, 6)


def codes(net: Net, seed: int, *shape: int, kind: type = np.int8) -> Value:
    info = np.iinfo(kind)
    return net.const(rng(seed).integers(info.min + 1, info.max, shape).astype(kind))


def scalar(net: Net, x: float) -> Value:
    return net.const(np.float32(x))


def u8(net: Net, x: int) -> Value:
    return net.const(np.uint8(x))


def s8(net: Net, x: int = 0) -> Value:
    return net.const(np.int8(x))


IN = (0.02, 120)  # the grid of the input of every case


def given_grid(net: Net) -> list[Value]:
    return [scalar(net, IN[0]), u8(net, IN[1])]


def conv(net: Net, x: Value) -> Value:
    per_channel = net.const(rng(3).uniform(0.001, 0.01, 4).astype(np.float32))
    weight, zeros = codes(net, 1, 4, 3, 3, 3), net.const(np.zeros(4, np.int8))
    bias = net.const(rng(2).integers(-3000, 3000, 4).astype(np.int32))
    operands = [x, *given_grid(net), weight, per_channel, zeros, scalar(net, 0.05), u8(net, 0), bias]
    return net.op("QLinearConv", operands, attrs={"pads": Ints((1, 1, 1, 1))})


def matmul(net: Net, x: Value) -> Value:
    per_column = net.const(rng(3).uniform(0.001, 0.01, 5).astype(np.float32))
    weight, zeros = codes(net, 1, 6, 5), net.const(np.zeros(5, np.int8))
    return net.op("QLinearMatMul", [x, *given_grid(net), weight, per_column, zeros, scalar(net, 0.05), u8(net, 90)])


def qgemm(*, transposed: bool, alpha: float) -> Callable[[Net, Value], Value]:
    def build(net: Net, x: Value) -> Value:
        per_column = net.const(rng(3).uniform(0.001, 0.01, 5).astype(np.float32))
        weight = codes(net, 1, *((5, 6) if transposed else (6, 5)))
        bias = net.const(rng(2).integers(-20000, 20000, 5).astype(np.int32))
        operands = [x, *given_grid(net), weight, per_column, net.const(np.zeros(5, np.int8)), bias]
        attrs = {"transB": int(transposed), "alpha": alpha}
        return net.op(f"{MS}QGemm", [*operands, scalar(net, 0.05), u8(net, 90)], attrs=attrs)

    return build


MS = "com.microsoft::"


def unary(kind: str, scale: float, zero: int, **attrs: Any) -> Callable[[Net, Value], Value]:
    def build(net: Net, x: Value) -> Value:
        return net.op(f"{MS}{kind}", [x, *given_grid(net), scalar(net, scale), u8(net, zero)], attrs=attrs)

    return build


def binary(kind: str) -> Callable[[Net, Value], Value]:
    def build(net: Net, x: Value) -> Value:
        other = net.const(rng(5).integers(0, 256, (1, 6)).astype(np.uint8))
        operands = [x, *given_grid(net), other, scalar(net, 0.01), u8(net, 30), scalar(net, 0.05), u8(net, 100)]
        return net.op(f"{MS}{kind}", operands)

    return build


def concat(net: Net, x: Value) -> Value:
    other = net.const(rng(5).integers(0, 256, (2, 3)).astype(np.uint8))
    parts = [x, *given_grid(net), other, scalar(net, 0.01), u8(net, 30)]
    return net.op(f"{MS}QLinearConcat", [scalar(net, 0.05), u8(net, 100), *parts], attrs={"axis": 1})


def where(net: Net, x: Value) -> Value:
    truth = net.const(rng(5).random((2, 6)) < 0.5)
    other = net.const(rng(6).integers(0, 256, (2, 6)).astype(np.uint8))
    grids = [x, *given_grid(net), other, scalar(net, 0.01), u8(net, 30), scalar(net, 0.05), u8(net, 100)]
    return net.op(f"{MS}QLinearWhere", [truth, *grids])


def through(*moves: tuple[str, dict[str, Any]]) -> Callable[[Net, Value], Value]:
    """QLinearAdd, then operators that work on codes as they are."""

    def build(net: Net, x: Value) -> Value:
        zeros = net.const(np.zeros((1,), np.uint8))
        grids = [x, *given_grid(net), zeros, scalar(net, 1), u8(net, 0), scalar(net, 0.05), u8(net, 100)]
        x = net.op(f"{MS}QLinearAdd", grids)
        for kind, attrs in moves:
            x = MOVES[kind](net, x, attrs)
        return x

    return build


def _plain(kind: str, *more: Any) -> Callable[[Net, Value, dict[str, Any]], Value]:
    return lambda net, x, attrs: net.op(kind, [x, *(net.const(np.asarray(m)) for m in more)], attrs=attrs)


MOVES: dict[str, Callable[[Net, Value, dict[str, Any]], Value]] = {
    "MaxPool": lambda net, x, attrs: net.node("MaxPool", [x], None, attrs).results[0],
    "Transpose": _plain("Transpose"),
    "Pad": _plain("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.uint8(7)),
    "PadDefault": _plain("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1])),
    "Gather": _plain("Gather", np.array([1, 0])),
    "Concat": lambda net, x, attrs: net.op("Concat", [x, x], attrs=attrs),
    "Resize": lambda net, x, attrs: net.op(
        "Resize", [x, None, net.const(np.array([1, 1, 2, 2], np.float32))], attrs=attrs
    ),
}
IMAGE = (1, 3, 6, 6)
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
    assert np.array_equal(weights.array(), _array(weight).astype(np.float32) * _array(per_column))
    feeds = {"x": rng(5).normal(size=(3, 6)).astype(np.float32)}
    np.testing.assert_allclose(*(only(Session(m).run(feeds)) for m in (module, floats)), atol=0.05)


def _array(value: Value) -> Array:
    assert value.constant is not None
    return value.constant.array()


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
    wanted = (_array(weight).astype(np.int32) - 3).astype(np.float32) * _array(scale)
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
    assert [np.array_equal(m, _array(weight) * np.float32(s)) for m, s in zip(made, (0.1, 0.2))] == [True, True]


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
    grid = [straight.const(_array(scales)), straight.const(_array(zeros))]
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
        assert np.array_equal(made, np.rint(_array(weight) / np.float32(0.05)) * np.float32(0.05))


# -- the border, options, scope ----------------------------------------------------------------------------------------


def add_of_codes(net: Net, x: Value) -> Value:
    grids = [x, *given_grid(net), x, *given_grid(net), scalar(net, 0.04), u8(net, 120)]
    return net.op(f"{MS}QLinearAdd", grids)


def test_codes_at_the_border_of_the_model() -> None:
    net = Net()
    made = add_of_codes(net, net.input("x", U8, 2, 6))
    module = net.done(
        made, net.op("MaxPool", [net.op("Unsqueeze", [made, net.ints(0)])], attrs={"kernel_shape": Ints((2,))})
    )
    floats = Dequantize()(module)
    kinds = [op.kind for op in floats.walk()]
    assert kinds.count("DequantizeLinear") == 2  # one for each operand
    assert "Add" in kinds
    assert [v.type for v in floats.graph.outputs] == [v.type for v in module.graph.outputs]
    feeds = {"x": rng(0).integers(0, 256, (2, 6)).astype(np.uint8)}
    for a, b in zip(Session(module).run(feeds).values(), Session(floats).run(feeds).values()):
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
    assert {s.why for s in floats.history[-1].skipped} == {"Unsqueeze, an output of the graph wants codes"}  # type: ignore[attr-defined]


def test_codes_are_made_once_where_they_leave() -> None:
    """Operators in front of the last one are floats and need no codes."""
    net = Net()
    first = add_of_codes(net, net.op("QuantizeLinear", [net.input("x", F32, 2, 6), *given_grid(net)]))
    grid = [scalar(net, 0.04), u8(net, 120)]
    module = net.done(net.op(f"{MS}QLinearAdd", [first, *grid, first, *grid, scalar(net, 0.1), u8(net, 120)]))
    assert [op.kind for op in Dequantize()(module).walk()] == ["Add", "Add", "QuantizeLinear"]


def test_positions_are_found_among_floats() -> None:
    net = Net()
    made = add_of_codes(net, net.op("QuantizeLinear", [net.input("x", F32, 2, 6), *given_grid(net)]))
    module = net.done(net.op("ArgMax", [made], attrs={"axis": 1}))
    floats = Dequantize()(module)
    assert [op.kind for op in floats.walk()] == ["Add", "ArgMax"]


@pytest.mark.parametrize("name", ["qdq", "qoperator", "dynamic"])
def test_activations_stay_rounded_on_request(name: str, tmp_path: Path) -> None:
    path, samples = quantized("resnet20_conv" if name != "dynamic" else "bert", name, tmp_path)
    module = load(path)
    kept = Dequantize(activations="keep")(module)
    assert set(left(kept)) <= {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
    assert left(kept)
    assert not skips(kept)
    codes = [v for v in kept.constants.values() if v.constant and v.constant.dtype is I8 and v.constant.elements > 1]
    assert not codes
    wanted, found, loose = (
        next(iter(Session(m).run(samples[0]).values())) for m in (module, kept, Dequantize()(module))
    )
    assert np.linalg.norm(wanted - found) <= 2 * np.linalg.norm(wanted - loose)


def test_only_what_is_in_scope() -> None:
    net = Net()
    x = net.op("QuantizeLinear", [net.input("x", F32, 2, 6), *given_grid(net)])
    first = add_of_codes(net, x)
    second = net.op(
        f"{MS}QLinearAdd",
        [
            first,
            scalar(net, 0.04),
            u8(net, 120),
            *[first, scalar(net, 0.04), u8(net, 120)],
            scalar(net, 0.08),
            u8(net, 120),
        ],
    )
    module = net.done(net.op("DequantizeLinear", [second, scalar(net, 0.08), u8(net, 120)]))
    assert first.op is not None
    floats = Dequantize()(module, Context(scope=Scope(on=frozenset({first.op.name}))))
    kinds = [op.op_type for op in floats.walk()]
    assert "Add" in kinds
    assert kinds.count("QLinearAdd") == 1
    assert SkipCode.SCOPE in skips(floats).values()
    feeds = {"x": rng(7).uniform(-1, 1, (2, 6)).astype(np.float32)}
    np.testing.assert_allclose(*(only(Session(m).run(feeds)) for m in (module, floats)), atol=0.17)


def refused(build: Callable[[Net], list[Value]]) -> tuple[SkipCode, str]:
    net = Net()
    module = net.done(*build(net))
    floats = Dequantize()(module)
    assert sorted(left(floats)) == sorted(left(module))
    found = floats.history[-1].skipped[0]  # type: ignore[attr-defined]
    return found.code, found.why


def test_what_cannot_be_turned_back_says_why() -> None:
    def computed_scale(net: Net) -> list[Value]:
        x, s = net.input("x", F32, 2, 6), net.input("s", F32)
        q = net.op("QuantizeLinear", [x, s, u8(net, 0)])
        return [net.op("DequantizeLinear", [q, s, u8(net, 0)])]

    def other_scales(net: Net) -> list[Value]:
        grids = [[net.const(np.full(6, s, np.float32)), net.const(np.zeros(6, np.uint8))] for s in (0.1, 0.2)]
        q = net.op("QuantizeLinear", [net.input("x", F32, 2, 6), *grids[0]])
        return [net.op("DequantizeLinear", [q, *grids[1]])]

    def computed_weight(net: Net) -> list[Value]:
        attrs = {"K": 32, "N": 4, "bits": 4, "block_size": 32}
        operands = [net.input("x", F32, 2, 32), net.input("w", U8, 4, 1, 16), net.input("s", F32, 4, 1)]
        return [net.op(f"{MS}MatMulNBits", operands, attrs=attrs)]

    def from_outside(net: Net) -> list[Value]:
        return [net.op("DequantizeLinear", [net.input("x", U8, 2, 6), scalar(net, 0.1), u8(net, 0)])]

    def scales_that_do_not_fit(net: Net) -> list[Value]:
        weight, scales = codes(net, 0, 6, 4), net.const(np.ones(3, np.float32))
        zeros = net.const(np.zeros(3, np.int8))
        return [net.op("DequantizeLinear", [weight, scales, zeros], [tensor(F32, 6, 4)], {"axis": 1})]

    def unknown(net: Net) -> list[Value]:
        attrs = {"K": 32, "N": 4, "block_size": 16, "quant_type": 1}
        operands = [net.input("x", F32, 2, 32), codes(net, 0, 64, kind=np.uint8), net.const(np.ones(8, np.float32))]
        return [net.op(f"{MS}MatMulBnb4", operands, [tensor(F32, 2, 4)], attrs)]

    def in_blocks(net: Net) -> list[Value]:
        grid = [net.const(np.full((2, 2), 0.1, np.float32)), net.const(np.zeros((2, 2), np.uint8))]
        attrs = {"axis": 1, "block_size": 3}
        q = net.op("QuantizeLinear", [net.input("x", F32, 2, 6), *grid], attrs=attrs)
        return [net.op("DequantizeLinear", [q, *grid], attrs=attrs)]

    assert refused(in_blocks) == (SkipCode.UNSUPPORTED, "activations in blocks are not followed")
    assert refused(unknown) == (SkipCode.UNSUPPORTED, "there is no rule that turns MatMulBnb4 back")
    assert refused(scales_that_do_not_fit) == (SkipCode.UNSUPPORTED, "3 scales do not fit i8[6, 4] along axis 1")
    assert refused(computed_scale) == (SkipCode.NOT_CONSTANT, "its scale is computed")
    assert refused(other_scales)[1] == "DequantizeLinear wants codes"
    assert refused(computed_weight) == (SkipCode.NOT_CONSTANT, "its weight is computed")
    assert refused(from_outside) == (SkipCode.NOT_FOLLOWED, "x comes into the graph as codes")


def test_the_plan_says_what_happens() -> None:
    module = NETS["quantized"]()[0]
    plan = Dequantize().plan(module, Context())
    assert plan == Dequantize().plan(module, Context())
    floats = Dequantize()(module)
    assert floats.history[-1].done == plan.sites  # type: ignore[attr-defined]
    assert plan.to_json()["sites"]


# -- real models -------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(request: pytest.FixtureRequest) -> RealModel:
    from kit.real import real_model

    return real_model(request.param)


@real_models("smart_turn", "minilm_int8", "t5_encoder_int8", "ddddocr_ocr_old")
def test_real_models(model: RealModel, tmp_path: Path) -> None:
    """As floats they agree; quantized anew they are smaller than the floats."""
    module = load(model.path)
    floats = Dequantize()(module)
    assert not left(floats)
    assert not skips(floats)
    feeds = model.feeds()
    save(floats, tmp_path / "floats.onnx")
    wanted, found = (next(iter(Session(m).run(feeds).values())) for m in (module, tmp_path / "floats.onnx"))
    assert np.linalg.norm(wanted - found) < 0.1 * np.linalg.norm(wanted)
    save(legalize(Int4()(floats)).module, tmp_path / "anew.onnx")
    assert Session(tmp_path / "anew.onnx").run(feeds)
    sizes = [sum(f.stat().st_size for f in tmp_path.glob(f"{name}.onnx*")) for name in ("floats", "anew")]
    assert sizes[1] < sizes[0] / 2
