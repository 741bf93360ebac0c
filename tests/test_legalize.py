"""Lowering to ONNX Runtime's kernels computes what the DequantizeLinear it replaces computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.net import Net

from mlc.backends.legalize import ACCURACY, legalize
from mlc.backends.ort import Session
from mlc.backends.targets import parse_target
from mlc.ir.constants import Constant
from mlc.ir.core import Ints, Module, Op, Value
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.evaluate import evaluate
from mlc.ir.quant import QSpec
from mlc.ir.quant_blocks import quantize_constant
from mlc.ir.types import tensor
from mlc.ir.verify import verify

F32, F16, I64 = DType.F32, DType.F16, DType.I64
EXACT, FAST = 2e-5, 2e-2  # relative to the largest output, at accuracy levels 0 and 4


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def blocked(
    net: Net,
    array: np.ndarray,
    axis: int,
    *,
    block: int = 32,
    bits: int = 4,
    symmetric: bool = False,
    scale: DType = F16,
    accuracy: int = 0,
    name: str = "w",
) -> Value:
    """A matrix as passes leave it: codes, scales (with a Cast if stored narrower) and a DequantizeLinear."""
    made = quantize_constant(Constant.of(array), QSpec(bits, symmetric, symmetric, axis, block), scale_type=scale)

    def constant(found: Constant, suffix: str) -> Value:
        return net.module._add_constant(f"{name}_{suffix}", found)

    scales = constant(made.scale, "scale")
    if scale is not F32:
        scales = net.op("Cast", [scales], [tensor(F32, *made.scale.shape)], {"to": F32.onnx})
    operands = [constant(made.codes, "quantized"), scales]
    operands += [constant(made.zero, "zero_point")] if made.zero is not None else []
    op = net.node("DequantizeLinear", operands, [tensor(F32, *array.shape)], {"axis": axis, "block_size": block})
    op.meta[ACCURACY] = str(accuracy)
    return op.result


def agree(module: Module, feeds: dict[str, Any], tolerance: float, *, optimize: bool = True) -> Module:
    """Lower, run, compare with the reference of the unlowered module; returns the lowered module."""
    lowered = legalize(module).module
    verify(lowered)
    wanted = evaluate(module, feeds)
    found = Session(lowered, optimize=optimize).run(feeds)
    for name, y in zip(module.graph.output_names, wanted):
        assert found[name].shape == y.shape
        assert found[name].dtype == y.dtype
        assert np.abs(found[name] - y).max(initial=0) <= tolerance * np.abs(y).max(initial=1e-9)
    for y, z in zip(wanted, evaluate(lowered, feeds)):
        assert np.allclose(y, z, rtol=1e-4, atol=1e-4)
    return lowered


def kinds(module: Module) -> list[str]:
    return [op.kind for op in module.walk()]


NBITS, TABLE = "com.microsoft::MatMulNBits", "com.microsoft::GatherBlockQuantized"


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("scale", [F16, F32])
@pytest.mark.parametrize(("k", "n", "block"), [(64, 8, 32), (40, 7, 32), (96, 5, 32), (16, 3, 32), (200, 9, 128)])
def test_matmul(k: int, n: int, block: int, scale: DType, symmetric: bool) -> None:
    for accuracy, tolerance in ((0, EXACT), (4, FAST)):
        net = Net()
        x = net.input("x", F32, "M", k)
        w = blocked(net, floats(k, k, n), 0, block=block, symmetric=symmetric, scale=scale, accuracy=accuracy)
        module = net.done(net.op("MatMul", [x, w]))
        lowered = agree(module, {"x": floats(1, 3, k)}, tolerance)
        assert kinds(lowered).count(NBITS) == 1
        assert "DequantizeLinear" not in kinds(lowered)
        assert not any(name.endswith("_quantized") for name in lowered.constants)


def test_scales_in_32_bits_need_no_optimizations_of_the_runtime() -> None:
    """Scales behind a Cast do: without folding, the kernel at accuracy level 4 computes nonsense."""
    net = Net()
    x = net.input("x", F32, 3, 64)
    module = net.done(net.op("MatMul", [x, blocked(net, floats(0, 64, 8), 0, scale=F32, accuracy=4)]))
    agree(module, {"x": floats(1, 3, 64)}, FAST, optimize=False)
    assert "Cast" not in kinds(legalize(module).module)


@pytest.mark.parametrize("shape", [(64,), (1, 64), (2, 3, 64), (2, 1, 3, 64), (0, 64)])
def test_activations_of_any_rank(shape: tuple[int, ...]) -> None:
    net = Net()
    x = net.input("x", F32, *shape)
    module = net.done(net.op("MatMul", [x, blocked(net, floats(0, 64, 5), 0)]))
    agree(module, {"x": floats(1, *shape)}, EXACT)


@pytest.mark.parametrize("bits", [2, 8])
def test_other_widths(bits: int) -> None:
    net = Net()
    x = net.input("x", F32, 4, 70)
    w = net.module.constants  # the same path for every width that the kernel has
    codes = blocked(net, floats(0, 70, 6), 0, bits=bits)
    assert w["w_quantized"].constant is not None
    lowered = legalize(net.done(net.op("MatMul", [x, codes]))).module
    (op,) = (op for op in lowered.walk() if op.kind == NBITS)
    assert op.attrs["bits"] == bits
    wanted = evaluate(net.module, {"x": floats(1, 4, 70)})[0]
    found = next(iter(Session(lowered).run({"x": floats(1, 4, 70)}).values()))
    assert np.abs(found - wanted).max() <= EXACT * np.abs(wanted).max()


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (1.0, 0.0)])
@pytest.mark.parametrize("bias", ["constant", "computed", "none"])
def test_gemm(trans_a: int, trans_b: int, alpha: float, beta: float, bias: str) -> None:
    net = Net()
    x = net.input("x", F32, *((64, 3) if trans_a else (3, 64)))
    c = net.input("c", F32, 5)
    w = blocked(net, floats(0, *((5, 64) if trans_b else (64, 5))), 1 if trans_b else 0)
    operands = [x, w]
    if bias != "none":
        operands.append(net.const(floats(2, 5)) if bias == "constant" else c)
    attrs = {"transA": trans_a, "transB": trans_b, "alpha": alpha, "beta": beta}
    module = net.done(net.op("Gemm", operands, [tensor(F32, 3, 5)], attrs), net.op("Identity", [c]))
    feeds = {"x": floats(1, *((64, 3) if trans_a else (3, 64))), "c": floats(3, 5)}
    lowered = agree(module, feeds, EXACT)
    assert NBITS in kinds(lowered)
    assert "Gemm" not in kinds(lowered)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("scale", [F16, F32])
@pytest.mark.parametrize("width", [64, 40, 41, 16])
def test_embedding(width: int, scale: DType, symmetric: bool) -> None:
    net = Net()
    ids = net.input("ids", I64, "N", "T")
    table = blocked(net, floats(0, 10, width), 1, symmetric=symmetric, scale=scale)
    module = net.done(net.op("Gather", [table, ids], attrs={"axis": 0}))
    lowered = agree(module, {"ids": np.array([[0, 9, -1], [3, 3, 2]])}, 1e-6)
    assert TABLE in kinds(lowered)
    agree(module, {"ids": np.array([[0, 9, -1], [3, 3, 2]])}, 1e-6, optimize=False)


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("length", [1, 4, 12, 40])
def test_rows_in_order_are_looked_up(length: int, start: int) -> None:
    net = Net()
    x = net.input("x", F32, "T", 64)
    table = blocked(net, floats(0, 12, 64), 1)
    size = net.op("Shape", [x], attrs={"start": 0, "end": 1})
    assert size.dims is not None
    rows = net.op("Slice", [table, net.ints(start), size, net.ints(0)])
    module = net.done(rows)
    lowered = agree(module, {"x": floats(1, length, 64)}, 1e-6)
    assert TABLE in kinds(lowered)
    assert "DequantizeLinear" not in kinds(lowered)


def test_other_slices_stay() -> None:
    for start, end, axis, step in ((0, 8, 1, 1), (0, 8, 0, 2), (-4, 12, 0, 1), (0, -1, 0, 1)):
        net = Net()
        table = blocked(net, floats(0, 12, 64), 1)
        sliced = [table, net.ints(start), net.ints(end), net.ints(axis), net.ints(step)]
        module = net.done(net.op("Slice", sliced))
        assert TABLE not in kinds(agree(module, {}, EXACT))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("width", "shared"), [(96, True), (40, False)])
def test_tied_embedding_is_stored_once(width: int, shared: bool, symmetric: bool) -> None:
    net = Net()
    ids = net.input("ids", I64, 5)
    table = blocked(net, floats(0, 12, width), 1, symmetric=symmetric)
    embedded = net.op("Gather", [table, ids], attrs={"axis": 0})
    turned = net.op("Transpose", [table], attrs={"perm": Ints((1, 0))})
    module = net.done(net.op("MatMul", [embedded, turned]), embedded)
    lowered = agree(module, {"ids": np.array([0, 11, -1, 4, 4])}, EXACT)
    assert {NBITS, TABLE} <= set(kinds(lowered))
    codes = [v for v in lowered.constants.values() if v.constant and v.constant.nbytes >= 12 * width // 2]
    assert len(codes) == (1 if shared else 2)


def test_weights_in_bodies() -> None:
    net = Net()
    x = net.input("x", F32, 3, 64)
    condition = net.input("c", DType.BOOL)
    outer = blocked(net, floats(0, 64, 64), 0)
    y = net.op("MatMul", [x, outer])
    regions = {}
    for seed, name in enumerate(("then_branch", "else_branch")):
        body = net.body(name)
        w = blocked(body, floats(seed + 1, 64, 64), 0, name=f"w{seed}")
        body.output(body.op("MatMul", [y, w]))
        regions[name] = body.graph
    result = net.node("If", [condition], [tensor(F32, 3, 64)], regions=regions).result
    module = net.done(result)
    for value in (True, False):
        lowered = agree(module, {"x": floats(9, 3, 64), "c": np.array(value)}, EXACT)
    assert kinds(lowered).count(NBITS) == 3


def test_float16_models() -> None:
    net = Net()
    x = net.input("x", F16, 3, 64)
    made = quantize_constant(Constant.of(floats(0, 64, 8)), QSpec(4, False, False, 0, 32))
    add = net.module._add_constant
    operands = [add("q", made.codes), add("s", made.scale), add("z", made.zero)]
    w = net.op("DequantizeLinear", operands, [tensor(F16, 64, 8)], {"axis": 0, "block_size": 32})
    module = net.done(net.op("MatMul", [x, w], [tensor(F16, 3, 8)]))
    lowered = legalize(module).module
    assert "Cast" not in kinds(lowered)
    found = next(iter(Session(lowered).run({"x": floats(1, 3, 64).astype(np.float16)}).values()))
    wanted = evaluate(module, {"x": floats(1, 3, 64).astype(np.float16)})[0]
    assert np.abs(found.astype(np.float32) - wanted.astype(np.float32)).max() <= 5e-3 * np.abs(wanted).max()


def test_a_block_of_zeros_and_zero_activations() -> None:
    w = floats(0, 96, 8)
    w[32:64] = 0
    net = Net()
    x = net.input("x", F32, 2, 96)
    module = net.done(net.op("MatMul", [x, blocked(net, w, 0, accuracy=4)]))
    found = Session(legalize(module).module).run({"x": np.zeros((2, 96), np.float32)})
    assert all(np.array_equal(y, np.zeros_like(y)) for y in found.values())
    agree(module, {"x": floats(1, 2, 96)}, FAST)


def with_computed_scales(bits: int) -> Module:
    """Codes in blocks whose scales are an input: there is no kernel for them, and nothing to fold at load."""
    net = Net()
    x = net.input("x", F32, 64)
    made = quantize_constant(Constant.of(floats(0, 8, 64)), QSpec(bits, True, True, 1, 32), scale_type=F32)
    codes = net.module._add_constant("w_quantized", made.codes)
    scale = net.input("scale", F32, *made.scale.shape)
    w = net.op("DequantizeLinear", [codes, scale], [tensor(F32, 8, 64)], {"axis": 1, "block_size": 32})
    return net.done(net.op("Add", [w, x]))


def test_what_has_no_kernel_and_is_not_constant_stays_and_is_reported() -> None:
    module = with_computed_scales(4)
    made = legalize(module)
    assert "DequantizeLinear" in kinds(made.module)
    assert any("no kernel for Add" in line for line in made.lines)
    agree(module, {"x": floats(1, 64), "scale": np.ones((8, 2), np.float32)}, EXACT)


def test_codes_that_cannot_be_widened_are_refused() -> None:
    with pytest.raises(MlcError) as caught:
        legalize(with_computed_scales(2))
    assert caught.value.diagnostics[0].code is Code.RUNTIME


def test_the_input_is_untouched_and_lines_count() -> None:
    net = Net()
    x = net.input("x", F32, 3, 64)
    y = net.op("MatMul", [x, blocked(net, floats(0, 64, 64), 0, name="a")])
    module = net.done(net.op("MatMul", [y, blocked(net, floats(1, 64, 64), 0, name="b")]))
    before = kinds(module)
    made = legalize(module)
    assert kinds(module) == before
    assert made.lines == ("2 MatMul -> MatMulNBits",)
    assert made.module.opsets["com.microsoft"] == 1
    assert legalize(made.module).lines == ()  # nothing is left to do


@pytest.mark.parametrize("block", [2, 8])
def test_blocks_that_the_kernel_refuses_stay_standard(block: int) -> None:
    net = Net()
    x = net.input("x", F32, 3, 64)
    module = net.done(net.op("MatMul", [x, blocked(net, floats(0, 64, 8), 0, block=block)]))
    assert NBITS not in kinds(agree(module, {"x": floats(1, 3, 64)}, EXACT))


@pytest.mark.parametrize("perms", [[(0, 1)], [(1, 0), (1, 0)], [(1, 0), (0, 1), (1, 0)]])
def test_transpositions_that_cancel(perms: list[tuple[int, int]]) -> None:
    net = Net()
    x = net.input("x", F32, 3, 64)
    w = blocked(net, floats(0, 64, 64), 0)
    for perm in perms:
        w = net.op("Transpose", [w], attrs={"perm": Ints(perm)})
    lowered = agree(net.done(net.op("MatMul", [x, w])), {"x": floats(1, 3, 64)}, EXACT)
    assert NBITS in kinds(lowered)


@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_blocks_along_the_wrong_axis_stay_standard(kind: str) -> None:
    net = Net()
    x = net.input("x", F32, 3, 64)
    module = net.done(net.op(kind, [x, blocked(net, floats(0, 64, 64), 1)]))
    assert NBITS not in kinds(agree(module, {"x": floats(1, 3, 64)}, EXACT))


@pytest.mark.parametrize("axis", [0, 1])
def test_unsigned_codes_without_zero_points(axis: int) -> None:
    """Then the zero point is 0, not the middle of the range that the kernel takes by default."""
    net = Net()
    codes = net.const(np.random.default_rng(0).integers(0, 16, (64, 64)).astype(np.uint8), dtype=DType.U4)
    scale = net.const(np.full((2, 64) if axis == 0 else (64, 2), 0.5, np.float32))
    w = net.op("DequantizeLinear", [codes, scale], [tensor(F32, 64, 64)], {"axis": axis, "block_size": 32})
    x, ids = net.input("x", F32, 3, 64), net.input("ids", I64, 2)
    used = net.op("MatMul", [x, w]) if axis == 0 else net.op("Gather", [w, ids])
    lowered = agree(net.done(used), {"x": floats(1, 3, 64), "ids": np.array([0, 63])}, EXACT)
    assert "DequantizeLinear" not in kinds(lowered)


# -- targets -----------------------------------------------------------------------------------------------------------


def test_target_text() -> None:
    assert str(parse_target("ort")) == "ort(cpu)"
    assert str(parse_target(" ort(cpu, threads=2, isa=avx2) ")) == "ort(cpu, threads=2, isa=avx2)"
    for text in ("tvm(cpu)", "ort(gpu)", "ort(cpu, threads=0)", "ort(cpu", "", "ort(cpu, isa=z80)", "ort(cpu, foo=1)"):
        with pytest.raises(MlcError) as caught:
            parse_target(text)
        assert caught.value.diagnostics[0].code is Code.BAD_TARGET


def test_support_is_read_from_the_table() -> None:
    target = parse_target("ort(cpu, isa=vnni)")
    assert target.supports(Op("MatMul"), "blocks", bits=4, block=32).level == "native"
    assert not target.supports(Op("MatMul"), "blocks", bits=4, block=8)
    assert not target.supports(Op("Conv"), "blocks", bits=4, block=32)
    assert "no kernel" in target.supports(Op("Conv"), "blocks", bits=4, block=32).reason
    assert target.supports(Op("Conv"), "fp16")
    assert not target.supports(Op("MatMul"), "blocks", bits=5, block=32)
    assert parse_target("ort(cpu, isa=portable)").supports(Op("MatMul"), "blocks", bits=4, block=32).level == "emulated"
