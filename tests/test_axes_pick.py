"""Constant positions as axis types: Slice and Gather, whatever lists they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kit.one_op import Alone

from mlc.ir.ops.axes_rules_pick import lattice


def _gather(n: int, positions: list[int]) -> Alone:
    return Alone("Gather", [np.random.default_rng(0).normal(size=(2, n)), np.array(positions)], {"axis": 1})


def _slice(n: int, start: int, end: int, step: int) -> Alone:
    bounds = [np.array([v]) for v in (start, end, 1, step)]
    return Alone("Slice", [np.random.default_rng(0).normal(size=(2, n)), *bounds])


@pytest.mark.parametrize(
    ("n", "positions", "sizes"),
    [
        (6, [0, 1, 2, 3, 4, 5], [6]),
        (6, [2, 3], [2, 2, 2]),
        (8, [0, 2, 4, 6], [4]),  # every second one: pairs
        (8, [1, 3, 5, 7], [4]),
        (8, [0, 4, 1, 5, 2, 6, 3, 7], [4, 2]),  # a channel shuffle
        (8, [4, 5, 6, 7, 0, 1, 2, 3], [4, 4]),  # halves exchanged
        (3, [0, 0, 1, 1, 2, 2], [3]),  # every one twice: queries that share a key
        (3, [0, 1, 2, 0, 1, 2], [3]),
        (9, [5, 6, 7, 8, 0, 1], [4, 3, 2]),
        (6, [5, 4, 3, 2, 1, 0], [6]),  # a table of its own: the list is free, the axis is not
        (6, [-1, -2], [2]),
        (5, [3, 3, 0], [3]),
        (8, [2, 4], [2]),  # a stride that begins inside its factor
    ],
)
def test_gather(n: int, positions: list[int], sizes: list[int]) -> None:
    alone = _gather(n, positions)
    assert sorted(alone.sizes, reverse=True) == sorted([*sizes, 2], reverse=True)  # 2: the rows
    assert alone.permuted() == (len(sizes) + 1, "")
    assert alone.removed()[1] == ""


@pytest.mark.parametrize(
    ("bounds", "sizes"),
    [
        ((0, 1 << 62, 2), [4]),
        ((1, 8, 2), [4]),
        ((0, 7, 2), [4]),
        ((2, 6, 1), [4, 2, 2]),
        ((-3, -1, 1), [5, 2]),
        ((7, -9, -1), []),  # reversed: the order is fixed
        ((0, 8, 3), []),
    ],
)
def test_slice(bounds: tuple[int, int, int], sizes: list[int]) -> None:
    alone = _slice(8, *bounds)
    assert alone.sizes == sorted([*sizes, 2], reverse=True)
    assert alone.permuted()[1] == ""
    assert alone.removed()[1] == ""


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_list_of_positions(data: st.DataObject) -> None:
    """What is claimed free is free, and its units can go."""
    n = data.draw(st.integers(1, 12))
    if data.draw(st.booleans()):
        positions = data.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=12))
    else:
        counts = data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3))
        strides = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 6]), min_size=3, max_size=3))
        grid = np.indices(counts).reshape(len(counts), -1)
        first = data.draw(st.integers(0, n - 1))
        positions = [(first + int(p)) % n for p in grid.T @ np.array(strides[: len(counts)])]
    alone = _gather(n, positions)
    seed = data.draw(st.integers(0, 99))
    assert alone.permuted(seed)[1] == ""
    assert alone.removed(seed)[1] == ""


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.integers(-14, 14), st.integers(-14, 14), st.sampled_from([-3, -2, -1, 1, 2, 3, 4]))
def test_any_slice(n: int, start: int, end: int, step: int) -> None:
    assume(step > 0 or start >= -n)  # below, ONNX clamps to 0 and numpy takes nothing
    alone = _slice(n, start, end, step)
    assert alone.permuted()[1] == ""
    assert alone.removed()[1] == ""


@given(st.lists(st.tuples(st.integers(2, 4), st.integers(0, 9)), min_size=1, max_size=3), st.integers(0, 5))
def test_a_lattice_says_its_list(steps: list[tuple[int, int]], first: int) -> None:
    """Read back as nested loops, the positions are the same."""

    def walk(loops: list[tuple[int, int]], start: int) -> list[int]:
        if not loops:
            return [start]
        (count, stride), rest = loops[0], loops[1:]
        return [p for k in range(count) for p in walk(rest, start + k * stride)]

    positions = walk(steps, first)
    found = lattice(positions)
    if found is not None:
        assert walk(found, first) == positions
