"""Exact removal and widths: of the redundant units so many go that wide groups stay at a multiple."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import plant
from kit.nets import Layers
from kit.permute import relative, run

from mlc.ir.axes import AxisClass, analyse
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.passes.base import Context, SkipCode
from mlc.passes.prune.allocate import WIDE, exact_width, step
from mlc.passes.prune.structured import Prune

CHECKED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Units = dict[str, list[int]]


def net_of(width: int, seed: int, *, nonlinear: bool) -> tuple[Module, dict, AxisClass]:
    """One group of `width` units between two layers, with a ReLU or nothing in between."""
    net = Layers(seed)
    x = net.input("x", DType.F32, "N", width + 8)
    h = net.dense(x, width + 8, width)
    module = net.done(net.dense(net.relu(h) if nonlinear else h, width, 5))
    (group,) = analyse(module).free
    return module, {"x": np.random.default_rng(seed).standard_normal((4, width + 8)).astype(np.float32)}, group


def plant_all(module: Module, units: Units) -> None:
    def combine(rows: np.ndarray) -> None:
        for unit in units["dependent"]:
            rows[unit] = 0.5 * rows[-2] - 0.25 * rows[-3] + 0.05 * unit * rows[-4]

    axes = analyse(module)
    (c,) = axes.free
    plant.unread(module, axes, c, units["unread"])
    plant.constant(module, axes, c, units["constant"])
    plant.duplicate(module, axes, c, units["duplicate"], of=-1)
    plant.edit(module, axes, c, combine, consumers=False)


@st.composite
def redundant(draw: st.DrawFn) -> tuple[int, bool, Units]:
    """Which units of a wide group are redundant, and why; the last four carry others."""
    width, nonlinear = draw(st.integers(WIDE, 64)), draw(st.booleans())
    kinds = ("unread", "constant", "duplicate") + (() if nonlinear else ("dependent",))
    chosen = draw(st.permutations(range(width - 4)))[: draw(st.integers(1, width - 5))]
    units: Units = {kind: [] for kind in ("unread", "constant", "duplicate", "dependent")}
    for unit in chosen:
        units[draw(st.sampled_from(kinds))].append(unit)
    return width, nonlinear, units


@CHECKED
@given(redundant(), st.sampled_from([1, 4, 8, 16]), st.integers(0, 3))
def test_redundant_units_go_as_far_as_the_multiple_allows(planted, multiple, seed):
    width, nonlinear, units = planted
    module, feeds, group = net_of(width, seed, nonlinear=nonlinear)
    plant_all(module, units)
    smallest = width - sum(map(len, units.values()))
    step = Prune(multiple=multiple)
    plan, pruned = step.plan(module, Context()), step(module)
    assert plan == pruned.history[-1].plan
    assert json.dumps(plan.to_json()) == json.dumps(step.plan(module.clone(), Context()).to_json())
    after = min([width, *(r.after for round_ in plan.rounds for r in round_.removals)])
    assert after % multiple == 0 or after == width
    assert 0 <= after - smallest < multiple
    assert pruned.constants[group.sites[0].constant].constant.shape[group.sites[0].axis] == after
    stay = [s for s in plan.skipped if s.code is SkipCode.HURTS]
    assert [int(s.why.split()[0]) for s in stay] == ([after - smallest] if after > smallest else [])
    assert all(s.what_to_do == "prune(multiple=1)" for s in stay)
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


@given(st.integers(2, 300), st.integers(0, 300), st.sampled_from([1, 4, 8, 16]))
def test_exact_widths_leave_no_multiple_and_go_as_far_as_they_can(size, gone, multiple):
    smallest, unit = max(1, size - gone), step(size, multiple)
    width = exact_width(size, smallest, unit)
    assert smallest <= width <= size
    assert width - smallest < unit
    assert width == size or width % unit == 0


@given(st.integers(2, 300), st.sampled_from([1, 4, 8, 16]))
def test_narrow_groups_take_a_smaller_multiple(size, multiple):
    unit = step(size, multiple)
    limit = multiple if size >= WIDE else 8 if size >= 16 else 4 if size >= 8 else 1
    assert unit == min(multiple, limit)
    assert step(size, multiple, inner=64) == 1
    assert step(size, multiple, inner=4) == max(1, unit // 4)


def test_heads_are_not_rounded_their_widths_are_multiples():
    net = Layers()
    x = net.input("x", DType.F32, "N", 6)
    heads = net.op("Reshape", [net.dense(x, 6, 12 * 16), net.ints(-1, 12, 16)])
    joined = net.op("Reshape", [net.op("Tanh", [heads]), net.ints(-1, 12 * 16)])
    module = net.done(net.dense(joined, 12 * 16, 3))
    plan = Prune(ratio=0.5).plan(module, Context())
    assert [(g.before, g.after) for g in plan.groups] == [(12, 6)]
    assert [(g.before, g.after) for g in Prune(ratio=0.5, multiple=64).plan(module, Context()).groups] == [(12, 6)]


@pytest.mark.parametrize(("width", "gone", "after"), [(24, 1, 24), (24, 8, 16), (12, 3, 12), (12, 5, 8), (7, 1, 6)])
def test_narrow_groups_stay_at_theirs(width, gone, after):
    module, feeds, group = net_of(width, 0, nonlinear=True)
    plant_all(module, {"unread": list(range(gone)), "constant": [], "duplicate": [], "dependent": []})
    pruned = Prune()(module)
    assert pruned.constants[group.sites[0].constant].constant.shape[group.sites[0].axis] == after
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def test_a_group_that_was_wide_keeps_the_multiple_in_every_round():
    """Once the unread units of the second layer are gone, nobody reads most of the first."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 6)
    first, second = net.relu(net.linear(x, 6, 48)), 40
    module = net.done(net.linear(net.relu(net.linear(first, 48, second)), second, 3))
    axes = analyse(module)
    inner = next(c for c in axes.free if c.size == second)

    def see_few(rows: np.ndarray) -> None:
        rows[32:, :30] = 0  # the units that stay see 18 of the first layer's

    plant.unread(module, axes, inner, range(32))
    plant.edit(module, axes, inner, see_few, consumers=False, matrices_only=True)
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)}
    pruned = Prune(multiple=8)(module)
    rounds = [[(r.before, r.after) for r in round_.removals] for round_ in pruned.history[-1].plan.rounds]
    assert rounds == [[(40, 8)], [(48, 24)]]
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


@pytest.mark.parametrize(("width", "gone", "after"), [(40, 3, 40), (40, 8, 32), (40, 11, 32), (43, 2, 43), (43, 3, 40)])
def test_widths_between_multiples_move_only_onto_one(width, gone, after):
    module, feeds, group = net_of(width, 0, nonlinear=True)
    plant_all(module, {"unread": list(range(gone)), "constant": [], "duplicate": [], "dependent": []})
    pruned = Prune(multiple=8)(module)
    assert pruned.constants[group.sites[0].constant].constant.shape[group.sites[0].axis] == after
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5
