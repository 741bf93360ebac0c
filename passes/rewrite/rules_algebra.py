"""Constants that meet: two additions or multiplications by constants in a row are one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.core import Op, Value
from ...ir.dtypes import DType
from ..base import SkipCode
from .facts import array, dtype, shape
from .pattern import anything, const, node
from .rule import Refusal, Rule, Site, constant_bytes, grows, node_bytes

Array = np.ndarray[Any, Any]

#: How an op with a constant on the right is applied to x: (adds?, inverts the constant?)
_FORMS = {"Add": (True, False), "Sub": (True, True), "Mul": (False, False), "Div": (False, True)}
_FLOATS = (DType.F16, DType.F32, DType.F64)


def _merged(site: Site) -> Array:
    """The constant of the one Add or Mul, in the element type of the tensors."""
    inner, outer = site.node("inner"), site.op
    wide = [array(site[name]).astype(np.float64) if _is_float(site) else array(site[name]) for name in ("a", "b")]
    with np.errstate(all="ignore"):
        for index, op in enumerate((inner, outer)):
            adds, inverted = _FORMS[op.kind]
            if inverted:
                wide[index] = -wide[index] if adds else 1 / wide[index]
        total: Array = wide[0] + wide[1] if _FORMS[outer.kind][0] else wide[0] * wide[1]
        return total.astype(array(site["a"]).dtype)


def _is_float(site: Site) -> bool:
    found = dtype(site.op.result)
    return found is not None and found.is_float


def _check(site: Site) -> Refusal | None:
    kind = dtype(site.op.result)
    if kind is None or not (kind.is_integer or kind in _FLOATS):
        return Refusal(SkipCode.DTYPE, f"constants of {kind!r} are not merged")
    if kind.is_integer and "Div" in (site.op.kind, site.node("inner").kind):
        return Refusal(SkipCode.DTYPE, "integer division rounds")
    if shape(site.op.result) is None or shape(site["x"]) is None:
        return Refusal(SkipCode.NOT_CONSTANT, "the rank is not known")
    if _ends_gelu(site.node("inner")):
        return Refusal(SkipCode.HURTS, "the inner factor ends a Gelu, which runtimes recognise by it")
    merged = _merged(site)
    if kind.is_float and not np.isfinite(merged).all():
        return Refusal(SkipCode.HURTS, "the merged constant would not be finite")
    gone = [site.op, site.node("inner")]
    new = constant_bytes(merged.nbytes, merged.ndim, _name(site)) + node_bytes(site.op)
    return grows(new + (20 if site.op.kind == "Div" else 0), gone)


def _ends_gelu(op: Op) -> bool:
    """Whether the op is the last of x * (1 + erf(x / sqrt 2)) * 0.5."""
    sums = [s for product in _made_by(op, "Mul") for s in _made_by(product, "Add")]
    return op.kind == "Mul" and any(_made_by(s, "Erf") for s in sums)


def _made_by(op: Op, kind: str) -> list[Op]:
    return [v.op for v in op.operands if v is not None and v.op is not None and v.op.kind == kind]


def _build(site: Site) -> list[Value | None] | None:
    """In place, but for a Div, which becomes a Mul."""
    adds, inverted = _FORMS[site.op.kind]
    merged = _merged(site)
    if inverted and not adds:
        return [site.new("Mul", [site["x"], site.const(merged, _name(site))])]
    site.rw.set_operand(site.op, 0, site["x"])
    site.rw.set_operand(site.op, 1, site.const(-merged if inverted else merged, _name(site)))
    return None


def _name(site: Site) -> str:
    return f"{site['b'].name}_merged"


def _power_of_two(value: Value) -> bool:
    values = array(value).astype(np.float64)
    mantissa, exponent = np.frexp(np.abs(values))
    return bool(np.all(mantissa == 0.5) and np.all(np.abs(exponent) < 8))


def _exact_check(site: Site) -> Refusal | None:
    """Without being asked: only integers, and factors of which one is a small power of two."""
    if _is_float(site):
        if _FORMS[site.op.kind][0]:
            return Refusal(SkipCode.HURTS, "float additions in another order round differently", _ASK)
        inverted = [site.node("inner").kind == "Div", site.op.kind == "Div"]
        powers = [_power_of_two(site[name]) for name in ("a", "b")]
        if not any(powers) or any(i and not p for i, p in zip(inverted, powers)):
            return Refusal(SkipCode.HURTS, "the product of the constants rounds differently", _ASK)
    return _check(site)


_ASK = "simplify(fold_affine=true)"


def _rules(kinds: tuple[str, str]) -> list[Rule]:
    """The constant is on the right of Sub and Div, on either side of Add and Mul."""

    def constant_last(op: Op) -> bool:
        last = op.operand(1)
        return op.kind not in ("Sub", "Div") or (last is not None and last.constant is not None)

    inner = node(kinds, anything("x", where=lambda v: v.constant is None), const("a"), name="inner",
                 commutative=True, where=constant_last)  # fmt: skip
    pattern = node(kinds, inner, const("b"), commutative=True, where=constant_last)
    doc = "Two additions (multiplications) of constants in a row are one: integers, and factors that are powers of two."
    return [
        Rule("equal-scale", doc, pattern, _build, _exact_check),
        Rule("merge-constants", "The same for any constants; floats round differently.", pattern, _build, _check,
             asks="fold_affine", exact=False),
    ]  # fmt: skip


RULES: tuple[Rule, ...] = (*_rules(("Add", "Sub")), *_rules(("Mul", "Div")))
