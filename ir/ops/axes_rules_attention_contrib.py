"""Axis rules of ONNX Runtime's attention operators: Attention, QAttention, MultiHeadAttention, GroupQueryAttention."""

from __future__ import annotations

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import AxisType
from ..core import Op
from .access import attr_int, attr_ints, attr_text
from .axes_rules_attention import Heads, finish, heads, in_order, lay, masked, pair, width, with_past
from .axes_rules_linear import contract


def fused(op: Op, s: Solver) -> None:
    """Attention: input [B, S, in], weight [in, q + k + v] and bias, mask, past [2, B, heads, P, d], bias of scores."""
    _projected(op, s, mask=3, past=4, added=5)


def quantized(op: Op, s: Solver) -> None:
    """QAttention: input, weight, bias, scales of both, mask, zero points of both, past."""
    weight = s.need(op, 1)
    for slot in (4, 7):
        parameter = s.operand(op, slot)
        if parameter and ax.size(parameter[0]) != 1:
            s.unify(op, parameter[0], weight[1])
    _projected(op, s, mask=5, past=8, added=None)


def _projected(op: Op, s: Solver, *, mask: int, past: int, added: int | None) -> None:
    x, weight, bias = s.need(op, 0), s.need(op, 1), s.operand(op, 2)
    h = _fused_heads(op, weight[1])
    contract(op, s, x[2], weight[0])
    projections = ax.concat((h.queries, h.keys, h.values))
    s.unify(op, weight[1], projections)
    if bias is not None:
        s.unify(op, bias[0], weight[1])
    if attr_int(op, "do_rotary"):
        s.pin(op, h.key, "rotary-pair")  # by tables inside the kernel
    batch, sequence = x[0], x[1]
    total = _fused_past(op, s, past, h, (batch, sequence))
    _padding(op, s, mask, batch, sequence, total)
    if attr_int(op, "unidirectional"):
        in_order(op, s, sequence, total)
    scores: Axis = (batch, h.all, sequence, total)
    scores = scores if added is None else masked(op, s, added, scores)
    finish(op, s, h, scores)
    s.out(op, [ax.resolve(batch), ax.resolve(sequence), h.mixed])
    if _used(op, 1):
        s.unify(op, h.key, h.value)
        slots, time = s.pinned(op, 2, "fixed-slots"), ax.resolve(total)
        s.out(op, [slots, ax.resolve(batch), ax.resolve(h.kv), time, ax.resolve(h.key)], 1)


