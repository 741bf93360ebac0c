"""Bare `prune`: planted redundant units are found and removed, and no output changes."""

from __future__ import annotations

import numpy as np
import pytest
from kit import plant
from kit.nets import NETS, Layers
from kit.permute import relative, run

from mlc.ir.axes import analyse
from mlc.ir.constants import Constant
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.passes.base import SkipCode
from mlc.passes.prune.exact.cluster import cluster
from mlc.passes.prune.exact.rows import dense_rows
from mlc.passes.prune.ranges import parse_ranges
from mlc.passes.prune.structured import Prune

FOLLOWED = ("mlp", "vgg16", "vgg_flatten", "resnet20_conv", "densenet", "mobilenet", "unet", "nhwc")
UNITS = [1, 3]
EXACT = Prune(multiple=1)


def removals(module: Module) -> list:
    return [r for round_ in module.history[-1].plan.rounds for r in round_.removals]


@pytest.mark.parametrize("name", NETS)
def test_nothing_is_found_where_nothing_is_redundant(name):
    module, feeds = NETS[name]()
    pruned = EXACT(module)
    assert removals(pruned) == []
    assert relative(run(module, feeds), run(pruned, feeds)) == 0.0


@pytest.mark.parametrize("kind", ["unread", "duplicate"])
@pytest.mark.parametrize("name", FOLLOWED)
def test_planted_units_are_found_in_every_group_and_removed(name, kind):
    module, feeds = NETS[name]()
    axes = analyse(module)
    targets = [c for c in axes.free if c.size >= 6]
    for c in targets:
        plant.KINDS[kind](module, axes, c, UNITS)
    pruned = EXACT(module)
    found = removals(pruned)
    assert len(found) >= len(targets)
    first = pruned.history[-1].plan.rounds[0].removals
    assert all(len(parse_ranges(getattr(r, kind))) == len(UNITS) for r in first)
    assert sum(r.before - r.after for r in found) >= len(targets) * len(UNITS)
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def test_constant_units_move_into_the_next_bias():
    for name in ("mlp", "vgg_flatten"):
        module, feeds = NETS[name]()
        axes = analyse(module)
        last = [c for c in axes.free if c.size in (20, 10)][-1]
        plant.constant(module, axes, last, UNITS)
        pruned = EXACT(module)
        assert [r.fixed for r in removals(pruned)] == ["1, 3"]
        assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def test_constants_do_not_move_through_a_border_of_zeros():
    """A constant channel in front of a padded convolution is not constant to it."""
    for padded in (True, False):
        net = Layers()
        x = net.input("x", DType.F32, 1, 2, 6, 6)
        h = net.relu(net.conv(x, 2, 8, 1))
        attrs = {"kernel_shape": Ints((3, 3)), "pads": Ints((1 if padded else 0,) * 4)}
        y = net.op("Conv", [h, net.weight(4, 8, 3, 3)], attrs=attrs)
        module = net.done(y)
        axes = analyse(module)
        plant.constant(module, axes, axes.free[0], UNITS)
        pruned = EXACT(module)
        # Two equal-up-to-a-factor constants are duplicates of each other even behind a border.
        (only,) = removals(pruned)
        assert (only.fixed, only.duplicate) == (("", "3") if padded else ("1, 3", "")) or (
            padded and only.duplicate == "1"
        )
        feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 6, 6)).astype(np.float32)}
        assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


@pytest.mark.parametrize(("kind", "found"), [("Relu", True), ("Sigmoid", False)])
def test_proportional_units_are_duplicates_of_homogeneous_operators_only(kind, found):
    net = Layers()
    x = net.input("x", DType.F32, "N", 6)
    module = net.done(net.linear(net.op(kind, [net.linear(x, 6, 10)]), 10, 4))
    axes = analyse(module)

    def scale(rows: np.ndarray) -> None:
        rows[7] = rows[2] * 0.3

    plant.edit(module, axes, axes.free[0], scale, consumers=False)
    pruned = EXACT(module)
    assert len(removals(pruned)) == int(found)
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)}
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def linear_pair(width: int, *, bias: bool = True) -> tuple[Module, dict]:
    net = Layers()
    x = net.input("x", DType.F32, "N", 6)
    h = net.dense(x, 6, width) if bias else net.op("MatMul", [x, net.weight(6, width)])
    module = net.done(net.op("MatMul", [h, net.weight(width, 4)]))
    return module, {"x": np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)}


