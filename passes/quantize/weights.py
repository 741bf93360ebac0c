"""Which constants are weights, who reads them and along which axis they may share scales.

A weight is a constant of floats of rank 2 or more. Its readers are found through what only renames elements (a
transposition, a Cast between float types), so that a table that is both an embedding and, transposed, the matrix of
the output layer is one weight with two readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ...ir.core import Module, Op, Value
from ...ir.ops.access import ints
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from ...ir.rows import sliced_rows
from ...ir.types import TensorType
from ..base import site_name

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
        return site_name(self.op) if self.op.results else self.op.kind  # the end of a graph has no results


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
    """Every constant of floats of rank 2 or more, with its readers, in the order of the module.

    Scales of weights that are stored as codes are no weights.
    """
    for value in module.constants.values():
        assert value.constant is not None
        if value.constant.dtype.is_float and value.constant.type.rank >= 2 and not _scales_codes(value):
            casts = tuple(op for op in value.users if _is_float_cast(op))
            readers = [r for root in (value, *(c.result for c in casts)) for r in _readers(root, False)]
            yield Weight(value, casts, tuple(r for r in readers if r.op not in casts))


#: What codes go through when they are widened: at load, or by a DequantizeLinear.
_WIDENING = frozenset(
    ("BitShift", "BitwiseAnd", "Cast", "Gather", "Identity", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Transpose")
)
_CODE_BITS = 8


def is_stored(value: Value | None) -> bool:
    """Whether a value is a weight that is stored as codes: computed from a constant of few bits, and constants."""
    if value is None:
        return False
    if value.op is None:
        return (
            value.constant is not None and value.constant.dtype.is_integer and value.constant.dtype.bits <= _CODE_BITS
        )
    if value.op.kind == "DequantizeLinear":
        return is_stored(value.op.operand(0))
    operands = [v for v in value.op.operands if v is not None]
    stored = [is_stored(v) for v in operands] if value.op.kind in _WIDENING else []
    return any(stored) and all(s or _from_constants(v) for s, v in zip(stored, operands))


def _from_constants(value: Value) -> bool:
    if value.op is None:
        return value.constant is not None
    return value.op.kind in _WIDENING and all(v is None or _from_constants(v) for v in value.op.operands)


def _scales_codes(value: Value) -> bool:
    """Whether a constant only takes part in widening codes."""
    return bool(value.uses) and all(
        bool(op.results) and (is_stored(op.results[0]) or (op.kind in _WIDENING and _scales_codes(op.results[0])))
        for op in value.users
    )


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


@dataclass(frozen=True)
class Layout:
    """How codes of a weight may lie for one reader, in axes of the constant.

    Elements along `axis` meet in one sum (or one row) and share scales in blocks. `kernel`: some runtimes compute from
    such blocks; else the codes are only storage, and where blocks would be too short each index of `outputs` has a
    scale of its own.
    """

    axis: int
    outputs: int
    kernel: bool = False


_FOLDED = "it takes the same rows on every run: runtimes fold that, and would not fold codes"
Rule = Callable[[Op, int], Layout | str]


def _at(axis: int, outputs: int, *, kernel: bool = False) -> Rule:
    """Always the same axes, counted from the end if negative."""
    return lambda op, rank: Layout(axis % rank, outputs % rank, kernel and rank == 2)


def _gemm_left(op: Op, rank: int) -> Layout | str:
    return Layout(0, 1) if op.attrs.get("transA", 0) else Layout(1, 0)


def _gemm_right(op: Op, rank: int) -> Layout | str:
    return Layout(1, 0, kernel=True) if op.attrs.get("transB", 0) else Layout(0, 1, kernel=True)


def _gather(op: Op, rank: int) -> Layout | str:
    if ints(op.operand(1)) is not None:
        return _FOLDED
    if rank == 2 and op.attrs.get("axis", 0) in (0, -2):
        return Layout(1, 0, kernel=True)
    return Layout(rank - 1, 0)


def _slice(op: Op, rank: int) -> Layout | str:
    if ints(op.operand(2)) is not None:
        return _FOLDED
    return Layout(rank - 1, 0, kernel=rank == 2 and sliced_rows(op) is not None)


#: (operator, operand) to the layout of its codes, or why there is none.
LAYOUTS: dict[tuple[str, int], Rule] = {
    ("MatMul", 0): _at(-1, -2),
    ("MatMul", 1): _at(-2, -1, kernel=True),
    ("Gemm", 0): _gemm_left,
    ("Gemm", 1): _gemm_right,
    ("Einsum", 0): _at(-1, 0),
    ("Einsum", 1): _at(-1, 0),
    ("Gather", 0): _gather,
    ("Slice", 0): _slice,
    ("Conv", 1): _at(1, 0),
    ("ConvTranspose", 1): _at(0, 1),
    ("DeformConv", 1): _at(1, 0),
}
LAYOUTS |= {(kind, slot): _at(2, 1) for kind in ("LSTM", "GRU", "RNN") for slot in (1, 2)}
#: Operators that read rows of a table.
LOOKUPS = frozenset({"Gather", "Slice"})


def layout(reader: Reader, rank: int) -> Layout | str:
    """How codes of the *constant* may lie for this reader; a string says why they may not."""
    rule = LAYOUTS.get((reader.op.kind, reader.slot))
    if rule is None:
        return f"{describe(reader)} has no form in few bits"
    found = rule(reader.op, rank)
    if isinstance(found, str) or not reader.transposed:
        return found
    return Layout(1 - found.axis, 1 - found.outputs, found.kernel)


def computed_weights(module: Module, allows: Callable[[Op], bool] = lambda op: True) -> Iterator[Value]:
    """Operands in the place of a weight that are computed from constants: weights, once they are folded.

    Those of operators that `allows` admits. What `float_weights` looks through, and weights that are stored as codes,
    are none.
    """
    whole: dict[Value, bool] = {}  # what is computed from constants, and whether it stands for one as it is
    for op in module.walk():
        for slot, value in enumerate(op.operands) if allows(op) else ():
            if value is not None and (op.kind, slot) in LAYOUTS and whole.get(value) is False and _may_be_codes(value):
                yield value
        if _may_fold(op) and all(value is None or value in whole or _is_known(value) for value in op.operands):
            alike = (is_matrix_transpose(op) or _is_float_cast(op)) and whole.get(op.operands[0], True)  # type: ignore[arg-type]
            whole |= dict.fromkeys(op.results, alike)


def makers(values: Iterable[Value]) -> set[Op]:
    """The operators that make values, and what they are made of."""
    found: set[Op] = set()
    waiting = [value.op for value in values]
    while waiting:
        op = waiting.pop()
        if op is not None and op not in found:
            found.add(op)
            waiting += [value.op for value in op.operands if value is not None]
    return found


def _may_be_codes(value: Value) -> bool:
    kind = value.type
    return isinstance(kind, TensorType) and kind.dtype.is_float and kind.rank >= 2 and not is_stored(value)


def _may_fold(op: Op) -> bool:
    """Not random numbers, and not codes of weights."""
    return (
        bool(op.operands)
        and not op.regions
        and not any(lookup(op.kind).has(t) for t in (Trait.RANDOM, Trait.QUANTIZED))
    )


def _is_known(value: Value) -> bool:
    """Whether the elements of a value are known: a constant, or sizes that are."""
    return value.constant is not None or (value.dims is not None and all(isinstance(size, int) for size in value.dims))


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
    known = (reader.op.kind, reader.slot) in LAYOUTS or reader.slot in lookup(reader.op.kind).weights
    return known or (weight.value.constant is not None and weight.value.constant.nbytes >= _NOTABLE_BYTES)
