"""Specifications and maps: index maps, pruning groups, matrices at all sites of a class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.elements import unit_map
from kit.layers import Built, Layers, rows
from kit.nets import NETS
from kit.permute import permutations, relative, run
from kit.random_orders import random_orders
from kit.widen import run_wide, widened

from mlc.ir.axes import AxisClass, Site, analyse
from mlc.ir.axis_admissible import Group
from mlc.ir.axis_maps import MapSpec, UnitMap
from mlc.ir.axis_matrix import Matrices, along, kronecker
from mlc.ir.axis_spec import PermSpec, index_map, prune_groups
from mlc.ir.axis_types import Atom, Prod, Sum
from mlc.ir.constants import Constant
from mlc.ir.core import Module
from mlc.ir.rewrite import Rewriter
from mlc.passes.prune.surgery import remove_units


def site_of(c: AxisClass, path: str) -> Site:
    return next(s for s in c.sites if s.path == path)


def same(a: Module, b: Module) -> bool:
    return all(
        value.constant.array().tobytes() == b.constants[name].constant.array().tobytes()
        for name, value in a.constants.items()
    )


# -- specifications ------------------------------------------------------------------------------------------------


def test_index_maps_go_through_products_and_sums():
    axes = analyse(NETS["vgg_flatten"]()[0])
    (c,) = (c for c in axes.free if c.size == 12)
    flat = site_of(c, f"({c.name} x 16)")
    assert list(index_map(flat, 2)) == list(range(32, 48))
    axes = analyse(NETS["densenet"]()[0])
    second = axes.free[1]
    whole = next(s for s in second.sites if s.path.startswith("["))
    assert list(index_map(whole, 1)) == [8 + 1]
    with pytest.raises(IndexError):
        index_map(whole, second.size)


@pytest.mark.parametrize("name", NETS)
def test_the_units_of_a_site_are_its_positions(name):
    """Every position of every site belongs to the units that `units` says, and `apply` is `permuted`."""
    axes = analyse(NETS[name]()[0])
    spec = PermSpec.of(axes)
    assert set(spec.sites) == {c.id for c in axes.free}
    for id, sites in spec.sites.items():
        for site in sites:
            units = axes.units(site.type, axes.classes[id])
            maps = [index_map(site, i) for i in range(spec.size(id))]
            assert sorted(np.concatenate(maps)) == list(np.flatnonzero(units >= 0))
            assert len({len(m) for m in maps}) == 1
    order = permutations(axes, 0)
    assert same(spec.apply(order), axes.permuted(order))


def test_groups_name_the_ops_whose_sizes_follow():
    axes = analyse(NETS["shufflenet"]()[0])
    kinds = [(g.axis_class.size, sorted({op.kind for op in g.ops})) for g in prune_groups(axes)]
    both = ["Conv", "Reshape"]
    assert kinds == [(2, both), (4, ["Conv"]), (2, both), (2, both), (4, ["Conv"])]
    assert all(g.sites == g.axis_class.sites for g in prune_groups(axes))


# -- matrices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_a_permutation_as_matrices_is_the_permutation_and_its_inverse_undoes_it(name):
    module, _ = NETS[name]()
    axes = analyse(module)
    order = permutations(axes, 0)
    spec = MapSpec.permutation(axes, order)
    there = spec.applied()
    assert same(there, axes.permuted(order))
    assert same(MapSpec(analyse(there), spec.inverse().maps).applied(), module)
    assert same(spec.inverse().after(spec).applied(), module)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_products_are_kronecker_and_sums_block_diagonal(m, n, k, l, seed):  # noqa: E741
    rng = np.random.default_rng(seed)
    u, v = Atom(n), Atom(k)
    T, S = rng.standard_normal((m, n)), rng.standard_normal((l, k))
    x = rng.standard_normal((n, k))
    chosen = Matrices({u: T, v: S}, {})
    assert np.allclose(along(x.reshape(-1), kronecker(Prod((u, v)), chosen, {}), 0), (T @ x @ S.T).reshape(-1))
    y, z = rng.standard_normal(n), rng.standard_normal(k)
    both = along(np.concatenate([y, z]), kronecker(Sum((u, v)), chosen, {}), 0)
    assert np.allclose(both, np.concatenate([T @ y, S @ z]))


def test_maps_compose():
    axes = analyse(NETS["mlp"]()[0])
    rng = np.random.default_rng(0)
    c = axes.free[0]
    one, two = (MapSpec(axes, {c.id: unit_map(Group.POSITIVE_DIAGONAL, c.size, rng)}) for _ in range(2))
    apart = MapSpec(analyse(one.applied()), two.maps).applied()
    for name, value in two.after(one).applied().constants.items():
        assert np.allclose(value.constant.array(), apart.constants[name].constant.array(), 1e-5)


@given(st.integers(1, 3), st.integers(2, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_a_dependent_class_gives_blocks(m, n, k, seed):
    """T_u[i, j] T_v(j): inner matrices go by the old outer unit, then the outer units mix."""
    rng = np.random.default_rng(seed)
    u, v = Atom(n), Atom(k)
    T, S = rng.standard_normal((m, n)), rng.standard_normal((n, 2, k))
    x = rng.standard_normal((n, k))
    whole = kronecker(Prod((u, v)), Matrices({u: T, v: S}, {v: (u,)}), {})
    assert np.allclose(whole @ x.reshape(-1), (T @ np.einsum("jab,jb->ja", S, x)).reshape(-1))


@pytest.mark.parametrize("name", ["grouped", "shufflenet", "multiplier", "bert", "gqa_decoder", "cross_attention"])
def test_dependent_orders_as_matrices(name):
    axes = analyse(NETS[name]()[0])
    orders, maps = random_orders(axes, 0), {}
    for id, order in orders.items():
        matrices = np.eye(order.shape[-1])[order]
        maps[id] = UnitMap(matrices, matrices)
    assert any(order.ndim > 1 for order in orders.values())
    assert same(MapSpec(axes, maps).applied(), axes.permuted(orders))
    with pytest.raises(ValueError, match="old units"):
        MapSpec(axes, maps).inverse()


@pytest.mark.parametrize("name", ["grouped", "bert", "gqa_decoder"])
def test_every_outer_unit_has_a_transformation_of_its_own(name):
    """Each head's values turn by a matrix of their own; scales apart for each group."""
    module, feeds = NETS[name]()
    module = widened(module)
    axes, before = analyse(module), run_wide(module, feeds)
    rng, asked = np.random.default_rng(0), 0
    for c in axes.free:
        outer = tuple(u.size for u in axes.depends(c))
        for group in (Group.POSITIVE_DIAGONAL, Group.GL):
            if outer and group in axes.admissible(c):
                one = [unit_map(group, c.size, rng) for _ in np.ndindex(*outer)]
                out, into = (
                    np.stack(side).reshape(*outer, c.size, c.size) for side in zip(*((m.out, m.into) for m in one))
                )
                spec = MapSpec(axes, {c.id: UnitMap(out, into, group)})
                assert relative(before, run_wide(spec.applied(), feeds)) < 1e-9
                assert spec.inverse().after(spec).arrays()
                asked += 1
    assert asked


