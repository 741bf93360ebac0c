"""Patterns: small trees of operators that are matched from their root towards the operands.

    node("Transpose", node("Transpose", anything("x"), name="inner"), name="outer")
    node({"Add", "Mul"}, anything("x"), const("c"), commutative=True)

A pattern only says what the code looks like; whether the rewrite is sound there is the business of a rule's check.
Inner ops must lie in the same graph as the root, so that no rule moves work into or out of a body, and (unless
`shared`) nobody else may read them, so that no rule duplicates work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from ...ir.core import Op, Value


@dataclass(frozen=True, slots=True)
class Leaf:
    """Any value; `constant` restricts it to constants of the module. A name captures the value."""

    name: str = ""
    constant: bool = False
    where: Callable[[Value], bool] | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """An op of one of `kinds` (none: any) whose first operands match. A name captures the op."""

    kinds: frozenset[str]
    operands: tuple[Leaf | Node, ...] = ()
    name: str = ""
    where: Callable[[Op], bool] | None = None
    commutative: bool = False  # the first two operands may come in either order
    shared: bool = False  # as an inner op: other ops may read the result too


Found = Mapping[str, Op | Value]


def anything(name: str = "", *, where: Callable[[Value], bool] | None = None) -> Leaf:
    return Leaf(name, where=where)


def const(name: str = "", *, where: Callable[[Value], bool] | None = None) -> Leaf:
    return Leaf(name, constant=True, where=where)


def node(
    kinds: str | Iterable[str],
    *operands: Leaf | Node,
    name: str = "",
    where: Callable[[Op], bool] | None = None,
    commutative: bool = False,
    shared: bool = False,
) -> Node:
    wanted = frozenset({kinds} if isinstance(kinds, str) else kinds)
    return Node(wanted, operands, name, where, commutative, shared)


def matches(pattern: Node, root: Op) -> Iterator[Found]:
    """Every way in which the pattern fits with `root` as its root: what its names stand for."""
    return _match_op(pattern, root, {})


def _match_op(pattern: Node, op: Op, found: Found) -> Iterator[Found]:
    if pattern.kinds and op.kind not in pattern.kinds:
        return
    if pattern.where is not None and not pattern.where(op):
        return
    if pattern.name:
        found = {**found, pattern.name: op}
    for operands in _orders(pattern, op.operands):
        yield from _match_all(pattern.operands, operands, op, found)


def _orders(pattern: Node, operands: tuple[Value | None, ...]) -> Iterator[tuple[Value | None, ...]]:
    if pattern.commutative and len(operands) > 1 and operands[0] is not operands[1]:
        yield from ((*head, *operands[2:]) for head in permutations(operands[:2]))
    else:
        yield operands


def _match_all(
    patterns: Sequence[Leaf | Node], operands: Sequence[Value | None], user: Op, found: Found
) -> Iterator[Found]:
    if not patterns:
        yield found
        return
    value = operands[0] if operands else None
    if value is not None:
        for partial in _match_value(patterns[0], value, user, found):
            yield from _match_all(patterns[1:], operands[1:], user, partial)


def _match_value(pattern: Leaf | Node, value: Value, user: Op, found: Found) -> Iterator[Found]:
    if isinstance(pattern, Leaf):
        if pattern.constant and value.constant is None:
            return
        if pattern.where is None or pattern.where(value):
            yield {**found, pattern.name: value} if pattern.name else found
        return
    producer = value.op
    if producer is None or producer.parent is not user.parent:
        return
    if pattern.shared or len(value.uses) == 1:
        yield from _match_op(pattern, producer, found)
