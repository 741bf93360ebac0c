"""Rules as data, and what a rule sees of the place where it matched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Attr, Module, Op, Value
from ...ir.dtypes import DType
from ...ir.rewrite import Rewriter
from ...ir.types import Type
from ..base import SkipCode
from .pattern import Found, Node

#: What a node takes in a file at the least (kind, names of operands and results): the room a new constant may fill.
NODE_BYTES = 48


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rule leaves a place alone that its pattern fits."""

    code: SkipCode
    why: str
    what_to_do: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewrite. `build` returns what to read instead of the root's results, or None if it edited ops in place.

    `asks` names the option of `Simplify` that must be on. `exact` rules keep every bit of the outputs (but for the
    sign of zero); the others round differently.
    """

    name: str
    doc: str
    pattern: Node
    build: Callable[[Site], Sequence[Value | None] | None]
    check: Callable[[Site], Refusal | None] = lambda _: None
    asks: str = ""
    exact: bool = True


@dataclass(slots=True)
class ConstantPool:
    """Constants made by rules: equal ones are one value, small ones of the model included."""

    rw: Rewriter
    known: dict[tuple[str, bytes], Value] = field(default_factory=dict)

    LARGEST = 1024

    def make(self, array: Any, name: str, dtype: DType | None = None) -> Value:
        constant = array if isinstance(array, Constant) else Constant.of(array, dtype)
        if constant.dtype is DType.STR or constant.nbytes > self.LARGEST:
            return self.rw.constant(constant, name)
        key = (str(constant.type), constant.tobytes())
        found = self.known.get(key)
        if found is None or self.rw.module.constants.get(found.name) is not found:
            found = self.known[key] = self.rw.constant(constant, name)
        return found


class Site:
    """A place where a rule's pattern fits: the root, what the pattern's names stand for, and how to build there."""

    __slots__ = ("_found", "op", "pool", "rw")

    def __init__(self, op: Op, found: Found, rw: Rewriter, pool: ConstantPool) -> None:
        self.op, self._found, self.rw, self.pool = op, found, rw, pool

    @property
    def module(self) -> Module:
        return self.rw.module

    def __getitem__(self, name: str) -> Value:
        found = self._found[name]
        assert isinstance(found, Value)
        return found

    def node(self, name: str) -> Op:
        found = self._found[name]
        assert isinstance(found, Op)
        return found

    def new(
        self,
        kind: str,
        operands: Sequence[Value | None],
        attrs: Mapping[str, Attr] | None = None,
        *,
        origin: Op | None = None,
        results: Sequence[Type] | None = None,
    ) -> Value:
        """The result of a new op in front of the root."""
        made = self.rw.insert(kind, operands, attrs, before=self.op, origin=origin or self.op, results=results)
        return made.result

    def const(self, array: Any, name: str = "", *, dtype: DType | None = None) -> Value:
        return self.pool.make(array, name or f"{self.op.results[0].name}_constant", dtype)

    def ints(self, values: Sequence[int]) -> Value:
        return self.const(np.array(tuple(values), np.int64))


def release(values: Sequence[Value], users: Sequence[Op]) -> int:
    """The bytes of those constants that die when `users` stop reading them."""
    dying = {v: None for v in values if v.constant is not None and all(use.op in users for use in v.uses)}
    return sum(v.constant.nbytes for v in dying if v.constant is not None)


def grows(new_bytes: int, values: Sequence[Value], users: Sequence[Op], *, nodes: int = 0) -> Refusal | None:
    """The refusal if new constants of `new_bytes` outweigh the constants that die and `nodes` ops that go."""
    freed = release(values, users) + NODE_BYTES * nodes
    if new_bytes <= freed:
        return None
    return Refusal(
        SkipCode.GROWS,
        f"the new constant takes {new_bytes:,} bytes and only {freed:,} go (the old one has other uses, or is smaller)",
    )
