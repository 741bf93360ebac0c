"""How an op reads its axes, in the manner of an einsum: one label per axis of every operand and result.

Axes with one label run over the same index; `mixed` labels are those along which positions are combined while the axis
stays or goes (softmax, norms, reductions). An op that only re-arranges a tensor's axes (Reshape) is `regroups`; one
whose axes are symmetric one by one, but not labelled here, is `whole` (recurrent layers). Kinds that are not in the
table have no labels: nothing may be concluded about how two of their axes go together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from .core import Op, Value
from .ops.access import attr_int, attr_ints, attr_text, axes_in, axis_in, ints
from .types import TensorType

Row = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """`operands` and `results` hold one row each; None for a tensor of which nothing is said."""

    operands: tuple[Row | None, ...]
    results: tuple[Row | None, ...]
    mixed: frozenset[Hashable] = frozenset()
    regroups: bool = False
    whole: bool = False
    groups: tuple[tuple[int, int], tuple[int, int]] | None = None  # (slot, axis) x 2 that share their outer factor


Labeller = Callable[[Op], Labels | None]


def labels_of(op: Op) -> Labels | None:
    """The labels of an op; None if its kind, or a form of it, is not ruled."""
    from .ops.axes_rules import elementwise, rule_of

    rule = LABELLERS.get(op.kind)
    if rule is None:
        rule = _aligned if rule_of(op) is elementwise else None
    return None if rule is None else rule(op)


def _rank(value: Value | None) -> int:
    return value.type.rank if value is not None and isinstance(value.type, TensorType) else 0


def _right(value: Value | None) -> Row:
    """Axes by their distance from the right end, as broadcasting aligns them."""
    return tuple(range(-_rank(value), 0))


def _aligned(op: Op) -> Labels:
    return Labels(tuple(_right(v) for v in op.operands), tuple(_right(v) for v in op.results))


def _passing(op: Op) -> Labels:
    """Axes of operand 0 and of the results correspond from the right; nothing is said of the other operands."""
    others = (None,) * (len(op.operands) - 1)
    return Labels((_right(op.operand(0)), *others), tuple(_right(v) for v in op.results))


def _aligned_mixing(axes: Callable[[Op, int], Sequence[int]]) -> Labeller:
    def labels(op: Op) -> Labels:
        found, rank = _aligned(op), _rank(op.operand(0))
        return Labels(found.operands, found.results, frozenset(a - rank for a in axes(op, rank)))

    return labels


def _axis(default: int) -> Callable[[Op, int], Sequence[int]]:
    return lambda op, rank: [axis_in(op, attr_int(op, "axis", default), rank)]


def _per_channel(first: int | None) -> Labeller:
    """Parameters run along axis 1; statistics are taken over the axes from `first` on, within groups of channels."""

    def labels(op: Op) -> Labels:
        rank = _rank(op.operand(0))
        parameters = tuple((1 - rank,) for _ in op.operands[1:])
        mixed = frozenset() if first is None else frozenset(range(first - rank, 0))
        return Labels((_right(op.operand(0)), *parameters), tuple(_right(v) for v in op.results), mixed)

    return labels


def _reduce(op: Op) -> Labels | None:
    x, y = _right(op.operand(0)), op.results[0]
    wanted = ints(op.operand(1)) if op.operand(1) is not None else attr_ints(op, "axes")
    if op.operand(1) is not None and wanted is None:
        return None
    if not wanted and attr_int(op, "noop_with_empty_axes"):
        return _passing(op)
    gone = axes_in(op, wanted, len(x)) if wanted else tuple(range(len(x)))
    keeps = len(_right(y)) == len(x)
    left = x if keeps else tuple(label for i, label in enumerate(x) if i not in gone)
    return Labels((x, *(None for _ in op.operands[1:])), (left,), frozenset(x[i] for i in gone))


def _matrix(value: Value | None, rows: str, columns: str, missing: str) -> Row:
    """Labels of one side of a matrix product; a vector has only the axis that is not `missing`."""
    rank = _rank(value)
    if rank < 2:
        return (columns if missing == rows else rows,) if rank else ()
    return (*range(2 - rank, 0), rows, columns)


def _matmul(slots: tuple[int, int]) -> Labeller:
    def labels(op: Op) -> Labels:
        a, b = (op.operand(slot) for slot in slots)
        sides = [side for side, value in (("m", a), ("n", b)) if _rank(value) > 1]
        result = (*range(2 - max(_rank(a), _rank(b)), 0), *sides)
        rows: dict[int, Row] = {slots[0]: _matrix(a, "m", "k", "m"), slots[1]: _matrix(b, "k", "n", "n")}
        return Labels(_rows(op, rows), (result,))

    return labels


def _rows(op: Op, known: Mapping[int, Row]) -> tuple[Row | None, ...]:
    return tuple(known.get(slot) for slot in range(len(op.operands)))


def _gemm(op: Op) -> Labels:
    a: Row = ("k", "m") if attr_int(op, "transA") else ("m", "k")
    b: Row = ("n", "k") if attr_int(op, "transB") else ("k", "n")
    c: Row = ("m", "n")[2 - _rank(op.operand(2)) :]
    return Labels(_rows(op, {0: a, 1: b, 2: c}), (("m", "n"),))


def _own(name: str, count: int) -> Row:
    return tuple((name, i) for i in range(count))


def _conv(slots: tuple[int, int], per_output: Sequence[int], *, transposed: bool = False) -> Labeller:
    """Weights [o, i, ...], transposed [i, o, ...]; with groups the half that is per group has a label of its own."""

    def labels(op: Op) -> Labels:
        x, w = (op.operand(slot) for slot in slots)
        grouped = attr_int(op, "group", 1) > 1
        per_group: Hashable = "per group" if grouped else ("o" if transposed else "i")
        heads = ("i", per_group) if transposed else ("o", per_group)
        y = op.results[0]
        shared = None
        if grouped:
            # What runs within a group on axis 1 of the weight is the inside of this axis of a tensor:
            shared = ((slots[1], 0), (-1, 1) if transposed else (slots[0], 1))
        known: dict[int, Row] = {
            slots[0]: ("n", "i", *_own("x", _rank(x) - 2)),
            slots[1]: (*heads, *_own("w", _rank(w) - 2)),
            **dict.fromkeys(per_output, ("o",)),
        }
        return Labels(_rows(op, known), (("n", "o", *_own("y", _rank(y) - 2)),), groups=shared)

    return labels


def _einsum(op: Op) -> Labels | None:
    equation = attr_text(op, "equation").replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    if "." in equation:
        return None
    if not arrow:
        output = "".join(x for x in sorted(set(inputs) - {","}) if inputs.count(x) == 1)
    return Labels(tuple(tuple(term) for term in inputs.split(",")), (tuple(output),))


def _pool(op: Op) -> Labels:
    x, y = _rank(op.operand(0)), _rank(op.results[0])
    others = (None,) * (len(op.results) - 1)
    return Labels((("n", "c", *_own("x", x - 2)),), (("n", "c", *_own("y", y - 2)), *others))


def _transpose(op: Op) -> Labels:
    x = _right(op.operand(0))
    perm = attr_ints(op, "perm") or tuple(reversed(range(len(x))))
    return Labels((x,), (tuple(x[i] for i in perm),))


def _gather(op: Op) -> Labels:
    x, index = _right(op.operand(0)), _own("index", _rank(op.operand(1)))
    axis = axis_in(op, attr_int(op, "axis"), len(x))
    if ints(op.operand(1)) is not None:  # constant indices cut the axis
        picked: Row = x[axis : axis + 1] if len(index) == 1 else ()
        return Labels((x, None), ((*x[:axis], *picked, *x[axis + 1 :]),))
    return Labels((x, index), ((*x[:axis], *index, *x[axis + 1 :]),))


def _quantize(op: Op) -> Labels:
    x = _right(op.operand(0))
    axis = axis_in(op, attr_int(op, "axis", 1), len(x)) if x else 0

    def parameter(value: Value | None) -> Row:
        return _right(value) if _rank(value) == len(x) else (axis - len(x),) * _rank(value)

    return Labels((x, *(parameter(v) for v in op.operands[1:])), (x,))


def _regroups(op: Op) -> Labels:
    return Labels((_own("x", _rank(op.operand(0))), *(None,) * (len(op.operands) - 1)), (None,), regroups=True)


def _whole(op: Op) -> Labels:
    return Labels((None,) * len(op.operands), (None,) * len(op.results), whole=True)


def _silent(op: Op) -> Labels:
    """Reads no elements, or hands whole values on (control flow): every value is judged where it is used."""
    return Labels((), ())


def _norm_axes(op: Op, rank: int) -> Sequence[int]:
    return range(axis_in(op, attr_int(op, "axis", -1), rank), rank)


def _lp_axis(op: Op) -> Labels:
    rank = _rank(op.operand(0))
    found = _passing(op)
    return Labels(found.operands, found.results, frozenset({axis_in(op, attr_int(op, "axis", -1), rank) - rank}))


_REDUCE = (
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare"
)
_PASSING = "Clip CastLike DynamicQuantizeLinear Dropout Slice Split Pad Expand Tile Resize Trilu"

LABELLERS: Mapping[str, Labeller] = {
    **dict.fromkeys(_REDUCE.split(), _reduce),
    **dict.fromkeys(_PASSING.split(), _passing),
    **dict.fromkeys(["MaxPool", "AveragePool", "LpPool"], _pool),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], _aligned_mixing(lambda _, r: range(2, r))),
    **dict.fromkeys(["Reshape", "Flatten", "Squeeze", "Unsqueeze"], _regroups),
    **dict.fromkeys(["LSTM", "GRU", "RNN"], _whole),
    **dict.fromkeys(["If", "Loop", "Scan", "Shape", "Size", "ConstantOfShape"], _silent),
    **dict.fromkeys(["Softmax", "LogSoftmax"], _aligned_mixing(_axis(-1))),
    **dict.fromkeys(
        ["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"], _aligned_mixing(_norm_axes)
    ),
    **dict.fromkeys(
        ("com.microsoft::SkipLayerNormalization", "com.microsoft::SkipSimplifiedLayerNormalization"),
        _aligned_mixing(lambda _, rank: (rank - 1,)),
    ),
    **dict.fromkeys(["QuantizeLinear", "DequantizeLinear"], _quantize),
    "BatchNormalization": _per_channel(None),
    "InstanceNormalization": _per_channel(2),
    "GroupNormalization": _per_channel(1),
    "LpNormalization": _lp_axis,
    "Concat": _aligned,
    "Conv": _conv((0, 1), (2,)),
    "ConvInteger": _conv((0, 1), (3,)),
    "ConvTranspose": _conv((0, 1), (2,), transposed=True),
    "QLinearConv": _conv((0, 3), (4, 5, 8)),
    "Einsum": _einsum,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul((0, 1)),
    "MatMulInteger": _matmul((0, 1)),
    "QLinearMatMul": _matmul((0, 3)),
    "Transpose": _transpose,
}
