"""Axis rules of attention as one operator: what its primitive form (projections, scores, softmax, mix) would say.

With hk key and value heads, each shared by r query heads (Ainslie et al., 2023; r = 1 in Vaswani et al., 2017), the
widths of queries, keys and values are the products hk*r*dk, hk*dk and hk*dv, and that of the result is hk*r*dv.
Scores run over dk (its width is the softmax's scale: `attention-inner`), the softmax over keys (`count-sensitive`).
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import ONE, AxisType
from ..core import Op
from ..dims import Dim, exact_div
from .access import attr_int
from .axes_rules_linear import INNER, broadcast
from .axes_rules_norm import COUNT

TIME = "time"


@dataclass(frozen=True, slots=True)
class Heads:
    """The factors of the hidden axes."""

    kv: AxisType  # heads of keys and values
    shared: AxisType  # query heads for each of them
    key: AxisType  # width of a query and of a key
    value: AxisType

    @property
    def all(self) -> AxisType:
        return ax.prod((self.kv, self.shared))

    @property
    def queries(self) -> AxisType:
        return ax.prod((self.kv, self.shared, self.key))

    @property
    def keys(self) -> AxisType:
        return ax.prod((self.kv, self.key))

    @property
    def values(self) -> AxisType:
        return ax.prod((self.kv, self.value))

    @property
    def mixed(self) -> AxisType:
        return ax.prod((self.kv, self.shared, self.value))


def heads(queries: int, kv: int, key: Dim | None, value: Dim | None) -> Heads:
    """New classes for attention with these counts and widths."""
    if queries < 1 or kv < 1 or queries % kv or key is None or value is None:
        raise Opaque("malformed")
    return Heads(ax.atom(kv), ax.atom(queries // kv), ax.atom(key), ax.atom(value))


def width(t: AxisType, count: int) -> Dim | None:
    """What is left for one of `count` heads of an axis."""
    return exact_div(ax.size(t), count) if count else None


def attention(op: Op, s: Solver) -> None:
    """Q, K, V as [B, S, heads*d] or [B, heads, S, d], a mask that broadcasts to [B, heads, S, T], caches, lengths [B].

    Results: as Q, the caches [B, hk, T, d] with the new keys and values behind the old ones, the scores.
    """
    q, k, v = (s.need(op, slot) for slot in (0, 1, 2))
    flat = len(q) == 3
    h = _standard_heads(op, q, k, v)
    batch, sequence = lay(op, s, q, h.all, h.key)
    keys = with_past(op, s, lay(op, s, k, h.kv, h.key), 4, h.kv, h.key)
    values = with_past(op, s, lay(op, s, v, h.kv, h.value), 5, h.kv, h.value)
    for other in (keys, values):
        s.unify(op, batch, other[0])
    s.unify(op, keys[1], values[1])
    lengths = s.operand(op, 6)
    if lengths:
        s.unify(op, batch, lengths[0])
    windows = any(attr_int(op, f"{side}_window_size", -1) >= 0 for side in ("left", "right"))
    if attr_int(op, "is_causal") or windows or lengths:
        in_order(op, s, sequence, keys[1])
    scores = masked(op, s, 3, (batch, h.all, sequence, keys[1]))
    finish(op, s, h, scores)
    batch, sequence, total = (ax.resolve(t) for t in (scores[0], scores[2], scores[3]))
    s.out(op, [batch, sequence, h.mixed] if flat else [batch, h.all, sequence, ax.resolve(h.value)])
    s.out(op, [batch, ax.resolve(h.kv), total, ax.resolve(h.key)], 1)
    s.out(op, [batch, ax.resolve(h.kv), total, ax.resolve(h.value)], 2)
    s.out(op, [batch, h.all, sequence, total], 3)


def _standard_heads(op: Op, q: Axis, k: Axis, v: Axis) -> Heads:
    if len(q) == 3:
        queries, kv = attr_int(op, "q_num_heads"), attr_int(op, "kv_num_heads")
        return heads(queries, kv, width(q[2], queries), width(v[2], kv))
    counts = ax.static(q[1]), ax.static(k[1])
    if len(q) != 4 or None in counts:
        raise Opaque("symbolic-size")
    return heads(counts[0] or 0, counts[1] or 0, ax.size(q[3]), ax.size(v[3]))


def lay(op: Op, s: Solver, t: Axis, outer: AxisType, inner: AxisType) -> tuple[AxisType, AxisType]:
    """Batch and sequence of a tensor whose other axes are these heads and widths."""
    if len(t) == 3:
        s.unify(op, t[2], ax.prod((outer, inner)))
        return t[0], t[1]
    if len(t) != 4:
        raise Opaque("malformed")
    s.unify(op, t[1], outer)
    s.unify(op, t[3], inner)
    return t[0], t[2]


def with_past(
    op: Op, s: Solver, new: tuple[AxisType, AxisType], slot: int, outer: AxisType, inner: AxisType
) -> tuple[AxisType, AxisType]:
    """Batch and sequence with the cache [B, heads, P, d] of `slot` in front."""
    past = s.operand(op, slot)
    if past is None:
        return new
    batch, time = lay(op, s, past, outer, inner)
    s.unify(op, batch, new[0])
    return batch, ax.concat((time, new[1]))


def in_order(op: Op, s: Solver, *axes: AxisType) -> None:
    for t in axes:
        s.pin(op, t, TIME)


def masked(op: Op, s: Solver, slot: int, scores: Axis) -> Axis:
    """The axes of the scores after a mask or a bias was added; a mask may end before the keys do."""
    mask = s.operand(op, slot)
    if mask is None:
        return scores
    if mask and ax.size(mask[-1]) not in (1, ax.size(scores[-1])):
        in_order(op, s, mask[-1], scores[-1])
        mask = (*mask[:-1], ONE)
    return tuple(broadcast(op, s, [scores, mask]))


def finish(op: Op, s: Solver, h: Heads, scores: Axis) -> None:
    s.mark(op, h.key, INNER)
    s.mark(op, scores[-1], COUNT)


def rotary(op: Op, s: Solver) -> None:
    """RotaryEmbedding (Su et al., 2021): X, cos, sin, positions. Each pair is turned by one angle of the tables."""
    _rotate(op, s, tables=(1, 2), positions=3)


def rotary_contrib(op: Op, s: Solver) -> None:
    """com.microsoft: X, positions, cos, sin."""
    if attr_int(op, "is_packed_batching"):
        raise Opaque("packed-batch")
    _rotate(op, s, tables=(2, 3), positions=1)


def _rotate(op: Op, s: Solver, *, tables: tuple[int, int], positions: int) -> None:
    """X [B, S, heads*d] or [B, heads, S, d]; tables [P, u] addressed by positions [B, S] or an offset, or [B, S, u]."""
    x, cos, sin = s.need(op, 0), s.need(op, tables[0]), s.need(op, tables[1])
    where = s.operand(op, positions)
    pairs = ax.size(cos[-1])
    d = ax.size(x[3]) if len(x) == 4 else None
    count = attr_int(op, "num_heads")
    if d is None:
        d = width(x[2], count) if count else 2 * pairs if isinstance(pairs, int) else None
    turned = pair(op, s, d, cos[-1], attr_int(op, "interleaved"))
    if len(x) == 4:
        s.unify(op, x[3], turned)
    else:
        s.unify(op, x[2], ax.prod((ax.atom(exact_div(ax.size(x[2]), ax.size(turned)) or 1), turned)))
    s.unify(op, cos[-1], sin[-1])
    batch, sequence = x[0], x[2] if len(x) == 4 else x[1]
    _place(op, s, (batch, sequence), [cos[:-1], sin[:-1]], where)
    s.out(op, [ax.resolve(t) for t in x])


def pair(op: Op, s: Solver, d: Dim | None, angle: AxisType, interleaved: int) -> AxisType:
    """The width of a head of which the first 2*u positions are turned: (a, b) pairs side by side or in two halves."""
    u = ax.size(angle)
    if not isinstance(d, int) or not isinstance(u, int) or d < 2 * u:
        raise Opaque("malformed")
    slots = s.pinned(op, 2, "rotary-pair")
    turned = ax.prod((angle, slots)) if interleaved else ax.prod((slots, angle))
    return ax.concat((turned, ax.atom(d - 2 * u))) if d > 2 * u else turned


def _place(op: Op, s: Solver, x: Axis, tables: list[Axis], where: Axis | None) -> None:
    """Which row of the tables turns which position."""
    if where is None:  # tables [B, S, u]
        for table in tables:
            broadcast(op, s, [x, table])
        return
    for table in tables:
        for t in table:
            s.pin(op, t, "data-index")
    if len(where) == 2:
        broadcast(op, s, [x, where])
    else:  # counted from one offset
        in_order(op, s, x[1], *where)
