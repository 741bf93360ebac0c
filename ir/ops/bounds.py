"""What can be said about the order of dimension expressions when all that is known is that sizes are not negative."""

from __future__ import annotations

from ..dims import Dim, Div, Expr, Sym


def lower(dim: Dim) -> int | None:
    """A number that the dimension never falls below; None if none is known."""
    if isinstance(dim, int):
        return dim
    if isinstance(dim, Sym):
        return 0
    if isinstance(dim, Div):
        return _lower_of_quotient(dim)
    total = 0
    for monomial, coefficient in dim.terms:
        part = _lower_of_product(monomial) if coefficient > 0 or not monomial else None
        if part is None:
            return None
        total += coefficient * part
    return total


def _lower_of_quotient(dim: Div) -> int | None:
    least = lower(dim.numerator)
    if least is None:
        return None
    if isinstance(dim.denominator, int):
        if dim.denominator <= 0:
            return None
        return least // dim.denominator if dim.kind == "floordiv" else -(-least // dim.denominator)
    return 0 if least >= 0 else None


def _lower_of_product(monomial: tuple[Sym | Div, ...]) -> int | None:
    total = 1
    for atom in monomial:
        least = lower(atom)
        if least is None or least < 0:
            return None
        total *= least
    return total


def at_least(a: Dim, b: Dim) -> bool:
    """Whether a >= b for all sizes."""
    least = lower(_minus(a, b))
    return least is not None and least >= 0


def more_than(a: Dim, b: Dim) -> bool:
    """Whether a > b for all sizes."""
    least = lower(_minus(a, b))
    return least is not None and least > 0


def equal(a: Dim, b: Dim) -> bool | None:
    """Whether a == b for all sizes; None if it depends on them."""
    if a == b:
        return True
    return False if more_than(a, b) or more_than(b, a) else None


def _minus(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return a - b if isinstance(a, Sym | Div | Expr) else -b + a
