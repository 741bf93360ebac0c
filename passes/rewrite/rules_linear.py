"""MatMul and Gemm: a bias and a transposed operand go into the op."""

from __future__ import annotations

from ...ir.core import Op, Value
from ...ir.dtypes import DType
from ...ir.ops.access import attr_float, attr_int
from ..base import SkipCode
from .facts import dtype, permutation, rank, shape
from .pattern import anything, const, node
from .rule import Refusal, Rule, Site

_FLOATS = (DType.F32, DType.F64, DType.F16)


def _is_matrix(value: Value | None) -> bool:
    return rank(value) == 2


def _bias_fits(site: Site) -> Refusal | None:
    result = shape(site.op.result)
    if dtype(site.op.result) not in _FLOATS:
        return Refusal(SkipCode.DTYPE, f"Gemm of {dtype(site.op.result)!r} has no kernel everywhere")
    if result is None or shape(site.node("product").result) != result:
        return Refusal(SkipCode.NOT_CONSTANT, "the constant may broadcast the product to a larger shape")
    return None


def _matmul_add(site: Site) -> list[Value | None]:
    matmul = site.node("product")
    return [site.new("Gemm", [*matmul.operands, site["c"]], origin=matmul)]


def _gemm_add(site: Site) -> list[Value | None] | None:
    gemm = site.node("product")
    return [site.new("Gemm", [*gemm.operands[:2], site["c"]], {**gemm.attrs, "beta": 1.0}, origin=gemm)]


def _swaps_matrix(op: Op) -> bool:
    return permutation(op) == (1, 0)


def _absorb(slot: int) -> Rule:
    flag = "transB" if slot else "transA"

    def build(site: Site) -> None:
        site.rw.set_operand(site.op, slot, site["x"])
        site.rw.set_attr(site.op, flag, None if attr_int(site.op, flag) else 1)

    turned = node("Transpose", anything("x"), where=_swaps_matrix)
    pattern = node("Gemm", anything(), turned) if slot else node("Gemm", turned)
    return Rule("transpose-gemm", "Gemm of a transposed matrix transposes by itself.", pattern, build, exact=False)


def _plain_product(op: Op) -> bool:
    return _is_matrix(op.operand(0)) and _is_matrix(op.operand(1))


def _no_bias(op: Op) -> bool:
    return op.operand(2) is None or attr_float(op, "beta", 1.0) == 0


RULES: tuple[Rule, ...] = (
    Rule(
        "matmul-add", "MatMul of matrices and a constant bias are one Gemm.",
        node("Add", node("MatMul", anything(), const(), name="product", where=_plain_product), const("c"),
             commutative=True),
        _matmul_add, _bias_fits, exact=False,
    ),
    Rule(
        "gemm-add", "A constant bias after a Gemm without one is its bias.",
        node("Add", node("Gemm", name="product", where=_no_bias), const("c"), commutative=True),
        _gemm_add, _bias_fits, exact=False,
    ),
    _absorb(0),
    _absorb(1),
)  # fmt: skip
