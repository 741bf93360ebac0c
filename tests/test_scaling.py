"""Scales of classes and of inputs: whatever the numbers, the outputs stay; and the constants are never copied."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import laws
from kit.layers import F32, Layers, image, rows, tokens
from kit.nets import NETS
from kit.permute import judged, relative, run
from kit.real import RealModel, real_models
from kit.widen import run_wide, widened

from mlc.frontends.onnx import load
from mlc.ir.axes import analyse
from mlc.ir.axis_admissible import Group
from mlc.ir.axis_scales import Cells, Scale
from mlc.ir.constants import Constant
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.rewrite import Rewriter
from mlc.ir.verify import verify
from mlc.passes.quantize.scaling import ScaledPayload, apply_scales, axes_of, blocked, divide, scaling_sites

#: Nets without double kernels.
SINGLES = {"coded", "quantized", "block_quantized", "dynamic_int8", "group_norm", "transposed"}


def drawn(count: int, seed: int) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).uniform(-1.5, 1.5, count))


def runs(name: str):
    """A net, how it is run, and how far rounding may move it."""
    module, feeds = NETS[name]()
    return (module, feeds, run, 1e-4) if name in SINGLES else (widened(module), feeds, run_wide, 1e-9)


@pytest.mark.parametrize("name", NETS)
def test_every_direction_by_itself_keeps_the_outputs(name):
    module, feeds, compute, bar = runs(name)
    before = compute(module, feeds)
    axes = analyse(module)
    for index, direction in enumerate(axes.transformations.directions()):
        twin = module.clone()
        own = analyse(twin)
        cells = Cells.of(own, own.transformations.directions()[index])
        changed = apply_scales(Rewriter(twin, by="test"), own, [Scale(cells, drawn(cells.count, index))])
        assert changed, f"{direction.sides} moves no constant"
        verify(twin)
        assert relative(before, compute(twin, feeds)) < bar


@pytest.mark.parametrize("name", NETS)
def test_every_site_keeps_the_outputs(name):
    module, feeds, compute, bar = runs(name)
    before = compute(module, feeds)
    axes, rw = analyse(module), Rewriter(module, by="test")
    sites = scaling_sites(axes)
    for seed, site in enumerate(s for s in sites if not blocked(s)):
        divide(rw, axes, site, drawn(site.count, seed))
    verify(module)
    assert relative(before, compute(module, feeds)) < bar


@pytest.mark.parametrize("name", [n for n in NETS if n not in SINGLES])
def test_what_admits_scales_has_a_direction(name):
    """And only that: directions are the same freedom as `Group.POSITIVE_DIAGONAL`, taken apart."""
    axes = analyse(NETS[name]()[0])
    moved = {d.atom for d in axes.transformations.directions()}
    assert moved == {c.atom for c in axes.free if Group.POSITIVE_DIAGONAL in axes.admissible(c)}


def depthwise() -> tuple[Module, dict]:
    """Three convolutions, the second of them depthwise: two vectors of scales, which meet in its weight."""
    net = Layers()
    x, feeds = image(net)
    h = net.relu(net.conv(x, 3, 8))
    h = net.relu(net.conv(h, 8, 8, group=8))
    return net.done(net.conv(h, 8, 4, 1)), feeds


def test_a_depthwise_convolution_stands_between_two_directions():
    module, _ = depthwise()
    weights = [op.operands[1] for op in module.graph.ops if op.kind == "Conv"]
    found = [
        [d.sides.get((w, axis), 0) for w, axis in ((weights[0], 0), (weights[1], 0), (weights[2], 1))]
        for d in analyse(module).transformations.directions()
    ]
    assert sorted(map(tuple, (np.array(f) * (f[0] or -f[2]) for f in found))) == [(0, 1, -1), (1, -1, 0)]


def opposed() -> tuple[Module, dict]:
    """Queries and keys, which turn opposite ways, are both read by layers of their own."""
    net = Layers()
    x, feeds = tokens(net, 6, 5)
    q, k = (net.op("MatMul", [x, net.weight(6, 8)]) for _ in range(2))
    scores = net.op("MatMul", [q, net.transpose(k, 0, 2, 1)])
    return net.done(scores, net.op("MatMul", [q, net.weight(8, 3)]), net.op("MatMul", [k, net.weight(8, 3)])), feeds


def squared() -> tuple[Module, dict]:
    """A value that one factor enters twice, another once."""
    net = Layers()
    x, feeds = tokens(net, 6, 5)
    a, b = (net.op("MatMul", [x, net.weight(6, 8)]) for _ in range(2))
    return net.done(net.op("MatMul", [net.op("Mul", [net.op("Mul", [a, b]), b]), net.weight(8, 3)])), feeds


def test_the_dividing_is_done_and_not_only_undone():
    """The inputs of every reader are smaller by the numbers, and their positions are the right ones."""
    nets = ("vgg_flatten", "densenet", "bert", "grouped", "lstm")
    for build in (depthwise, opposed, squared, *(NETS[name] for name in nets)):
        module, feeds = build()
        for index, site in enumerate(scaling_sites(analyse(module))):
            twin = module.clone()
            axes = analyse(twin)
            site = scaling_sites(axes)[index]
            numbers = drawn(site.count, index)
            names = {r.op.name: r for r in site.readers}
            before = tapped(twin, {n: r.data.name for n, r in names.items()}, feeds)
            divide(Rewriter(twin, by="test"), axes, site, numbers)
            now = {op.name: op.operands[0].name for op in twin.walk() if op.name in names}
            after = tapped(twin, now, feeds)
            for name, reader in names.items():
                axis = 1 if reader.op.kind == "Conv" else -1
                by = site.by_position(reader.data, numbers)
                shape = [-1 if i == axis % before[name].ndim else 1 for i in range(before[name].ndim)]
                np.testing.assert_allclose(after[name], before[name] / by.reshape(shape), rtol=1e-4, atol=1e-5)


def tapped(module: Module, taps: dict[str, str], feeds: dict) -> dict[str, np.ndarray]:
    from mlc.backends.runner import OrtRunner

    found = OrtRunner().prepare(module, tuple(dict.fromkeys(taps.values()))).run(feeds)
    return {name: found[value] for name, value in taps.items()}


@pytest.mark.parametrize("name", ["bert", "vit", "grouped"])
def test_folded_numbers_are_as_fine_as_they_can_be(name):
    """Every position within every head or group has its own."""
    for site in scaling_sites(analyse(NETS[name]()[0])):
        for where in site.positions.values():
            assert len(set(where)) == len(where) == site.count


def test_readers_of_one_value_share_one_mul():
    net = Layers()
    x, feeds = tokens(net, 6, 5)
    normed = net.layer_norm(x, 6)
    q, k, v = (net.dense(normed, 6, 4) for _ in range(3))
    module = net.done(net.op("Add", [net.dense(net.op("Add", [normed, x]), 6, 4), net.op("Mul", [q, k])]), v)
    before = run(module, feeds)
    axes, rw = analyse(module), Rewriter(module, by="test")
    (site, *_) = [s for s in scaling_sites(axes) if len(s.readers) == 3]
    assert not site.folded
    muls = sum(op.kind == "Mul" for op in module.graph.ops)
    divide(rw, axes, site, drawn(6, 0))
    verify(module)
    assert sum(op.kind == "Mul" for op in module.graph.ops) == muls + 1
    assert relative(before, run(module, feeds)) < 1e-5


def test_a_weight_that_two_operators_apply_to_one_value_is_scaled_once():
    net = Layers()
    x, feeds = rows(net, 6)
    w = net.weight(6, 3)
    module = net.done(net.op("MatMul", [x, w]), net.op("Relu", [net.op("MatMul", [x, w])]))
    before = run(module, feeds)
    axes = analyse(module)
    (site,) = scaling_sites(axes)
    assert not blocked(site)
    divide(Rewriter(module, by="test"), axes, site, drawn(6, 0))
    assert relative(before, run(module, feeds)) < 1e-5


def test_a_norm_takes_scales_up_where_only_readers_see_it():
    net = Layers()
    x, feeds = tokens(net, 6, 5)
    x = net.dense(x, 6, 6)
    module = net.done(net.op("Add", [x, net.dense(net.layer_norm(x, 6), 6, 6)]))
    before, ops = run(module, feeds), len(list(module.graph.ops))
    axes = axes_of(module)  # the stream is an output: its order is fixed, its scale behind the norm is not
    _, site = scaling_sites(axes)
    assert site.folded
    divide(Rewriter(module, by="test"), axes, site, drawn(6, 0))
    assert len(list(module.graph.ops)) == ops
    assert relative(before, run(module, feeds)) < 1e-5


def test_a_weight_that_others_read_is_blocked():
    net = Layers()
    (x, _), other = rows(net, 6), net.input("other", F32, 4, 6)
    w = net.weight(6, 3)
    module = net.done(net.op("MatMul", [x, w]), net.op("MatMul", [other, w]))
    sites = scaling_sites(analyse(module))
    assert len(sites) == 2
    assert all("also read elsewhere" in blocked(s) for s in sites)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.F64, DType.BF16])
def test_a_scaled_constant_has_a_file_form(dtype):
    rng = np.random.default_rng(0)
    source = Constant.of(rng.standard_normal((5, 3, 4)), dtype)
    rows, columns = rng.uniform(1, 2, (5, 1, 1)), rng.uniform(1, 2, (3, 1))
    scaled = Constant(source.type, ScaledPayload(source, [rows, columns]))
    wanted = (source.array().astype(np.float64) * rows * columns).astype(dtype.numpy)
    np.testing.assert_allclose(
        scaled.array().astype(float), wanted.astype(float), rtol=1e-2 if dtype.bits == 16 else 1e-6
    )
    assert scaled.tobytes() == np.ascontiguousarray(scaled.array()).tobytes()


@given(st.integers(0, 59), st.integers(0, 59))
@settings(max_examples=60, deadline=None)
def test_any_stretch_of_a_scaled_constant_can_be_read(a, b):
    start, stop = min(a, b), max(a, b)
    rng = np.random.default_rng(0)
    source = Constant.of(rng.standard_normal((5, 3, 4)).astype(np.float32))
    scaled = Constant(source.type, ScaledPayload(source, [rng.uniform(1, 2, (5, 1, 1)), rng.uniform(1, 2, (3, 1))]))
    np.testing.assert_array_equal(scaled.flat(start, stop), scaled.array().reshape(-1)[start:stop])


@real_models()
def test_real_models_keep_their_outputs(model: RealModel):
    module = load(model.path)
    given = laws.feeds(model.name, model.path)
    before, twin = run(module, given), module.clone()
    axes, rw = axes_of(twin), Rewriter(twin, by="test")
    for seed, site in enumerate(s for s in scaling_sites(axes) if not blocked(s)):
        divide(rw, axes, site, drawn(site.count, seed))
    verify(twin)
    error, bar = judged(module, given, before, run(twin, given))
    assert error < bar
