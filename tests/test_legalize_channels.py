"""Inputs of static convolutions padded to multiples of 4: the same codes, from the runtime's fast kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from kit.net import Net

from mlc.backends import legalize as lowering
from mlc.backends.legalize import legalize
from mlc.backends.legalize_channels import aligned, padded
from mlc.backends.ort import Session
from mlc.ir.core import Attr, Ints, Module, Op, Value
from mlc.ir.dtypes import DType
from mlc.ir.evaluate import evaluate
from mlc.ir.verify import verify

F32 = DType.F32


def codes(net: Net, value: Value, scale: float = 0.05, zero: int | None = 100) -> Value:
    parameters = [net.const(np.float32(scale))] + ([net.const(np.uint8(zero))] if zero is not None else [])
    return net.op("DequantizeLinear", [net.op("QuantizeLinear", [value, *parameters]), *parameters])


def weight(net: Net, *shape: int, axis: int | None = 0, dtype: type = np.int8, zero: int | None = None) -> Value:
    rng = np.random.default_rng(sum(shape))
    limits = np.iinfo(dtype)
    quantized = net.const(rng.integers(limits.min + 1, limits.max, shape).astype(dtype), net.fresh("w_quantized"))
    scale = np.float32(0.01) if axis is None else rng.uniform(0.005, 0.02, shape[axis]).astype(np.float32)
    operands = [quantized, net.const(scale)]
    if zero is not None:
        operands.append(net.const(np.full(scale.shape, zero, dtype)))
    return net.op("DequantizeLinear", operands, attrs={"axis": axis or 0})


def stem(
    net: Net, inputs: int, outputs: int, *, zero: int | None = 100, w: Value | None = None, group: int = 1
) -> Module:
    x = codes(net, net.input("x", F32, 1, inputs, 9, 7), zero=zero)
    attrs: dict[str, Attr] = {"pads": Ints((1, 1, 1, 1)), "strides": Ints((2, 1)), "group": group}
    y = net.op("Conv", [x, w or weight(net, outputs, inputs // group, 3, 3)], attrs=attrs)
    return net.done(codes(net, y))


def widths(module: Module) -> list[int]:
    """Inputs of the convolutions of a module."""
    found = []
    for op in module.walk():
        if op.kind == "Conv":
            weight = op.operand(1)
            assert weight is not None
            found.append(weight.type.shape[1])  # type: ignore[union-attr]
    return found


def without(module: Module, monkeypatch: pytest.MonkeyPatch) -> Module:
    with monkeypatch.context() as patch:
        patch.setattr(lowering, "STAGES", tuple(s for s in lowering.STAGES if "Conv" not in s))
        return legalize(module).module


@pytest.mark.parametrize("zero", [0, 100, 255, None])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 16), (3, 32), (6, 20), (18, 16)])
def test_codes_stay_equal(
    inputs: int, outputs: int, zero: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = stem(Net(), inputs, outputs, zero=zero)
    made = legalize(module)
    verify(made.module)
    assert widths(made.module) == [padded(inputs)]
    assert made.lines == (f"1 Conv -> Conv of {padded(inputs)} channels",)
    feeds = {"x": np.random.default_rng(0).normal(size=(1, inputs, 9, 7)).astype(np.float32) * 4}
    found = next(iter(Session(made.module, optimized_path=tmp_path / "optimized.onnx").run(feeds).values()))
    plain = next(iter(Session(without(module, monkeypatch)).run(feeds).values()))
    assert np.array_equal(found, plain)
    assert np.abs(found - evaluate(module, feeds)[0]).max() <= 0.05 * 1.01  # a step of the grid
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "QLinearConv" in kinds
    assert kinds.count("DequantizeLinear") == 1


def test_what_has_the_fast_kernel_or_cannot_have_it_stays() -> None:
    net = Net()
    cases = [
        stem(Net(), 4, 16),
        stem(Net(), 3, 8),
        stem(Net(), 3, 18),
        stem(Net(), 6, 18, group=2),
        stem(net, 3, 16, w=weight(net, 16, 3, 3, 3, dtype=np.uint8, zero=100)),
        floats_behind(3, 16),
        asymmetric(3, 16),
        pooled(6, 16),
    ]
    for module in cases:
        assert widths(legalize(module).module) == widths(module)


def asymmetric(inputs: int, outputs: int) -> Module:
    """Zeros among the codes of the weight would be no zeros."""
    net = Net()
    return stem(net, inputs, outputs, w=weight(net, outputs, inputs, 3, 3, zero=3))


def pooled(inputs: int, outputs: int) -> Module:
    net = Net()
    x = codes(net, net.input("x", F32, "N", inputs, 1, 1))
    return net.done(codes(net, net.op("Conv", [x, weight(net, outputs, inputs, 1, 1)])))


def floats_behind(inputs: int, outputs: int) -> Module:
    """No unit of the runtime: the result is not rounded."""
    net = Net()
    x = codes(net, net.input("x", F32, 1, inputs, 9, 7))
    return net.done(net.op("Conv", [x, weight(net, outputs, inputs, 3, 3)]))


def test_scales_per_input_stay() -> None:
    net = Net()
    module = stem(net, 3, 16, w=weight(net, 16, 3, 3, 3, axis=1))
    assert widths(legalize(module).module) == [3]


def test_one_scale_is_enough_and_other_readers_keep_their_codes() -> None:
    net = Net()
    x = codes(net, net.input("x", F32, 1, 3, 9, 9))
    w = weight(net, 16, 3, 3, 3, axis=None)
    module = net.done(codes(net, net.op("Conv", [x, w])), net.op("Neg", [x]))
    made = legalize(module).module
    assert widths(made) == [4]
    (neg,) = (op for op in made.walk() if op.kind == "Neg")
    assert reads(neg) == "QuantizeLinear"


@pytest.mark.parametrize(("order", "expected"), [((0, 3, 1, 2), 3), ((0, 1, 3, 2), 4), ((0, 2, 1, 3), 4)])
@pytest.mark.parametrize("scaled", [False, True])
def test_images_with_their_channels_last_are_left(order: tuple[int, ...], expected: int, *, scaled: bool) -> None:
    """The runtime takes that transposition away: the padding would run over the innermost axis."""
    net = Net()
    wanted = (1, 3, 9, 7)
    given = [wanted[order.index(axis)] for axis in range(4)]
    x = net.op("Transpose", [net.input("x", F32, *given)], attrs={"perm": Ints(order)})
    if scaled:
        x = net.op("Mul", [x, net.const(np.float32(1 / 255))])
    made = legalize(net.done(codes(net, net.op("Conv", [codes(net, x), weight(net, 16, 3, 3, 3)])))).module
    assert widths(made) == [expected]


def reads(op: Op) -> str:
    """What makes the codes that an op reads."""
    dequantize = op.operand(0)
    assert dequantize is not None
    assert dequantize.op is not None
    source = dequantize.op.operand(0)
    assert source is not None
    assert source.op is not None
    return source.op.kind


def test_chains_stay_between_codes(tmp_path: Path) -> None:
    """In the middle of a model the padding lies between two kernels, in the runtime's own layout."""
    net = Net()
    x = codes(net, net.input("x", F32, 1, 3, 8, 8))
    y = codes(net, net.op("Conv", [x, weight(net, 18, 3, 1, 1)]))
    y = codes(net, net.op("Conv", [y, weight(net, 32, 18, 1, 1)]))
    made = legalize(net.done(y)).module
    assert widths(made) == [3, 20]
    Session(made, optimized_path=tmp_path / "optimized.onnx")
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2
    assert kinds.count("Transpose") <= 3
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1


def test_alignment() -> None:
    assert [padded(n) for n in (1, 3, 4, 5, 8, 18)] == [4, 4, 4, 8, 8, 20]
    assert aligned(4, 16)
    assert not aligned(3, 16)
    assert not aligned(4, 12)
    assert not aligned(4, 18)