def linear_pair() -> Built:
    """A hidden layer without activation whose units 0 and 3 are equal."""
    net = Layers()
    x, feeds = rows(net, 6)
    w, b = net.draw(6, 5), net.draw(5)
    w[:, 3], b[3] = w[:, 0], b[0]
    h = net.op("Add", [net.op("MatMul", [x, net.const(w, "w")]), net.const(b, "b")])
    return net.done(net.dense(h, 5, 3)), feeds


AVERAGE = np.array([[0.5, 0, 0, 0.5, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]])


@pytest.mark.parametrize("build", [linear_pair])
def test_equal_units_are_averaged_and_their_readers_summed(build):
    module, feeds = build()
    module = widened(module)
    axes, before = analyse(module), run_wide(module, feeds)
    (c,) = axes.free
    spec = MapSpec(axes, {c.id: UnitMap.balanced(AVERAGE)})
    merged = module.clone()
    with pytest.raises(ValueError, match="4 units instead of 5"):
        spec.applied()
    rw = Rewriter(merged)
    remove_units(rw, analyse(merged), {c.id: np.arange(4)})
    for name, array in spec.arrays().items():
        rw.set_constant(merged.constants[name], Constant.of(array))
    assert relative(before, run_wide(merged, feeds)) < 1e-12


