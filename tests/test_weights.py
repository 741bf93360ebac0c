"""`weights`: bits, storage of what has no kernel, and bits chosen for each weight."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.graphs import modules
from kit.net import Net
from kit.real import RealModel, real_models
from kit.samples import Samples

import mlc
from mlc.backends.agreement import AgreementMeter
from mlc.backends.legalize import legalize
from mlc.backends.onnx import to_proto
from mlc.backends.ort import Session
from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.frontends.onnx import load
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.evaluate import evaluate
from mlc.ir.verify import verify
from mlc.passes.base import Context, SkipCode
from mlc.passes.quantize import damage as damage_module
from mlc.passes.quantize import mixed
from mlc.passes.quantize import sites as sites_module
from mlc.passes.quantize.int4 import Int4
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.sites import Site
from mlc.passes.quantize.weight_only import Weights
from mlc.passes.quantize.weights import computed_weights
from mlc.passes.statistics import StreamingStatistics

F32, I64 = DType.F32, DType.I64
ORT = Context(target=parse_target("ort(cpu)"))


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def convolutional() -> Module:
    """Conv 3x3, depthwise Conv, 1x1 Conv, ConvTranspose, and a matrix."""
    net = Net()
    x = net.input("x", F32, 2, 32, 8, 8)
    y = net.op("Conv", [x, net.const(floats(0, 64, 32, 3, 3) / 17, "wide")], attrs={"pads": Ints((1, 1, 1, 1))})
    y = net.op("Relu", [y])
    y = net.op("Conv", [y, net.const(floats(1, 64, 1, 3, 3) / 3, "depthwise")], attrs={"group": 64})
    y = net.op("Conv", [y, net.const(floats(2, 48, 64, 1, 1) / 8, "pointwise")])
    y = net.op("ConvTranspose", [y, net.const(floats(3, 48, 16, 2, 2) / 7, "up")], attrs={"strides": Ints((2, 2))})
    y = net.op("GlobalAveragePool", [y])
    y = net.op("Flatten", [y])
    return net.done(net.op("MatMul", [y, net.const(floats(4, 16, 40), "head")]))


def recurrent() -> Module:
    net = Net()
    x = net.input("x", F32, 5, 2, 40)
    w, r = net.const(floats(0, 1, 128, 40) / 6, "w"), net.const(floats(1, 1, 128, 32) / 6, "r")
    out = net.node("LSTM", [x, w, r], attrs={"hidden_size": 32}).results[0]
    return net.done(out)


IMAGE = {"x": floats(9, 2, 32, 8, 8)}


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_every_number_of_bits_runs_as_its_codes_say(bits: int, symmetric: bool) -> None:
    module = convolutional()
    small = Weights(bits=bits, stored=bits, symmetric=symmetric)(module, ORT)
    assert not small.history[-1].skipped  # type: ignore[attr-defined]
    wanted = evaluate(small, IMAGE)[0]
    (found,) = Session(legalize(small).module).run(IMAGE).values()
    assert cosine(found, wanted) > (0.9999 if bits > 2 else 0.99)
    assert cosine(evaluate(module, IMAGE)[0], wanted) > {2: 0.2, 3: 0.8, 4: 0.95, 6: 0.99, 8: 0.9999}[bits]


def test_storage_lies_in_blocks_or_by_channel() -> None:
    plan = Weights(bits=4, stored=4, compute="codes").plan(convolutional(), ORT)
    found = {s.constant: (s.axis, s.block, s.form) for s in plan.sites}
    assert found == {
        "wide": (1, 32, "stored"),
        "depthwise": (0, 0, "stored"),
        "pointwise": (1, 32, "stored"),
        "up": (0, 32, "stored"),
        "head": (0, 32, "blocks"),
    }
    assert any("size only" in note for note in plan.notes)


def test_what_has_no_kernel_keeps_eight_bits_unless_told() -> None:
    plan = Int4(compute="codes").plan(convolutional(), ORT)
    assert {s.constant: s.bits for s in plan.sites} == {
        "wide": 8, "depthwise": 8, "pointwise": 8, "up": 8, "head": 4,
    }  # fmt: skip
    assert {s.bits for s in Int4(stored=4).plan(convolutional(), ORT).sites} == {4}
    assert {s.bits for s in Weights(bits=8, stored=4).plan(convolutional(), ORT).sites} == {8}


def test_eight_bits_that_are_only_stored_have_a_scale_per_output() -> None:
    """As int8 stores them: blocks of 32 would add a tenth to the bytes of 8 bits."""
    module = convolutional()
    plan = Int4().plan(module, ORT)
    found = {s.constant: (s.axis, s.block) for s in plan.sites if s.form == "stored" and not s.kernel}
    assert found == {"wide": (0, 0), "depthwise": (0, 0), "pointwise": (0, 0), "up": (1, 0)}
    spent = {s.constant: s.bytes_after for s in plan.sites}
    blocks = {s.constant: s.bytes_after for s in Weights(bits=6, stored=6).plan(module, ORT).sites}
    assert all(spent[name] < blocks[name] for name in ("wide", "up"))


def test_few_bits_that_gain_neither_time_nor_a_notable_share_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    target = parse_target("ort(cpu)")
    ctx = Context(target=target)
    times = {"blocks": 2.0, "float": 1.0}
    monkeypatch.setattr(type(target), "seconds", lambda self, op, form, dims, bits, block: times.get(form))
    module = convolutional()
    plan = Int4().plan(module, ctx)
    assert {s.constant: (s.form, s.bits, s.block) for s in plan.sites}["head"] == ("stored", 8, 0)
    assert any(n.startswith("8 bits for head: 4 bits would save") for n in plan.notes)
    for told in (Int4(compute="floats"), Int4(compute="codes"), Int4(stored=4)):
        assert {s.constant: s.bits for s in told.plan(module, ctx).sites}["head"] == 4
    small = Int4()(module, ctx)
    assert not [op for op in legalize(small).module.walk() if op.domain]
    times["blocks"] = 0.5  # codes are fast: 4 bits gain time
    assert {s.constant: s.bits for s in Int4().plan(module, ctx).sites}["head"] == 4


def test_the_block_is_the_fastest_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    times: dict[int, float | None] = {32: 1.0, 64: 0.97, 128: 0.5}
    target = parse_target("ort(cpu)")
    ctx = Context(target=target)
    floats: dict[str, float | None] = {"float": 2.0}
    monkeypatch.setattr(
        type(target), "seconds", lambda self, op, form, dims, bits, block: floats.get(form, times.get(block))
    )
    module = deep(1)
    plan = Int4(block=0).plan(module, ctx)
    assert [s.block for s in plan.sites] == [128]
    assert any("1 of 128" in note for note in plan.notes)
    times[128] = 1.1
    assert [s.block for s in Int4(block=0).plan(module, ctx).sites] == [32]  # 64 is hardly faster
    times[64] = None
    assert [s.block for s in Int4(block=0).plan(module, ctx).sites] == [32]
    assert [s.block for s in Int4(block=0).plan(module, Context()).sites] == [32]


def test_products_of_codes_that_would_be_slower_are_of_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    target = parse_target("ort(cpu)")
    ctx = Context(target=target)
    times = {"blocks": 2.0, "float": 1.0}
    monkeypatch.setattr(type(target), "seconds", lambda self, op, form, dims, bits, block: times.get(form))
    module = deep(1)
    stored = Int4()(module, ctx)
    assert [(s.form, s.bits, s.kernel) for s in stored.history[-1].plan.sites] == [("stored", 4, True)]  # type: ignore[attr-defined]
    assert any("would be slower" in note for note in stored.history[-1].notes)  # type: ignore[attr-defined]
    assert not [op for op in legalize(stored).module.walk() if op.domain]
    codes = Int4(compute="codes")(module, ctx)
    assert [op.kind for op in legalize(codes).module.walk() if op.domain] == ["com.microsoft::MatMulNBits"]
    assert size(stored) == size(codes)
    feeds = {"x": floats(3, 4, 64)}
    (found,) = Session(legalize(stored).module).run(feeds).values()
    assert np.allclose(found, evaluate(stored, feeds)[0], atol=1e-5)
    times["blocks"] = 0.5
    assert [s.form for s in Int4().plan(module, ctx).sites] == ["blocks"]
    assert [s.form for s in Int4(compute="floats").plan(module, ctx).sites] == ["stored"]


def test_recurrent_layers_are_stored() -> None:
    module = recurrent()
    small = Int4()(module, ORT)
    assert {"w_quantized", "r_quantized"} <= set(small.constants)
    feeds = {"x": floats(1, 5, 2, 40)}
    (found,) = Session(legalize(small).module).run(feeds).values()
    assert cosine(found, evaluate(module, feeds)[0]) > 0.999
    assert to_proto(legalize(small).module).ByteSize() < 0.5 * to_proto(module).ByteSize()


def test_matrices_of_rank_three_and_on_the_left() -> None:
    net = Net()
    x = net.input("x", F32, 4, 6, 64)
    y = net.op("MatMul", [x, net.const(floats(0, 4, 64, 64) / 8, "batched")])
    module = net.done(net.op("MatMul", [net.const(floats(1, 6, 6), "small"), y]))
    small = Int4(stored=4)(module, ORT)
    assert [d.site for d in small.history[-1].done] == ["batched"]  # type: ignore[attr-defined]
    feeds = {"x": floats(2, 4, 6, 64)}
    (found,) = Session(legalize(small).module).run(feeds).values()
    assert np.allclose(found, evaluate(small, feeds)[0], atol=1e-4)


def test_three_and_six_bits_say_where_they_are_stored() -> None:
    module = convolutional()
    assert any("of 3 bits: stored in 4" in n for n in Weights(bits=3, stored=3).plan(module, ORT).notes)
    assert any("of 6 bits: stored in 8" in n for n in Weights(bits=6, compute="codes").plan(module, ORT).notes)
    assert not any("are stored in" in n for n in Weights(bits=4, scale="f32", stored=4).plan(module, ORT).notes)


def test_four_bits_are_int4() -> None:
    module = convolutional()
    a, b = Int4()(module, ORT), Weights(bits=4)(module, ORT)
    assert a.history[-1].plan == b.history[-1].plan  # type: ignore[attr-defined]
    digests = [{n: v.constant.digest() for n, v in m.constants.items() if v.constant} for m in (a, b)]
    assert digests[0] == digests[1]


def test_weights_that_are_stored_as_codes_are_done() -> None:
    """What an artifact of ours looks like when it is read again."""
    for module in (convolutional(), recurrent(), deep(2)):
        again = legalize(Int4(compute="floats", stored=4)(module, ORT)).module
        assert not list(computed_weights(again))
        report = Int4()(again, ORT).history[-1]
        assert not report.done  # type: ignore[attr-defined]
        assert {s.code for s in report.skipped} == {SkipCode.ALREADY}  # type: ignore[attr-defined]
        products = [op for op in again.walk() if op.kind in ("Conv", "ConvTranspose", "MatMul", "LSTM")]
        assert len(report.skipped) == len(products)  # type: ignore[attr-defined]
        eight = Int8(mode="stored")(again, ORT).history[-1]
        assert not eight.done  # type: ignore[attr-defined]
        assert set(eight.skipped) == set(report.skipped)  # type: ignore[attr-defined]


# -- several numbers of bits ---------------------------------------------------------------------------------------


def deep(layers: int = 6) -> Module:
    net = Net()
    y = net.input("x", F32, 4, 64)
    for i in range(layers):
        w = floats(i, 64, 64) / 8
        w[i::7] *= 1 + 5 * i  # errors that differ
        y = net.op("Tanh", [net.op("MatMul", [y, net.const(w, f"w{i}")])])
    return net.done(y)


def size(module: Module) -> int:
    return sum(v.constant.nbytes for v in module.constants.values() if v.constant is not None)


def test_the_ends_of_the_strength() -> None:
    module, step = deep(), Weights(bits=(4, 8))
    assert step.free == ("saving",)
    assert not step.at(0.0).plan(module, ORT).sites
    assert {s.code for s in step.at(0.0).plan(module, ORT).skipped} == {SkipCode.HURTS}
    assert {s.bits for s in step.at(1.0).plan(module, ORT).sites} == {4}
    assert {s.bits for s in step.plan(module, ORT).sites} == {8}


def test_more_strength_less_size_and_more_damage() -> None:
    module, step = deep(), Weights(bits=(2, 4, 8))
    strengths = np.linspace(0, 1, 21)
    sizes, damages = [], []
    for s in strengths:
        plan = step.at(float(s)).plan(module, ORT)
        before = {n: v.constant.nbytes for n, v in module.constants.items() if v.constant}
        after = {x.constant: x.bytes_after for x in plan.sites}
        sizes.append(sum(after.get(n, b) for n, b in before.items()))
        damages.append(sum(x.error for x in plan.sites))
    assert damages == sorted(damages)
    assert sizes[0] > 3 * sizes[-1]
    shares = [step.at(float(s)).saving for s in strengths]
    budgets = [sizes[0] - share * (sizes[0] - sizes[-1]) for share in shares if share is not None]
    assert all(size <= budget + 1e-6 for size, budget in zip(sizes, budgets))
    assert budgets == sorted(budgets, reverse=True)


def _site(bits: int, cost: int, error: float) -> Site:
    return Site("w", ("op",), (1, 1), 0, 32, bits, False, "f16", "blocks", True, 100, cost, error)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(5, 40), st.integers(41, 90), st.floats(0.01, 1)), min_size=1, max_size=5),
    st.floats(0, 1),
)
def test_the_choice_is_the_best_there_is(rows: list[tuple[int, int, float]], saving: float) -> None:
    options = [[_site(8, much, error / 50), _site(4, little, error)] for little, much, error in rows]
    chosen = mixed.choose(options, mixed.by_error(options), saving)
    budget = 100 * len(rows) - saving * sum(100 - little for little, _, _ in rows)
    everything = [
        (sum(s.error if s else 0.0 for s in pick), pick)
        for pick in itertools.product(*[[None, *sites] for sites in options])
        if sum(s.bytes_after if s else 100 for s in pick) <= budget + 1e-9
    ]
    assert sum(s.bytes_after if s else 100 for s in chosen) <= budget + 1e-6
    best = min(damage for damage, _ in everything)
    assert sum(s.error if s else 0.0 for s in chosen) == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_a_bound_on_size_is_met_by_the_file(tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    module = deep()
    mlc.save(module, tmp_path / "model.onnx")
    limit = 0.6 * size(Weights(bits=8)(module)) + 0.4 * size(Int4()(module)) + 6000
    mlc.compile(
        tmp_path / "model.onnx", f"weights([4, 8], compute=codes) where size <= {int(limit)}B", output=out, check="none"
    )
    assert out.stat().st_size <= limit
    kinds = {op.attrs["bits"] for op in load(out).walk() if op.kind == "com.microsoft::MatMulNBits"}
    assert kinds == {4, 8}


# -- with data -----------------------------------------------------------------------------------------------------


def taught(count: int = 24) -> Context:
    """Samples whose inputs are correlated, as those of trained layers are."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((count, 4, 64)) + 2 * rng.standard_normal((count, 4, 1))).astype(np.float32)
    samples, runner = Samples({"x": x}, whole=True), OrtRunner()
    stats = StreamingStatistics(samples, runner)
    return Context(target=parse_target("ort(cpu)"), data=samples, runner=runner, stats=stats)


