"""Bias correction: mean errors go, twice is once, noise is left alone, and the outputs have the last word."""

from __future__ import annotations

import numpy as np
import pytest
from kit.layers import Layers
from kit.nets import NETS
from kit.permute import relative, run
from kit.samples import Samples

from mlc.backends.onnx import to_proto
from mlc.backends.runner import OrtRunner
from mlc.ir.constants import Constant
from mlc.ir.core import Ints, Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.rewrite import Rewriter
from mlc.ir.verify import verify
from mlc.passes.base import Context, Done, Pass, Skipped
from mlc.passes.bias import add_bias, has_bias_place
from mlc.passes.pipeline import PlannedStep
from mlc.passes.pipeline import run as run_steps
from mlc.passes.quantize.correct_bias import CorrectBias
from mlc.passes.quantize.equalize import Equalize
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.refine import bias as module
from mlc.passes.quantize.refine.bias import correct_biases
from mlc.passes.quantize.refine.judge import Judge, closer, surely_closer
from mlc.passes.quantize.weight_only import Weights

F32 = DType.F32


def images(count=24, seed=0):
    rng = np.random.default_rng(seed)
    return {"x": (np.abs(rng.standard_normal((count, 3, 12, 12))) + 0.5).astype(np.float32)}


def cnn() -> Module:
    net = Layers()
    x = net.input("x", F32, "N", 3, 12, 12)
    y = net.relu(net.conv(x, 3, 12))
    y = net.relu(net.conv(y, 12, 12, group=12))
    y = net.relu(net.conv(y, 12, 16, 1))
    return net.done(net.head(y, 16))


def context(source: Module, feeds=None, **more) -> Context:
    return Context(data=Samples(feeds or images()), runner=OrtRunner(), source=source, **more)


def bytes_of(made: Module) -> bytes:
    return to_proto(made).SerializeToString(deterministic=True)


QUANTIZED = {"static": lambda m: Int8()(m, context(m)), "weights": lambda m: Weights(bits=3, method="rtn", stored=3)(m)}


@pytest.mark.parametrize("form", QUANTIZED)
def test_mean_errors_go_and_twice_is_once(form: str) -> None:
    original = cnn()
    quantized = QUANTIZED[form](original)
    ctx = context(original)
    corrected = CorrectBias()(quantized, ctx)
    verify(corrected)
    report = corrected.history[-1]
    assert report.done
    for done in report.done:
        before, after = float(done.before.split()[2].rstrip("%")), float(done.after.split("%")[0])
        assert after < before
    feeds = images(24, 1)
    wanted = run(original, feeds)
    assert relative(wanted, run(corrected, feeds)) < relative(wanted, run(quantized, feeds))
    again = CorrectBias()(corrected, ctx)
    assert not again.history[-1].done
    plan = again.history[-1].plan
    assert {s.site for s in again.history[-1].skipped} == {s.site for s in plan.skipped} | set(plan.sites)
    assert bytes_of(again) == bytes_of(corrected)


def test_an_error_of_the_mean_is_removed_exactly() -> None:
    """The biases of a float model are shifted: the correction finds the shifts."""
    original = cnn()
    shifted = original.clone()
    conv = next(op for op in shifted.graph.ops if op.kind == "Conv")
    shift = np.linspace(-1, 1, 12)
    add_bias(Rewriter(shifted), conv, shift, F32)
    correct_biases(Rewriter(shifted), original, context(original))
    found, wanted = (
        next(op for op in m.graph.ops if op.kind == "Conv").operand(2).constant.array() for m in (shifted, original)
    )
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_32_bit_biases_move_by_whole_steps() -> None:
    original = cnn()
    quantized = Int8()(original, context(original))
    conv = next(op for op in quantized.graph.ops if op.kind == "Conv")
    dequantize = conv.operand(2).op
    codes, step = (dequantize.operand(i).constant.array() for i in (0, 1))
    assert has_bias_place(conv)
    delta = step * np.arange(12) + step * 0.3
    add_bias(Rewriter(quantized), conv, delta, F32)
    np.testing.assert_array_equal(conv.operand(2).op.operand(0).constant.array(), codes + np.arange(12))
    assert conv.operand(2).op.operand(0).constant.dtype is DType.I32
    with pytest.raises(OverflowError):
        add_bias(Rewriter(quantized), conv, step * 2.0**31, F32)


def test_a_convolution_of_codes_without_a_bias_gets_one_in_codes() -> None:
    net = Layers()
    x = net.input("x", F32, "N", 3, 12, 12)
    attrs = {"kernel_shape": Ints((3, 3)), "pads": Ints((1,) * 4)}
    original = net.done(net.op("Relu", [net.op("Conv", [x, net.weight(8, 3, 3, 3)], attrs=attrs)]))
    quantized = Int8()(original, context(original))
    conv = next(op for op in quantized.graph.ops if op.kind == "Conv")
    assert conv.operand(2) is None
    delta = np.linspace(0.1, 0.5, 8)
    feeds = images(4, 3)
    (before,) = run(quantized, feeds)
    add_bias(Rewriter(quantized), conv, delta, F32)
    verify(quantized)
    made = conv.operand(2).op
    assert made.kind == "DequantizeLinear"
    value = made.operand(0).constant.array() * made.operand(1).constant.array()
    np.testing.assert_allclose(value, delta, atol=float(made.operand(1).constant.array().max()))
    (after,) = run(quantized, feeds)
    assert np.all(after >= before - 1e-6)
    assert after.sum() > before.sum()


