"""What the report says of quantized artifacts: what ONNX Runtime did not fuse, float islands, what is size only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from kit.net import Net

from mlc.backends.checks import Judge, check_emitted
from mlc.backends.fusion import Fusion, Island, read_fusion
from mlc.backends.legalize import legalize
from mlc.backends.onnx import save
from mlc.backends.ort import Session
from mlc.backends.report import terminal
from mlc.backends.size_only import size_only
from mlc.backends.targets import OrtTarget
from mlc.compiler import compile as compile_model
from mlc.compiler import plan as plan_model
from mlc.ir.constants import Constant
from mlc.ir.core import Ints, Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.quant import QSpec
from mlc.ir.quant_blocks import quantize_constant
from mlc.ir.rewrite import Rewriter
from mlc.ir.types import tensor
from mlc.passes.base import EXACT, Context, Done, Effect, Pass, Plan

F32, F16 = DType.F32, DType.F16


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def codes(net: Net, value: Value, *, name: str = "", zero: int = 128) -> Value:
    parameters = [net.const(np.float32(0.05)), net.const(np.uint8(zero))]
    rounding = net.node("QuantizeLinear", [value, *parameters])
    rounding.name = name or rounding.name
    return net.op("DequantizeLinear", [rounding.result, *parameters])


def weight(net: Net, *shape: int) -> Value:
    scale = net.const(np.full(shape[0], 0.01, np.float32))
    quantized = net.const(np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8), net.fresh("w_quantized"))
    return net.op("DequantizeLinear", [quantized, scale], attrs={"axis": 0})


def conv(net: Net, x: Value) -> Value:
    return codes(net, net.op("Conv", [x, weight(net, 4, 4, 3, 3)], attrs={"pads": Ints((1, 1, 1, 1))}))


def fusion(module: Module, folder: Path) -> Fusion:
    Session(legalize(module).module, optimized_path=folder / "optimized.onnx")
    return read_fusion(folder / "optimized.onnx")


def start(net: Net) -> Value:
    return codes(net, net.input("x", F32, 1, 4, 8, 8))


def test_a_chain_of_units_is_clean(tmp_path: Path) -> None:
    net = Net()
    found = fusion(net.done(conv(net, conv(net, start(net)))), tmp_path)
    assert found == Fusion({"QLinearConv": 2})


def test_a_float_op_between_units_is_an_island(tmp_path: Path) -> None:
    net = Net()
    tanh = net.node("Tanh", [conv(net, start(net))])
    tanh.name = "between"
    y = net.op("Mul", [tanh.result, net.const(np.float32(2))])
    found = fusion(net.done(conv(net, codes(net, y))), tmp_path)
    assert found.kernels == {"QLinearConv": 2}
    assert found.islands == (Island("between", ("Tanh", "Mul")),)
    assert str(found.islands[0]) == "between (Mul, Tanh)"
    assert found.rounded == found.widened == ()


def test_what_computes_sizes_is_no_island(tmp_path: Path) -> None:
    net = Net()
    x = conv(net, codes(net, net.input("x", F32, "N", 4, 8, 8)))
    rows = net.op("Slice", [net.op("Shape", [x]), net.ints(0), net.ints(1)])
    flat = net.op("Reshape", [net.op("Tanh", [x]), net.op("Concat", [rows, net.ints(256)], attrs={"axis": 0})])
    save(net.done(codes(net, flat)), tmp_path / "model.onnx")
    assert [island.kinds for island in read_fusion(tmp_path / "model.onnx").islands] == [("Conv",), ("Tanh", "Reshape")]


def test_floats_at_the_ends_are_no_islands(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Tanh", [net.input("x", F32, 1, 4, 8, 8)])
    found = fusion(net.done(net.op("Tanh", [conv(net, codes(net, x))])), tmp_path)
    assert found == Fusion({"QLinearConv": 1})


def test_codes_that_nothing_computes_with_are_found(tmp_path: Path) -> None:
    net = Net()
    x = codes(net, net.input("x", F32, 1, 4, 8, 8), name="useless")
    found = fusion(net.done(net.op("Tanh", [x])), tmp_path)
    assert found.rounded == ("useless",)
    assert found.kernels == {}


def test_weights_that_stay_codes_are_found(tmp_path: Path) -> None:
    """A clamp that the codes of the result do not make redundant keeps the runtime from fusing."""
    net = Net()
    y = net.op("Conv", [start(net), weight(net, 4, 4, 3, 3)])
    found = fusion(net.done(codes(net, net.op("Relu", [y]), zero=9)), tmp_path)
    assert len(found.widened) == 1
    assert found.kernels == {}
    assert len(found.islands) == 1


def test_bodies_are_read(tmp_path: Path) -> None:
    net = Net()
    x, cond = net.input("x", F32, 1, 4, 8, 8), net.input("cond", DType.BOOL)
    then, other = net.body("then_branch"), net.body("else_branch")
    then.output(then.op("Tanh", [codes(then, x)]))
    other.output(other.op("Neg", [x]))
    y = net.node("If", [cond], None, regions={"then_branch": then.graph, "else_branch": other.graph}).result
    assert len(fusion(net.done(y), tmp_path).rounded) == 1


def emitted(module: Module, path: Path) -> Any:
    judge = Judge.of(module, None, dims={}, seed=0, threads=1, level="full", max_memory=None)
    lowered = legalize(module).module
    save(lowered, path)
    return check_emitted(path, lowered, 0, judge, level="full", exact=False, seed=0), judge


def test_the_checks_say_what_was_fused(tmp_path: Path) -> None:
    net = Net()
    found, judge = emitted(net.done(conv(net, start(net))), tmp_path / "model.onnx")
    facts = found.checks(judge)["quantization"]
    assert facts["kernels"] == {"QLinearConv": 1}
    assert facts["float_islands"] == {"count": 0, "first": []}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


def test_float_models_have_nothing_to_say(tmp_path: Path) -> None:
    net = Net()
    found, judge = emitted(net.done(net.op("Tanh", [net.input("x", F32, 4)])), tmp_path / "model.onnx")
    assert "quantization" not in found.checks(judge)


# -- size only ---------------------------------------------------------------------------------------------------------

VNNI = OrtTarget(isa="vnni", costs_from="assumed")


def blocks(rows: int | str, depth: int, width: int) -> Module:
    net = Net()
    made = quantize_constant(Constant.of(floats(0, depth, width)), QSpec(4, True, True, 0, 32), scale_type=F32)
    operands = [net.module._add_constant("w_quantized", made.codes), net.module._add_constant("w_scale", made.scale)]
    w = net.op("DequantizeLinear", operands, [tensor(F32, depth, width)], {"axis": 0, "block_size": 32})
    return net.done(net.op("MatMul", [net.input("x", F32, rows, depth), w]))


@pytest.mark.parametrize(("rows", "slow"), [(1, False), (512, True)])
def test_blocks_with_many_rows_are_size_only(rows: int, slow: bool) -> None:
    for module, dims in ((blocks(rows, 384, 384), {}), (blocks("N", 384, 384), {"N": rows})):
        lines = size_only(module, legalize(module), VNNI, dims)
        assert bool(lines) is slow
        if slow:
            assert "1 MatMulNBits are no faster than MatMul" in lines[0]
            assert f"at {rows} rows (by assumed costs)" in lines[0]


def test_blocks_of_unknown_rows_say_nothing() -> None:
    module = blocks("N", 384, 384)
    assert size_only(module, legalize(module), VNNI, {}) == ()


def test_stored_weights_are_size_only() -> None:
    net = Net()
    y = net.op("Conv", [net.input("x", F32, 1, 4, 8, 8), weight(net, 4, 4, 3, 3)])
    module = net.done(y)
    (line,) = size_only(module, legalize(module), VNNI, {})
    assert line == "1 Conv read codes that are widened when the model is loaded"


def test_weights_in_16_bits_are_size_only_and_scales_are_none() -> None:
    net = Net()
    half = net.op("Cast", [net.const(np.ones((4, 4), np.float16))], attrs={"to": F32.onnx})
    scale = net.op("Cast", [net.const(np.float16(0.1))], attrs={"to": F32.onnx})
    quantized = net.op("DequantizeLinear", [net.const(np.ones((4, 4), np.int8)), scale])
    x = net.input("x", F32, 3, 4)
    module = net.done(net.op("MatMul", [x, half]), net.op("Neg", [quantized]))
    assert size_only(module, legalize(module), VNNI, {})[1:] == (
        "1 MatMul read weights in 16 bits that are widened when the model is loaded",
    )


def test_reports_of_compilations_say_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    for rows, slow in ((1, False), (512, True)):
        net = Net()
        x = net.input("x", F32, rows, 384)
        module = net.done(net.op("MatMul", [x, net.const(floats(0, 384, 384), "w")]))
        found = compile_model(module, "int4(block=32)", to="ort(cpu, isa=vnni, costs=assumed)")
        assert found.report["costs"] == VNNI.costs.describe()
        assert any(w.startswith("size only: 1 MatMul") for w in found.report["warnings"]) is slow
        if not slow:
            assert found.report["checks"]["quantization"]["kernels"] == {"MatMulNBits": 1}
    net = Net()
    x = net.op("Tanh", [codes(net, net.input("x", F32, 1, 4), name="useless")])
    found = compile_model(net.done(x), "simplify")
    assert found.report["costs"] is None
    found.show(terminal())
    assert "in the runtime: 1 values are rounded to codes that nothing computes with, e.g. " in capsys.readouterr().out


@dataclass(frozen=True)
class Asks(Pass):
    """Decides by costs: nothing is changed."""

    name: ClassVar[str] = "asks"
    effect: ClassVar[Effect] = EXACT

    def plan(self, module: Module, ctx: Context) -> Plan:
        assert ctx.target is not None
        assert ctx.target.seconds(next(iter(module.graph.ops)), "float", ctx.dims) is not None
        return Plan()

    def apply(self, rw: Rewriter, plan: Plan, ctx: Context) -> list[Done]:
        return []


def test_decisions_by_assumed_costs_are_worth_a_warning() -> None:
    net = Net()
    module = net.done(net.op("MatMul", [net.input("x", F32, 4, 8), net.const(floats(0, 8, 8))]))
    found = compile_model(module, [Asks()])
    assert any("mlc calibrate" in w for w in found.report["warnings"])
    assert found.report["costs"] == OrtTarget(costs_from="assumed").costs.describe()


def test_costs_are_weighed_at_the_same_sizes_whatever_is_checked() -> None:
    """Without a run, symbolic sizes are those that samples are tried with first; sizes that are given hold."""
    seen: list[dict[str, int]] = []

    @dataclass(frozen=True)
    class Listens(Asks):
        def plan(self, module: Module, ctx: Context) -> Plan:
            seen.append(dict(ctx.dims))
            return Plan()

    net = Net()
    x = net.input("x", F32, "N", "T", 8)
    module = net.done(net.op("MatMul", [x, net.const(floats(0, 8, 8))]))
    for check in ("full", "none"):
        compile_model(module, [Listens()], check=check)
        compile_model(module, [Listens()], check=check, dims={"T": 7})
    plan_model(module, [Listens()])
    assert seen == [{"N": 1, "T": 64}, {"N": 1, "T": 7}] * 2 + [{"N": 1, "T": 64}]
