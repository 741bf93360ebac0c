"""Ops that do nothing where they stand: their operand takes the place of their result."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...ir.core import Op, Value
from ...ir.dtypes import DType
from ...ir.ops.access import attr_int, ints
from ...ir.types import TensorType
from ..base import SkipCode
from .facts import dtype, is_identity, is_number, permutation, same_type, scalar, shape, uniform
from .pattern import anything, const, node
from .rule import Refusal, Rule, Site, constant_bytes, grows


def _first(site: Site) -> list[Value | None]:
    return [site.op.operand(0)]


def _same(op: Op) -> bool:
    """Whether the first operand has the element type and sizes of the result."""
    source = op.operand(0)
    return source is not None and same_type(source, op.results[0])


def _noop(name: str, doc: str, kinds: str | tuple[str, ...], where: Callable[[Op], bool]) -> Rule:
    return Rule(name, doc, node(kinds, where=where), _first)


# -- neutral elements ------------------------------------------------------------------------------------------------

#: kind -> (the neutral number, whether it may be on the left)
_NEUTRAL: dict[str, tuple[float, bool]] = {
    "Add": (0, True), "Sub": (0, False), "Mul": (1, True), "Div": (1, False), "Pow": (1, False),
    "And": (True, True), "Or": (False, True), "Xor": (False, True),
}  # fmt: skip


def _neutral(site: Site) -> Refusal | None:
    x, result = site["x"], shape(site.op.result)
    if dtype(x) is not dtype(site.op.result):
        return Refusal(SkipCode.DTYPE, "the result has another element type")
    if site["c"].constant is not None and site["c"].constant.type.rank == 0:
        return None
    if result is None or shape(x) != result:
        return Refusal(SkipCode.NOT_CONSTANT, "the constant may broadcast the other operand to a larger shape")
    return None


def _neutral_rules() -> list[Rule]:
    doc = "x+0, x-0, x*1, x/1, x**1, x and true, x or false, x xor false, where the constant does not broadcast x."
    found = []
    for kind, (number, commutes) in _NEUTRAL.items():
        pattern = node(kind, anything("x"), const("c", where=lambda v, n=number: is_number(v, n)), commutative=commutes)  # type: ignore[misc]
        found.append(Rule("neutral-element", doc, pattern, lambda s: [s["x"]], _neutral))
    return found


# -- one by one ------------------------------------------------------------------------------------------------------


def _dropout(site: Site) -> Refusal | None:
    mode = site.op.operand(2)
    if mode is not None and (mode.constant is None or bool(scalar(mode))):
        return Refusal(SkipCode.NOT_CONSTANT, "the model may run in training mode, where Dropout draws")
    if len(site.op.results) > 1 and site.op.results[1].uses:
        return Refusal(SkipCode.SHARED, "the mask is read")
    return None


def _keeps_cast(op: Op) -> bool:
    source = op.operand(0)
    return source is not None and dtype(source) is not None and dtype(source) is dtype(op.results[0])


def _keeps_axes(op: Op) -> bool:
    perm = permutation(op)
    return perm is not None and is_identity(perm)


def _pads_nothing(op: Op) -> bool:
    pads = ints(op.operand(1))
    return pads is not None and not any(pads)


def _slices_nothing(op: Op) -> bool:
    steps = op.operand(4)
    return _same(op) and (steps is None or set(ints(steps) or (0,)) == {1})


def _clips_nothing(op: Op) -> bool:
    low, high = op.operand(1), op.operand(2)
    return (low is None or scalar(low) == -math.inf) and (high is None or scalar(high) == math.inf)


def _repeats_once(op: Op) -> bool:
    repeats = ints(op.operand(1))
    return repeats is not None and set(repeats) <= {1}


def _resizes_nothing(op: Op) -> bool:
    mode = op.attrs.get("coordinate_transformation_mode", "half_pixel")
    return _same(op) and mode != "tf_crop_and_resize" and not attr_int(op, "antialias")


def _split_in_one(op: Op) -> bool:
    return len(op.results) == 1 and _same(op)


def _chosen(site: Site) -> Value | None:
    """The branch that a Where with a uniform condition always takes."""
    decided = uniform(site["c"])
    return None if decided is None else site["a"] if decided else site["b"]


def _where_known(site: Site) -> Refusal | None:
    branch = _chosen(site)
    assert branch is not None
    if not same_type(branch, site.op.result):
        return Refusal(SkipCode.NOT_CONSTANT, "the other operands may broadcast the chosen one to a larger shape")
    return None


def _same_branches(site: Site) -> Refusal | None:
    if not same_type(site["a"], site.op.result):
        return Refusal(SkipCode.NOT_CONSTANT, "the condition may broadcast the operand to a larger shape")
    return None


_IDEMPOTENT = ("Relu", "Abs", "Floor", "Ceil", "Round", "Sign")
_INVOLUTION = ("Not", "Neg", "BitwiseNot")


def _pair(name: str, doc: str, kinds: tuple[str, ...], build: Callable[[Site], list[Value | None]]) -> list[Rule]:
    return [Rule(name, doc, node(k, node(k, anything("x"), name="inner", shared=True)), build) for k in kinds]


def _clip_bounds(op: Op) -> tuple[float, float] | None:
    """What a Relu or a Clip with constant bounds clips to."""
    if op.kind == "Relu":
        return 0.0, math.inf
    low, high = op.operand(1), op.operand(2)
    bounds = (-math.inf if low is None else scalar(low), math.inf if high is None else scalar(high))
    if bounds[0] is None or bounds[1] is None or not bounds[0] <= bounds[1]:
        return None
    return float(bounds[0]), float(bounds[1])


def _clips(op: Op) -> bool:
    found = dtype(op.results[0])
    return found is not None and found.is_float and _clip_bounds(op) is not None


def _merged_bounds(site: Site) -> tuple[float, float]:
    inner, outer = _clip_bounds(site.node("inner")), _clip_bounds(site.op)
    assert inner is not None
    assert outer is not None
    low, high = (min(max(bound, outer[0]), outer[1]) for bound in inner)
    return low, high


def _kept_clip(site: Site) -> tuple[Op, Op]:
    """Which op stays, a Clip if there is one, and which goes."""
    inner, outer = site.node("inner"), site.op
    return (inner, outer) if outer.kind == "Relu" else (outer, inner)


def _merge_clips(site: Site) -> list[Value | None] | None:
    kept, _ = _kept_clip(site)
    for slot, number in enumerate(_merged_bounds(site), start=1):
        value = _bound(site, slot, number)
        if value is not None or slot < len(kept.operands):
            while slot > len(kept.operands):
                site.rw.set_operand(kept, len(kept.operands), None)
            site.rw.set_operand(kept, slot, value)
    if kept is site.op:
        site.rw.set_operand(kept, 0, site["x"])
        return None
    return [kept.result]


def _bound(site: Site, slot: int, number: float) -> Value | None:
    """A bound of the one Clip: a constant of the two if one has the number."""
    if math.isinf(number):
        return None
    return _known_bound(site, slot, number) or site.const(number, dtype=dtype(site.op.result))


def _known_bound(site: Site, slot: int, number: float) -> Value | None:
    found = [op.operand(slot) for op in _kept_clip(site) if op.kind == "Clip"]
    return next((v for v in found if v is not None and scalar(v) == number), None)


def _clip_check(site: Site) -> Refusal | None:
    kept, gone = _kept_clip(site)
    bounds = enumerate(_merged_bounds(site), start=1)
    fresh = [n for slot, n in bounds if not math.isinf(n) and _known_bound(site, slot, n) is None]
    return grows(
        len(fresh) * constant_bytes(4, 0, f"{site.op.results[0].name}_constant"), [gone], [kept], allowance=site.change
    )


def _whole(op: Op) -> bool:
    """Whether a Concat puts all pieces of one Split back in order."""
    first = op.operand(0)
    split = first.op if first is not None else None
    if split is None or split.kind != "Split" or op.operands != split.results:
        return False
    source, result = split.operand(0), op.results[0]
    if source is None or not isinstance(result.type, TensorType):
        return False
    return attr_int(split, "axis") % result.type.rank == attr_int(op, "axis") % result.type.rank


def _joined(site: Site) -> list[Value | None]:
    split = site["piece"].op
    assert split is not None
    return [split.operand(0)]


def _is_bool(value: Value) -> bool:
    return dtype(value) is DType.BOOL and value.constant is not None and uniform(value) is not None


_SHAPED = ("Reshape", "Expand", "Flatten", "Squeeze", "Unsqueeze")

RULES: tuple[Rule, ...] = (
    _noop("identity", "Identity of a value is the value.", "Identity", lambda op: True),
    Rule(
        "dropout", "Dropout outside training is the identity, unless its mask is read.",
        node("Dropout", anything("x")), lambda s: [s["x"], None][: len(s.op.results)], _dropout,
    ),
    *_neutral_rules(),
    _noop("same-cast", "Cast to the element type that the value has.", ("Cast", "CastLike"), _keeps_cast),
    _noop("same-order", "Transpose that keeps the order of the axes.", "Transpose", _keeps_axes),
    _noop("same-shape", "Reshape, Expand, Flatten, Squeeze or Unsqueeze to the shape that the value has.",
          _SHAPED, _same),
    _noop("empty-pad", "Pad by nothing.", "Pad", _pads_nothing),
    _noop("full-slice", "Slice, with step 1, of everything.", "Slice", _slices_nothing),
    _noop("idle-clip", "Clip without bounds, or to infinite ones.", "Clip", _clips_nothing),
    _noop("tile-once", "Tile that repeats nothing.", "Tile", _repeats_once),
    _noop("same-size", "Resize to the size that the value has.", "Resize", _resizes_nothing),
    _noop("one-piece", "Split into one piece.", "Split", _split_in_one),
    _noop("one-operand", "Concat, Sum, Mean, Max or Min of one operand.", ("Concat", "Sum", "Mean", "Max", "Min"),
          lambda op: len(op.operands) == 1),
    Rule(
        "split-concat", "Concat of all the pieces of a Split, in order, is what was split.",
        node("Concat", anything("piece"), where=_whole), _joined,
    ),
    Rule(
        "known-where", "Where with a constant condition that is the same everywhere is one of its operands.",
        node("Where", const("c", where=_is_bool), anything("a"), anything("b")), lambda s: [_chosen(s)], _where_known,
    ),
    Rule(
        "equal-where", "Where between a value and itself is the value.",
        node("Where", anything("c"), anything("a"), where=lambda op: op.operand(1) is op.operand(2)),
        lambda s: [s["a"]], _same_branches,
    ),
    *_pair("twice", "Relu, Abs, Floor, Ceil, Round, Sign applied twice are applied once.", _IDEMPOTENT,
           lambda s: [s.node("inner").result]),
    *_pair("undone", "Not Not, Neg Neg and BitwiseNot BitwiseNot cancel.", _INVOLUTION, lambda s: [s["x"]]),
    *(
        Rule(
            "clip-clip", "A Clip with constant bounds takes in the Clip or Relu before or after it.",
            node(outer, node(inner, anything("x"), name="inner", where=_clips), where=_clips),
            _merge_clips, _clip_check,
        )
        for outer, inner in (("Clip", ("Clip", "Relu")), ("Relu", ("Clip",)))
    ),
)  # fmt: skip