def _fused_heads(op: Op, columns: AxisType) -> Heads:
    n, count, sizes = ax.static(columns), attr_int(op, "num_heads"), attr_ints(op, "qkv_hidden_sizes")
    if n is None or (sizes is not None and (len(sizes) != 3 or sizes[0] != sizes[1])):
        raise Opaque("malformed")
    q, _, v = sizes or (n // 3,) * 3
    if n != 2 * q + v or not count or q % count or v % count:
        raise Opaque("malformed")
    return heads(count, count, q // count, v // count)


def _fused_past(op: Op, s: Solver, slot: int, h: Heads, new: tuple[AxisType, AxisType]) -> AxisType:
    """All keys: the past [2, B, heads, P, d] holds keys and values of one width."""
    past = s.operand(op, slot)
    if past is None:
        return new[1]
    if attr_int(op, "past_present_share_buffer"):
        raise Opaque("shared-cache")
    s.pin(op, past[0], "fixed-slots")
    for a, b in zip(past[1:], (new[0], h.kv, past[3], h.key)):
        s.unify(op, a, b)
    s.unify(op, h.key, h.value)
    return ax.concat((past[3], new[1]))


def _padding(op: Op, s: Solver, slot: int, batch: AxisType, sequence: AxisType, total: AxisType) -> None:
    """A mask [B, T] or [B, S, T]; lengths [B], and other forms, count positions from the start."""
    mask = s.operand(op, slot)
    if mask is None:
        return
    wanted = {2: (batch, total), 3: (batch, sequence, total)}.get(len(mask))
    if wanted is None or any(ax.size(a) != ax.size(b) for a, b in zip(mask, wanted)):
        for t in mask:
            s.pin(op, t, "time")
        return in_order(op, s, total)
    for a, b in zip(mask, wanted):
        s.unify(op, a, b)


def _used(op: Op, index: int) -> bool:
    """Whether somebody reads a result that is optional."""
    return index < len(op.results) and bool(op.results[index].uses)


def multi_head(op: Op, s: Solver) -> None:
    """Query [B, S, heads*d] or [B, S, heads, 3, d], key, value, bias, padding, bias of scores, past key and value."""
    if any(op.operand(slot) is not None for slot in (8, 9)):
        raise Opaque("beam-search")
    q, count = s.need(op, 0), attr_int(op, "num_heads")
    key, value = s.operand(op, 1), s.operand(op, 2)
    h = _multi_heads(q, key, value, count)
    batch, sequence = _packed(op, s, q, h) if len(q) == 5 else lay(op, s, q, h.all, h.key)
    keys = _keys(op, s, key, h.kv, h.key, h) or (batch, sequence)
    values = _keys(op, s, value, h.kv, h.value, h) or keys
    keys, values = with_past(op, s, keys, 6, h.kv, h.key), with_past(op, s, values, 7, h.kv, h.value)
    for other in (keys, values):
        s.unify(op, batch, other[0])
    s.unify(op, keys[1], values[1])
    bias = s.operand(op, 3)
    if bias is not None:
        s.unify(op, bias[0], ax.concat((h.queries, h.keys, h.values)))
    _padding(op, s, 4, batch, sequence, keys[1])
    if attr_int(op, "unidirectional"):
        in_order(op, s, sequence, keys[1])
    scores = masked(op, s, 5, (batch, h.all, sequence, keys[1]))
    finish(op, s, h, scores)
    _attended(op, s, h, tuple(ax.resolve(t) for t in scores))


def _attended(op: Op, s: Solver, h: Heads, scores: Axis) -> None:
    """The result [B, S, heads*dv], all keys and values [B, hk, T, d], the scores."""
    batch, every, sequence, total = scores
    s.out(op, [batch, sequence, h.mixed])
    s.out(op, [batch, ax.resolve(h.kv), total, ax.resolve(h.key)], 1)
    s.out(op, [batch, ax.resolve(h.kv), total, ax.resolve(h.value)], 2)
    s.out(op, [batch, every, sequence, total], 3)


def _multi_heads(q: Axis, key: Axis | None, value: Axis | None, count: int) -> Heads:
    if len(q) == 5:
        return heads(count, count, ax.size(q[4]), ax.size(q[4]))
    if len(q) != 3 or key is None:
        raise Opaque("malformed")
    if value is None:  # [B, T, heads, 2, d]
        return heads(count, count, width(q[2], count), ax.size(key[-1]))
    return heads(count, count, width(q[2], count), ax.size(value[3]) if len(value) == 4 else width(value[2], count))


def _packed(op: Op, s: Solver, t: Axis, h: Heads) -> tuple[AxisType, AxisType]:
    """[B, S, heads, slots, d]: queries, keys and values share one width."""
    s.unify(op, t[2], h.kv)
    s.pin(op, t[3], "fixed-slots")
    s.unify(op, t[4], h.key)
    s.unify(op, h.key, h.value)
    return t[0], t[1]


def _keys(
    op: Op, s: Solver, t: Axis | None, outer: AxisType, inner: AxisType, h: Heads
) -> tuple[AxisType, AxisType] | None:
    if t is None:
        return None
    return _packed(op, s, t, h) if len(t) == 5 else lay(op, s, t, outer, inner)


def group_query(op: Op, s: Solver) -> None:
    """Query, key, value (or all in one), past key and value, lengths, total, cos, sin, positions, bias, sinks.

    Causal: query i sees the keys up to its own position.
    """
    if any(op.operand(slot) is not None for slot in range(12, len(op.operands))):
        raise Opaque("unknown-option")
    if any(attr_text(op, f"{side}_quant_type", "NONE") != "NONE" for side in "kv"):
        raise Opaque("quantized-cache")
    q, key, value = s.need(op, 0), s.operand(op, 1), s.operand(op, 2)
    queries, kv = attr_int(op, "num_heads"), attr_int(op, "kv_num_heads")
    d = width(q[2], queries + 2 * kv if key is None else queries)
    h = heads(queries, kv, d, d)
    batch, sequence = q[0], q[1]
    in_order(op, s, sequence)
    if key is None or value is None:
        s.unify(op, q[2], ax.concat((h.queries, h.keys, h.values)))
    else:
        s.unify(op, q[2], h.queries)
        for t, hidden in ((key, h.keys), (value, h.values)):
            s.unify(op, t[0], batch)
            s.unify(op, t[2], hidden)
            in_order(op, s, t[1])
    for slot, inner in ((3, h.key), (4, h.value)):
        past = s.operand(op, slot)
        if past is not None:
            s.unify(op, lay(op, s, past, h.kv, inner)[0], batch)
            in_order(op, s, past[2])
    _turned(op, s, h, batch)
    present = s.shape(op.results[1])[2] if len(op.results) > 1 else 0
    total = s.pinned(op, present, "time")
    _sinks_and_bias(op, s, h, batch)
    finish(op, s, h, (batch, total))
    _attended(op, s, h, tuple(ax.resolve(t) for t in (batch, h.all, sequence, total)))


def _turned(op: Op, s: Solver, h: Heads, batch: AxisType) -> None:
    """Lengths [B], positions [B, S], and the tables [P, u] of rotary embedding, which turn the pairs of a head."""
    lengths, positions = s.operand(op, 5), s.operand(op, 9)
    for given in (lengths, positions):
        if given:
            s.unify(op, given[0], batch) if ax.size(given[0]) == ax.size(batch) else s.pin(op, given[0], "time")
            in_order(op, s, *given[1:])
    cos, sin = s.operand(op, 7), s.operand(op, 8)
    if attr_int(op, "do_rotary") and (cos is None or sin is None):
        raise Opaque("malformed")
    for table in (cos, sin):
        if table is not None:
            s.pin(op, table[0], "data-index")
    if cos is not None and sin is not None and attr_int(op, "do_rotary"):
        s.unify(op, cos[1], sin[1])
        s.unify(op, h.key, pair(op, s, ax.size(h.key), cos[1], attr_int(op, "rotary_interleaved")))


def _sinks_and_bias(op: Op, s: Solver, h: Heads, batch: AxisType) -> None:
    """A bias of the scores [B or 1, heads or 1, S, T], and one logit [heads] for nothing at all."""
    bias, sinks = s.operand(op, 10), s.operand(op, 11)
    if bias is not None:
        for t, wanted in zip(bias, (batch, h.all)):
            if ax.size(t) != 1:
                s.unify(op, t, wanted)
        in_order(op, s, *bias[2:])
    if sinks:
        s.unify(op, sinks[0], h.all)