def test_transport_multiplies_readers_by_the_transpose():
    axes = analyse(linear_pair()[0])
    (c,) = axes.free
    T = np.random.default_rng(0).standard_normal((4, 5))
    found = MapSpec.transport(axes, {c.id: T}).arrays()
    old = {name: value.constant.array() for name, value in axes.module.constants.items()}
    made = next(n for n, a in found.items() if a.shape == (6, 4))
    read = next(n for n, a in found.items() if a.shape == (4, 3))
    assert np.allclose(found[made], old[made] @ T.T, atol=1e-5)
    assert np.allclose(found[read].T, old[read].T @ T.T, atol=1e-5)


def test_a_split_unit_merges_again():
    """Unit 1 in two halves: more units, and an inverse."""
    split = UnitMap.balanced(np.array([[1.0, 0], [0, 1], [0, 1]]))
    assert np.allclose(split.into, [[1, 0], [0, 0.5], [0, 0.5]])
    assert np.allclose(split.inverse().after(split).out, np.eye(2))
    with pytest.raises(ValueError, match="loses units"):
        UnitMap.balanced(np.array([[0.5, 0.5]])).inverse()


def test_maps_that_do_not_fit_are_refused():
    axes = analyse(NETS["mlp"]()[0])
    c = axes.free[0]
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="does not admit ORTHOGONAL"):
        MapSpec(axes, {c.id: unit_map(Group.ORTHOGONAL, c.size, rng)})
    with pytest.raises(ValueError, match="takes two matrices"):
        MapSpec.transport(axes, {c.id: np.eye(c.size + 1)})
    with pytest.raises(ValueError, match="does not admit PERM"):
        MapSpec.transport(axes, {axes.pinned[0].id: np.eye(axes.pinned[0].size)})
    wrong = unit_map(Group.SIGN, c.size, rng)
    with pytest.raises(ValueError, match="not of POSITIVE_DIAGONAL"):
        MapSpec(axes, {c.id: UnitMap(wrong.out, wrong.into, Group.POSITIVE_DIAGONAL)})
    with pytest.raises(ValueError, match="different groups"):
        UnitMap.reordered(np.arange(3)).after(unit_map(Group.SIGN, 3, rng))


def test_whole_numbers_are_reordered_but_not_combined():
    axes = analyse(NETS["quantized"]()[0])
    c = axes.free[0]
    assert MapSpec.permutation(axes, {c.id: np.arange(c.size)[::-1]}).arrays()
    with pytest.raises(ValueError, match="reordered, not combined"):
        MapSpec.transport(axes, {c.id: np.full((c.size, c.size), 1 / c.size)}).arrays()


def test_both_maps_at_once():
    """Every free class of a net scaled where it may be, all together."""
    module, feeds = NETS["resnet20_conv"]()
    axes, rng = analyse(module), np.random.default_rng(0)
    maps = {
        c.id: unit_map(Group.POSITIVE_DIAGONAL, c.size, rng)
        for c in axes.free
        if Group.POSITIVE_DIAGONAL in axes.admissible(c)
    }
    assert len(maps) == 12
    assert relative(run(module, feeds), run(MapSpec(axes, maps).applied(), feeds)) < 1e-4
