"""Types of RNN, GRU and LSTM."""

from __future__ import annotations

from .. import dims as _dims
from ..core import Op
from ..dims import Dim
from ..types import TensorType
from .access import attr_int, attr_text, broken, dtype, same, shape, shape_or_unknown
from .opdef import Infer, Inferred


def directions(op: Op) -> int:
    return 2 if attr_text(op, "direction", "forward") == "bidirectional" else 1


def recurrent(gates: int, states: int) -> Infer:
    """X [time, batch, in] (batch first under layout 1), W [D, gates*H, in], R [D, gates*H, H] -> Y, Y_h (, Y_c)."""

    def infer(op: Op) -> list[Inferred]:
        source, weight, recurrence = shape_or_unknown(op, 0, 3), shape(op, 1), shape(op, 2)
        if len(source) != 3 or len(weight) != 3 or len(recurrence) != 3:
            raise broken(op, f"X, W and R have ranks {len(source)}, {len(weight)}, {len(recurrence)}, not 3")
        same(op, source[2], weight[2], "the input sizes of X and W")
        hidden: Dim = same(op, attr_int(op, "hidden_size") or recurrence[2], recurrence[2], "hidden sizes")
        same(op, _dims.mul(hidden, gates), weight[1], "the rows of W and the gates")
        ways = same(op, directions(op), weight[0], "directions")
        return _results(op, source, ways, hidden, states)

    return infer


def _results(op: Op, source: tuple[Dim, ...], ways: Dim, hidden: Dim, states: int) -> list[Inferred]:
    if attr_int(op, "layout"):
        batch, time = source[:2]
        sequence: tuple[Dim, ...] = (batch, time, ways, hidden)
        state: tuple[Dim, ...] = (batch, ways, hidden)
    else:
        time, batch = source[:2]
        sequence, state = (time, ways, batch, hidden), (ways, batch, hidden)
    element = dtype(op)
    return [Inferred(TensorType(element, sequence)), *(Inferred(TensorType(element, state)) for _ in range(states))]
