"""Laws of dimension expressions: the normal form computes what Python's integers compute."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc.ir import dims
from mlc.ir.dims import Dim, Expr, Sym

N, M, K = Sym("N"), Sym("M"), Sym("K")
Thunk = Callable[[dict[str, int]], int]


def _pair(left: tuple[Dim, Thunk], right: tuple[Dim, Thunk], name: str) -> tuple[Dim, Thunk]:
    on_dims = {"+": operator.add, "-": operator.sub, "*": operator.mul}[name]
    (a, f), (b, g) = left, right
    return on_dims(a, b), lambda env: on_dims(f(env), g(env))


def _divide(left: tuple[Dim, Thunk], by: int, up: bool) -> tuple[Dim, Thunk]:
    a, f = left
    if up:
        return dims.ceildiv(a, by), lambda env: -(-f(env) // by)
    return dims.floordiv(a, by), lambda env: f(env) // by


LEAVES = st.one_of(
    st.integers(-6, 6).map(lambda n: (n, lambda env: n)),
    st.sampled_from([N, M, K]).map(lambda s: (s, lambda env: env[s.name])),
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(_pair, inner, inner, st.sampled_from("+-*")),
        st.builds(_divide, inner, st.integers(-4, 6).filter(bool), st.booleans()),
    ),
    max_leaves=8,
)
ENVIRONMENTS = st.fixed_dictionaries({name: st.integers(0, 12) for name in "NMK"})


@given(EXPRESSIONS, ENVIRONMENTS)
def test_the_normal_form_computes_the_same(made: tuple[Dim, Thunk], env: dict[str, int]) -> None:
    dim, expected = made
    assert dims.evaluate(dim, env) == expected(env)


@given(EXPRESSIONS, EXPRESSIONS, EXPRESSIONS)
def test_ring_laws(x: tuple[Dim, Thunk], y: tuple[Dim, Thunk], z: tuple[Dim, Thunk]) -> None:
    a, b, c = x[0], y[0], z[0]
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a * b == b * a
    assert (a * b) * c == a * (b * c)
    assert a * (b + c) == a * b + a * c
    assert a - a == 0
    assert dims.mul(a, 1) == a


@given(EXPRESSIONS, EXPRESSIONS)
def test_a_product_divides_exactly(x: tuple[Dim, Thunk], y: tuple[Dim, Thunk]) -> None:
    a, b = x[0], y[0]
    if b != 0:
        assert dims.exact_div(a * b, b) == a


@given(EXPRESSIONS, st.integers(1, 9), st.integers(1, 9))
def test_the_quotient_of_multiples_is_a_fraction(x: tuple[Dim, Thunk], p: int, q: int) -> None:
    if x[0] != 0:
        assert dims.quotient(p * x[0], q * x[0]) == Fraction(p, q)


@given(EXPRESSIONS, EXPRESSIONS, ENVIRONMENTS)
def test_a_quotient_holds_everywhere(x: tuple[Dim, Thunk], y: tuple[Dim, Thunk], env: dict[str, int]) -> None:
    quotient = dims.quotient(x[0], y[0])
    if quotient is not None:
        above, below = dims.evaluate(x[0], env), dims.evaluate(y[0], env)
        assert above is None or below is None or above * quotient.denominator == below * quotient.numerator


@given(EXPRESSIONS, EXPRESSIONS, ENVIRONMENTS)
def test_an_exact_quotient_is_one(x: tuple[Dim, Thunk], y: tuple[Dim, Thunk], env: dict[str, int]) -> None:
    quotient = dims.exact_div(x[0], y[0])
    if quotient is not None:
        assert dims.evaluate(quotient * y[0], env) == dims.evaluate(x[0], env)


@given(EXPRESSIONS, ENVIRONMENTS)
def test_substitution_in_steps(made: tuple[Dim, Thunk], env: dict[str, int]) -> None:
    half = dims.substitute(made[0], lambda s: env["N"] if s is N else s)
    assert N not in dims.symbols(half)
    assert dims.evaluate(half, env) == dims.evaluate(made[0], env)


@given(EXPRESSIONS)
def test_copies_are_the_same_object(made: tuple[Dim, Thunk]) -> None:
    dim = made[0]
    assert copy.deepcopy(dim) is dim or isinstance(dim, int)
    assert pickle.loads(pickle.dumps(dim)) == dim


@given(EXPRESSIONS)
def test_symbols_are_those_that_matter(made: tuple[Dim, Thunk]) -> None:
    renamed = dims.substitute(made[0], lambda s: Sym(s.name + "_"))
    assert {s.name for s in dims.symbols(renamed)} == {s.name + "_" for s in dims.symbols(made[0])}
    assert dims.substitute(renamed, lambda s: Sym(s.name[:-1])) == made[0]


@pytest.mark.parametrize(
    ("dim", "printed"),
    [
        (2 * N * N + 3 - N, "2*N*N + -1*N + 3"),
        ((N - 1) // 2 + 1, "floordiv(N + 1, 2)"),
        (dims.ceildiv(N, 2), "floordiv(N + 1, 2)"),
        (dims.ceildiv(dims.ceildiv(N, 2), 2), "floordiv(N + 3, 4)"),
        (dims.floordiv(4 * N + 6, 4), "N + 1"),
        (dims.floordiv(2 * N + 1, 4), "floordiv(N, 2)"),
        (dims.floordiv(N * M, M), "N"),
        (dims.exact_div(N * N - 1, N - 1), "N + 1"),
        (dims.ceildiv(N, M), "ceildiv(N, M)"),
        (Sym("past + now") + 1, '"past + now" + 1'),
        (Sym('a"b\n'), r'"a\"b\n"'),
        (N - N, "0"),
        (Sym("N") * 1, "N"),
    ],
)
def test_the_normal_form_in_print(dim: Dim, printed: str) -> None:
    assert repr(dim) == printed


def test_equal_expressions_are_one_object() -> None:
    assert N * M + 2 is 2 + M * N
    assert isinstance(N + 1, Expr)
    assert (N + 1) - 1 is N


def test_zero_divisors() -> None:
    with pytest.raises(ZeroDivisionError):
        dims.floordiv(N, 0)
    with pytest.raises(ZeroDivisionError):
        dims.ceildiv(N, 0)
    assert dims.exact_div(N, 0) is None
    assert dims.evaluate(dims.floordiv(N, M), {"N": 4, "M": 0}) is None
    assert dims.evaluate(N + M, {"N": 4}) is None


def test_unify_prefers_what_says_more() -> None:
    unknown = dims.fresh()
    assert dims.unify(3, 3) == 3
    assert dims.unify(3, 4) is None
    assert dims.unify(N, 4) == 4
    assert dims.unify(4, unknown) == 4
    assert dims.unify(unknown, N) is N
    assert dims.unify(N, unknown + 1) is N
    assert dims.unify(N, M) is N


def test_fresh_symbols_are_told_from_names() -> None:
    first, second = dims.fresh("trip"), dims.fresh()
    assert first is not second
    assert dims.fresh_number(first) < dims.fresh_number(second)  # type: ignore[operator]
    assert dims.is_fresh(2 * first + N)
    for name in ("?", "?1", "N", "unk__0"):  # names that files use
        assert not dims.is_fresh(Sym(name))
