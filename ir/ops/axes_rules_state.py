"""Axis rules of recurrent layers, control flow and quantization."""

from __future__ import annotations

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import AxisType
from ..core import Op
from .access import attr_int, attr_ints, axis_in
from .axes_rules_linear import broadcast

BLOCK = "block-size"


def lstm(op: Op, s: Solver) -> None:
    _recurrent(op, s, gates=4, states=(5, 6))
    peephole = s.operand(op, 7)
    if peephole is not None:
        s.unify(op, peephole[1], ax.prod((s.pinned(op, 3, "gate"), _hidden(s, op))))
        s.pin(op, peephole[0], "direction")


def gru(op: Op, s: Solver) -> None:
    _recurrent(op, s, gates=3, states=(5,))


def rnn(op: Op, s: Solver) -> None:
    _recurrent(op, s, gates=1, states=(5,))


def _hidden(s: Solver, op: Op) -> AxisType:
    return s.need(op, 2)[2]


def _recurrent(op: Op, s: Solver, *, gates: int, states: tuple[int, ...]) -> None:
    """W [dirs, gates*h, i], R [dirs, gates*h, h], B [dirs, 2*gates*h], states [dirs, batch, h].

    Both directions share one class h: W is one tensor, and units of a direction cannot be told from the other's.
    """
    if attr_int(op, "layout"):
        raise Opaque("unknown-operator")
    x, w, r = s.need(op, 0), s.need(op, 1), s.need(op, 2)
    h = r[2]
    for t in (w[0], r[0], x[0]):
        s.pin(op, t, "direction" if t is not x[0] else "time")
    s.unify(op, x[2], w[2])
    for t, count in ((w[1], gates), (r[1], gates)):
        s.unify(op, t, ax.prod((s.pinned(op, count, "gate"), h)))
    bias = s.operand(op, 3)
    if bias is not None:
        s.pin(op, bias[0], "direction")
        s.unify(op, bias[1], ax.prod((s.pinned(op, 2 * gates, "gate"), h)))
    lengths = s.operand(op, 4)
    for t in lengths or ():
        s.pin(op, t, "time")
    for slot in states:
        state = s.operand(op, slot)
        if state is not None:
            s.pin(op, state[0], "direction")
            s.unify(op, state[2], h)
            broadcast(op, s, [x[1:2], state[1:2]])
    h, batch = ax.resolve(h), ax.resolve(x[1])
    for index, value in enumerate(op.results):
        lead = [
            s.pinned(op, d, "time" if i == 0 and index == 0 else "direction") for i, d in enumerate(s.shape(value)[:-2])
        ]
        s.out(op, [*lead, batch, h], index)


# -- control flow --------------------------------------------------------------------------------------------------


def branch(op: Op, s: Solver) -> None:
    """If: a result is either branch's output."""
    s.operand(op, 0)
    then, other = (s.region(op, op.regions[name]) for name in ("then_branch", "else_branch"))
    for index, (a, b) in enumerate(zip(then, other)):
        joined = s.join(op, a, b)
        if joined is not None:
            s.out(op, joined, index)


def loop(op: Op, s: Solver) -> None:
    """Carried values have one type before, in and after the body; collected ones grow an ordered axis in front."""
    body = op.regions["body"]
    why = s.why(op, "control-flow")
    carried = len(op.operands) - 2
    for slot in (0, 1):
        s.operand(op, slot)
    for formal in body.inputs[:2]:
        s.give(formal, None, why)
    for slot, formal in enumerate(body.inputs[2:], 2):
        s.give(formal, s.operand(op, slot), why)
    outputs = s.region(op, body)
    for index in range(carried):
        _close(op, s, body.inputs[2 + index].type, s.of(body.inputs[2 + index]), outputs[1 + index], index)
    for index in range(carried, len(op.results)):
        collected = outputs[1 + index]
        if collected is not None:
            dims = s.shape(op.results[index])
            s.out(op, [s.pinned(op, dims[0], "control-flow"), *collected], index)


def _close(op: Op, s: Solver, formal_type: object, formal: Axis | None, yielded: Axis | None, index: int) -> None:
    joined = s.join(op, formal, yielded)
    if joined is not None:
        s.out(op, joined, index)


def scan(op: Op, s: Solver) -> None:
    body, why = op.regions["body"], s.why(op, "control-flow")
    inputs = attr_int(op, "num_scan_inputs")
    states = len(op.operands) - inputs
    axes = attr_ints(op, "scan_input_axes") or (0,) * inputs
    for slot, formal in enumerate(body.inputs):
        actual = s.operand(op, slot)
        if actual is not None and slot >= states:
            axis = axis_in(op, axes[slot - states], len(actual))
            s.pin(op, actual[axis], "control-flow")
            actual = actual[:axis] + actual[axis + 1 :]
        s.give(formal, actual, why)
    outputs = s.region(op, body)
    for index in range(states):
        _close(op, s, body.inputs[index].type, s.of(body.inputs[index]), outputs[index], index)
    out_axes = attr_ints(op, "scan_output_axes") or (0,) * (len(outputs) - states)
    for index in range(states, len(outputs)):
        collected = outputs[index]
        if collected is not None:
            axis = axis_in(op, out_axes[index - states], len(collected) + 1)
            dims = s.shape(op.results[index])
            s.out(op, [*collected[:axis], s.pinned(op, dims[axis], "control-flow"), *collected[axis:]], index)


# -- quantization --------------------------------------------------------------------------------------------------


def quantize(op: Op, s: Solver) -> None:
    """QuantizeLinear, DequantizeLinear: one scale for all, one per position of an axis, or one per block."""
    x = list(s.need(op, 0))
    block, axis = attr_int(op, "block_size"), attr_int(op, "axis", 1)
    for slot in (1, 2):
        parameter = s.operand(op, slot)
        if parameter is None:
            continue
        if block and len(parameter) == len(x):
            _blocks(op, s, x, parameter, axis_in(op, axis, len(x)), block)
        elif len(parameter) == 1 and x and ax.size(parameter[0]) != 1:
            s.unify(op, x[axis_in(op, axis, len(x))], parameter[0])
    s.out(op, [ax.resolve(t) for t in x])


def _blocks(op: Op, s: Solver, x: list[AxisType], parameter: Axis, axis: int, block: int) -> None:
    for i, (t, p) in enumerate(zip(x, parameter)):
        if i != axis:
            s.unify(op, t, p)
            continue
        n = ax.static(t)
        if n is None or n % block:
            s.pin(op, t, BLOCK)
            s.pin(op, p, BLOCK)
            continue
        inside = ax.atom(block)
        s.mark(op, inside, BLOCK)
        s.unify(op, t, ax.prod((p, inside)))


def dynamic_quantize(op: Op, s: Solver) -> None:
    s.out(op, s.need(op, 0))
