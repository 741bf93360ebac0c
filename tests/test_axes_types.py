"""The abstract domain: normal forms, refinement, unification."""

from __future__ import annotations

import pytest

from mlc.ir import axis_types as ax
from mlc.ir.axis_types import ONE, Atom, Pin, Prod, Sum
from mlc.ir.dims import Sym

WHY = Pin("test")


def pinned(t: ax.AxisType) -> list[bool]:
    return [a.pin is not None for a in ax.atoms(ax.resolve(t))]


def sizes(t: ax.AxisType) -> list[object]:
    return [a.size for a in ax.atoms(ax.resolve(t))]


def test_products_and_sums_are_kept_in_normal_form():
    a, b = ax.atom(2), ax.atom(3)
    inner = ax.prod((a, ONE, ax.prod((b, ONE))))
    assert isinstance(inner, Prod)
    assert inner.factors == (a, b)
    assert ax.prod((ONE, ONE)) is ONE
    assert ax.prod((a, ONE)) is a
    joined = ax.concat((a, ax.concat((b, ONE))))
    assert isinstance(joined, Sum)
    assert ax.size(joined) == 6
    assert ax.size(inner) == 6


def test_neighbouring_fixed_positions_are_one_run():
    run = ax.concat((ONE, ax.atom(3, WHY), ONE, ax.atom(2)))
    assert sizes(run) == [5, 2]
    assert pinned(run) == [True, False]
    assert sizes(ax.prod((ax.atom(2, WHY), ax.atom(Sym("H"), WHY)))) == [2 * Sym("H")]


def test_symbolic_and_empty_axes_are_pinned():
    assert pinned(ax.atom(Sym("N"))) == [True]
    assert pinned(ax.atom(0)) == [True]


def test_unified_atoms_are_one_class():
    a, b, c = ax.atom(4), ax.atom(4), ax.atom(4)
    ax.unify(a, b)
    ax.unify(b, c)
    assert ax.resolve(a) is ax.resolve(c)


@pytest.mark.parametrize("first", [True, False])
def test_pins_reach_everything_unified_before_and_after(first):
    a, b, c = ax.atom(4), ax.atom(4), ax.atom(4)
    ax.unify(a, b)
    if first:
        ax.pin(b, WHY)
    ax.unify(a, c)
    if not first:
        ax.pin(c, WHY)
    assert pinned(a) == pinned(b) == pinned(c) == [True]


def test_different_sizes_pin_both():
    a, b = ax.atom(4), ax.atom(5)
    ax.unify(a, b, WHY)
    assert pinned(a) == pinned(b) == [True]


def test_cutting_refines_everything_bound_to_it():
    a, b = ax.atom(10), ax.atom(10)
    ax.unify(a, b)
    left, right = ax.split(a, [4, 6]) or []
    assert sizes(b) == [4, 6]
    assert ax.resolve(left) is next(ax.atoms(ax.resolve(b)))
    assert ax.size(right) == 6


def test_sums_with_other_cuts_meet_in_the_finest():
    x = ax.concat((ax.atom(4), ax.atom(6)))
    y = ax.concat((ax.atom(3), ax.atom(7)))
    ax.unify(x, y)
    assert sizes(x) == sizes(y) == [3, 6] or sizes(x) == sizes(y) == [3, 6, 1]
    assert ax.size(ax.resolve(x)) == 10


def test_products_meet_in_the_common_radix():
    x, y = ax.prod((ax.atom(4), ax.atom(6))), ax.prod((ax.atom(2), ax.atom(12)))
    ax.unify(x, y)
    assert sizes(x) == sizes(y) == [2, 2, 6]
    x, y = ax.prod((ax.atom(4), ax.atom(6))), ax.prod((ax.atom(6), ax.atom(4)))
    ax.unify(x, y, WHY)
    assert all(pinned(x))
    assert all(pinned(y))


def test_a_product_is_cut_at_multiples_of_its_inner_size():
    t = ax.prod((ax.atom(6), ax.atom(4)))
    assert [ax.size(p) for p in ax.split(t, [8, 16]) or []] == [8, 16]
    assert ax.split(t, [6, 18]) is None


def test_halves_that_swap_become_one_class():
    """Rotary embedding: Sum(a, b) met by Sum(b, a)."""
    a, b = ax.atom(4), ax.atom(4)
    ax.unify(ax.concat((a, b)), ax.concat((b, a)))
    assert ax.resolve(a) is ax.resolve(b)


def test_an_axis_that_contains_itself_is_itself_or_pinned():
    a, b = ax.atom(4), ax.atom(4)
    ax.unify(a, Sum((a, Atom(0, WHY))), WHY)
    ax.unify(a, Prod((ONE, a)), WHY)
    assert pinned(a) == [False]
    ax.unify(b, ax.concat((b, ONE)), WHY)
    assert pinned(b) == [True]


def test_reshape_regroups_factors():
    c, h, w = ax.atom(6), ax.atom(4), ax.atom(4)
    (flat,) = ax.regroup([c, h, w], [96]) or []
    assert sizes(flat) == [6, 4, 4]
    d = ax.atom(24)
    heads, inner = ax.regroup([d], [4, 6]) or []
    assert sizes(d) == [4, 6]
    assert ax.regroup([heads, inner], [24]) is not None
    assert ax.regroup([ax.atom(4), ax.atom(6)], [6, 4]) is None


def test_reshape_keeps_symbolic_factors():
    n, c = ax.atom(Sym("N")), ax.atom(6)
    both = ax.regroup([n, c], [6 * Sym("N")])
    assert both is not None
    assert len(ax.regroup([both[0]], [Sym("N"), 2, 3]) or []) == 3
    assert sizes(c) == [2, 3]


def test_equal_segments_split_into_slots_and_one_shared_inside():
    """Fused q, k, v: three segments of width 8 seen as 3 x 8."""
    q, k, v = (ax.atom(8) for _ in range(3))
    slots, inner = ax.regroup([ax.concat((q, k, v))], [3, 8]) or []
    assert pinned(slots) == [True]
    assert ax.resolve(q) is ax.resolve(k) is ax.resolve(v) is inner


def test_marks_travel_with_refinement():
    a = ax.atom(12)
    ax.mark(a, Pin("count-sensitive"))
    pieces = ax.split(a, [4, 8]) or []
    assert all("count-sensitive" in p.marks for p in pieces if isinstance(p, Atom))
