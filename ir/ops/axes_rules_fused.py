"""Axis rules of ONNX Runtime's fused operators (domain com.microsoft): norms, embeddings, biased activations."""

from __future__ import annotations

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import ONE
from ..core import Op
from .access import attr_int
from .axes_rules_linear import broadcast
from .axes_rules_norm import COUNT


def skip_layer_norm(op: Op, s: Solver) -> None:
    """input + skip (+ bias), normalized over the last axis; the fourth result is the sum."""
    total = tuple(broadcast(op, s, [s.need(op, 0), s.need(op, 1)]))
    total = _with_vectors(op, s, total, range(2, len(op.operands)))
    s.mark(op, total[-1], COUNT)
    s.out(op, total)
    for index in (1, 2):
        s.out(op, [*total[:-1], ONE], index)
    s.out(op, total, 3)


def _with_vectors(op: Op, s: Solver, x: Axis, slots: range) -> Axis:
    """Operands [n] that belong to the last axis of x."""
    for slot in slots:
        vector = s.operand(op, slot)
        if vector:
            s.unify(op, x[-1], vector[-1])
    return tuple(ax.resolve(t) for t in x)


def embed_layer_norm(op: Op, s: Solver) -> None:
    """Ids [B, S], segments [B, S], tables of words, positions and segments [.., D], norm [D], mask, positions [B, S].

    Results: [B, S, D], the length of each mask [B], the sum before the norm.
    """
    ids, width = s.need(op, 0), s.need(op, 2)[-1]
    for slot in (2, 3, 4):
        table = s.operand(op, slot)
        if table is not None:
            s.pin(op, table[0], "data-index")
            s.unify(op, width, table[1])
    s.pin(op, ids[1], "time")  # positions are counted along it
    for slot in (1, 7, 8):
        given = s.operand(op, slot)
        for a, b in zip(ids, given or ()):
            if ax.size(b) != 1:
                s.unify(op, a, b)
    made = _with_vectors(op, s, (ids[0], ids[1], width), range(5, 7))
    s.mark(op, made[2], COUNT)
    s.out(op, made)
    s.out(op, made[:1], 1)
    s.out(op, made, 2)


def split_gelu(op: Op, s: Solver) -> None:
    """BiasSplitGelu: x [.., 2n] + bias [2n], its first half times gelu of its second."""
    x = _with_vectors(op, s, s.need(op, 0), range(1, 2))
    n = ax.static(x[-1])
    if n is None or n % 2:
        raise Opaque("symbolic-size")
    value, gate = s.split(op, x[-1], [n // 2, n // 2])
    s.unify(op, value, gate)
    s.out(op, [*x[:-1], ax.resolve(value)])


def bias_add(op: Op, s: Solver) -> None:
    """x + bias + skip."""
    s.out(op, broadcast(op, s, [s.need(op, slot) for slot in (0, 1, 2)]))


def group_norm(op: Op, s: Solver) -> None:
    """GroupNorm: x [N, .., C] (or [N, C, ..]), scale and shift [C], groups of neighbouring channels."""
    s.out(op, _grouped(op, s, s.need(op, 0)))


def skip_group_norm(op: Op, s: Solver) -> None:
    """SkipGroupNorm: GroupNorm of x + skip + bias, and the sum; skip is like x, [N, 1, 1, C] or [N, C]."""
    x, skip, bias = s.need(op, 0), s.need(op, 3), s.operand(op, 4)
    if not attr_int(op, "channels_last", 1):
        raise Opaque("channels-first")
    skip = skip if len(skip) == len(x) else (skip[0], *(ONE for _ in x[2:]), skip[-1])
    total = tuple(broadcast(op, s, [x, skip, *([bias] if bias is not None else [])]))
    total = _grouped(op, s, total)
    s.out(op, total)
    s.out(op, total, 1)


def _grouped(op: Op, s: Solver, x: Axis) -> Axis:
    channel = -1 if attr_int(op, "channels_last", 1) else 1
    n, groups = ax.static(x[channel]), attr_int(op, "groups", 1)
    if n is None or n % groups:
        raise Opaque("symbolic-size")
    inner = s.regroup(op, [x[channel]], [groups, n // groups])[1]
    space = x[1:-1] if channel == -1 else x[2:]
    for slot in (1, 2):
        s.unify(op, x[channel], s.need(op, slot)[0])
    for t in (inner, *space):
        s.mark(op, t, COUNT)
    return tuple(ax.resolve(t) for t in x)