def codes(module: Module) -> dict[str, str]:
    return {n: v.constant.digest() for n, v in module.constants.items() if v.constant and n.endswith("_quantized")}


def test_with_data_codes_are_refined_and_outputs_better() -> None:
    module, ctx = deep(3), taught()
    plain, better = Int4(method="grid")(module, ctx), Int4()(module, ctx)
    assert codes(plain).keys() == codes(better).keys()
    assert all(codes(plain)[n] != codes(better)[n] for n in codes(plain))
    assert all("gptq" in d.after for d in better.history[-1].done)  # type: ignore[attr-defined]
    assert codes(Int4(method="gptq")(module, ctx)) == codes(better)
    missed = {True: 0.0, False: 0.0}
    rng = np.random.default_rng(11)
    for _ in range(8):
        feeds = {"x": (rng.standard_normal((4, 64)) + 2 * rng.standard_normal((4, 1))).astype(np.float32)}
        wanted = evaluate(module, feeds)[0]
        for refined, made in ((False, plain), (True, better)):
            missed[refined] += float(np.square(evaluate(made, feeds)[0] - wanted).sum())
    assert missed[True] < 0.8 * missed[False]


def test_awq_scales_inputs_and_searches_clips() -> None:
    net = Net()
    x = net.input("x", F32, 4, 64)
    loud = net.op("Mul", [x, net.const(np.where(np.arange(64) % 16 == 0, 30, 1).astype(np.float32), "gain")])
    module, ctx = net.done(net.op("MatMul", [loud, net.const(floats(0, 64, 64) / 8, "w")])), taught()
    plain, better = Int4(method="rtn")(module, ctx), Int4(method="awq")(module, ctx)
    assert "alpha" in " ".join(d.after for d in better.history[-1].done)  # type: ignore[attr-defined]
    feeds = {"x": floats(12, 4, 64)}
    wanted = evaluate(module, feeds)[0]
    missed = [float(np.square(evaluate(m, feeds)[0] - wanted).sum()) for m in (plain, better)]
    assert missed[1] < 0.5 * missed[0]


