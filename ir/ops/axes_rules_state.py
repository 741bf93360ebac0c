"""Axis rules of control flow: bodies are analysed with formal and actual values joined."""

from __future__ import annotations

from ..axis_solver import Axis, Solver
from ..core import Op
from .access import attr_int, attr_ints, axis_in


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