def test_noise_is_left_alone() -> None:
    """Errors whose mean other samples would not confirm."""
    errors = module._Errors()
    rng = np.random.default_rng(0)
    for _ in range(20):
        wanted = rng.standard_normal((50, 2))
        noise = np.stack([rng.standard_normal(50), 0.1 + 0.01 * rng.standard_normal(50)], axis=1)
        errors.update(wanted + noise, wanted)
    sure = errors.correction()
    assert sure[1] == pytest.approx(-0.1, abs=0.01)
    quiet = module._Errors()
    for shift in (0.1, -0.1, 0.1, -0.06):
        quiet.update(np.full((10, 1), shift) + wanted[:10, :1], wanted[:10, :1])
    assert abs(quiet.mean[0]) > 1e-3 * quiet.deviation[0]
    assert not quiet.correction().any()
    assert not module._Errors().correction().any()


def test_outputs_have_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    original = cnn()
    quantized = QUANTIZED["weights"](original)
    monkeypatch.setattr(Judge, "misses", lambda self, models: np.ones((4, 1)))
    told = correct_biases(Rewriter(twin := quantized.clone()), original, context(original))
    assert all(isinstance(t, Skipped) for t in told)
    assert any("the outputs of the model would differ more" in t.why for t in told)
    assert bytes_of(twin) == bytes_of(quantized)


def test_what_a_few_samples_say_by_chance_is_not_kept() -> None:
    """Errors that average to nothing: what few samples say of their means is an accident, though they gain by it."""
    kept = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        net = Layers(seed)
        original = net.done(net.dense(net.input("x", F32, "N", 32), 32, 64))
        rounded = original.clone()
        (weight,) = (v for v in rounded.constants.values() if v.constant.type.rank == 2)
        wrong = weight.constant.array() + 0.01 * rng.standard_normal(weight.constant.shape).astype(np.float32)
        Rewriter(rounded).set_constant(weight, Constant.of(wrong))
        feeds = {"x": rng.standard_normal((12, 32)).astype(np.float32)}
        told = correct_biases(Rewriter(rounded), original, context(original, feeds))
        kept += sum(isinstance(t, Done) for t in told)
    assert kept <= 2


def test_a_gain_that_varies_from_run_to_run_is_not_sure() -> None:
    before = np.full((8, 2), 0.1) * [1, 2]
    steady, lucky, other = before.copy(), before.copy(), before.copy()
    steady[:, 1] -= 0.01
    lucky[0, 1] -= 0.08
    other[:, 0] -= 0.01
    assert closer(steady, before)
    assert surely_closer(steady, before)
    assert closer(lucky, before)
    assert not surely_closer(lucky, before)
    assert not closer(other, before)  # the worst output counts
    assert not surely_closer(steady[:1], before[:1])
    assert not closer(before[:, :0], before[:, :0])


def test_sites_without_a_place_or_a_counterpart_are_skipped() -> None:
    net = Layers()
    x = net.input("x", F32, "N", 16)
    original = net.done(net.relu(net.op("MatMul", [net.relu(net.linear(x, 16, 32)), net.weight(32, 8)])))
    plan = CorrectBias().plan(Weights(bits=4)(original), context(original, {"x": np.ones((4, 16), np.float32)}))
    assert [s.why for s in plan.skipped] == ["it has no bias: an Add of its own would cost time"]
    assert len(plan.sites) == 1
    other = net.module.clone()
    for op in other.graph.ops:
        Rewriter(other).rename(op.results[0], f"other_{op.results[0].name}")
    plan = CorrectBias().plan(Weights(bits=4)(original), context(other, {"x": np.ones((4, 16), np.float32)}))
    assert "the model before it was rounded has no such value" in [s.why for s in plan.skipped]


@pytest.mark.parametrize("name", list(NETS)[::3])
def test_every_kind_of_network(name: str) -> None:
    original, feeds = NETS[name]()
    rng = np.random.default_rng(0)
    drawn = {
        n: np.stack([rng.standard_normal(a.shape).astype(a.dtype) if a.dtype.kind == "f" else a for _ in range(4)])
        for n, a in feeds.items()
    }
    ctx = Context(data=Samples(drawn, whole=True), runner=OrtRunner(), source=original)
    quantized = Int8()(original, ctx)
    corrected = CorrectBias()(quantized, ctx)
    verify(corrected)
    assert [op.kind for op in corrected.walk()] == [op.kind for op in quantized.walk()]
    assert [y.shape for y in run(corrected, feeds)] == [y.shape for y in run(quantized, feeds)]