@pytest.mark.parametrize("method", ["awq", "gptq", "adaround"])
def test_what_is_not_refined_keeps_grids_of_least_error(method: str) -> None:
    net = Net()
    ids = net.input("ids", DType.I64, "N", 6)
    rows = net.op("Tanh", [net.op("Gather", [net.const(floats(0, 64, 64), "table"), ids])])  # no scale passes it
    module = net.done(net.op("MatMul", [rows, net.const(floats(1, 64, 32) / 8, "w")]))
    data = Samples({"ids": np.random.default_rng(0).integers(0, 64, (20, 6))})
    ctx = Context(data=data, runner=OrtRunner())
    made, grid, nearest = (codes(Int4(method=m)(module, ctx))["table_quantized"] for m in (method, "grid", "rtn"))
    assert made == grid != nearest


def test_eight_bits_are_refined_when_asked_for() -> None:
    module, ctx = deep(2), taught(8)
    assert codes(Weights(bits=8)(module, ctx)) == codes(Weights(bits=8, method="grid")(module, ctx))
    assert codes(Weights(bits=8, method="gptq")(module, ctx)) != codes(Weights(bits=8, method="grid")(module, ctx))


def test_a_draft_has_the_bytes_but_not_the_work() -> None:
    module, ctx = deep(2), taught(8)
    draft = Int4()(module, replace(ctx, draft=True))
    assert codes(draft) == codes(Int4(method="grid")(module, ctx))
    assert size(draft) == size(Int4()(module, ctx))


