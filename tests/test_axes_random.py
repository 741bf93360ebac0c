"""The axis analysis on random tangles: what it says of any value of any graph is so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import tangle_steps
from kit.elements import unit_map
from kit.permute import relative
from kit.random_orders import random_orders
from kit.tangles import TEMPLATES, Tangle

from mlc.ir.axes import analyse
from mlc.ir.axis_admissible import Group
from mlc.ir.axis_maps import MapSpec
from mlc.ir.evaluate import evaluate

SEEDS = st.integers(0, 2**32 - 1)


def check_orders(seed: int) -> int:
    """Every value comes out as its axes say when all free classes are permuted; the number of these."""
    tangle = Tangle(seed)
    module = tangle.module()
    axes = analyse(module, pin_outputs=False)
    chosen = random_orders(axes, seed)
    before, after = (evaluate(m, tangle.feeds) for m in (module, axes.permuted(chosen)))
    for value, y, z in zip(module.graph.outputs, before, after):
        wanted = axes.gathered(y, axes.of(value), chosen)
        assert np.allclose(wanted, z, 1e-3, 1e-4, equal_nan=True), (value.op, [axes.text(t) for t in axes.of(value)])
    return len(chosen)


def check_groups(seed: int) -> int:
    """Whatever a class is said to admit keeps what is read of a graph; the number of claims."""
    tangle = Tangle(seed, steps=8)
    module = tangle.module(read=True)
    axes, rng = analyse(module), np.random.default_rng(seed)
    before, asked = evaluate(module, tangle.feeds), 0
    for c in axes.free:
        for group in (g for g in Group if g is not Group.PERM and g in axes.admissible(c)):
            asked += 1
            twin = MapSpec(axes, {c.id: unit_map(group, c.size, rng)}).applied()
            assert relative(before, evaluate(twin, tangle.feeds)) < 5e-3, (c, group)
    return asked


@given(SEEDS)
@settings(max_examples=300, deadline=None)
def test_every_value_comes_out_as_its_axes_say(seed):
    check_orders(seed)


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_what_is_admissible_keeps_what_is_read(seed):
    check_groups(seed)


def test_tangles_have_classes_to_ask():
    """Otherwise the laws above would say nothing."""
    assert sum(check_orders(seed) for seed in range(20)) > 60
    assert sum(check_groups(seed) for seed in range(20)) > 20


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_step_fits_somewhere(name):
    assert TEMPLATES[name] is getattr(tangle_steps, name)
    drawn = (Tangle(seed, steps=4) for seed in range(100))
    assert any(TEMPLATES[name](tangle, x) is not None for tangle in drawn for x in tangle.values)
