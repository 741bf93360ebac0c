"""Along which axis a weight is summed over, and what it is multiplied with there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ....ir.core import Op, Value
from ....ir.ops.access import attr_int
from ....ir.types import TensorType
from ...ports import Array
from ...quantize.weights import Reader


@dataclass(frozen=True)
class Contraction:
    """A weight is summed over `axis`; `data` (if it can be named) has the matching positions along `along`."""

    axis: int
    data: int | None = None  # operand slot
    along: int = 0
    groups: int = 1


def _matmul_right(op: Op, rank: int) -> Contraction:
    return Contraction(rank - 2, 0, -1)


def _matmul_left(op: Op, rank: int) -> Contraction:
    return Contraction(rank - 1, 1, -2)


def _gemm_right(op: Op, rank: int) -> Contraction:
    return Contraction(1 if attr_int(op, "transB") else 0, 0, 0 if attr_int(op, "transA") else 1)


def _gemm_left(op: Op, rank: int) -> Contraction:
    return Contraction(0 if attr_int(op, "transA") else 1, 1, 1 if attr_int(op, "transB") else 0)


def _conv(op: Op, rank: int) -> Contraction:
    return Contraction(1, 0, 1, attr_int(op, "group", 1))


def _conv_transpose(op: Op, rank: int) -> Contraction:
    return Contraction(0, 0, 1)


def _recurrent_input(op: Op, rank: int) -> Contraction:
    return Contraction(2, 0, 2)


def _recurrent_state(op: Op, rank: int) -> Contraction:
    return Contraction(2)  # the states in between are not values of the graph


_RULES: Mapping[tuple[str, int], Callable[[Op, int], Contraction]] = {
    ("MatMul", 0): _matmul_left,
    ("MatMul", 1): _matmul_right,
    ("Gemm", 0): _gemm_left,
    ("Gemm", 1): _gemm_right,
    ("Conv", 1): _conv,
    ("ConvTranspose", 1): _conv_transpose,
    **{(kind, 1): _recurrent_input for kind in ("LSTM", "GRU", "RNN")},
    **{(kind, 2): _recurrent_state for kind in ("LSTM", "GRU", "RNN")},
}


def contraction(reader: Reader, rank: int) -> Contraction | None:
    """How a reader sums over a weight of that rank; None if it does not. The axis is that of the constant."""
    rule = _RULES.get((reader.op.kind, reader.slot))
    if rule is None:
        return None
    found = rule(reader.op, rank)
    return Contraction(1 - found.axis, found.data, found.along) if reader.transposed else found


def data_of(reader: Reader, how: Contraction) -> tuple[Value, int] | None:
    """The computed tensor that a weight is multiplied with, and its axis; None if it cannot be watched."""
    value = reader.op.operand(how.data) if how.data is not None else None
    if value is None or value.constant is not None or not isinstance(value.type, TensorType):
        return None
    rank = value.type.rank
    inside = value.home is not None and value.home.owner is not None
    return None if inside or rank < 2 else (value, how.along % rank)


def spread(numbers: Array, shape: tuple[int, ...], how: Contraction) -> Array:
    """One number per position of the data [n], as an array that broadcasts over a weight of that shape.

    In a grouped convolution [O, I/G, ...] every group of outputs has positions of its own.
    """
    if how.groups == 1:
        return numbers.reshape([-1 if a == how.axis else 1 for a in range(len(shape))])
    grouped = np.repeat(numbers.reshape(how.groups, -1), shape[0] // how.groups, axis=0)
    return grouped.reshape(*grouped.shape, *(1 for _ in shape[2:]))
