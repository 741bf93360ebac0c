"""Axis rules of recurrent layers: RNN, GRU, LSTM and ONNX Runtime's DynamicQuantizeLSTM."""

from __future__ import annotations

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import AxisType
from ..core import Op
from .access import attr_int
from .axes_rules_linear import broadcast

GATE, DIRECTION, TIME = "gate", "direction", "time"


def lstm(op: Op, s: Solver) -> None:
    _recurrent(op, s, s.need(op, 1), s.need(op, 2), gates=4, states=(5, 6))
    _peephole(op, s, s.need(op, 2)[2])


def gru(op: Op, s: Solver) -> None:
    _recurrent(op, s, s.need(op, 1), s.need(op, 2), gates=3, states=(5,))


def rnn(op: Op, s: Solver) -> None:
    _recurrent(op, s, s.need(op, 1), s.need(op, 2), gates=1, states=(5,))


def dynamic_quantize_lstm(op: Op, s: Solver) -> None:
    """As LSTM with W [dirs, i, 4h] and R [dirs, h, 4h]; a scale and a zero point [dirs] or [dirs, 4h] for each."""
    w, r = (_swapped(s.need(op, slot)) for slot in (1, 2))
    _recurrent(op, s, w, r, gates=4, states=(5, 6))
    _peephole(op, s, r[2])
    for slots, weight in (((8, 9), w), ((10, 11), r)):
        for slot in slots:
            parameter = s.operand(op, slot)
            for t, axis in zip(parameter or (), weight):
                s.unify(op, t, axis)


def _swapped(t: Axis) -> Axis:
    if len(t) != 3:
        raise Opaque("malformed")
    return t[0], t[2], t[1]


def _recurrent(op: Op, s: Solver, w: Axis, r: Axis, *, gates: int, states: tuple[int, ...]) -> None:
    """X [time, batch, i], W [dirs, gates*h, i], R [dirs, gates*h, h], B [dirs, 2*gates*h], states [dirs, batch, h].

    With layout 1, X is [batch, time, i], a state is [batch, dirs, h], and so are the results. Both directions share
    one class h: W is one tensor, and units of a direction cannot be told from the other's.
    """
    x, h = s.need(op, 0), r[2]
    first = 0 if attr_int(op, "layout") else 1  # the axis of X that is the batch
    batch, time = x[first], x[1 - first]
    s.pin(op, time, TIME)
    for t in (w[0], r[0]):
        s.pin(op, t, DIRECTION)
    s.unify(op, x[2], w[2])
    for t in (w[1], r[1]):
        s.unify(op, t, _gated(op, s, gates, h))
    bias = s.operand(op, 3)
    if bias is not None:
        s.pin(op, bias[0], DIRECTION)
        s.unify(op, bias[1], _gated(op, s, 2 * gates, h))
    for t in s.operand(op, 4) or ():
        s.unify(op, t, batch)
    for slot in states:
        state = s.operand(op, slot)
        if state is not None:
            s.pin(op, state[1 - first], DIRECTION)
            s.unify(op, state[2], h)
            broadcast(op, s, [(batch,), (state[first],)])
    _results(op, s, ax.resolve(batch), ax.resolve(h))


def _results(op: Op, s: Solver, batch: AxisType, h: AxisType) -> None:
    """Y [time, dirs, batch, h] ([batch, time, dirs, h]) and the last states [dirs, batch, h] ([batch, dirs, h])."""
    for index, value in enumerate(op.results):
        dims = s.shape(value)
        lead = dims[1:-1] if attr_int(op, "layout") else dims[:-2]
        ordered = [s.pinned(op, d, code) for d, code in zip(reversed(lead), (DIRECTION, TIME))][::-1]
        s.out(op, [batch, *ordered, h] if attr_int(op, "layout") else [*ordered, batch, h], index)


def _gated(op: Op, s: Solver, gates: int, h: AxisType) -> AxisType:
    return ax.prod((s.pinned(op, gates, GATE), h))


def _peephole(op: Op, s: Solver, h: AxisType) -> None:
    """P [dirs, 3*h]."""
    peephole = s.operand(op, 7)
    if peephole is not None:
        s.pin(op, peephole[0], DIRECTION)
        s.unify(op, peephole[1], _gated(op, s, 3, h))
