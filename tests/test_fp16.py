"""`fp16`: weights in 16 bits, widened at load; what cannot be is left with a reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from kit.net import Net
from kit.real import RealModel, real_models

from mlc.backends.agreement import AgreementMeter
from mlc.backends.onnx import to_proto
from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.ir.constants import Constant, ConvertedPayload
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.evaluate import evaluate
from mlc.ir.types import tensor
from mlc.passes.base import Context, PassReport, Scope, SkipCode
from mlc.passes.quantize.fp16 import Fp16
from mlc.passes.quantize.int4 import Int4

F32 = DType.F32


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cnn(bias: np.ndarray | None = None) -> Module:
    net = Net()
    x = net.input("x", F32, 1, 8, 9, 9)
    conv = net.op("Conv", [x, net.const(floats(0, 16, 8, 3, 3), "w")])
    added = net.const(floats(1, 16, 7, 7) if bias is None else bias, "b")
    return net.done(net.op("Add", [conv, added]))


def last(module: Module) -> PassReport:
    report = module.history[-1]
    assert isinstance(report, PassReport)
    return report


def test_halves_the_file_and_keeps_the_function() -> None:
    module = cnn()
    small = Fp16()(module)
    assert [d.site for d in last(small).done] == ["w", "b"]
    assert any("size only" in note for note in last(small).notes)
    assert {n: v.constant.dtype for n, v in small.constants.items() if v.constant} == {
        "w_f16": DType.F16, "b_f16": DType.F16,
    }  # fmt: skip
    assert to_proto(small).ByteSize() < 0.6 * to_proto(module).ByteSize()
    feeds = {"x": floats(2, 1, 8, 9, 9)}
    (wanted,) = evaluate(module, feeds)
    for session in (Session(small), Session(small, optimize=False)):
        (found,) = session.run(feeds).values()
        assert found.dtype == np.float32
        assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_numbers_that_fit_are_kept_bit_for_bit() -> None:
    exact = np.random.default_rng(0).integers(-100, 100, (16, 7, 7)).astype(np.float32) / 8
    exact[0, 0, 0] = -np.inf  # a mask
    small = Fp16()(cnn(exact))
    site = last(small).plan.sites[1]  # type: ignore[union-attr]
    assert site.error == 0
    stored = small.constants["b_f16"].constant
    assert stored is not None
    assert np.array_equal(stored.array().astype(np.float32), exact)


@pytest.mark.parametrize(
    ("value", "code"),
    [(70000.0, SkipCode.HURTS), (np.finfo(np.float32).min, SkipCode.HURTS), (np.nan, SkipCode.HURTS)],
)
def test_what_overflows_is_left(value: float, code: SkipCode) -> None:
    bias = floats(1, 16, 7, 7)
    bias[3, 3, 3] = value
    small = Fp16()(cnn(bias))
    assert [d.site for d in last(small).done] == ["w"]
    assert [(s.site, s.code) for s in last(small).skipped] == [("b", code)]
    assert "b" in small.constants


def test_what_is_tiny_is_left() -> None:
    small = Fp16()(cnn(floats(1, 16, 7, 7) * np.float32(1e-7)))
    assert [(s.site, s.code) for s in last(small).skipped] == [("b", SkipCode.HURTS)]


def test_small_tensors_stay() -> None:
    net = Net()
    x = net.input("x", F32, 1, 4600)
    y = net.op("Add", [net.op("MatMul", [x, net.const(floats(0, 4600, 600))]), net.const(floats(1, 600), "bias")])
    module = net.done(net.op("Add", [y, net.const(floats(1, 100, 1), "few")]))
    small = Fp16()(module)
    assert {"bias", "few"} <= set(small.constants)
    assert [(s.site, s.code) for s in last(small).skipped] == [("bias", SkipCode.TOO_SMALL)]


def test_scales_of_quantized_weights_are_untouched() -> None:
    net = Net()
    x = net.input("x", F32, 2, 512)
    module = net.done(net.op("MatMul", [x, net.const(floats(0, 512, 512), "w")]))
    quantized = Int4(scale="f32")(module)
    both = Fp16()(quantized)
    assert not last(both).done
    assert [(s.site, s.code) for s in last(both).skipped] == [("w_scale", SkipCode.ALREADY)]


def test_after_fp16_int4_still_finds_the_weights() -> None:
    net = Net()
    x = net.input("x", F32, 2, 512)
    module = net.done(net.op("MatMul", [x, net.const(floats(0, 512, 64), "w")]))
    both = Int4()(Fp16()(module))
    assert [d.site for d in last(both).done] == ["w_f16"]
    assert not any(v.constant and v.constant.shape == (512, 64) and v.constant.dtype is DType.F16
                   for v in both.constants.values())  # fmt: skip


def test_bodies_and_shared_constants() -> None:
    net = Net()
    x = net.input("x", F32, 64)
    shared = net.const(floats(0, 64, 64), "shared")
    y = net.op("Add", [x, shared])
    regions = {}
    for name in ("then_branch", "else_branch"):
        body = net.body(name)
        body.output(body.op("MatMul" if name == "then_branch" else "Add", [y, shared]))
        regions[name] = body.graph
    condition = net.input("c", DType.BOOL)
    module = net.done(net.node("If", [condition], [tensor(F32, 64, 64)], regions=regions).result)
    small = Fp16()(module)
    assert set(small.constants) == {"shared_f16"}
    for value in (True, False):
        feeds = {"x": floats(1, 64), "c": np.array(value)}
        (found,) = Session(small).run(feeds).values()
        wanted = evaluate(module, feeds)[0]
        assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_a_constant_that_is_an_output() -> None:
    net = Net()
    x = net.input("x", F32, 64)
    w = net.const(floats(0, 64, 64), "w")
    small = Fp16()(net.done(net.op("Add", [x, w]), w))
    found = Session(small).run({"x": floats(1, 64)})
    assert found["w"].dtype == np.float32
    assert np.allclose(found["w"], floats(0, 64, 64), atol=2e-3)


def test_scope() -> None:
    module = cnn()
    (conv, add) = (op.name for op in module.walk())
    only = Fp16()(module, Context(scope=Scope(on=frozenset({conv}))))
    assert set(only.constants) == {"w_f16", "b"}
    assert [(s.site, s.code) for s in last(only).skipped] == [("b", SkipCode.SCOPE)]
    with pytest.raises(MlcError) as caught:
        Fp16(min_elements=1 << 20)(module, Context(scope=Scope(on=frozenset({add}))))
    assert caught.value.diagnostics[0].code is Code.CANNOT_HONOUR


def test_a_constant_with_a_reader_outside_the_scope_stays() -> None:
    net = Net()
    x = net.input("x", F32, 64)
    w = net.const(floats(0, 64, 64), "w")
    module = net.done(net.op("Add", [x, w]), net.op("Mul", [x, w]))
    (add, _) = (op.name for op in module.walk())
    small = Fp16()(module, Context(scope=Scope(but=frozenset({add}))))
    assert set(small.constants) == {"w"}
    assert [(s.site, s.code) for s in last(small).skipped] == [("w", SkipCode.SHARED)]


@pytest.mark.real
@real_models()
def test_real_models_keep_their_outputs(model: RealModel) -> None:
    small = Fp16()(load(model.path))
    feeds, meter = model.feeds(), AgreementMeter()
    meter.update(Session(model.path).run(feeds), Session(small).run(feeds))
    cosine = meter.result().cosine
    assert cosine is not None
    assert cosine > 0.9995
    assert to_proto(small).ByteSize() <= to_proto(load(model.path)).ByteSize()


def test_the_plan_is_data() -> None:
    plan = Fp16().plan(cnn(), Context())
    assert plan == Fp16().plan(cnn(), Context())
    site = json.loads(json.dumps(plan.to_json()))["sites"][0]
    assert site["constant"] == "w"
    assert site["bytes_after"] < site["bytes_before"]
    assert 0 < site["error"] < 1e-6


def test_converted_payloads_stream() -> None:
    source = Constant.of(floats(0, 333, 7))
    half = Constant(tensor(DType.F16, 333, 7), ConvertedPayload(source, DType.F16))
    wanted = source.array().astype(np.float16)
    assert half.tobytes() == wanted.tobytes()
    assert np.array_equal(half.flat(5, 20), wanted.reshape(-1)[5:20])
    assert np.array_equal(half.payload.raw(3, 9), np.frombuffer(wanted.tobytes(), np.uint8)[3:9])  # type: ignore[attr-defined]
    assert half.same(Constant.of(wanted))
