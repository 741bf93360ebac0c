"""What may stand between two convolutions in codes: operators whose behaviour depends on attributes and operands; and
the steps of 32-bit biases, which kernels take for granted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kit.layers import Layers, image
from kit.nets import NETS
from kit.samples import Samples

from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.ir.core import Ints, Module, Value
from mlc.passes.base import Context
from mlc.passes.quantize.int8.int8 import Int8

Between = Callable[[Layers, Value], list[Value]]


def pad(filler: float | None, mode: str = "constant") -> Between:
    def made(net: Layers, y: Value) -> list[Value]:
        more = [net.const(np.float32(filler))] if filler is not None else []
        return [net.op("Pad", [y, net.ints(0, 0, 1, 1, 0, 0, 1, 1), *more], attrs={"mode": mode})]

    return made


def resize(mode: str) -> Between:
    def made(net: Layers, y: Value) -> list[Value]:
        scales = net.const(np.array([1, 1, 2, 2], np.float32))
        return [net.op("Resize", [y, None, scales], attrs={"mode": mode})]

    return made


def pool(indices: bool) -> Between:
    def made(net: Layers, y: Value) -> list[Value]:
        attrs = {"kernel_shape": Ints((2, 2)), "strides": Ints((2, 2))}
        return net.node("MaxPool", [y], attrs=attrs, count=2 if indices else 1).results

    return made


def plus(*shape: int) -> Between:
    def made(net: Layers, y: Value) -> list[Value]:
        return [net.op("Add", [y, net.const(net.draw(*shape) + np.float32(1))])]

    return made


def hard_sigmoid(alpha: float) -> Between:
    return lambda net, y: [net.op("HardSigmoid", [y], attrs={"alpha": alpha, "beta": 0.5})]


BETWEEN: dict[str, tuple[Between, bool]] = {
    "zeros around": (pad(None), True),
    "zeros that are given": (pad(0.0), True),
    "ones around": (pad(1.0), False),
    "reflections": (pad(None, "reflect"), True),
    "nearest": (resize("nearest"), True),
    "linear": (resize("linear"), False),
    "maxima": (pool(False), True),
    "maxima and their places": (pool(True), False),
    "a number": (plus(), True),
    "a tensor of numbers": (plus(8, 8, 8), False),
    "rising": (hard_sigmoid(0.3), True),
    "falling": (hard_sigmoid(-0.3), False),
}


def static(module: Module, x: np.ndarray) -> Module:
    target = parse_target("ort(cpu, isa=vnni)")
    ctx = Context(target=target, data=Samples({"x": x}), runner=OrtRunner())
    return Int8(mode="static", observer="minmax")(module, ctx)


@pytest.mark.parametrize("name", BETWEEN)
def test_only_what_the_table_allows_works_on_codes(name: str) -> None:
    between, allowed = BETWEEN[name]
    net = Layers()
    x, feeds = image(net)
    made = between(net, net.conv(x, 3, 8))
    pooled = net.pool(made[0])  # a Pad right in front of a convolution would be folded into it
    module = net.done(net.conv(pooled, 8, 4, 1), *made[1:])
    small = static(module, feeds["x"])
    working = small.history[-1].plan.glue  # type: ignore[attr-defined]
    assert (made[0].name in working) is allowed
    floats, codes = (OrtRunner().prepare(m).run(feeds)[module.graph.output_names[0]] for m in (module, small))
    assert np.square(codes - floats).sum() < 0.01 * np.square(floats).sum()


@pytest.mark.parametrize("name", ["vgg16", "resnet20_conv", "mobilenet", "grouped"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_biases_are_in_steps_of_the_products(name: str, per_channel: bool) -> None:
    """32 bits, scale of the data times scale of the weight, bit by bit: kernels add them to sums of products."""
    module, feeds = NETS[name]()
    ctx = Context(data=Samples(feeds), runner=OrtRunner())
    small = Int8(mode="static", observer="minmax", per_channel=per_channel)(module, ctx)
    found = 0
    for op in small.walk():
        if op.kind == "Conv" and op.operand(2) is not None:
            scales = [v.op.operand(1).constant.array() for v in op.operands]  # type: ignore[union-attr]
            np.testing.assert_array_equal(scales[2], scales[0] * scales[1])
            codes = op.operand(2).op.operand(0).constant  # type: ignore[union-attr]
            assert codes.dtype.short == "i32"
            found += 1
    assert found


@pytest.mark.parametrize("name", [name for name, (_, allowed) in BETWEEN.items() if allowed])
def test_right_in_front_of_a_convolution(name: str) -> None:
    net = Layers()
    x, feeds = image(net)
    (made,) = BETWEEN[name][0](net, net.conv(x, 3, 8))
    module = net.done(net.conv(made, 8, 4, 1))
    small = static(module, feeds["x"])
    assert len(small.history[-1].plan.weights) == 2  # type: ignore[attr-defined]
    floats, codes = (OrtRunner().prepare(m).run(feeds)[module.graph.output_names[0]] for m in (module, small))
    assert np.square(codes - floats).sum() < 0.01 * np.square(floats).sum()
