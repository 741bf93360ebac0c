"""`dequantize`: weights are what their codes stand for, outputs agree within the rounding that went."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.codes import MS, codes, given_grid, left, only, rng, scalar, skips, u8
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
from mlc.ir.core import Ints, Value
from mlc.ir.dtypes import DType
from mlc.ir.evaluate import evaluate
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
