"""Elements of small integer tensors: what arithmetic on shapes computes, as dimension expressions.

A fold takes an op and gives the elements of its first result, or None. Floats take part as long as their values are
whole, and quotients are followed through Floor, Ceil and Cast. Truth values are 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from .. import dims as _dims
from ..constants import Constant
from ..core import Op, Value
from ..dims import Dim
from ..types import TensorType
from . import bounds
from .access import attr_int, elements, fractions, ints
from .opdef import Infer, Inferred

Elements = tuple[Dim, ...]
Fold = Callable[[Op], Elements | None]
MAX_ELEMENTS = 64
_LARGEST_DENOMINATOR = 4096


def valued(rule: Infer, fold: Fold) -> Infer:
    """A rule whose first result also carries its elements, if it is small, of rank <= 1, and they can be told."""

    def infer(op: Op) -> list[Inferred]:
        found = list(rule(op))
        kind = found[0].type
        if not isinstance(kind, TensorType) or kind.rank > 1 or not isinstance(kind.elements, int):
            return found
        if kind.elements > MAX_ELEMENTS:
            return found
        made = fold(op)
        if made is not None and len(made) == kind.elements:
            found[0] = Inferred(kind, made)
        return found

    return infer


def _is_shape_like(op: Op) -> bool:
    """Integers always; floats only on a path that comes from integers, so that float constants stay out of it."""
    given = [v for v in op.operands if v is not None]
    return any(v.dims is not None for v in given) or any(_is_integer(v) for v in given)


def _is_integer(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype.kind in ("int", "uint", "bool")


def elementwise(function: Callable[..., Dim | None]) -> Fold:
    """A fold that applies `function` to the elements of all operands, with broadcasting."""

    def fold(op: Op) -> Elements | None:
        if not _is_shape_like(op):
            return None
        given = [elements(v) for v in op.operands if v is not None]
        known = [g for g in given if g is not None]
        return _mapped(function, known) if len(known) == len(given) else None

    return fold


def _mapped(function: Callable[..., Dim | None], given: Sequence[Elements]) -> Elements | None:
    count = max((len(g) for g in given if len(g) != 1), default=1)
    if any(len(g) not in (1, count) for g in given):
        return None
    made = [function(*row) for row in zip(*(g * count if len(g) == 1 else g for g in given))]
    known = tuple(d for d in made if d is not None)
    return known if len(known) == len(made) else None


def divide(op: Op) -> Elements | None:
    """Integers are cut towards zero; of floats only exact quotients are whole."""
    value = op.operand(0)
    exact = value is not None and isinstance(value.type, TensorType) and value.type.dtype.is_float
    return elementwise(_dims.exact_div if exact else truncated)(op)


def truncated(a: Dim, b: Dim) -> Dim | None:
    """a / b cut towards zero. Shape values are not negative, unless they visibly are."""
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    if isinstance(b, int) and b < 0:
        inner = truncated(a, -b)
        return None if inner is None else _dims.mul(inner, -1)
    if bounds.at_least(0, a):
        return _dims.mul(_dims.floordiv(_dims.mul(a, -1), b), -1)
    return _dims.floordiv(a, b)


def modulo(op: Op) -> Elements | None:
    return elementwise(_remainder_of_c if attr_int(op, "fmod") else _remainder)(op)


def _remainder(a: Dim, b: Dim) -> Dim | None:
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    return _minus(a, _dims.mul(_dims.floordiv(a, b), b))


def _remainder_of_c(a: Dim, b: Dim) -> Dim | None:
    quotient = truncated(a, b)
    return None if quotient is None else _minus(a, _dims.mul(quotient, b))


def _minus(a: Dim, b: Dim) -> Dim:
    return _dims.add(a, _dims.mul(b, -1))


def _extreme(first: bool) -> Callable[..., Dim | None]:
    def choose(*row: Dim) -> Dim | None:
        best = row[0]
        for d in row[1:]:
            if bounds.at_least(best, d):
                best = best if first else d
            elif bounds.at_least(d, best):
                best = d if first else best
            else:
                return None
        return best

    return choose


def _truth(found: bool | None) -> Dim | None:
    return None if found is None else int(found)


def _less(a: Dim, b: Dim) -> Dim | None:
    return 1 if bounds.more_than(b, a) else 0 if bounds.at_least(a, b) else None


def _less_or_equal(a: Dim, b: Dim) -> Dim | None:
    return 1 if bounds.at_least(b, a) else 0 if bounds.more_than(a, b) else None


def _power(a: Dim, b: Dim) -> Dim | None:
    return _dims.product([a] * b) if isinstance(b, int) and 0 <= b <= 8 else None


def _magnitude(a: Dim) -> Dim | None:
    return a if bounds.at_least(a, 0) else _dims.mul(a, -1) if bounds.at_least(0, a) else None


def _sign(a: Dim) -> Dim | None:
    return 0 if a == 0 else 1 if bounds.more_than(a, 0) else -1 if bounds.more_than(0, a) else None


def _joined_and(a: Dim, b: Dim) -> Dim | None:
    return 0 if 0 in (a, b) else 1 if a == b == 1 else None


def _joined_or(a: Dim, b: Dim) -> Dim | None:
    return 1 if 1 in (a, b) else 0 if a == b == 0 else None


add = elementwise(lambda *row: _total(row))
subtract = elementwise(_minus)
multiply = elementwise(_dims.mul)
negative = elementwise(lambda a: _dims.mul(a, -1))
minimum, maximum = elementwise(_extreme(first=False)), elementwise(_extreme(first=True))
equal = elementwise(lambda a, b: _truth(bounds.equal(a, b)))
less, less_or_equal = elementwise(_less), elementwise(_less_or_equal)
greater, greater_or_equal = elementwise(lambda a, b: _less(b, a)), elementwise(lambda a, b: _less_or_equal(b, a))
power, magnitude, sign = elementwise(_power), elementwise(_magnitude), elementwise(_sign)
logical_and, logical_or = elementwise(_joined_and), elementwise(_joined_or)
logical_not = elementwise(lambda a: 1 - a if isinstance(a, int) else None)


def _total(row: Sequence[Dim]) -> Dim:
    total: Dim = 0
    for d in row:
        total = _dims.add(total, d)
    return total


def where(op: Op) -> Elements | None:
    """Decided conditions choose; an undecided one does not matter where both sides agree."""
    condition, yes, no = (elements(op.operand(slot)) for slot in range(3))
    if yes is None or no is None:
        if condition is None or len(set(condition)) != 1 or condition[0] not in (0, 1):
            return None
        chosen = yes if condition[0] else no
        return None if chosen is None else _mapped(lambda c, x: x, (condition, chosen))
    if condition is None:
        return yes if yes == no else None
    return _mapped(lambda c, a, b: a if c == 1 or a == b else b if c == 0 else None, (condition, yes, no))


# -- quotients through floats ------------------------------------------------------------------------------------------

_Ratio = tuple[Dim, Dim]


def ratios(value: Value | None) -> tuple[_Ratio, ...] | None:
    """The elements as numerator and denominator, followed through the float Mul and Div that made them."""
    known = elements(value)
    if known is not None:
        return tuple((d, 1) for d in known)
    exact = fractions(value)
    if exact is not None:
        return tuple((f.numerator, f.denominator) for f in exact) if _tame(exact) else None
    op = value.op if value is not None else None
    if op is None or op.kind not in ("Mul", "Div", "Cast"):
        return None
    sides = [ratios(v) for v in op.operands]
    left = sides[0]
    if op.kind == "Cast" or left is None:
        return left
    right = sides[1]
    if right is None or (len(left) != len(right) and 1 not in (len(left), len(right))):
        return None
    count = max(len(left), len(right))
    pairs = zip(left * (count // len(left)), right * (count // len(right)))
    if op.kind == "Mul":
        return tuple((_dims.mul(a, c), _dims.mul(b, d)) for (a, b), (c, d) in pairs)
    return tuple((_dims.mul(a, d), _dims.mul(b, c)) for (a, b), (c, d) in pairs)


def _tame(exact: Sequence[Fraction]) -> bool:
    return all(f.denominator <= _LARGEST_DENOMINATOR for f in exact)


def _rounded(divide: Callable[[Dim, Dim], Dim]) -> Fold:
    def fold(op: Op) -> Elements | None:
        known = elements(op.operand(0))
        found = ratios(op.operand(0)) if known is None else None
        if found is None:
            return known
        return None if any(b == 0 for _, b in found) else tuple(divide(a, b) for a, b in found)

    return fold


floor, ceil = _rounded(_dims.floordiv), _rounded(_dims.ceildiv)


def cast(op: Op) -> Elements | None:
    """To integers quotients are cut; to a truth value everything that is certainly not 0 is 1."""
    code = attr_int(op, "to")
    if code == 9:
        known = elements(op.operand(0))
        return None if known is None else _mapped(_truthful, (known,))
    return elements(op.operand(0)) or (floor(op) if code in (2, 3, 4, 5, 6, 7, 12, 13) else None)


def _truthful(a: Dim) -> Dim | None:
    same_as_zero = bounds.equal(a, 0)
    return None if same_as_zero is None else int(not same_as_zero)


# -- whole tensors -----------------------------------------------------------------------------------------------------


def with_parts(rule: Infer) -> Infer:
    """A Split whose parts also carry their elements."""

    def infer(op: Op) -> list[Inferred]:
        found = list(rule(op))
        data = elements(op.operand(0))
        return found if data is None else _cut(found, data)

    return infer


def _cut(found: list[Inferred], data: Elements) -> list[Inferred]:
    place, made = 0, []
    for part in found:
        size = part.type.shape[0] if isinstance(part.type, TensorType) and part.type.rank == 1 else None
        if not isinstance(size, int):
            return found
        made.append(Inferred(part.type, data[place : place + size]))
        place += size
    return made


def range_(op: Op) -> Elements | None:
    bounds_ = [ints(v) for v in op.operands]
    if any(b is None or len(b) != 1 for b in bounds_):
        return None
    start, limit, step = (b[0] for b in bounds_ if b is not None)
    return tuple(range(start, limit, step)) if step else None


def filled(op: Op) -> Elements | None:
    """ConstantOfShape: zeros, or the given element, as often as the shape says."""
    wanted = ints(op.operand(0))
    value = op.attrs.get("value")
    if wanted is None or not isinstance(value, Constant) or value.dtype.kind not in ("int", "uint", "bool"):
        return None
    return (int(value.array().reshape(-1)[0]),) * math.prod(wanted)


def reduce_product(op: Op) -> Elements | None:
    data = elements(op.operand(0))
    return None if data is None or _keeps_elements(op) else (_dims.product(data),)


def reduce_sum(op: Op) -> Elements | None:
    data = elements(op.operand(0))
    return None if data is None or _keeps_elements(op) else (_total(data),)


def _reduced_extreme(first: bool) -> Fold:
    def fold(op: Op) -> Elements | None:
        data = elements(op.operand(0))
        if not data or _keeps_elements(op):
            return None
        best = _extreme(first)(*data)
        return None if best is None else (best,)

    return fold


reduce_max, reduce_min = _reduced_extreme(first=True), _reduced_extreme(first=False)


def _keeps_elements(op: Op) -> bool:
    """Whether a reduction of a vector removes no axis (empty axes with the flag that says so)."""
    value = op.operand(1)
    none_given = value is None or ints(value) == ()
    return none_given and bool(attr_int(op, "noop_with_empty_axes"))
