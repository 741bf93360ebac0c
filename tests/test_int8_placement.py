"""Where `int8` puts codes: sums, joins, clamps, factors, numbers, biases; and which ops had better have floats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from kit.layers import Feeds, Layers, image, tokens
from kit.samples import Samples

from mlc.backends.legalize import legalize
from mlc.backends.ort import Session
from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.ir.core import Module, Op, Value
from mlc.passes.base import Context
from mlc.passes.ports import Form
from mlc.passes.quantize.int8.glue import Head
from mlc.passes.quantize.int8.grids import Range, join
from mlc.passes.quantize.int8.grids import grids as grids_of
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.int8.placement import Placement, place
from mlc.passes.quantize.int8.regions import slower_in_codes

TARGET = parse_target("ort(cpu, isa=vnni)")


def context(feeds: Feeds) -> Context:
    data = Samples({name: a[None] for name, a in feeds.items()}, whole=True)
    return Context(target=TARGET, data=data, runner=OrtRunner())


def placed(module: Module) -> Placement:
    weighted = [op for op in module.graph.ops if op.kind in ("Conv", "Gemm", "MatMul")]
    return place(module.graph, weighted, lambda op: bool(TARGET.supports(op, "static")))


def static(module: Module, feeds: Feeds) -> tuple[Module, Module]:
    """The module in static codes, and what ONNX Runtime gets; it computes what the standard form says."""
    small = Int8(mode="static", observer="minmax")(module, context(feeds))
    lowered = legalize(small, TARGET).module
    floats = Session(module, optimize=False).run(feeds)
    standard = Session(small, optimize=False).run(feeds)
    for name, found in Session(lowered).run(feeds).items():
        assert cosine(standard[name], found) > 0.9995
        assert cosine(floats[name], found) > 0.99
    return small, lowered


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))


def kinds(module: Module) -> list[str]:
    return [op.kind for op in module.walk()]


def grids(module: Module) -> dict[str, tuple[float, int]]:
    plan = module.history[-1].plan  # type: ignore[attr-defined]
    return {a.value: (a.scale, a.zero) for a in plan.activations}


# -- sums and joins ----------------------------------------------------------------------------------------------------


def residual(closed: bool) -> tuple[Module, Feeds, Value]:
    net = Layers()
    x, feeds = image(net)
    a, b = net.conv(x, 3, 8), net.conv(x, 3, 8)
    total = net.op("Add", [a, b if closed else net.op("Exp", [b])])
    return net.done(net.conv(net.relu(total), 8, 4)), feeds, total


def test_both_sides_of_a_sum_are_codes_or_neither() -> None:
    module, feeds, total = residual(closed=True)
    assert [op.kind for op in placed(module).glue] == ["Add"]
    _, lowered = static(module, feeds)
    assert "Relu" not in kinds(lowered)
    module, feeds, total = residual(closed=False)
    placement = placed(module)
    assert not placement.glue
    assert total not in {v for c in placement.classes for v in c.values}


def test_a_sum_that_only_floats_read_stays_in_floats() -> None:
    net = Layers()
    x, _ = image(net)
    module = net.done(net.op("Exp", [net.op("Add", [net.conv(x, 3, 8), net.conv(x, 3, 8)])]))
    assert not placed(module).glue


def test_what_is_moved_shares_the_grid_of_where_it_comes_from() -> None:
    net = Layers()
    x, feeds = image(net)
    y = net.conv(x, 3, 8)
    moved = net.op("Pad", [net.pool(y), net.ints(0, 0, 1, 1, 0, 0, 1, 1)])
    joined = net.concat([moved, net.op("Pad", [net.pool(net.conv(x, 3, 8)), net.ints(0, 0, 1, 1, 0, 0, 1, 1)])], 1)
    small, lowered = static(net.done(net.conv(joined, 16, 4)), feeds)
    found = grids(small)
    assert found[y.name] == found[moved.name] == found[joined.name]
    pads = [op for op in lowered.walk() if op.kind == "Pad"]
    assert all(op.operands[0].type.dtype.short == "u8" for op in pads)  # type: ignore[union-attr]


def test_a_join_of_values_behind_different_clamps_leaves_them_their_grids() -> None:
    net = Layers()
    x, feeds = image(net)
    y, z = net.relu(net.conv(x, 3, 8)), net.conv(x, 3, 8)
    joined = net.concat([y, z], 1)
    small, lowered = static(net.done(net.conv(joined, 16, 4)), feeds)
    found = grids(small)
    assert found[y.name][1] == 0
    assert found[y.name] != found[joined.name] == found[z.name]
    assert "Relu" not in kinds(lowered)


# -- what rounding includes --------------------------------------------------------------------------------------------


def test_the_head_of_a_convolution_reaches_over_clamps_and_factors() -> None:
    net = Layers()
    x, _ = image(net)
    clipped = net.op("Clip", [net.conv(x, 3, 8), net.const(np.float32(0)), net.const(np.float32(6))])
    sixth = net.op("Div", [clipped, net.const(np.float32(6))])
    net.done(net.op("Exp", [sixth]))
    head = Head.of(next(iter(net.graph.ops)))
    assert (head.value, head.bound, head.factor) == (sixth, 1.0, 1 / 6)


@pytest.mark.parametrize("low", [-1.0, 0.5, None])
def test_a_clamp_that_does_not_start_at_zero_stays(low: float | None) -> None:
    net = Layers()
    x, _ = image(net)
    bounds = [None if low is None else net.const(np.float32(low)), net.const(np.float32(2))]
    net.done(net.op("Clip", [net.conv(x, 3, 8), *bounds]))
    assert not Head.of(next(iter(net.graph.ops))).absorbed


def test_a_grid_never_reaches_beyond_the_clamp_that_it_replaces() -> None:
    """Observers interpolate and average: what they say may lie beyond what a Clip lets through."""
    net = Layers()
    x, _ = image(net)
    clipped = net.op("Clip", [net.conv(x, 3, 8), net.const(np.float32(0)), net.const(np.float32(6))])
    placement = placed(net.done(net.conv(clipped, 8, 4)))
    ranges = [join([Range(-0.1, 7.5)], c.bound) for c in placement.classes]
    found = {g.value: g for g in grids_of(placement, ranges)}[clipped.name]
    assert (found.zero, found.scale) == (0, pytest.approx(6 / 255))


def swish(net: Layers, x: Value, kind: str) -> Value:
    three, six, zero = (net.const(np.float32(n)) for n in (3, 6, 0))
    if kind == "HardSwish":
        return net.op("HardSwish", [x])
    if kind == "HardSigmoid":
        return net.op("Mul", [x, net.op("HardSigmoid", [x], attrs={"alpha": 1 / 6, "beta": 0.5})])
    clipped = net.op("Clip", [net.op("Add", [x, three]), zero, six])
    return net.op("Div", [net.op("Mul", [x, clipped]), six])


@pytest.mark.parametrize("kind", ["HardSwish", "HardSigmoid", "parts"])
def test_hard_swishes_work_on_codes(kind: str) -> None:
    net = Layers()
    x, feeds = image(net)
    y = net.scaled(swish(net, net.conv(x, 3, 8), kind), 0.5)
    _, lowered = static(net.done(net.conv(y, 8, 4)), feeds)
    left = {k for k in kinds(lowered) if k not in ("QuantizeLinear", "DequantizeLinear", "Pad")}
    assert left == {"Conv", "Add", "Mul"}


@pytest.mark.parametrize("number", [-0.75, 2.5])
def test_numbers_that_are_added_have_exact_codes(number: float) -> None:
    net = Layers()
    x, feeds = image(net)
    y = net.op("Add", [net.conv(x, 3, 8), net.const(np.float32(number), "n")])
    small, _ = static(net.done(net.conv(y, 8, 4)), feeds)
    parts = (small.constants[f"n_{part}"].constant for part in ("quantized", "scale", "zero_point"))
    codes, scale, zero = (part.array() for part in parts if part is not None)
    assert np.isclose((codes.astype(np.int32) - zero.astype(np.int32)) * scale, number)


# -- biases ------------------------------------------------------------------------------------------------------------


def test_a_bias_beyond_32_bits_raises_the_scale_of_its_channel() -> None:
    net = Layers()
    x, feeds = image(net)
    weight = net.draw(4, 3, 1, 1)
    weight[2] *= 1e-9
    bias = np.array([0.1, -0.2, 50.0, 0.3], np.float32)
    y = net.op("Conv", [x, net.const(weight, "w"), net.const(bias, "b")])
    small, _ = static(net.done(y), feeds)
    codes = small.constants["b_quantized"].constant
    assert codes is not None
    scale = small.constants["b_scale"].constant
    assert scale is not None
    assert np.allclose(codes.array() * scale.array(), bias, rtol=1e-3)


# -- time --------------------------------------------------------------------------------------------------------------


class Clock:
    """A target that knows what every operator takes."""

    name = "clock"
    weight_bits = 8

    def __init__(self, floats: Mapping[str, float], codes: Mapping[str, float], boundary: float = 0.0) -> None:
        self.floats, self.codes, self.cost = floats, codes, boundary

    def supports(self, op: Op, form: Form, **_: object) -> bool:
        return True

    def seconds(self, op: Op, form: Form, dims: Mapping[str, int], **_: object) -> float | None:
        return (self.codes if form == "static" else self.floats).get(op.kind) if form != "dynamic" else None

    def boundary(self, elements: int) -> float:
        return self.cost


def chain() -> tuple[Module, list[Op]]:
    """Conv, Add to itself, Conv, MatMul."""
    net = Layers()
    x, _ = image(net)
    y = net.conv(x, 3, 8)
    y = net.conv(net.op("Add", [y, y]), 8, 4)
    module = net.done(net.op("MatMul", [y, net.weight(8, 5)]))
    return module, [op for op in module.graph.ops if op.kind in ("Conv", "MatMul")]


def slow(clock: Clock) -> list[str]:
    module, weighted = chain()
    found = slower_in_codes(module.graph, weighted, lambda op: True, clock, {"N": 1})  # type: ignore[arg-type]
    return sorted(op.kind for op in found)


def test_the_cheapest_division_of_a_chain() -> None:
    floats = {"Conv": 4e-6, "Add": 2e-6, "MatMul": 3e-6}
    assert slow(Clock(floats, {"Conv": 1e-6, "Add": 1e-6, "MatMul": 1e-6})) == []
    assert slow(Clock(floats, {"Conv": 9e-6, "Add": 9e-6, "MatMul": 9e-6})) == ["Add", "Conv", "Conv", "MatMul"]
    # crossings cost more than codes save
    assert slow(Clock(floats, {"Conv": 3.5e-6, "Add": 1.9e-6, "MatMul": 2.9e-6}, boundary=9e-6)) == [
        "Add", "Conv", "Conv", "MatMul",
    ]  # fmt: skip
    # a slow sum between fast convolutions: leaving the codes would cost more than it saves, unless crossing is free
    fast = {"Conv": 1e-6, "Add": 4e-6, "MatMul": 1e-6}
    assert slow(Clock(floats, fast, boundary=4e-6)) == []
    assert slow(Clock(floats, fast, boundary=0.2e-6)) == ["Add"]


def test_ops_of_unknown_time_go_with_their_neighbours() -> None:
    assert slow(Clock({}, {})) == []
    assert slow(Clock({"Conv": 1e-6}, {"Conv": 2e-6}, boundary=1e-6)) == ["Add", "Conv", "Conv", "MatMul"]


def test_products_of_slow_ranges_are_found_on_the_run() -> None:
    """A product that the table calls slower in codes takes its next form."""
    net = Layers()
    x, feeds = tokens(net, 16, 6)
    module = net.done(net.dense(x, 16, 8))
    clock = Clock({"MatMul": 1e-6}, {"MatMul": 2e-6})
    ctx = Context(target=clock, data=context(feeds).data, runner=OrtRunner(), dims={"N": 2})  # type: ignore[arg-type]
    plan = Int8().plan(module, ctx)
    assert [r.form for w in plan.weights for r in w.readers] == ["dynamic"]
    assert any("no faster with static codes" in note for note in plan.notes)
