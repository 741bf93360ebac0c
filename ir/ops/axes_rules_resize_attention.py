"""What attention operators state of their heads and widths, when heads or positions of heads are removed.

The scale of the scores is a fact of the trained model: where an operator derives it from the width of a head, it is
written down before that width shrinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from .. import axis_types as ax
from ..axis_types import AxisType
from ..core import Ints, Op
from ..dims import Dim
from .access import attr_float, attr_int, attr_ints
from .axes_resizer import Resize, Resizer


def _keep_scale(op: Op, r: Resizer, before: Dim, after: Dim) -> None:
    """1 / sqrt(d) of the width that the model was trained with."""
    if before != after and not attr_float(op, "scale"):
        if not isinstance(before, int):
            raise r.refuse(op, "the width of a head depends on the input")
        r.rw.set_attr(op, "scale", 1 / sqrt(before))


def _set_count(op: Op, r: Resizer, name: str, t: AxisType) -> int:
    """An attribute that counts the heads in an axis [heads * d]; how many there are."""
    left = r.count(op, t, attr_int(op, name))
    if left != attr_int(op, name):
        r.rw.set_attr(op, name, left)
    return left


def standard(op: Op, r: Resizer) -> None:
    """Attention: the counts are stated where heads are folded into the last axis."""
    q, k = r.types(op.operand(0)), r.types(op.operand(1))
    if len(q) == 4:
        return _keep_scale(op, r, ax.size(q[3]), r.size(q[3]))
    before = _width(op, r, q[2], attr_int(op, "q_num_heads"))
    left = _set_count(op, r, "q_num_heads", q[2])
    _set_count(op, r, "kv_num_heads", k[2])
    _keep_scale(op, r, before, r.number(op, q[2]) // left)


def _width(op: Op, r: Resizer, t: AxisType, count: int) -> int:
    n = ax.static(t)
    if n is None or not count:
        raise r.refuse(op, "the width of a head depends on the input")
    return n // count


def projected(op: Op, r: Resizer) -> None:
    """com.microsoft Attention: heads, and the widths of the three projections in the weight."""
    _projected(op, r, states_sizes=True)


def projected_alike(op: Op, r: Resizer) -> None:
    """QAttention cannot state three widths: they have to stay the same."""
    _projected(op, r, states_sizes=False)


def _projected(op: Op, r: Resizer, *, states_sizes: bool) -> None:
    columns, stated = r.types(op.operand(1))[1], attr_ints(op, "qkv_hidden_sizes")
    sizes = stated or (_width(op, r, columns, 3),) * 3
    parts = _parts(op, r, columns, sizes)
    count = attr_int(op, "num_heads")
    left = _set_count(op, r, "num_heads", parts[0])
    now = tuple(r.number(op, t) for t in parts)
    if not states_sizes:
        _one_width(op, r, [n // left for n in now])
    elif (stated or len(set(now)) > 1) and now != stated:
        r.rw.set_attr(op, "qkv_hidden_sizes", Ints(now))
    _keep_scale(op, r, sizes[0] // count, now[0] // left)


def _parts(op: Op, r: Resizer, t: AxisType, sizes: Sequence[int]) -> list[AxisType]:
    found = ax.split(t, sizes)
    if found is None:
        raise r.refuse(op, "queries, keys and values cannot be told apart")
    return found


def _one_width(op: Op, r: Resizer, widths: Sequence[Dim]) -> None:
    if len(set(widths)) > 1:
        raise r.refuse(op, "keys and values have to keep one width; remove the same number from both")


def multi_head(op: Op, r: Resizer) -> None:
    """Where keys and values come heads first, or are cached, they have one width."""
    q, value = r.types(op.operand(0)), r.types(op.operand(2))
    if len(q) == 5:
        r.rw.set_attr(op, "num_heads", r.number(op, q[2]))
        return _keep_scale(op, r, ax.size(q[4]), r.size(q[4]))
    before = _width(op, r, q[2], attr_int(op, "num_heads"))
    left = _set_count(op, r, "num_heads", q[2])
    now = r.number(op, q[2]) // left
    if len(value) == 4:
        _one_width(op, r, [now, r.size(value[3])])
    elif op.operand(6) is not None:
        _one_width(op, r, [now, r.number(op, value[2]) // left])
    _keep_scale(op, r, before, now)


def group_query(op: Op, r: Resizer) -> None:
    """Keys and values have one width here: what is removed from one has to be removed from the other."""
    q, queries, kv = r.types(op.operand(0)), attr_int(op, "num_heads"), attr_int(op, "kv_num_heads")
    if op.operand(1) is None:
        d = _width(op, r, q[2], queries + 2 * kv)
        parts = _parts(op, r, q[2], (queries * d, kv * d, kv * d))
    else:
        d = _width(op, r, q[2], queries)
        parts = [q[2], *(r.types(op.operand(slot))[2] for slot in (1, 2))]
    left, shared = _set_count(op, r, "num_heads", parts[0]), _set_count(op, r, "kv_num_heads", parts[1])
    widths = [r.number(op, t) // n for t, n in zip(parts, (left, shared, shared))]
    _one_width(op, r, widths)
    step = 16 if attr_int(op, "do_rotary") else 8
    if widths[0] % step:
        raise r.refuse(op, f"the kernel wants heads of a multiple of {step}, not of {widths[0]}")
    _keep_scale(op, r, d, widths[0])


def rotary(cos: int) -> Resize:
    """RotaryEmbedding with its cosines [.., u] in this slot: the heads, and the turned width 2*u if it is stated."""

    def resize(op: Op, r: Resizer) -> None:
        x, angles = r.types(op.operand(0)), r.types(op.operand(cos))[-1]
        if len(x) == 3 and attr_int(op, "num_heads"):
            _set_count(op, r, "num_heads", x[2])
        if attr_int(op, "rotary_embedding_dim"):
            r.rw.set_attr(op, "rotary_embedding_dim", 2 * r.number(op, angles))

    return resize
