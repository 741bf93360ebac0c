"""MatMulInteger and ConvInteger: sums of products of codes, which factors further down turn into numbers.

    codes, s_x, z_x = DynamicQuantizeLinear(x)
    y = Cast(MatMulInteger(codes, W, z_x, z_w)) * (s_x * s_w)          becomes  y = MatMul(x, (W - z_w) * s_w)

The scale of the weight is no operand: it is what is left of the factors when those of the activations are taken out.
A bias may be added to the sums, b / (s_x s_w) rounded on the run: it becomes b.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ....ir.core import Op, Value
from ....ir.types import TensorType
from ...base import SkipCode
from .grids import Array, Grid, codes_behind, dtype_of, parameter
from .work import Real, Rule, Why, Work

_ROUNDING = frozenset({"Reshape", "Unsqueeze", "Cast", "Floor", "Round"})
_LONGEST = 3  # multiplications behind a sum that are looked at


@dataclass
class _Chain:
    """The Cast and the multiplications behind a sum of products: their last operator, all factors, and what was added
    to the sums."""

    end: Op
    factors: list[Value] = field(default_factory=list)
    added: Value | None = None


def _links(op: Op) -> Iterator[_Chain]:
    """The Cast behind an operator, then one multiplication more each time; as long as nothing else reads them."""
    cast, added = _only_user(op.results[0]), None
    if cast is not None and cast.kind == "Add":
        added = next(v for v in cast.operands if v is not op.results[0])
        cast = _only_user(cast.result)
    if cast is None or cast.kind != "Cast":
        return
    chain = _Chain(cast, added=added)
    yield chain
    for _ in range(_LONGEST):
        following = _only_user(chain.end.result)
        if following is None or following.kind != "Mul":
            return
        other = next(v for v in following.operands if v is not chain.end.result)
        assert other is not None
        chain = _Chain(following, [*chain.factors, *_expanded(other)], added)
        yield chain


def _only_user(value: Value) -> Op | None:
    return value.users[0] if len(value.uses) == 1 and not value.users[0].is_terminator else None


def _expanded(value: Value, depth: int = 4) -> list[Value]:
    """The factors of a product."""
    if value.op is not None and value.op.kind == "Mul" and depth:
        return [f for v in value.op.operands if v is not None for f in _expanded(v, depth - 1)]
    return [value]


def _integer(work: Work, op: Op) -> Why | None:
    sides = [_side(work, op, slot) for slot in (0, 1)]
    for side in sides:
        if isinstance(side, Why):
            return side
    reals = [s for s in sides if isinstance(s, Real)]
    if not reals:
        return Why(SkipCode.NOT_FOLLOWED, "neither side is made of floats")
    found = _factored(op, reals, weight=len(reals) == 1)
    if isinstance(found, Why):
        return found
    chain, scale = found
    operands: list[Value | None] = []
    for slot, side in enumerate(sides):
        if isinstance(side, Real):
            operands.append(side.value)
            continue
        weight = _weight(work, op, slot, scale)
        if isinstance(weight, Why):
            return weight
        operands.append(weight)
    bias = _bias(chain)
    if bias is None and chain.added is not None:
        return Why(SkipCode.NOT_FOLLOWED, "what is added to its sums is not followed")
    kind = op.op_type.removesuffix("Integer")
    made = _with_bias(work, op, kind, operands, bias, chain.end)
    work.report(op, kind)
    work.rw.replace(chain.end, [work.cast(made, dtype_of(chain.end.result), chain.end)])
    return None


def _side(work: Work, op: Op, slot: int) -> Real | Value | Why:
    """A side of the product: the floats behind it, or constant codes."""
    codes, zero = op.operand(slot), op.operand(slot + 2)
    assert codes is not None
    known = work.reals.get(codes)
    if known is None:
        if codes_behind(codes) is not None:
            return codes
        return Why(SkipCode.NOT_FOLLOWED, f"where {codes.name} comes from is not followed")
    if not known.grid.same(Grid(known.grid.scale, zero)):
        return Why(SkipCode.NOT_FOLLOWED, f"{codes.name} is read with another zero point than it was made with")
    return known


def _factored(op: Op, reals: list[Real], *, weight: bool) -> tuple[_Chain, Array] | Why:
    """The multiplications that stand for the scales of the activations and of a weight, and the scale of the weight."""
    best: tuple[_Chain, Array] | None = None
    for chain in _links(op):
        rest = _without_scales(chain.factors, reals)
        if rest is None:
            continue
        constants = [parameter(v) for v in rest]
        if any(c is None for c in constants):
            break
        best = chain, _product([c for c in constants if c is not None])
        if constants or not weight:
            break
    if best is None:
        return Why(SkipCode.NOT_FOLLOWED, "its sums are not multiplied by the scale of its activations alone")
    return best


def _without_scales(factors: list[Value], reals: list[Real]) -> list[Value] | None:
    """Factors without the scales of the activations, each taken once; None if one is missing."""
    rest = list(factors)
    for real in reals:
        index = next((i for i, v in enumerate(rest) if Grid(v).same(Grid(real.grid.scale))), None)
        if index is None:
            return None
        del rest[index]
    return rest


def _product(arrays: list[Array]) -> Array:
    total: Array = np.ones((), np.float32)
    for array in arrays:
        total = total * array.astype(np.float32)
    return total if len(arrays) != 1 else arrays[0].astype(np.float32)


def _bias(chain: _Chain) -> Array | None:
    """The numbers that were divided by the factors, rounded and added to the sums, in the shape in which they were."""
    value = chain.added
    shape = value.type.static_shape if value is not None and isinstance(value.type, TensorType) else None
    while value is not None and value.op is not None and value.op.kind in _ROUNDING:
        value = value.op.operand(0)
    quotient = value.op if value is not None else None
    if quotient is None or quotient.kind != "Div" or shape is None:
        return None
    numbers, divisor = parameter(quotient.operand(0)), quotient.operand(1)
    if numbers is None or divisor is None or not _same_factors(_expanded(divisor), chain.factors):
        return None
    return numbers.reshape(shape)


def _same_factors(some: list[Value], others: list[Value]) -> bool:
    rest = list(others)
    for value in some:
        index = next((i for i, v in enumerate(rest) if Grid(v).same(Grid(value))), None)
        if index is None:
            return False
        del rest[index]
    return not rest


def _with_bias(work: Work, op: Op, kind: str, operands: list[Value | None], bias: Array | None, before: Op) -> Value:
    """The product and its bias: one of a number per channel is an operand of Conv."""
    if bias is None:
        return work.new(kind, operands, before, op.attrs)
    dtype = dtype_of(before.result)
    assert dtype is not None
    name = f"{op.results[0].name}_bias"
    if kind == "Conv" and bias.shape[1:2] == (bias.size,):
        return work.new(kind, [*operands, work.number(bias.reshape(-1), dtype, name)], before, op.attrs)
    return work.new("Add", [work.new(kind, operands, before, op.attrs), work.number(bias, dtype, name)], before)


def _weight(work: Work, op: Op, slot: int, scale: Array) -> Value | Why:
    """The floats of constant codes, given what the sums are multiplied by."""
    codes, zero = op.operand(slot), op.operand(slot + 2)
    assert codes is not None
    constant = codes_behind(codes)
    assert constant is not None
    axis = _output_axis(op, slot, len(constant.shape))
    if scale.size > 1 and not _along_outputs(op, slot, scale):
        return Why(SkipCode.UNSUPPORTED, f"factors {list(scale.shape)} do not belong to the outputs of its weight")
    kind = dtype_of(codes)
    assert kind is not None
    value = work.rw.constant(scale.reshape(()) if scale.size == 1 else scale.reshape(-1), f"{codes.name}_scale")
    found = work.constant(codes, constant, Grid(value, zero, axis))
    return found if isinstance(found, Value) else Why(SkipCode.UNSUPPORTED, found)


def _output_axis(op: Op, slot: int, rank: int) -> int:
    """The axis of a weight along which the outputs lie."""
    if op.kind == "ConvInteger":
        return 0
    return rank - 1 if slot else max(0, rank - 2)


def _along_outputs(op: Op, slot: int, scale: Array) -> bool:
    """Whether factors of the result are one for each output."""
    result = op.results[0].type
    if not isinstance(result, TensorType):
        return False
    place = 1 if op.kind == "ConvInteger" else result.rank - (1 if slot else 2)
    padded = (1,) * (result.rank - scale.ndim) + scale.shape
    return all(size == 1 for i, size in enumerate(padded) if i != place)


RULES: dict[str, Rule] = {"MatMulInteger": _integer, "ConvInteger": _integer}
