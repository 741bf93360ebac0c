"""Which constants are weights, who reads them and along which axis they may share scales.

A weight is a constant of floats of rank 2 or more. Its readers are found through what only renames elements (a
transposition, a Cast between float types), so that a table that is both an embedding and, transposed, the matrix of
the output layer is one weight with two readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...ir.core import Module, Op, Value
from ...ir.ops.access import ints
from ...ir.ops.table import lookup
from ...ir.rows import sliced_rows
from ...ir.types import TensorType

#: Constants of this size are worth a line in the report when they stay as they are.
_NOTABLE_BYTES = 16 << 10


@dataclass(frozen=True)
class Reader:
    """Operand `slot` of `op` reads the weight, transposed or not."""

    op: Op
    slot: int
    transposed: bool

    @property
    def site(self) -> str:
        return self.op.name or self.op.kind


@dataclass(frozen=True)
class Weight:
    """A constant, the values that stand for it in full (itself, and float Casts of it) and its readers."""

    value: Value
    casts: tuple[Op, ...]
    readers: tuple[Reader, ...]

    @property
    def name(self) -> str:
        return self.value.name


def float_weights(module: Module) -> Iterator[Weight]:
    """Every constant of floats of rank 2 or more, with its readers, in the order of the module."""
    for value in module.constants.values():
        assert value.constant is not None
        if value.constant.dtype.is_float and value.constant.type.rank >= 2:
            casts = tuple(op for op in value.users if _is_float_cast(op))
            readers = [r for root in (value, *(c.result for c in casts)) for r in _readers(root, False)]
            yield Weight(value, casts, tuple(r for r in readers if r.op not in casts))


def _is_float_cast(op: Op) -> bool:
    if op.kind != "Cast":
        return False
    made = op.result.type
    return isinstance(made, TensorType) and made.dtype.is_float


def _readers(value: Value, transposed: bool) -> Iterator[Reader]:
    for use in value.uses:
        if is_matrix_transpose(use.op):
            yield from _readers(use.op.result, not transposed)
        else:
            yield Reader(use.op, use.slot, transposed)


def is_matrix_transpose(op: Op) -> bool:
    """Whether the op swaps the two axes of a matrix."""
    if op.kind != "Transpose":
        return False
    source = op.operand(0)
    if source is None or not isinstance(source.type, TensorType) or source.type.rank != 2:
        return False
    return tuple(op.attrs.get("perm", (1, 0))) == (1, 0)  # type: ignore[arg-type]


def _matmul(op: Op) -> int | str:
    return 0


def _gemm(op: Op) -> int | str:
    return 1 if op.attrs.get("transB", 0) else 0


_FOLDED = "it takes the same rows on every run: runtimes fold that, and would not fold codes"


def _gather(op: Op) -> int | str:
    if ints(op.operand(1)) is not None:
        return _FOLDED
    return 1 if op.attrs.get("axis", 0) in (0, -2) else "rows are not gathered along the first axis"


def _slice(op: Op) -> int | str:
    if ints(op.operand(2)) is not None:
        return _FOLDED
    return 1 if sliced_rows(op) is not None else "a slice that is not a range of rows has no 4-bit form"


#: (operator, operand) to the axis of the operand, a matrix, along which elements meet in one sum or one row.
BLOCK_AXES: dict[tuple[str, int], Callable[[Op], int | str]] = {
    ("MatMul", 1): _matmul,
    ("Gemm", 1): _gemm,
    ("Gather", 0): _gather,
    ("Slice", 0): _slice,
}
#: Operators that read rows of a table.
LOOKUPS = frozenset({"Gather", "Slice"})


def block_axis(reader: Reader, rank: int) -> int | str:
    """The axis of the *constant* along which blocks may lie for this reader; a string says why there is none."""
    rule = BLOCK_AXES.get((reader.op.kind, reader.slot))
    if rule is None:
        return f"{describe(reader)} has no 4-bit form"
    if rank != 2:
        return f"a weight of rank {rank} has no 4-bit form"
    axis = rule(reader.op)
    return axis if isinstance(axis, str) else (1 - axis if reader.transposed else axis)


def describe(reader: Reader) -> str:
    if reader.op.is_terminator:
        return "an output of the graph"
    if (reader.op.kind, reader.slot) == ("MatMul", 0):
        return "the left side of a MatMul"
    return f"operand {reader.slot} of {reader.op.kind}"


def is_notable(weight: Weight, reader: Reader) -> bool:
    """Whether the report should say why this reader keeps its floats."""
    if reader.op.is_terminator:
        return False
    known = (reader.op.kind, reader.slot) in BLOCK_AXES or reader.slot in lookup(reader.op.kind).weights
    return known or (weight.value.constant is not None and weight.value.constant.nbytes >= _NOTABLE_BYTES)
