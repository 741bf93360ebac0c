"""`int4`: what is quantized, what is left and why, and that the artifact computes what the codes say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.graphs import modules
from kit.layers import Layers
from kit.net import Net
from kit.real import RealModel, real_models

from mlc.backends.agreement import AgreementMeter
from mlc.backends.legalize import ACCURACY, legalize
from mlc.backends.onnx import to_proto
from mlc.backends.ort import Session
from mlc.backends.targets import parse_target
from mlc.frontends.onnx import load
from mlc.ir.constants import Constant
from mlc.ir.core import Ints, Module, Op
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.evaluate import evaluate
from mlc.ir.types import tensor
from mlc.ir.verify import verify
from mlc.passes.base import Context, Scope, SkipCode
from mlc.passes.quantize import sites as sites_module
from mlc.passes.quantize.int4 import Int4

F32, F16, I64 = DType.F32, DType.F16, DType.I64


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mlp(k: int = 64, hidden: int = 96, n: int = 10) -> Module:
    """A MatMul, a Gemm with a transposed weight, an embedding."""
    net = Net()
    ids = net.input("ids", I64, "N")
    x = net.op("Gather", [net.const(floats(0, 50, k), "table"), ids], attrs={"axis": 0})
    h = net.op("Relu", [net.op("MatMul", [x, net.const(floats(1, k, hidden), "w1")])])
    gemm = [h, net.const(floats(2, n, hidden), "w2"), net.const(floats(3, n), "b2")]
    return net.done(net.op("Gemm", gemm, attrs={"transB": 1}))


IDS = {"ids": np.array([0, 3, 49, 7])}


def names(module: Module, kind: str) -> list[str]:
    return [op.name for op in module.walk() if op.kind == kind]


def skips(step: Int4, module: Module, ctx: Context | None = None) -> dict[str, SkipCode]:
    return {s.site: s.code for s in step.plan(module, ctx or Context()).skipped}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("scale", ["f16", "f32"])
@pytest.mark.parametrize("block", [32, 128])
def test_every_kind_of_weight(block: int, scale: str, symmetric: bool) -> None:
    module = mlp()
    small = Int4(block=block, embedding_block=block, symmetric=symmetric, scale=scale)(module)
    report = small.history[-1]
    assert [d.site for d in report.done] == ["table", "w1", "w2"]  # type: ignore[attr-defined]
    assert not report.skipped  # type: ignore[attr-defined]
    assert {"w1_quantized", "w1_scale", "table_quantized"} <= set(small.constants)
    assert ("w1_zero_point" in small.constants) is not symmetric
    assert not {"w1", "w2", "table"} & set(small.constants)
    assert len(names(small, "DequantizeLinear")) == 3
    assert all(op.meta[ACCURACY] == "4" for op in small.walk() if op.kind == "DequantizeLinear")
    reference, found = evaluate(module, IDS)[0], evaluate(small, IDS)[0]
    assert 0.98 < cosine(reference, found) < 1
    lowered = legalize(small).module
    assert not names(lowered, "DequantizeLinear")
    assert cosine(Session(lowered).run(IDS)[module.graph.output_names[0]], found) > 0.9999


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_standard_form_runs_without_lowering() -> None:
    module = mlp()
    small = Int4()(module)
    found = Session(small).run(IDS)[module.graph.output_names[0]]
    assert np.allclose(found, evaluate(small, IDS)[0], atol=1e-3)


def test_the_plan_is_data_and_deterministic() -> None:
    plan = Int4().plan(mlp(), Context())
    again = Int4().plan(mlp(), Context())
    assert plan == again
    found = json.loads(json.dumps(plan.to_json()))["sites"][1]
    assert found["constant"] == "w1"
    assert found["shape"] == [64, 96]
    assert found["axis"] == 0
    assert found["bytes_before"] == 64 * 96 * 4
    assert found["bytes_after"] < found["bytes_before"] / 4
    assert 0 < found["error"] < 0.02
    embedding = plan.sites[0]
    assert (embedding.axis, embedding.block) == (1, 128)


def test_two_runs_give_the_same_bytes() -> None:
    first, second = (Int4()(mlp()) for _ in range(2))
    for name, value in first.constants.items():
        assert value.constant is not None
        assert second.constants[name].constant is not None
        assert value.constant.digest() == second.constants[name].constant.digest()


def test_the_planned_bytes_are_the_bytes() -> None:
    module = mlp(k=96, hidden=64)
    plan = Int4().plan(module, Context())
    small = Int4()(module)
    for site in plan.sites[1:]:
        parts = [
            c.constant.nbytes for n, c in small.constants.items() if n.startswith(f"{site.constant}_") and c.constant
        ]
        assert sum(parts) == site.bytes_after - sites_module._OVERHEAD


def test_nodes_without_names_are_told_apart() -> None:
    net = Layers()
    y = net.linear(net.relu(net.linear(net.input("x", DType.F32, "N", 64), 64, 64)), 64, 64)
    module = net.done(y)
    products = [op for op in module.walk() if op.kind == "Gemm"]
    for op in products:
        op.name = ""
    plan = Int4().plan(module, Context())
    assert [site.readers for site in plan.sites] == [(op.results[0].name,) for op in products]


def test_a_tied_table_is_quantized_once() -> None:
    net = Net()
    ids = net.input("ids", I64, "N")
    table = net.const(floats(0, 48, 64), "table")
    x = net.op("Gather", [table, ids], attrs={"axis": 0})
    head = net.op("Transpose", [table], attrs={"perm": Ints((1, 0))})
    module = net.done(net.op("MatMul", [x, head]))
    small = Int4()(module)
    assert [n for n in small.constants if "quantized" in n] == ["table_quantized"]
    assert small.history[-1].plan.sites[0].block == 32  # type: ignore[attr-defined]
    lowered = legalize(small).module
    kinds = {op.kind for op in lowered.walk()}
    assert {"com.microsoft::MatMulNBits", "com.microsoft::GatherBlockQuantized"} <= kinds
    assert sum(v.constant.nbytes for v in lowered.constants.values() if v.constant) < 48 * 64 * 5 / 8 + 200
    wanted = evaluate(small, {"ids": IDS["ids"] % 48})[0]
    found = Session(lowered).run({"ids": IDS["ids"] % 48})
    assert cosine(found[module.graph.output_names[0]], wanted) > 0.9999


def test_a_positional_table() -> None:
    net = Net()
    x = net.input("x", F32, "T", 64)
    size = net.op("Shape", [x], attrs={"start": 0, "end": 1})
    rows = net.op("Slice", [net.const(floats(0, 100, 64), "table"), net.ints(0), size, net.ints(0)])
    module = net.done(net.op("Add", [x, rows]))
    small = Int4()(module)
    assert small.history[-1].plan.sites[0].block == 128  # type: ignore[attr-defined]
    lowered = legalize(small).module
    assert names(lowered, "com.microsoft::GatherBlockQuantized")
    (found,) = Session(lowered).run({"x": floats(1, 7, 64)}).values()
    assert np.allclose(found, evaluate(small, {"x": floats(1, 7, 64)})[0], atol=1e-5)


def test_rows_that_everything_reads_are_not_worth_it() -> None:
    net = Net()
    ids, kinds = net.input("ids", I64, "N"), net.input("kinds", I64, "N")
    x = net.op("Gather", [net.const(floats(0, 30000, 384), "words"), ids])
    y = net.op("Gather", [net.const(floats(1, 2, 384), "kinds_table"), kinds])
    plan = Int4().plan(net.done(net.op("Add", [x, y])), Context())
    assert [s.constant for s in plan.sites] == ["words"]
    assert [s.code for s in plan.skipped] == [SkipCode.TOO_SMALL]


def test_weights_inside_bodies() -> None:
    net = Net()
    x = net.input("x", F32, 3, 64)
    condition = net.input("c", DType.BOOL)
    shared = net.const(floats(0, 64, 64), "shared")
    y = net.op("MatMul", [x, shared])
    regions = {}
    for name in ("then_branch", "else_branch"):
        body = net.body(name)
        own = body.op("MatMul", [y, net.const(floats(len(name), 64, 64), f"own_{name}")])
        body.output(body.op("MatMul", [own, shared]))
        regions[name] = body.graph
    module = net.done(net.node("If", [condition], [tensor(F32, 3, 64)], regions=regions).result)
    small = Int4()(module)
    assert sorted(n for n in small.constants if n.endswith("_quantized")) == [
        "own_else_branch_quantized", "own_then_branch_quantized", "shared_quantized",
    ]  # fmt: skip
    lowered = legalize(small).module
    assert len(names(lowered, "com.microsoft::MatMulNBits")) == 5
    assert sum(1 for n in lowered.constants if n.startswith("shared") and n.endswith("_blocks")) == 1
    for value in (True, False):
        feeds = {"x": floats(5, 3, 64), "c": np.array(value)}
        found = Session(lowered).run(feeds)[module.graph.output_names[0]]
        assert cosine(found, evaluate(small, feeds)[0]) > 0.999
        assert cosine(found, evaluate(module, feeds)[0]) > 0.97


@dataclass
class Case:
    """A net of one op that keeps its floats."""

    kind: str
    operands: list[Any]
    code: SkipCode
    attrs: dict[str, Any]


def _skipping(name: str) -> tuple[Module, SkipCode]:
    net = Net()
    m = net.input("m", F32, 64, 64)
    w = net.const(floats(0, 64, 64), "w")
    if name == "elementwise":
        return net.done(net.op("Mul", [m, net.const(floats(0, 64, 64))])), SkipCode.UNSUPPORTED
    if name == "activations":
        return net.done(net.op("MatMul", [m, m])), SkipCode.NOT_CONSTANT
    if name == "small":
        return net.done(net.op("MatMul", [m, net.const(floats(0, 64, 2))])), SkipCode.TOO_SMALL
    if name == "shared":
        return net.done(net.op("MatMul", [m, w]), net.op("Add", [m, w])), SkipCode.SHARED
    if name == "output":
        return net.done(net.op("MatMul", [m, w]), w), SkipCode.SHARED
    if name == "both axes":
        ids = net.input("ids", I64, 3)
        return net.done(net.op("MatMul", [m, w]), net.op("Gather", [w, ids])), SkipCode.SHARED
    if name == "folded rows":
        rows = net.op("Slice", [w, net.ints(0), net.ints(32), net.ints(0)])
        return net.done(rows, net.op("Gather", [w, net.ints(1, 2)])), SkipCode.UNSUPPORTED
    if name == "infinite":
        holed = floats(0, 64, 64)
        holed[3, 3] = -np.inf
        return net.done(net.op("MatMul", [m, net.const(holed)])), SkipCode.HURTS
    if name == "double":
        d = net.input("d", DType.F64, 2, 64)
        return net.done(net.op("MatMul", [d, net.const(floats(0, 64, 64).astype(np.float64))])), SkipCode.DTYPE
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name",
    [
        "elementwise",
        "activations",
        "small",
        "shared",
        "output",
        "both axes",
        "folded rows",
        "infinite",
        "double",
    ],
)
def test_what_is_skipped_says_why(name: str) -> None:
    module, code = _skipping(name)
    before = [(n, v.constant) for n, v in module.constants.items()]
    small = Int4()(module, Context(target=parse_target("ort(cpu)")))
    report = small.history[-1]
    assert not report.done  # type: ignore[attr-defined]
    assert code in {s.code for s in report.skipped}  # type: ignore[attr-defined]
    assert all(s.why for s in report.skipped)  # type: ignore[attr-defined]
    assert [(n, v.constant) for n, v in small.constants.items()] == before
    explicit = Scope(on=frozenset(op.name for op in module.walk()), text='"**"')
    with pytest.raises(MlcError) as caught:
        Int4()(module, Context(target=parse_target("ort(cpu)"), scope=explicit))
    assert caught.value.diagnostics[0].code is Code.CANNOT_HONOUR


def test_a_skip_for_size_says_the_bytes() -> None:
    module, _ = _skipping("small")
    (skip,) = Int4().plan(module, Context()).skipped
    assert skip.why == "512 bytes now, 586 with scales and padding"


def test_scope_keeps_what_it_names() -> None:
    module = mlp()
    (gemm,) = names(module, "Gemm")
    only = Int4()(module, Context(scope=Scope(on=frozenset({gemm}))))
    assert [n for n in only.constants if n.endswith("quantized")] == ["w2_quantized"]
    but = Int4()(module, Context(scope=Scope(but=frozenset({gemm}))))
    assert sorted(n for n in but.constants if n.endswith("quantized")) == ["table_quantized", "w1_quantized"]
    assert skips(Int4(), module, Context(scope=Scope(but=frozenset({gemm}))))[gemm] is SkipCode.SCOPE


def test_running_twice_changes_nothing() -> None:
    once = Int4()(mlp())
    twice = Int4()(once)
    assert not twice.history[-1].done  # type: ignore[attr-defined]
    assert set(skips(Int4(), once).values()) == {SkipCode.ALREADY}
    lowered = legalize(once).module
    assert set(skips(Int4(), lowered).values()) == {SkipCode.ALREADY}


def test_a_weight_stored_in_16_bits() -> None:
    net = Net()
    x = net.input("x", F32, 3, 64)
    half = net.const(floats(0, 64, 32).astype(np.float16), "w")
    module = net.done(net.op("MatMul", [x, net.op("Cast", [half], [tensor(F32, 64, 32)], {"to": F32.onnx})]))
    small = Int4()(module)
    assert "w" not in small.constants
    assert cosine(evaluate(module, {"x": floats(1, 3, 64)})[0], evaluate(small, {"x": floats(1, 3, 64)})[0]) > 0.99
    assert names(legalize(small).module, "com.microsoft::MatMulNBits")


def test_scales_of_tiny_weights_are_wider() -> None:
    net = Net()
    x = net.input("x", F32, 3, 64)
    module = net.done(net.op("MatMul", [x, net.const(floats(0, 64, 64) * np.float32(1e-7), "w")]))
    small = Int4()(module)
    scale = small.constants["w_scale"].constant
    assert scale is not None
    assert scale.dtype is F32
    feeds = {"x": floats(1, 3, 64)}
    assert cosine(evaluate(module, feeds)[0], evaluate(small, feeds)[0]) > 0.99


def test_emptied_blocks_stay_finite() -> None:
    w = floats(0, 128, 16)
    w[32:96] = 0
    w[:, 3] = 0
    net = Net()
    x = net.input("x", F32, 3, 128)
    small = Int4()(net.done(net.op("MatMul", [x, net.const(w, "w")])))
    found = next(iter(Session(legalize(small).module).run({"x": floats(1, 3, 128)}).values()))
    assert np.isfinite(found).all()
    assert np.abs(found[:, 3]).max() == 0


@pytest.mark.real
@real_models()
def test_real_models(model: RealModel) -> None:
    """The artifact loads, agrees, is not larger; what keeps its floats has a reason."""
    module = load(model.path)
    small = Int4()(module, Context(target=parse_target("ort(cpu)")))
    report = small.history[-1]
    assert report.done or report.skipped  # type: ignore[attr-defined]
    lowered = legalize(small).module
    assert not any(op.kind == "DequantizeLinear" and op.attrs.get("block_size") for op in lowered.walk())
    feeds, meter = model.feeds(), AgreementMeter()
    meter.update(Session(model.path).run(feeds), Session(lowered).run(feeds))
    agreement = meter.result().cosine
    assert agreement is not None
    assert agreement > 0.98
    assert to_proto(lowered).ByteSize() <= to_proto(module).ByteSize()


@pytest.mark.parametrize("field", [{"block": 48}, {"accuracy_level": 2}, {"scale": "bf16"}, {"block": "32"}])
def test_options_are_checked(field: dict[str, Any]) -> None:
    with pytest.raises(MlcError):
        Int4(**field)


def test_prints_as_recipe_text() -> None:
    assert str(Int4()) == "int4"
    assert str(Int4(block=128, symmetric=True)) == "int4(block=128, symmetric=true)"


@settings(max_examples=40, deadline=None)
@given(modules(), st.booleans())
def test_any_module_stays_valid(module: Module, symmetric: bool) -> None:
    overhead, sites_module._OVERHEAD = sites_module._OVERHEAD, -(1 << 20)  # so that small weights are taken, too
    try:
        small = Int4(symmetric=symmetric)(module)
    finally:
        sites_module._OVERHEAD = overhead
    verify(small)
    verify(legalize(small).module)
    kept = [v.type for v in module.graph.outputs]
    assert [v.type for v in small.graph.outputs] == kept
    assert isinstance(next(iter(module.walk()), None), Op | None)
    assert all(isinstance(v.constant, Constant) for v in small.constants.values())