def test_linear_combinations_go_where_nothing_is_nonlinear():
    module, feeds = linear_pair(5)
    axes = analyse(module)

    def combine(rows: np.ndarray) -> None:
        if rows.shape[1] > 1:  # weights, not the bias: the difference of the biases is folded
            rows[4] = 0.5 * rows[0] - 2 * rows[1]

    plant.edit(module, axes, axes.free[0], combine, consumers=False)
    pruned = EXACT(module)
    (only,) = removals(pruned)
    assert (only.before, only.after) == (5, 4)
    assert only.dependent
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def test_sums_of_nonlinear_branches_are_combined():
    """a + c, a + d, b + c and b + d: the last is the second plus the third less the first."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 6)
    pairs = [np.array(p) for p in ([0, 0, 1, 1], [0, 1, 0, 1])]
    branches = [net.relu(net.op("MatMul", [x, net.const(net.draw(6, 2)[:, p], net.fresh("w"))])) for p in pairs]
    module = net.done(net.op("MatMul", [net.op("Add", branches), net.weight(4, 3)]))
    (only,) = removals(pruned := EXACT(module))
    assert (only.after, len(parse_ranges(only.dependent))) == (3, 1)
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)}
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def test_a_layer_wider_than_its_rank_shrinks_to_it():
    module, feeds = linear_pair(16, bias=False)
    pruned = EXACT(module)
    (only,) = removals(pruned)
    assert only.after == 6
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-4


def test_removal_goes_on_while_it_uncovers_more():
    """Nobody reads the last hidden layer's units that alone read some of the first."""
    module, feeds = NETS["mlp"]()
    axes = analyse(module)
    third = axes.free[2]
    plant.unread(module, axes, third, range(19))

    # The unit of the third layer that is read sees only units 30.. of the second.
    weight = module.constants[third.sites[0].constant]
    array = np.array(weight.constant.array())
    array[19, :30] = 0
    weight.constant = Constant.of(array)
    pruned = EXACT(module)
    assert len(pruned.history[-1].plan.rounds) >= 2
    assert {(r.before, r.after) for r in removals(pruned)} >= {(20, 1), (48, 18)}
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def test_a_group_never_becomes_empty():
    module, feeds = NETS["mlp"]()
    axes = analyse(module)
    for c in axes.free:
        plant.unread(module, axes, c, range(c.size))
    pruned = EXACT(module)
    assert [r.after for r in removals(pruned)] == [1, 1, 1]
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def test_what_cannot_be_followed_is_reported():
    module, _ = NETS["lstm"]()
    skipped = EXACT(module).history[-1].skipped
    assert {s.code for s in skipped} == {SkipCode.NOT_FOLLOWED}
    assert all("LSTM" in s.why for s in skipped)


def test_rows_are_grouped_within_rounding_and_not_beyond():
    base = np.random.default_rng(0).standard_normal((3, 50))
    rows = np.vstack([base, base[1] * (1 + 1e-8), base[1] * 1.001, -base[2], np.zeros(50)])
    ids, _ = cluster(dense_rows(rows), homogeneous=False)
    assert ids[3] == ids[1] != ids[4]
    assert ids[-1] == -1
    ids, scale = cluster(dense_rows(rows), homogeneous=True)
    assert ids[1] == ids[3] == ids[4]
    assert ids[5] != ids[2]
    ids, scale = cluster(dense_rows(rows), homogeneous=True, signed=True)
    assert ids[5] == ids[2]
    assert scale[5] == pytest.approx(-scale[2])
