"""Dependent classes: each unit of the outer class may order the inner one in its own way, where that is true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from kit.layers import Layers
from kit.nets import NETS
from kit.permute import Array, permutations, relative, run
from kit.random_orders import random_orders
from kit.real import real_models
from kit.widen import run_wide, widened

from mlc.frontends.onnx import load
from mlc.ir.axes import Axes, AxisClass, analyse
from mlc.ir.axis_expand import Choice, gather
from mlc.ir.constants import Constant
from mlc.ir.core import Module
from mlc.ir.dtypes import DType

#: Inner sizes and the sizes of what they depend on, derived by hand. Nets that are not here have none.
DEPENDENT: Mapping[str, list[tuple[int, tuple[int, ...]]]] = {
    "block_quantized": [(4, (4,))],  # the inside of a block
    "multiplier": [(2, (6,))],
    "grouped": [(4, (4,)), (4, (4,))],
    "shufflenet": [(4, (2,)), (2, (2,)), (4, (2,))],
    "group_norm": [(3, (4,))],
    "transposed": [(4, (2,)), (3, (2,))],
    "bert": [(5, (4,)), (5, (4,))],
    "vit": [(4, (3,))],
    "fused_split": [(4, (3,)), (4, (3,))],
    "alibi": [(4, (3,)), (7, (3,))],
    "relative": [(4, (3,)), (7, (3,))],
    "cross_attention": [(5, (2,)), (7, (2,)), (4, (3,)), (8, (3,))],
    "gqa_decoder": [(3, (2,)), (4, (2,)), (4, (2,))],  # keys and values have no repeats: widths depend on kv heads
    "rope_decoder": [(3, (2,)), (4, (2,))],  # the rotary pairs share one table: independent
    "rope_interleaved": [(3, (2,)), (10, (2,))],
    "experts_dense": [(10, (4,))],
}
SINGLE = {"block_quantized", "group_norm", "transposed"}  # no double kernels


def found(axes: Axes) -> list[tuple[int, tuple[int, ...]]]:
    return [(c.size, tuple(u.size for u in axes.depends(c))) for c in axes.free if axes.depends(c)]


@pytest.mark.parametrize("name", NETS)
def test_what_depends_on_what(name):
    assert found(analyse(NETS[name]()[0])) == DEPENDENT.get(name, [])


@pytest.mark.parametrize("name", DEPENDENT)
@pytest.mark.parametrize("all_at_once", [True, False])
def test_dependent_orders_keep_the_outputs(name, all_at_once):
    module, feeds = NETS[name]()
    compute, bar = (run, 1e-5) if name in SINGLE else (run_wide, 1e-9)
    module = module if name in SINGLE else widened(module)
    axes, before = analyse(module), compute(module, feeds)
    assert any(axes.depends(c) for c in axes.free)
    for seed in range(3):
        chosen = random_orders(axes, seed)
        if not all_at_once:
            chosen = {id: order for id, order in chosen.items() if order.ndim > 1}
        assert relative(before, compute(axes.permuted(chosen), feeds)) < bar


@pytest.mark.parametrize("name", DEPENDENT)
def test_equal_rows_are_one_order(name):
    """[n_u, n_v] with the same row everywhere is the independent permutation."""
    axes = analyse(NETS[name]()[0])
    plain = permutations(axes, 0)
    outer = {c.id: tuple(u.size for u in axes.depends(c)) for c in axes.free}
    rows = {id: np.broadcast_to(order, (*outer[id], len(order))) for id, order in plain.items()}
    one, two = axes.permuted(plain), axes.permuted(rows)
    for constant, value in one.constants.items():
        assert np.array_equal(value.constant.array(), two.constants[constant].constant.array())


def test_rows_count_old_outer_units():
    """Two groups of three channels: the groups swap, and each takes the order that its old number has."""
    axes = analyse(NETS["multiplier"]()[0])
    (inner,) = (c for c in axes.free if axes.depends(c))
    (outer,) = axes.depends(inner)
    site = next(s for s in inner.sites if s.axis == 0)
    turn = np.zeros((6, 2), np.int64) + np.arange(2)
    turn[0] = [1, 0]
    index = axes.expand(site.type, {inner.id: turn, outer.id: np.array([1, 0, 2, 3, 4, 5])})
    assert list(index) == [2, 3, 1, 0, 4, 5, 6, 7, 8, 9, 10, 11]


def test_a_norm_over_groups_of_channels_mixes_them():
    """Rows that are normalized over all channels move as a whole, never one channel of them at a time."""
    net = Layers()
    x = net.input("x", DType.F32, 3, 5)
    table = net.op("GroupNormalization", [net.weight(6, 4, 5), net.vector(4), net.vector(4)], attrs={"num_groups": 1})
    most = net.op("ReduceMax", [table, net.ints(0)], attrs={"keepdims": 0})
    y = net.op("Add", [x, net.op("MatMul", [net.weight(3, 4), most])])
    module, feeds = net.done(y), {"x": np.zeros((3, 5), np.float32)}
    axes, before = analyse(module), run(module, feeds)
    assert found(axes) == []
    assert sorted(c.size for c in axes.free) == [4, 6]
    assert relative(before, run(axes.permuted(random_orders(axes, 0)), feeds)) < 1e-5


# -- orders for combinations of several outer classes --------------------------------------------------------------


def boxes() -> tuple[Module, dict[str, Array]]:
    """A hidden width seen as 2 x 3 x 4 with a bias for each element."""
    net = Layers()
    x = net.input("x", DType.F32, 5, 6)
    h = net.op("Add", [net.reshape(net.dense(x, 6, 24), 5, 2, 3, 4), net.weight(2, 3, 4)])
    y = net.dense(net.reshape(net.op("Tanh", [h]), 5, 24), 24, 3)
    return net.done(y), {"x": np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)}


def test_a_class_may_depend_on_several():
    module, feeds = boxes()
    module = widened(module)
    axes, before = analyse(module), run_wide(module, feeds)
    assert found(axes) == [(3, (2,)), (4, (2, 3))]
    for seed in range(3):
        assert relative(before, run_wide(axes.permuted(random_orders(axes, seed)), feeds)) < 1e-9


def test_orders_of_the_wrong_shape_are_refused():
    axes = analyse(boxes()[0])
    outer, middle, inner = axes.free
    for id, shape in ((inner.id, (3, 4)), (outer.id, (3, 2)), (middle.id, (4, 3))):
        with pytest.raises(ValueError, match="does not fit"):
            axes.permuted({id: np.zeros(shape, np.int64)})


def test_an_axis_alone_cannot_say_an_order_that_another_axis_decides():
    axes = analyse(NETS["grouped"]()[0])
    inner = next(c for c in axes.free if axes.depends(c))
    (outer,) = axes.depends(inner)
    site = next(s for s in inner.sites if outer not in axes.within(s.type))
    with pytest.raises(ValueError, match="another axis"):
        axes.expand(site.type, {inner.id: np.zeros((outer.size, inner.size), np.int64)})


# -- what must not be called dependent: forcing it changes the outputs ---------------------------------------------


def forced(axes: Axes, v: AxisClass, u: AxisClass) -> Module:
    """The module with the units of v reversed for every other unit of u, whatever the analysis says."""
    orders = np.stack([np.arange(v.size)[:: -1 if j % 2 else 1] for j in range(u.size)])
    twin = axes.module.clone()
    for constant, value in axes.module.constants.items():
        types = axes.of(value) or ()
        if any(v in axes.within(t) for t in types):
            moved = gather(value.constant.array(), types, Choice({v.atom: orders}, {v.atom: (u.atom,)}))
            twin.constants[constant].constant = Constant.of(np.ascontiguousarray(moved))
    return twin


def _heads(net: Layers, x: Any) -> Any:
    return net.reshape(net.dense(x, 6, 12), 2, 5, 3, 4)


def _merged(net: Layers, y: Any) -> Module:
    return net.done(net.dense(net.reshape(y, 2, 5, 12), 12, 3))


def pairs_of_heads(net: Layers, x: Any) -> Module:
    """[h, 1, t, d] x [1, h, d, t]: every head with every other."""
    q = net.transpose(_heads(net, x), 0, 2, 1, 3)
    k = net.transpose(q, 0, 1, 3, 2)
    every = net.op("MatMul", [net.reshape(q, 2, 3, 1, 5, 4), net.reshape(k, 2, 1, 3, 4, 5)])
    return net.done(net.op("ReduceSum", [net.op("Mul", [every, net.weight(3, 3, 5, 5)]), net.ints(1, 2)]))


def softmax_over_heads(net: Layers, x: Any) -> Module:
    return _merged(net, net.op("Softmax", [_heads(net, x)], attrs={"axis": 2}))


def minus_the_mean_over_heads(net: Layers, x: Any) -> Module:
    y = _heads(net, x)
    return _merged(net, net.op("Tanh", [net.op("Sub", [y, net.op("ReduceMean", [y, net.ints(2)])])]))


def heads_mixed_by_a_matrix(net: Layers, x: Any) -> Module:
    """Talking heads: the product runs over the heads and yields heads."""
    y = net.transpose(_heads(net, x), 0, 1, 3, 2)
    y = net.op("Add", [y, net.op("MatMul", [y, net.weight(3, 3)])])
    return _merged(net, net.transpose(net.op("Tanh", [y]), 0, 1, 3, 2))


def norm_over_heads(net: Layers, x: Any) -> Module:
    y = net.transpose(_heads(net, x), 0, 1, 3, 2)
    y = net.op("LayerNormalization", [y, net.vector(3), net.vector(3)], attrs={"axis": -1})
    return _merged(net, net.transpose(y, 0, 1, 3, 2))


def cumulated(net: Layers, x: Any) -> Module:
    """An operator that is not ruled for dependence: the classes beside its axis stay independent."""
    return _merged(net, net.op("CumSum", [_heads(net, x), net.const(np.int64(1))]))


COUNTER = [pairs_of_heads, softmax_over_heads, minus_the_mean_over_heads, heads_mixed_by_a_matrix, norm_over_heads]


def _counter(build: Any) -> tuple[Axes, dict[str, Array]]:
    net = Layers()
    module = build(net, net.input("x", DType.F32, 2, 5, 6))
    return analyse(module), {"x": np.random.default_rng(1).standard_normal((2, 5, 6)).astype(np.float32)}


@pytest.mark.parametrize("build", COUNTER)
def test_what_mixes_outer_units_is_independent(build):
    axes, feeds = _counter(build)
    inner = next(c for c in axes.free if c.size == 4)
    outer = next(c for c in axes.free if c.size == 3)
    assert axes.depends(inner) == ()
    before = run(axes.module, feeds)
    assert relative(before, run(axes.permuted(permutations(axes, 0)), feeds)) < 1e-5
    assert relative(before, run(forced(axes, inner, outer), feeds)) > 1e-3


def test_unknown_operators_speak_against_dependence():
    axes, _ = _counter(cumulated)
    assert {c.size for c in axes.free} == {3, 4}
    assert found(axes) == []


@real_models("minilm", "ppocrv4_rec")
def test_heads_of_real_models_order_their_widths_apart(model):
    module, feeds = load(model.path), model.feeds(0)
    axes, before = analyse(module), run(load(model.path), feeds)
    assert any(axes.depends(c) for c in axes.free)
    assert relative(before, run(axes.permuted(random_orders(axes, 0)), feeds)) < 1e-4
