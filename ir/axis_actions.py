"""How operators commute with transformations of an axis that are more than permutations, as equations (axis_signs.py).

    group of T            contraction  bias, add  relu, max-pool  tanh, sin  x * y  RMS norm  batch norm  gelu, softmax
    positive diagonal     yes          yes        yes             -          yes    -         yes         -
    signs                 yes          yes        -               yes        yes    yes       yes         -
    orthogonal            yes          yes        -               -          -      yes (1)   -           -
    invertible (GL)       yes          yes        -               -          -      -         -           -

(1) with one scale for all units. After cross-layer equalization (Nagel et al., 2019), the rotations of QuaRot (Ashkboos
et al., 2024) and the gauge freedom of attention. An operator that is not in `BEHAVIOUR` commutes with nothing but
permutations, and neither does a known one in a form that is not ruled (`x + 1`: the one does not turn with x).

Equations are between the exponents of (value, axis, class): 1 where the axis is transformed by T, -1 where by the
inverse transposed, 0 where it stays. A contraction needs opposite exponents, an addition equal ones, a product the sum.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .axis_labels import labels_of
from .axis_types import Atom
from .core import Op, Value
from .types import TensorType

if TYPE_CHECKING:
    from .axis_equations import Equations


class Group(enum.Flag):
    """What a class admits at all of its sites. Permutations always; the others only where every op commutes."""

    PERM = enum.auto()
    POSITIVE_DIAGONAL = enum.auto()
    SIGN = enum.auto()
    ORTHOGONAL = enum.auto()
    GL = enum.auto()


DIAGONAL = Group.POSITIVE_DIAGONAL | Group.SIGN
ANY = Group.PERM | DIAGONAL | Group.ORTHOGONAL | Group.GL
UNSIGNED = Group.SIGN | Group.ORTHOGONAL  # T is its own inverse transposed

Node = tuple[Value, int, Atom]
Side = tuple[int, Node]  # slot; results count from -1 downwards


class Behaviour(enum.Enum):
    """What an op does along an axis that it neither contracts nor mixes."""

    LINEAR = "linear in operand 0"
    ADDS = "linear in all operands together"
    SELECTS = "one of two operands, by a third"
    MULTIPLIES = "the product of two operands"
    DIVIDES = "the quotient of two operands"
    CONTRACTS = "a sum of products over labels; further operands are added"
    HOMOGENEOUS = "f(s x) = s f(x) for s > 0"
    ODD = "f(-x) = -f(x)"
    SCALES_BACK = "normalizes by the root of the mean square, then scales"
    STANDARDIZES = "normalizes by mean and variance, then scales and shifts"
    SQUARES = "the product of an operand with itself"
    NORMALIZES = "a fixed scale and shift for each unit"
    DEQUANTIZES = "codes times a scale"


_KINDS: Mapping[Behaviour, str] = {
    Behaviour.LINEAR: (
        "Neg Identity Cast Dropout Transpose Reshape Flatten Squeeze Unsqueeze Slice Split Concat Expand Tile Pad "
        "Gather Trilu Resize AveragePool GlobalAveragePool ReduceSum ReduceMean"
    ),
    Behaviour.ADDS: "Add Sub Sum Mean",
    Behaviour.SELECTS: "Where",
    Behaviour.MULTIPLIES: "Mul",
    Behaviour.DIVIDES: "Div",
    Behaviour.CONTRACTS: "MatMul Gemm Conv ConvTranspose Einsum",
    Behaviour.HOMOGENEOUS: (
        "Relu LeakyRelu PRelu Abs Max Min MaxPool LpPool GlobalMaxPool GlobalLpPool ReduceMax ReduceMin ReduceL1 "
        "ReduceL2"
    ),
    Behaviour.ODD: "Tanh Sin Sinh Tan Asin Asinh Atan Atanh Erf Softsign",
    Behaviour.SCALES_BACK: "RMSNormalization SimplifiedLayerNormalization",
    Behaviour.STANDARDIZES: "LayerNormalization InstanceNormalization GroupNormalization",
    Behaviour.SQUARES: "Pow",
    Behaviour.NORMALIZES: "BatchNormalization",
    Behaviour.DEQUANTIZES: "DequantizeLinear",
}
BEHAVIOUR: Mapping[str, Behaviour] = {kind: b for b, kinds in _KINDS.items() for kind in kinds.split()}
#: Of the group-wise behaviours, the groups that they commute with.
COMMUTES: Mapping[Behaviour, Group] = {
    Behaviour.LINEAR: ANY,
    Behaviour.HOMOGENEOUS: Group.PERM | Group.POSITIVE_DIAGONAL,
    Behaviour.ODD: Group.PERM | Group.SIGN,
}
#: Sums of squares over the class do not see these.
INVARIANT: Mapping[str, Group] = {
    "ReduceL1": Group.SIGN,
    "ReduceL2": Group.SIGN | Group.ORTHOGONAL,
    "ReduceSumSquare": Group.SIGN | Group.ORTHOGONAL,
}


Rule = Callable[["Equations", Op, list[Side], bool], None]


def _split(sides: list[Side]) -> tuple[dict[int, Node], list[Node]]:
    """Operands by slot, and results."""
    return {slot: n for slot, n in sides if slot >= 0}, [n for slot, n in sides if slot < 0]


def fixed(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    nodes = [n for _, n in sides]
    eq.equal(nodes) if eq.group is Group.PERM else eq.zero(nodes)


def _as_group(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    """A function of operand 0, or of all of them, along an axis that stays; further operands are parameters."""
    ins, outs = _split(sides)
    joint = op.kind in ("Concat", "Max", "Min")
    data = [n for slot, n in ins.items() if slot == 0 or joint]
    complete = op.kind == "Concat" or not joint or len(data) == len(op.operands)
    if not (eq.group & COMMUTES[BEHAVIOUR[op.kind]] and outs and data and complete and _is_plain(op)):
        return fixed(eq, op, sides, mixed)
    eq.zero(n for slot, n in ins.items() if slot != 0 and not joint)
    eq.equal(data + outs)


def _is_plain(op: Op) -> bool:
    """Whether a kind that is linear in general is so here: pads with zeros, casts between floats."""
    if op.kind == "Pad":
        value = op.operand(2)
        return value is None or (value.constant is not None and not value.constant.array().any())
    if op.kind == "Cast":
        ends = (op.operand(0), op.results[0])
        return all(v is not None and isinstance(v.type, TensorType) and v.type.dtype.kind == "float" for v in ends)
    return True


def _adds(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    """Every operand has to carry the class, or be nothing."""
    ins, outs = _split(sides)
    if len(ins) < len(op.operands) or not outs:
        return fixed(eq, op, sides, mixed)
    eq.equal([*ins.values(), *outs])


def _selects(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    ins, outs = _split(sides)
    condition = ins.pop(0, None)
    if len(ins) < 2 or not outs or (condition is not None and not eq.group & (DIAGONAL | Group.PERM)):
        return fixed(eq, op, sides, mixed)
    eq.equal([*ins.values(), *outs])
    if condition is not None:
        eq.zero([condition])


def _multiplies(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    ins, outs = _split(sides)
    if len(outs) != 1:
        return fixed(eq, op, sides, mixed)
    if op.operands[0] is op.operands[1]:
        return _with_itself(eq, op, ins[0], outs[0])
    if len(ins) == 1:
        return eq.equal([*ins.values(), *outs])
    if not eq.group & (DIAGONAL | Group.PERM) and (same := _uniform(op, ins)):
        eq.zero([ins.pop(same)])
        return eq.equal([*ins.values(), *outs])
    eq.product(outs[0], ins[0], ins[1])


def _only_summed(op: Op, axis: int) -> bool:
    """Whether squares go into sums over the whole axis and nowhere else: then rotations are not seen."""
    users = op.results[0].users
    return bool(users) and all(user.kind in ("ReduceSum", "ReduceMean") and _reduces(user, axis) for user in users)


def _reduces(op: Op, axis: int) -> bool:
    labels = labels_of(op)
    row = labels.operands[0] if labels is not None else None
    return labels is not None and row is not None and row[axis] in labels.mixed


def _squares(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    """Pow with the exponent two is a product with itself."""
    ins, outs = _split(sides)
    exponent = op.operand(1)
    power = exponent.constant if exponent is not None else None
    square = power is not None and power.elements == 1 and power.array().item() == 2
    if not square or list(ins) != [0] or len(outs) != 1:
        return fixed(eq, op, sides, mixed)
    _with_itself(eq, op, ins[0], outs[0])


def _with_itself(eq: Equations, op: Op, x: Node, y: Node) -> None:
    if eq.group is Group.ORTHOGONAL and _only_summed(op, x[1]):
        return eq.zero([y])
    eq.product(y, x, x)


def _uniform(op: Op, ins: Mapping[int, Node]) -> int | None:
    """The slot of a constant that is the same everywhere; None if there is none."""
    for slot, (value, _, _) in ins.items():
        if value.constant is not None:
            array = value.constant.array()
            if array.size and bool((array == array.flat[0]).all()):
                return slot
    return None


def _divides(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    ins, outs = _split(sides)
    if list(ins) == [0] and outs:
        return eq.equal([*ins.values(), *outs])
    if list(ins) == [0, 1] and len(outs) == 1 and op.operands[0] is not op.operands[1] and eq.group & DIAGONAL:
        return eq.product(ins[0], outs[0], ins[1])  # a = c * b
    fixed(eq, op, sides, mixed)


def _contracts(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    ins, outs = _split(sides)
    bias = ins.pop(2, None) if op.kind != "Einsum" else None
    if not outs and len(ins) == 2 and bias is None:
        return eq.unknown.opposite(*ins.values())
    if not outs or not ins or len(outs) > 1 or len(ins) > 2:
        return fixed(eq, op, sides, mixed)
    if len(ins) == 1:
        return eq.added(op, [*ins.values(), *outs], bias) if op.kind != "Einsum" else eq.equal([*ins.values(), *outs])
    eq.product(outs[0], *ins.values())


def _scales_back(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    """y = scale * x / rms(x): x turns under what keeps its norm, and y with it; or y turns with the scale."""
    ins, outs = _split(sides)
    x, scale = ins.get(0), ins.get(1)
    if eq.group is Group.PERM or not mixed or x is None or len(outs) != 1:
        return fixed(eq, op, sides, mixed)
    if eq.group is Group.SIGN and scale is not None:
        return eq.product(outs[0], x, scale)
    if eq.group & UNSIGNED and (scale is None or _uniform(op, {1: scale}) is not None):
        eq.zero(n for n in (scale,) if n)
        return eq.equal((x, *outs))
    _standardizes(eq, op, sides, mixed)


def _standardizes(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    """y = scale * normalized(x) + shift: x stays, the others turn together."""
    ins, outs = _split(sides)
    shift = op.operand(2) is not None
    if not eq.group & DIAGONAL or 1 not in ins or (shift and 2 not in ins) or len(outs) != 1:
        return fixed(eq, op, sides, mixed)
    eq.zero(n for slot, n in ins.items() if slot == 0)
    eq.equal([n for slot, n in ins.items() if slot != 0] + outs)


def _normalizes(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    """y = gamma (x - mean) / sqrt(var + eps) + beta: x, mean and beta turn with y."""
    ins, outs = _split(sides)
    if set(ins) != {0, 1, 2, 3, 4} or len(outs) != 1 or not eq.group & (DIAGONAL | Group.PERM):
        return fixed(eq, op, sides, mixed)
    eq.zero((ins[1], ins[4]))
    eq.equal((ins[0], ins[2], ins[3], *outs))


def _dequantizes(eq: Equations, op: Op, sides: list[Side], mixed: bool) -> None:
    """y = s (q - z): the scale turns, codes and zero points stay."""
    ins, outs = _split(sides)
    scale = ins.get(1)
    if scale is None or len(outs) != 1 or eq.group is not Group.POSITIVE_DIAGONAL:
        return fixed(eq, op, sides, mixed)
    eq.zero(n for slot, n in ins.items() if slot != 1)
    eq.equal((scale, *outs))


RULES: Mapping[Behaviour, Rule] = {
    Behaviour.LINEAR: _as_group,
    Behaviour.HOMOGENEOUS: _as_group,
    Behaviour.ODD: _as_group,
    Behaviour.ADDS: _adds,
    Behaviour.SELECTS: _selects,
    Behaviour.MULTIPLIES: _multiplies,
    Behaviour.DIVIDES: _divides,
    Behaviour.CONTRACTS: _contracts,
    Behaviour.SCALES_BACK: _scales_back,
    Behaviour.STANDARDIZES: _standardizes,
    Behaviour.SQUARES: _squares,
    Behaviour.NORMALIZES: _normalizes,
    Behaviour.DEQUANTIZES: _dequantizes,
}
