"""Which values hold 8-bit codes, and which of them share a grid.

A value is quantized if a weighted op with 8-bit activations reads it or (a convolution) makes it, or if it lies
between such ops and every op on the way works on codes: `Placement.glue`. So both sides of a residual addition are
quantized or neither is, and nothing is rounded only to be widened again. Values that are moved share the grid of
where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from ....ir.core import Graph, Op, Value
from .glue import Behaviour, Glue, Head, data_of, glue_of

#: Weighted ops whose kernel also makes codes: their result is rounded at once. Products keep floats.
ROUNDING = frozenset({"Conv"})


@dataclass(frozen=True)
class GridClass:
    """Values on one grid. `sources` are those whose range decides it; no value exceeds `bound`."""

    values: tuple[Value, ...]
    sources: tuple[Value, ...]
    bound: float | None = None  # of the clamps that the grid replaces: zero is the least value then


@dataclass(frozen=True)
class Placement:
    """Where the codes are: classes of values, the ops between them that work on codes, and the heads of ops that
    rounding reaches beyond."""

    classes: tuple[GridClass, ...]
    glue: tuple[Op, ...]
    heads: tuple[Head, ...]


def place(
    graph: Graph, weighted: Collection[Op], works: Callable[[Op], bool], without: Collection[Value] = frozenset()
) -> Placement:
    """Place the codes for the ops `weighted` of the graph, which read them at operand 0. `works` says whether another
    op may work on codes; values in `without` keep their floats."""
    return _Placer(graph, set(weighted), works, without).place()


def touches(op: Op, values: Collection[Value]) -> bool:
    """Whether a weighted op reads or makes one of the values in codes."""
    return op.operands[0] in values or (op.kind in ROUNDING and Head.of(op).value in values)


@dataclass
class _Placer:
    graph: Graph
    weighted: set[Op]
    works: Callable[[Op], bool]
    without: Collection[Value]
    candidates: dict[Op, Glue] = field(default_factory=dict)
    glue: dict[Op, Glue] = field(default_factory=dict)

    def place(self) -> Placement:
        self._find_candidates()
        wanted = self._close_gaps()
        working = [op for op in self.graph.ops if op in self.glue or (op in self.weighted and self._rounds(op))]
        made = {value for op in working for value in self._made(op)}
        heads = [Head.of(op) for op in working if self._rounds(op)]
        quantized = dict.fromkeys(v for v in self._values() if v in wanted or v in made)
        classes = _Classes(quantized, {h.value: h.bound for h in heads if h.bound is not None})
        for op, glue in self.glue.items():
            classes.add(op, glue, self._made(op))
        reaching = tuple(h for h in heads if h.absorbed or h.factor != 1.0)
        return Placement(classes.result(), tuple(self.glue), reaching)

    def _values(self) -> Iterator[Value]:
        yield from self.graph.inputs
        for op in self.graph.ops:
            yield from op.results

    def _rounds(self, op: Op) -> bool:
        """Whether the op has a kernel that computes and rounds, rather than moves codes."""
        glue = self.candidates.get(op)
        return glue.behaviour is Behaviour.OWN if glue is not None else op in self.weighted and op.kind in ROUNDING

    def _made(self, op: Op) -> tuple[Value, ...]:
        """The values that an op on codes makes: all of them are codes then."""
        return (Head.of(op).value,) if self._rounds(op) else tuple(v for v in op.results if v.uses)

    def _find_candidates(self) -> None:
        """Front to back: ops all of whose data may be codes."""
        available = {op.operands[0] for op in self.weighted}
        for op in self.graph.ops:
            if op in self.weighted:
                available.update(self._made(op) if self._rounds(op) else ())
                continue
            glue = glue_of(op)
            data = data_of(op, glue) if glue is not None else ()
            if glue is None or not data or not all(v in available for v in data) or not self.works(op):
                continue
            self.candidates[op] = glue
            if any(v in self.without for v in (*data, *self._made(op))):
                del self.candidates[op]
            else:
                available.update(self._made(op))

    def _close_gaps(self) -> set[Value]:
        """Back to front: candidates whose result somebody reads as codes; all values that are read so."""
        wanted = {v for v in (op.operands[0] for op in self.weighted) if v is not None}
        for op in reversed(list(self.graph.ops)):
            glue = self.candidates.get(op)
            if glue is not None and any(v in wanted for v in self._made(op)):
                self.glue[op] = glue
                wanted.update(data_of(op, glue))
        self.glue = dict(reversed(self.glue.items()))
        return wanted


class _Classes:
    """Sets of values that share a grid (union-find)."""

    def __init__(self, values: Collection[Value], bounds: dict[Value, float]) -> None:
        self._parent: dict[Value, Value] = {v: v for v in values}
        self._bounds: dict[Value, float] = dict(bounds)
        self._moved: set[Value] = set()  # results of moves: their range follows from where they come from

    def add(self, op: Op, glue: Glue, results: Collection[Value]) -> None:
        made = [v for v in results if v in self._parent]
        if glue.behaviour is Behaviour.VIEW:
            for value in made:
                self._moved.add(value)
                self._join(data_of(op, glue)[0], value)
        elif glue.behaviour is Behaviour.JOIN:
            self._join_all(data_of(op, glue), made[0])

    def _join_all(self, data: Collection[Value], result: Value) -> None:
        """One grid for all operands of a Concat; where some include an activation, those keep a grid of their own."""
        bounds = {self._bound(v) for v in data}
        if len(bounds) == 1:
            self._moved.add(result)
        for value in data:
            if len(bounds) == 1 or self._bound(value) is None:
                self._join(value, result)

    def _bound(self, value: Value) -> float | None:
        return self._bounds.get(self._find(value))

    def _find(self, value: Value) -> Value:
        while self._parent[value] is not value:
            self._parent[value] = self._parent[self._parent[value]]
            value = self._parent[value]
        return value

    def _join(self, first: Value, second: Value) -> None:
        a, b = self._find(first), self._find(second)
        if a is not b:
            self._parent[b] = a
            if b in self._bounds:
                self._bounds[a] = self._bounds[b]

    def result(self) -> tuple[GridClass, ...]:
        members: dict[Value, list[Value]] = {}
        for value in self._parent:
            members.setdefault(self._find(value), []).append(value)
        return tuple(
            GridClass(tuple(values), tuple(v for v in values if v not in self._moved), self._bounds.get(root))
            for root, values in members.items()
        )
