"""Dimensions: integers, symbols and polynomials over them.

`Dim = int | Sym | Expr`. Expressions over + - * floordiv ceildiv are kept as polynomials with integer
coefficients in a normal form (terms sorted, equal terms joined, constants folded; a division by a positive
constant keeps only remainders below that constant, so `(N - 1) // 2 + 1`, `ceildiv(N, 2)` and `(N + 1) // 2` are
one). Equal normal forms mean equal sizes. Everything is hash-consed: equal expressions are one object.
A symbol stands for a non-negative size. No general theorem prover: what does not cancel stays as it is.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import ClassVar, Union

_Monomial = tuple["_Atom", ...]  # sorted; () is the constant term; an atom repeats for its powers
_Terms = tuple[tuple[_Monomial, int], ...]  # sorted by monomial, no zero coefficients


class _DimBase:
    """Arithmetic shared by symbols and expressions; the result is normalised and may be an int."""

    __slots__ = ()

    def __add__(self, other: Dim) -> Dim:
        return add(_dim(self), other)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return add(_dim(self), mul(other, -1))

    def __rsub__(self, other: Dim) -> Dim:
        return add(other, mul(_dim(self), -1))

    def __mul__(self, other: Dim) -> Dim:
        return mul(_dim(self), other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(_dim(self), other)

    def __neg__(self) -> Dim:
        return mul(_dim(self), -1)


class Sym(_DimBase):
    """A named unknown size, equal to any other symbol of the same name."""

    __slots__ = ("__weakref__", "name")
    _interned: ClassVar[weakref.WeakValueDictionary[str, Sym]] = weakref.WeakValueDictionary()
    name: str

    def __new__(cls, name: str) -> Sym:
        found = cls._interned.get(name)
        if found is None:
            found = super().__new__(cls)
            found.name = name
            cls._interned[name] = found
        return found

    def __reduce__(self) -> tuple[type[Sym], tuple[str]]:
        return Sym, (self.name,)

    def __repr__(self) -> str:
        plain = _IDENTIFIER.fullmatch(self.name) or _FRESH.fullmatch(self.name)
        return self.name if plain else json.dumps(self.name, ensure_ascii=False)


class Div(_DimBase):
    """`floordiv(a, b)` or `ceildiv(a, b)` that does not simplify: an atom of the polynomials."""

    __slots__ = ("__weakref__", "denominator", "kind", "numerator")
    _interned: ClassVar[weakref.WeakValueDictionary[tuple[str, Dim, Dim], Div]] = weakref.WeakValueDictionary()
    kind: str
    numerator: Dim
    denominator: Dim

    def __new__(cls, kind: str, numerator: Dim, denominator: Dim) -> Div:
        key = (kind, numerator, denominator)
        found = cls._interned.get(key)
        if found is None:
            found = super().__new__(cls)
            found.kind, found.numerator, found.denominator = key
            cls._interned[key] = found
        return found

    def __reduce__(self) -> tuple[type[Div], tuple[str, Dim, Dim]]:
        return Div, (self.kind, self.numerator, self.denominator)

    def __repr__(self) -> str:
        return f"{self.kind}({self.numerator!r}, {self.denominator!r})"


class Expr(_DimBase):
    """A polynomial that is neither an integer nor a single symbol."""

    __slots__ = ("__weakref__", "terms")
    _interned: ClassVar[weakref.WeakValueDictionary[_Terms, Expr]] = weakref.WeakValueDictionary()
    terms: _Terms

    def __new__(cls, terms: _Terms) -> Expr:
        found = cls._interned.get(terms)
        if found is None:
            found = super().__new__(cls)
            found.terms = terms
            cls._interned[terms] = found
        return found

    def __reduce__(self) -> tuple[type[Expr], tuple[_Terms]]:
        return Expr, (self.terms,)

    def __repr__(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = [repr(atom) for atom in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return " + ".join(parts)


_Atom = Union[Sym, Div]  # noqa: UP007  (a forward-looking alias used in annotations above)
Dim = int | Sym | Div | Expr
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_FRESH = re.compile(r"\?.*\D(\d+)")  # not "?" or "?1", which files use as names
_fresh = itertools.count()


def fresh(prefix: str = "unk") -> Sym:
    """A symbol no other dimension uses. The name never reaches a file (see `is_fresh`)."""
    assert not prefix[-1:].isdigit(), "the number must stand apart"
    return Sym(f"?{prefix}{next(_fresh)}")


def fresh_number(symbol: Sym) -> int | None:
    """The serial number of a symbol made by `fresh` (later ones are larger); None for a symbol with a name."""
    found = _FRESH.fullmatch(symbol.name)
    return int(found[1]) if found else None


def is_fresh(dim: Dim) -> bool:
    """Whether a dimension is an unknown of our own making, or is computed from one."""
    return any(fresh_number(s) is not None for s in symbols(dim))


def is_dim(value: object) -> bool:
    """Whether a value is a well-formed dimension (a bool or a numpy integer is not)."""
    return type(value) is int or isinstance(value, Sym | Div | Expr)


def _dim(value: _DimBase) -> Dim:
    assert isinstance(value, Sym | Div | Expr)
    return value


def _terms(dim: Dim) -> Mapping[_Monomial, int]:
    if isinstance(dim, int):
        return {(): dim} if dim else {}
    if isinstance(dim, Expr):
        return dict(dim.terms)
    return {(dim,): 1}


def _from_terms(terms: Mapping[_Monomial, int]) -> Dim:
    kept = sorted(((m, c) for m, c in terms.items() if c), key=lambda t: _order(t[0]))
    if not kept:
        return 0
    if len(kept) == 1:
        monomial, coefficient = kept[0]
        if not monomial:
            return coefficient
        if len(monomial) == 1 and coefficient == 1:
            return monomial[0]
    return Expr(tuple(kept))


def _order(monomial: _Monomial) -> tuple[int, tuple[str, ...]]:
    """Graded lexicographic: an order that multiplication respects, which long division needs."""
    return -len(monomial), tuple(repr(a) for a in monomial)


def add(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    total = dict(_terms(a))
    for monomial, coefficient in _terms(b).items():
        total[monomial] = total.get(monomial, 0) + coefficient
    return _from_terms(total)


def mul(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    total: dict[_Monomial, int] = {}
    for (m, c), (n, d) in itertools.product(_terms(a).items(), _terms(b).items()):
        joined = tuple(sorted((*m, *n), key=repr))
        total[joined] = total.get(joined, 0) + c * d
    return _from_terms(total)


def product(dims: Iterable[Dim]) -> Dim:
    total: Dim = 1
    for dim in dims:
        total = mul(total, dim)
    return total


def exact_div(a: Dim, b: Dim) -> Dim | None:
    """The dimension q with q * b == a for every value of the symbols, or None if there is no such normal form."""
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a % b == 0 else None
    if a == b:
        return 1
    divisor = _terms(b)
    if len(divisor) > 1:
        return _exact_polynomial_div(a, b)
    ((monomial, coefficient),) = divisor.items()
    result: dict[_Monomial, int] = {}
    for m, c in _terms(a).items():
        rest = _cancel(m, monomial)
        if rest is None or c % coefficient:
            return None
        result[rest] = c // coefficient
    return _from_terms(result)


def _exact_polynomial_div(a: Dim, b: Dim) -> Dim | None:
    """Long division by the leading term; exact or None."""
    quotient: Dim = 0
    remainder = a
    lead, lead_coefficient = min(_terms(b).items(), key=lambda t: _order(t[0]))
    while remainder != 0:
        m, c = min(_terms(remainder).items(), key=lambda t: _order(t[0]))
        rest = _cancel(m, lead)
        if rest is None or c % lead_coefficient:
            return None
        step = _from_terms({rest: c // lead_coefficient})
        quotient = add(quotient, step)
        remainder = add(remainder, mul(mul(step, b), -1))
        if len(_terms(remainder)) > 64:
            return None
    return quotient


def _cancel(monomial: _Monomial, factor: _Monomial) -> _Monomial | None:
    rest = list(monomial)
    for atom in factor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def quotient(a: Dim, b: Dim) -> Fraction | None:
    """a / b where that is one positive number, whatever the symbols stand for."""
    above, below = _terms(a), _terms(b)
    found = {Fraction(above[m], c) for m, c in below.items()} if above.keys() == below.keys() else set()
    return found.pop() if len(found) == 1 and min(found) > 0 else None


def floordiv(a: Dim, b: Dim) -> Dim:
    """`a // b`, rounded down."""
    if b == 0:
        raise ZeroDivisionError("a dimension is divided by zero")
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    exact = exact_div(a, b)
    if exact is not None:
        return exact
    return _floordiv_constant(a, b) if isinstance(b, int) and b > 0 else Div("floordiv", a, b)


def ceildiv(a: Dim, b: Dim) -> Dim:
    """`a / b`, rounded up. By a positive constant it is a `floordiv`: one normal form for both."""
    if b == 0:
        raise ZeroDivisionError("a dimension is divided by zero")
    if isinstance(b, int) and b > 0:
        return floordiv(add(a, b - 1), b)
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    exact = exact_div(a, b)
    return exact if exact is not None else Div("ceildiv", a, b)


def _floordiv_constant(a: Dim, divisor: int) -> Dim:
    """Multiples of the divisor leave the division, a common factor cancels, nested divisions become one."""
    whole = _from_terms({m: c // divisor for m, c in _terms(a).items()})
    rest = {m: c % divisor for m, c in _terms(a).items() if c % divisor}
    offset = rest.pop((), 0)
    if not rest:
        return whole
    factor = math.gcd(divisor, *rest.values())
    inner = _from_terms({m: c // factor for m, c in rest.items()})
    offset //= factor
    divisor //= factor
    if divisor == 1:
        return add(whole, add(inner, offset))
    if isinstance(inner, Div) and inner.kind == "floordiv":
        d = inner.denominator
        if isinstance(d, int) and d > 0:  # (x // d + k) // e == (x + k * d) // (d * e)
            return add(whole, floordiv(add(inner.numerator, offset * d), d * divisor))
    return add(whole, Div("floordiv", add(inner, offset), divisor))


def symbols(dim: Dim) -> frozenset[Sym]:
    """All symbols a dimension depends on."""
    if isinstance(dim, int):
        return frozenset()
    if isinstance(dim, Sym):
        return frozenset((dim,))
    if isinstance(dim, Div):
        return symbols(dim.numerator) | symbols(dim.denominator)
    return frozenset(s for monomial, _ in dim.terms for atom in monomial for s in symbols(atom))


def substitute(dim: Dim, value: Callable[[Sym], Dim]) -> Dim:
    """The dimension with every symbol replaced by `value(symbol)`, normalised again."""
    if isinstance(dim, int):
        return dim
    if isinstance(dim, Sym):
        return value(dim)
    if isinstance(dim, Div):
        divide = floordiv if dim.kind == "floordiv" else ceildiv
        return divide(substitute(dim.numerator, value), substitute(dim.denominator, value))
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        total = add(total, mul(coefficient, product(substitute(atom, value) for atom in monomial)))
    return total


def evaluate(dim: Dim, binding: Mapping[str, int]) -> int | None:
    """The size under a binding of names to integers; None if a symbol is unbound or a divisor is zero."""
    try:
        found = substitute(dim, lambda s: binding.get(s.name, s))
    except ZeroDivisionError:
        return None
    return found if isinstance(found, int) else None


def unify(a: Dim, b: Dim) -> Dim | None:
    """The more exact of two descriptions of one size; None if they are two different integers."""
    if isinstance(a, int) and isinstance(b, int):
        return a if a == b else None
    if isinstance(a, int) or (is_fresh(b) and not isinstance(b, int)):
        return a
    if isinstance(b, int) or is_fresh(a):
        return b
    return a
