"""Rules as data, and what a rule sees of the place where it matched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
    build: Build
    check: Check = lambda _: None
    asks: str = ""
    exact: bool = True


Build = Callable[["Site"], "Sequence[Value | None] | None"]
Check = Callable[["Site"], "Refusal | None"]


@dataclass(slots=True)
class ConstantPool:
    """Constants made by rules; equal ones that may be shared are one value."""

    rw: Rewriter
    known: dict[tuple[str, bytes], Value] = field(default_factory=dict)

    def make(self, array: Any, name: str, dtype: DType | None = None) -> Value:
        constant = array if isinstance(array, Constant) else Constant.of(array, dtype)
        if constant.nbytes > SMALL or not may_share(constant):
            return self.rw.constant(constant, name)
        key = (str(constant.type), constant.tobytes())
        found = self.known.get(key)
        if found is None or self.rw.module.constants.get(found.name) is not found:
            found = self.known[key] = self.rw.constant(constant, name)
        return found


_CHANGE = 256
SMALL = 1 << 10
LARGE = 1 << 14


def may_share(constant: Constant) -> bool:
    """Whether equal constants should be one. Small float vectors (biases, scales) that happen to be equal are not
    tied weights: one value would couple the channels of unrelated layers."""
    if constant.dtype is DType.STR:
        return False
    return not constant.dtype.is_float or constant.elements <= 1 or constant.nbytes >= LARGE


class Site:
    """A place where a rule's pattern fits: the root, what the pattern's names stand for, and how to build there."""

    __slots__ = ("_found", "op", "pool", "rw", "saved", "scratch")

    def __init__(self, op: Op, found: Found, rw: Rewriter, pool: ConstantPool, *, saved: int = 0) -> None:
        self.op, self._found, self.rw, self.pool = op, found, rw, pool
        self.saved = saved  # bytes by which the file shrank so far
        self.scratch: dict[str, Any] = {}  # what the check computed and the build needs

    @property
    def change(self) -> int:
        """Bytes that a rule may add for the sake of one op less: a little of what was saved so far."""
        return min(self.saved, _CHANGE)

    @property
    def module(self) -> Module:
        return self.rw.module

    def __getitem__(self, name: str) -> Value:
        found = self._found[name]
        assert isinstance(found, Value)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._found

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


def node_bytes(op: Op) -> int:
    """About what an op takes in a file; rather less."""
    names = [v.name for v in (*op.operands, *op.results) if v is not None]
    return 2 + len(op.op_type) + len(op.name) + sum(2 + len(n) for n in names) + sum(8 + len(n) for n in op.attrs)


def constant_bytes(nbytes: int, rank: int, name: str) -> int:
    """About what a constant takes in a file."""
    return nbytes + 12 + 2 * rank + len(name)


def release(gone: Collection[Op], rewired: Collection[Op] = ()) -> int:
    """The bytes that go with the ops in `gone`: theirs, and those of constants that nobody reads any more.

    `rewired` ops stay, but stop reading their constants.
    """
    users = {*gone, *rewired}
    read = {v: None for op in (*gone, *rewired) for v in op.operands if v is not None and v.constant is not None}
    dying = [v for v in read if all(use.op in users for use in v.uses)]
    freed = sum(constant_bytes(v.constant.nbytes, v.constant.type.rank, v.name) for v in dying if v.constant)
    return freed + sum(node_bytes(op) for op in gone)


def grows(new_bytes: int, gone: Collection[Op], rewired: Collection[Op] = (), *, allowance: int = 0) -> Refusal | None:
    """The refusal if what is new outweighs the ops that go and the constants that die, by more than `allowance`."""
    freed = release(gone, rewired)
    if new_bytes <= freed + max(0, allowance):
        return None
    return Refusal(SkipCode.GROWS, f"it would put {new_bytes:,} bytes into the file in place of {freed:,}")
