"""The work of a module (its MACs) as a function of how many units each group has: exact, without rewriting anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...ir.axes import Axes
from ...ir.axis_solver import Axis
from ...ir.core import Graph, Module, Op, Value
from ...ir.cost import bind, cost_of, module_cost, runs_of
from ...ir.dims import Dim, Expr, Sym, symbols
from ...ir.ops.table import lookup
from ...ir.types import TensorType


@dataclass(frozen=True)
class Term:
    """An op that multiplies: how often it runs, and a twin whose types stand for other sizes."""

    runs: int
    twin: Op
    values: tuple[tuple[Value, Axis], ...]  # of the twin, each with the axis types of the original
    classes: frozenset[int]


class Work:
    """MACs of one run of a module for any number of units in its groups; symbolic sizes are bound by `dims`.

    Errors: BAD_DIMS names the sizes that nothing binds.
    """

    def __init__(self, module: Module, axes: Axes, dims: Mapping[str, int]) -> None:
        self._axes, self._dims = axes, batch_of_one(module, dims)
        self._terms: list[Term] = []
        self._fixed = 0
        for op, runs in _running(module.graph, 1):
            self._add(op, bind(runs, self._dims))
        self._of: dict[int, list[Term]] = {}
        for term in self._terms:
            for c in term.classes:
                self._of.setdefault(c, []).append(term)

    def _add(self, op: Op, runs: int) -> None:
        classes = frozenset(c for v in (*op.operands, *op.results) if v is not None for c in self._axes.touched(v))
        if not classes:
            self._fixed += runs * bind(cost_of(op).macs, self._dims)
            return
        twins: dict[Value, Value] = {}
        for value in (*op.operands, *op.results):
            if value is not None:
                twins[value] = Value(value.type)
                twins[value].dims = value.dims
        operands = [None if v is None else twins[v] for v in op.operands]
        twin = Op(op.kind, operands, op.attrs, [twins[v] for v in op.results])
        values = tuple((twins[v], self._axes.of(v) or ()) for v in twins if self._axes.touched(v))
        self._terms.append(Term(runs, twin, values, classes))

    def total(self, counts: Mapping[int, int]) -> int:
        """The MACs when class `c` has `counts[c]` units, and those not named all of theirs."""
        return self._fixed + sum(self._macs(t, counts) for t in self._terms)

    def saving(self, c: int, counts: Mapping[int, int], fewer: int) -> int:
        """The MACs that go when class `c` shrinks from `counts` to `fewer` units."""
        after = {**counts, c: fewer}
        return sum(self._macs(t, counts) - self._macs(t, after) for t in self._of.get(c, ()))

    def _macs(self, term: Term, counts: Mapping[int, int]) -> int:
        for value, types in term.values:
            assert isinstance(value.type, TensorType)
            shape = tuple(self._axes.resized(t, counts) for t in types)
            value.type = TensorType(value.type.dtype, shape)
        macs = lookup(term.twin.kind).macs
        assert macs is not None
        return term.runs * bind(macs(term.twin), self._dims)


def _running(graph: Graph, runs: Dim) -> Iterator[tuple[Op, Dim]]:
    """Every op that multiplies, bodies included, and how often it runs."""
    for op in graph.ops:
        for region, times in runs_of(op).items():
            yield from _running(op.regions[region], runs * times)
        if not op.regions and lookup(op.kind).macs is not None:
            yield op, runs


def batch_of_one(module: Module, dims: Mapping[str, int]) -> dict[str, int]:
    """`dims`, and 1 for the sizes it lacks that leave a ratio of work as it is: those by which all work is multiplied,
    and the first axes of inputs."""
    first = (v.type.shape[0] for v in module.graph.inputs if isinstance(v.type, TensorType) and v.type.rank)
    free = {symbol.name for dim in first for symbol in symbols(dim)} | {
        s.name for s in _factors(module_cost(module).macs)
    }
    return {**dict.fromkeys(free, 1), **dims}


def _factors(amount: Dim) -> set[Sym]:
    """The symbols that are in every term of an amount, and in the same power: it is proportional to that power."""
    if isinstance(amount, Sym):
        return {amount}
    if not isinstance(amount, Expr):
        return set()
    terms = [Counter(a for a in monomial if isinstance(a, Sym)) for monomial, _ in amount.terms]
    within = {s for monomial, _ in amount.terms for a in monomial if not isinstance(a, Sym) for s in symbols(a)}
    return {s for s, power in terms[0].items() if s not in within and all(t[s] == power for t in terms)}
