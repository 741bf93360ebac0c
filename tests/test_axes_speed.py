"""The work of the analysis grows with the graph, not with its square: lines of Python executed, never seconds."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from kit.chains import CHAINS, peeled

from mlc.ir.axes import Axes, analyse
from mlc.ir.core import Module


def counted(module: Module) -> tuple[int, Axes]:
    """The lines that `analyse` executes, and what it finds."""
    lines = 0

    def step(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        axes = analyse(module)
    finally:
        sys.settrace(before)
    return lines, axes


@pytest.mark.parametrize("name", CHAINS)
def test_four_times_the_graph_is_four_times_the_work(name):
    small, large = CHAINS[name](400), CHAINS[name](1600)
    analyse(small)  # imports and caches
    growth = sum(1 for _ in large.walk()) / sum(1 for _ in small.walk())
    assert counted(large)[0] < 1.1 * growth * counted(small)[0]


@pytest.mark.parametrize("name", CHAINS)
def test_recursion_does_not_grow_with_the_graph(name):
    module = CHAINS[name](4000)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len_of_stack() + 60)
    try:
        axes = analyse(module)
    finally:
        sys.setrecursionlimit(limit)
    assert axes.free


def test_an_axis_of_many_pieces_needs_no_deep_stack():
    axes = analyse(peeled(4000))
    assert {c.size for c in axes.classes if c.pin is None} == set()
    assert all(c.pin is not None for c in axes.classes)


def len_of_stack() -> int:
    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth
