"""Axis rules of contractions: matrix products, convolutions, einsum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import ONE, AxisType
from ..core import Op
from ..dims import exact_div
from .access import attr_int, attr_text

INNER = "attention-inner"  # contracted between two computed tensors: the width of queries and keys


def broadcast(op: Op, s: Solver, operands: Sequence[Axis]) -> list[AxisType]:
    """Align shapes at the right; axes of equal size are one axis, a size of 1 imposes nothing."""
    columns = zip_longest(*(reversed(types) for types in operands), fillvalue=ONE)
    return [_meet(op, s, [t for t in column if ax.size(t) != 1]) for column in columns][::-1]


def _meet(op: Op, s: Solver, types: Sequence[AxisType]) -> AxisType:
    if not types:
        return ONE
    first = types[0]
    for other in types[1:]:
        s.unify(op, first, other)
    return ax.resolve(first)


def contract(op: Op, s: Solver, a: AxisType, b: AxisType, slots: tuple[int, int] = (0, 1)) -> None:
    s.unify(op, a, b)
    if not any(s.is_static(op.operand(slot)) for slot in slots):
        s.mark(op, a, INNER)


def product(op: Op, s: Solver, a: Axis, b: Axis, slots: tuple[int, int] = (0, 1)) -> list[AxisType]:
    """numpy.matmul: the axis types of the result."""
    if not a or not b:
        raise Opaque("malformed")
    contract(op, s, a[-1], b[-2] if len(b) > 1 else b[-1], slots)
    batch = broadcast(op, s, [a[:-2], b[:-2]])
    rows = [a[-2]] if len(a) > 1 else []
    columns = [b[-1]] if len(b) > 1 else []
    return [ax.resolve(t) for t in (*batch, *rows, *columns)]


def matmul(op: Op, s: Solver) -> None:
    s.out(op, product(op, s, s.need(op, 0), s.need(op, 1)))


def fused_matmul(op: Op, s: Solver) -> None:
    """com.microsoft FusedMatMul, TransposeMatMul: factors transposed on request, their first axis moved inwards too."""
    a, b = (_turned(op, s.need(op, slot), side) for slot, side in enumerate("AB"))
    s.out(op, product(op, s, a, b))


def _turned(op: Op, t: Axis, side: str) -> Axis:
    if len(t) < 2:
        return t
    if attr_int(op, f"transBatch{side}"):
        t = (*t[1:-1], t[0], t[-1])
    return (*t[:-2], t[-1], t[-2]) if attr_int(op, f"trans{side}") else t


def gemm(op: Op, s: Solver) -> None:
    """A [m, k] times B [k, n], both transposed on request, plus C that broadcasts."""
    a, b, c = s.need(op, 0), s.need(op, 1), s.operand(op, 2)
    rows, inner = a[::-1] if attr_int(op, "transA") else a
    depth, columns = b[::-1] if attr_int(op, "transB") else b
    contract(op, s, inner, depth)
    s.out(op, broadcast(op, s, [(rows, columns), *([c] if c is not None else [])]))


def conv(op: Op, s: Solver) -> None:
    convolve(op, s, (0, 1), per_output=(2,))


def fused_conv(op: Op, s: Solver) -> None:
    """com.microsoft: Conv, a tensor that is added to it, an activation."""
    convolve(op, s, (0, 1), per_output=(2,))
    added = s.operand(op, 3)
    if added is not None:
        s.out(op, broadcast(op, s, [s.of(op.results[0]) or (), added]))


def qlinear_conv(op: Op, s: Solver) -> None:
    convolve(op, s, (0, 3), per_output=(4, 5, 8))


def conv_integer(op: Op, s: Solver) -> None:
    convolve(op, s, (0, 1), per_output=(3,))


def deform_conv(op: Op, s: Solver) -> None:
    """x, weight, offsets [N, groups * kernel * r, h, w], bias, mask [N, groups * kernel, h, w]."""
    convolve(op, s, (0, 1), per_output=(3,))
    x, groups = s.need(op, 0), attr_int(op, "offset_group", 1)
    inner = ax.static(x[1])
    if inner is None:
        raise Opaque("symbolic-size")
    g = s.regroup(op, [x[1]], [groups, inner // groups])[0]
    for slot in (2, 4):
        moved = s.operand(op, slot)
        if moved is None:
            continue
        s.unify(op, x[0], moved[0])
        taps = exact_div(ax.size(moved[1]), groups)
        if taps is None:
            raise Opaque("symbolic-size")
        s.unify(op, moved[1], ax.prod((g, s.pinned(op, taps, "spatial"))))
        for t in moved[2:]:
            s.pin(op, t, "spatial")


def nhwc_conv(op: Op, s: Solver) -> None:
    """com.microsoft: x [N, space.., C], weight [O, kernel.., C / group], bias [O]; result [N, space.., O]."""
    x, w = (_channels_first(s.need(op, slot)) for slot in (0, 1))
    outputs = _outputs(op, s, x, w, (0, 1))
    _per_output(op, s, outputs, (2,))
    spatial = [s.pinned(op, d, "spatial") for d in s.shape(op.results[0])[1:-1]]
    s.out(op, [x[0], *spatial, ax.resolve(outputs)])


def _channels_first(t: Axis) -> Axis:
    return (t[0], t[-1], *t[1:-1]) if t else t


def convolve(op: Op, s: Solver, slots: tuple[int, int], *, per_output: Sequence[int]) -> None:
    """x [N, C, space..], weight [O, C / group, kernel..]; result [N, O, space..]."""
    x, w = s.need(op, slots[0]), s.need(op, slots[1])
    _finish_conv(op, s, x, _outputs(op, s, x, w, slots), per_output)


def _outputs(op: Op, s: Solver, x: Axis, w: Axis, slots: tuple[int, int]) -> AxisType:
    """The channels of the result; those of x and of the weight unified."""
    group = attr_int(op, "group", 1)
    _pin_window(op, s, x, w)
    if group == 1:
        contract(op, s, x[1], w[1], slots)
        return w[0]
    count = ax.static(w[0])
    if count is None:
        raise Opaque("symbolic-size")
    g = ax.atom(group)
    outputs = ax.prod((g, ax.atom(count // group)))
    s.unify(op, w[0], outputs)
    s.unify(op, x[1], ax.prod((g, w[1])))
    return outputs


def conv_transpose(op: Op, s: Solver) -> None:
    """The weight is [inputs, outputs / group, kernel...]."""
    x, w = s.need(op, 0), s.need(op, 1)
    group = attr_int(op, "group", 1)
    _pin_window(op, s, x, w)
    s.unify(op, x[1], w[0])
    outputs = w[1]
    if group > 1:
        inputs = ax.static(w[0])
        if inputs is None:
            raise Opaque("symbolic-size")
        g = ax.atom(group)
        s.unify(op, w[0], ax.prod((g, ax.atom(inputs // group))))
        outputs = ax.prod((g, w[1]))
    _finish_conv(op, s, x, outputs, (2,))


def _pin_window(op: Op, s: Solver, x: Axis, w: Axis) -> None:
    if len(x) < 2 or len(w) < 2:
        raise Opaque("malformed")
    for t in (*x[2:], *w[2:]):
        s.pin(op, t, "spatial")


def _per_output(op: Op, s: Solver, outputs: AxisType, slots: Sequence[int]) -> None:
    for slot in slots:
        parameter = s.operand(op, slot)
        if parameter:
            broadcast(op, s, [(outputs,), parameter])


def _finish_conv(op: Op, s: Solver, x: Axis, outputs: AxisType, per_output: Sequence[int]) -> None:
    _per_output(op, s, outputs, per_output)
    spatial = [s.pinned(op, d, "spatial") for d in s.shape(op.results[0])[2:]]
    s.out(op, [x[0], ax.resolve(outputs), *spatial])


def einsum(op: Op, s: Solver) -> None:
    """Every letter is one axis type; the axes under `...` are aligned at the right."""
    terms, output = _equation(op, [len(s.need(op, slot)) for slot in range(len(op.operands))])
    found: dict[str, AxisType] = {}
    for slot, term in enumerate(terms):
        for letter, t in zip(term, s.need(op, slot)):
            if letter in found and ax.size(t) != 1 and ax.size(found[letter]) != 1:
                s.unify(op, found[letter], t)
            elif letter not in found or ax.size(found[letter]) == 1:
                found[letter] = t
    if not any(s.is_static(v) for v in op.operands):
        for letter in set(found) - set(output):
            s.mark(op, found[letter], INNER)
    s.out(op, [ax.resolve(found[letter]) for letter in output])


def _equation(op: Op, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The letters of every operand and of the result; the axes of `...` are `.1`, `.2`, ... from the right."""
    inputs, arrow, output = attr_text(op, "equation").replace(" ", "").partition("->")
    texts = inputs.split(",")
    hidden = [rank - len(text.replace("...", "")) for rank, text in zip(ranks, texts)]
    if len(texts) != len(ranks) or any(n < 0 or (n and "..." not in text) for n, text in zip(hidden, texts)):
        raise Opaque("malformed")
    if not arrow:
        letters = sorted(set(inputs) - {",", "."})
        output = "..." * ("..." in inputs) + "".join(x for x in letters if inputs.count(x) == 1)
    return [_letters(t, n) for t, n in zip(texts, hidden)], _letters(output, max(hidden, default=0))


def _letters(term: str, hidden: int) -> list[str]:
    before, dots, after = term.partition("...")
    return [*before, *(f".{i}" for i in range(hidden, 0, -1) if dots), *after]
