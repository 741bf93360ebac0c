"""Sharing: equal ops and equal constants become one."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Hashable, Iterable, Iterator

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Attr, Constants, Graph, Module, Op, Value
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from .driver import Driver
from .rule import may_share

EQUAL_OPS = "equal-ops"
EQUAL_CONSTANTS = "equal-constants"
_SAMPLE = 64  # elements at either end that are looked at before a whole constant is read


def merge_equal_ops(driver: Driver) -> None:
    """One op for all that have the same kind, operands and attributes and are visible from each other.

    An op in a body may use its twin in a graph around the body, never the other way round and never one of a
    sibling body. Ops that draw random numbers, and ops with bodies, are left alone.
    """
    _merge(driver, driver.module.graph, ChainMap())


def _merge(driver: Driver, graph: Graph, seen: ChainMap[Hashable, Op]) -> None:
    for op in graph.ops:
        for region in op.regions.values():
            _merge(driver, region, seen.new_child())
        if op.regions or not op.results or lookup(op.kind).has(Trait.RANDOM) or not driver.may(op):
            continue
        twin = seen.setdefault(_key(op), op)
        if twin is not op:
            with driver.step(EQUAL_OPS):
                driver.rw.replace(op, twin.results)


def _key(op: Op) -> Hashable:
    attrs = tuple(sorted((name, type(value).__name__, _attr_key(value)) for name, value in op.attrs.items()))
    return (op.kind, op.overload, op.operands, attrs, len(op.results))


def _attr_key(value: Attr) -> str:
    if isinstance(value, Constant):
        return f"{value.type} {value.digest()}"
    if isinstance(value, Constants):
        return " ".join(_attr_key(v) for v in value)
    return repr(value)


def merge_equal_constants(driver: Driver) -> None:
    """One constant for all of the same type and elements (those that `may_share`)."""
    for value, kept in equal_constants(driver.module):
        with driver.step(EQUAL_CONSTANTS):
            driver.rw.replace_uses(value, kept)
            driver.rw.drop_constant(value)


def equal_constants(module: Module) -> Iterator[tuple[Value, Value]]:
    """Every constant that equals an earlier one, with the first of its kind."""
    groups: dict[Hashable, list[Value]] = {}
    for value in module.constants.values():
        if value.constant is not None and may_share(value.constant):
            groups.setdefault(value.constant.type, []).append(value)
    for group in groups.values():
        if len(group) > 1:
            yield from _equal(group)


def _equal(group: Iterable[Value]) -> Iterator[tuple[Value, Value]]:
    """Constants of one type: a few bytes of each tell most of them apart before any is read as a whole."""
    alike: dict[bytes, list[Value]] = {}
    for value in group:
        assert value.constant is not None
        alike.setdefault(_sample(value.constant), []).append(value)
    for candidates in alike.values():
        first: dict[str, Value] = {}
        for value in candidates if len(candidates) > 1 else ():
            assert value.constant is not None
            kept = first.setdefault(value.constant.digest(), value)
            if kept is not value:
                yield value, kept


def _sample(constant: Constant) -> bytes:
    """The first and the last elements."""
    tail = max(0, constant.elements - _SAMPLE) // 8 * 8  # where a byte begins, however narrow the elements are
    ends = constant.flat(0, _SAMPLE), constant.flat(tail, constant.elements)
    return b"".join(np.ascontiguousarray(end).tobytes() for end in ends)