def test_methods_that_learn_want_data() -> None:
    for method in ("gptq", "adaround", "awq"):
        with pytest.raises(MlcError) as caught:
            Int4(method=method)(deep(2), ORT)
        assert caught.value.diagnostics[0].code is Code.NO_DATA
        assert Int4(method=method).learns
    assert Int4().learns
    assert not Int4(method="rtn").learns


def test_damage_is_measured_once_and_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight whose error no output sees is the first to get few bits, although its error is larger."""
    net = Net()
    x = net.input("x", F32, 4, 64)
    signs = np.sign(floats(0, 64, 64)) + floats(2, 64, 64) / 20
    seen = net.op("MatMul", [x, net.const(signs, "seen")])
    faint = net.op("MatMul", [x, net.const(floats(1, 64, 64), "unseen")])
    faint = net.op("Mul", [faint, net.const(np.float32(1e-3))])
    module, ctx = net.done(net.op("Add", [seen, faint])), taught(8)
    step = Weights(bits=(2, 8), saving=0.88, method="grid")
    assert {s.constant: s.bits for s in step.plan(module, ORT).sites} == {"seen": 2, "unseen": 8}
    found = step.plan(module, ctx)
    assert {s.constant: s.bits for s in found.sites} == {"seen": 8, "unseen": 2}
    assert any("measured" in note for note in found.notes)
    monkeypatch.setattr(damage_module, "Probe", None)  # what is remembered needs no probe
    assert step.plan(module, ctx) == found
    assert replace(step, saving=0.5).plan(module.clone(), ctx).sites


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"bits": 5}, Code.OUT_OF_RANGE),
        ({"bits": (4, 7)}, Code.OUT_OF_RANGE),
        ({"bits": "4"}, Code.WRONG_UNIT),
        ({"bits": True}, Code.WRONG_UNIT),
        ({"bits": ()}, Code.OUT_OF_RANGE),
        ({"bits": 4, "saving": 0.5}, Code.CANNOT_HONOUR),
        ({"saving": 1.5, "bits": (4, 8)}, Code.OUT_OF_RANGE),
        ({"method": "magic"}, Code.OUT_OF_RANGE),
        ({"compute": "floats", "accuracy_level": 1}, Code.CANNOT_HONOUR),
    ],
)
def test_options_are_checked(arguments: dict[str, Any], code: Code) -> None:
    with pytest.raises(MlcError) as caught:
        Weights(**arguments)
    assert caught.value.diagnostics[0].code is code


@settings(max_examples=40, deadline=None)
@given(modules(), st.sampled_from([2, 3, 4, 6, 8, (4, 8)]), st.sampled_from(["rtn", "grid", "hqq"]))
def test_any_module_stays_valid(module: Module, bits: int | tuple[int, ...], method: str) -> None:
    overhead, sites_module._OVERHEAD = sites_module._OVERHEAD, -(1 << 20)  # so that small weights are taken, too
    try:
        small = Weights(bits=bits, method=method)(module, ORT)
    finally:
        sites_module._OVERHEAD = overhead
    verify(small)
    verify(legalize(small).module)
    assert [v.type for v in small.graph.outputs] == [v.type for v in module.graph.outputs]


@pytest.mark.real
@real_models()
def test_real_models(model: RealModel) -> None:
    """8-bit storage agrees, is much smaller wherever there are weights, and loads."""
    module = load(model.path)
    small = Weights(bits=8)(module, ORT)
    lowered = legalize(small).module
    feeds, meter = model.feeds(), AgreementMeter()
    meter.update(Session(model.path).run(feeds), Session(lowered).run(feeds))
    agreement = meter.result().cosine
    assert agreement is not None
    assert agreement > 0.985
    assert to_proto(lowered).ByteSize() <= to_proto(module).ByteSize()