def test_without_the_model_before_rounding_there_is_an_error() -> None:
    original = cnn()
    with pytest.raises(MlcError, match="no step before it rounds"):
        CorrectBias()(original, Context(data=Samples(images()), runner=OrtRunner()))
    with pytest.raises(MlcError, match="data"):
        CorrectBias()(original, Context(source=original))


def compiled(module: Module, feeds, *passes, source: Module | None = None) -> Module:
    """The module after some steps, as recipes run them."""
    made = module.clone()
    run_steps([PlannedStep(p) for p in passes], made, Context(data=Samples(feeds), runner=OrtRunner(), source=source))
    return made


@pytest.mark.parametrize("rounding", [Int8(mode="static"), Weights(bits=3, method="rtn", stored=3)], ids=["int8", "w3"])
def test_products_whose_addition_was_folded_are_matched(rounding: Pass) -> None:
    """MatMul and Add become one Gemm with a name of the pass that folds them."""
    net = Layers()
    y = net.input("x", F32, "N", 32)
    for _ in range(3):
        y = net.relu(net.op("Add", [net.op("MatMul", [y, net.weight(32, 32)]), net.vector(32)]))
    feeds = {"x": np.abs(np.random.default_rng(0).standard_normal((64, 32))).astype(np.float32)}
    report = compiled(net.done(y), feeds, rounding, CorrectBias()).history[-1]
    assert not report.plan.skipped
    assert report.done


def test_outputs_that_are_masked_with_inf_have_the_last_word_too() -> None:
    net = Layers()
    y = net.relu(net.dense(net.relu(net.dense(net.input("x", F32, "N", 32), 32, 32)), 32, 16))
    mask = net.const(np.where(np.arange(16) < 4, -np.inf, 0).astype(np.float32))
    feeds = {"x": np.abs(np.random.default_rng(0).standard_normal((64, 32))).astype(np.float32)}
    rounding = Weights(bits=3, method="rtn", stored=3)
    assert compiled(net.done(net.op("Add", [y, mask])), feeds, rounding, CorrectBias()).history[-1].done


def chosen_rows(net: Layers, y: Value) -> Value:
    """Rows of the result above a threshold: how many depends on rounding."""
    index = net.op("NonZero", [net.op("Greater", [y, net.const(np.float32(0.3))])])
    return net.op("GatherND", [y, net.op("Transpose", [index])])


@pytest.mark.parametrize(
    "end",
    [
        chosen_rows,
        lambda net, y: net.op("SequenceConstruct", [y]),
        lambda net, y: net.op("Greater", [y, net.const(np.float32(0.3))]),
    ],
    ids=["sizes from data", "a sequence", "no floats"],
)
def test_outputs_of_every_kind_have_the_last_word(end) -> None:
    net = Layers()
    original = net.done(end(net, net.dense(net.relu(net.dense(net.input("x", F32, "N", 16), 16, 32)), 32, 8)))
    feeds = {"x": np.abs(np.random.default_rng(0).standard_normal((64, 16))).astype(np.float32)}
    ctx = context(original, feeds)
    quantized = Weights(bits=3, method="rtn", stored=3)(original)
    corrected = CorrectBias()(quantized, ctx)
    assert corrected.history[-1].done
    judge = Judge(quantized, original, ctx)
    after, before = (judge.misses([made, made]) for made in (corrected, quantized))
    assert np.isfinite(before).all()
    assert closer(after, before)
    assert not judge.misses([original, original]).any()


def test_channels_that_were_scaled_before_are_compared_as_scaled() -> None:
    """Exact rewrites move scales between layers: their values are others than those of the model as it came."""
    original, feeds, others = cnn(), images(24), images(24, 1)
    steps = (Equalize(), Int8(mode="static", per_channel=False), CorrectBias())
    right, wrong = (compiled(original, feeds, *steps, source=s) for s in (None, original))
    assert len(right.history[-1].done) > len(wrong.history[-1].done)
    wanted, plain = run(original, others), compiled(original, feeds, *steps[:2])
    assert relative(wanted, run(right, others)) < relative(wanted, run(plain, others))


def test_constants_of_others_are_not_touched() -> None:
    """A bias that two operators share gets a copy for the one that is corrected."""
    net = Layers()
    x = net.input("x", F32, "N", 16)
    shared = net.vector(16)
    first = net.relu(net.op("Gemm", [x, net.weight(16, 16), shared], attrs={"transB": 1}))
    original = net.done(net.op("Gemm", [first, net.weight(16, 16), shared], attrs={"transB": 1}))
    shifted = original.clone()
    gemm = next(op for op in shifted.graph.ops if op.kind == "Gemm")
    before = shared.constant.array().copy()
    add_bias(Rewriter(shifted), gemm, np.ones(16), F32)
    assert isinstance(shifted.constants[shared.name].constant, Constant)
    np.testing.assert_array_equal(shifted.constants[shared.name].constant.array(), before)
