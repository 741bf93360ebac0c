"""Transposes that cancel across other ops.

A region of ops that do not care about the order of axes (elementwise, Concat, Pad, Softmax, reductions that keep axes)
between transposes can compute in the order from before them. Every value that flows in or out of the region decides:
a Transpose at the border goes, a constant is transposed now, anything else needs a Transpose of its own. A region is
turned only if fewer transposes are left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Ints, Op, Value
from ...ir.ops.access import attr_int
from ...ir.ops.opdef import Trait
from ...ir.types import TensorType
from .driver import Driver
from .facts import compose, has, inverse, is_identity, permutation, rank
from .rule import Refusal, constant_bytes, grows
from .rules_chain import REDUCTIONS, reduced
from .rules_conv import padding

TRANSPOSES = "transposes"
_LARGEST = 2000  # ops in a region
_ALONG_AXIS = frozenset({"Concat", "Softmax", "LogSoftmax", "Hardmax"})


def move_transposes(driver: Driver) -> None:
    """Turn regions until no Transpose can be saved."""
    tried: set[tuple[frozenset[Op], tuple[int, ...]]] = set()
    for op in list(driver.module.walk()):
        perm = permutation(op) if op.kind == "Transpose" and op.parent is not None and driver.may(op) else None
        if perm is None or is_identity(perm):
            continue
        region = _grow(driver, op, perm)
        key = (frozenset(region.ops), perm)
        if region.ops and key not in tried:
            tried.add(key)
            if region.gain() <= 0:
                continue
            refusal = region.refusal()
            if refusal is not None:
                driver.refuse(op, TRANSPOSES, refusal)
                continue
            with driver.step(TRANSPOSES):
                region.turn(driver)


@dataclass(slots=True)
class Region:
    """Ops of one graph that compute on tensors whose axes are permuted by `perm`."""

    perm: tuple[int, ...]
    ops: dict[Op, None] = field(default_factory=dict)

    def entering(self) -> Iterator[Value]:
        """The tensors of full rank that are not made inside, constants excepted."""
        seen: dict[Value, None] = {}
        for op in self.ops:
            for slot in data_slots(op):
                value = op.operand(slot)
                if value is not None and value.constant is None and value.op not in self.ops and rank(value):
                    seen[value] = None
        yield from seen

    def leaving(self) -> Iterator[tuple[Value, list[Op]]]:
        """The results that are read outside, and by whom."""
        for op in self.ops:
            for value in op.results:
                users = [user for user in value.users if user not in self.ops]
                if users:
                    yield value, users

    def gain(self) -> int:
        """Transposes saved."""
        saved = 0
        for value in self.entering():
            saved += self._dies(value) if self._enters_turned(value) else -1
        for _, users in self.leaving():
            others = [user for user in users if user.kind != "Transpose"]
            saved += sum(self._cancels(user) for user in users) - (
                1 if any(not self._absorbs(user) for user in others) else 0
            )
        return saved

    def _enters_turned(self, value: Value) -> bool:
        return value.op is not None and value.op.kind == "Transpose" and permutation(value.op) == self.perm

    def _dies(self, value: Value) -> int:
        return int(all(user in self.ops for user in value.users))

    def _cancels(self, user: Op) -> bool:
        after = permutation(user) if user.kind == "Transpose" else None
        return after is not None and is_identity(compose(after, self.perm))

    def _absorbs(self, user: Op) -> bool:
        """Whether a reduction that drops axes leaves none of the others out of order."""
        axes = reduced(user) if user.kind in REDUCTIONS and not attr_int(user, "keepdims", 1) else None
        if axes is None:
            return False
        left = [self.perm[a] for a in range(len(self.perm)) if a not in axes]
        return left == sorted(left)

    def refusal(self) -> Refusal | None:
        """The reason to leave the region if its transposed constants weigh more than what goes with them."""
        constants = {v: None for op in self.ops for s in data_slots(op) if (v := op.operand(s)) and _turns(v)}
        new = sum(constant_bytes(v.constant.nbytes, len(self.perm), v.name) for v in constants if v.constant)
        gone = [v.op for v in self.entering() if v.op and self._enters_turned(v) and self._dies(v)]
        gone += [user for _, users in self.leaving() for user in users if self._cancels(user)]
        return grows(new, gone, [*self.ops])

    # -- turning -----------------------------------------------------------------------------------------------

    def turn(self, driver: Driver) -> None:
        """Compute in the order from before the transposes."""
        rw, back = driver.rw, inverse(self.perm)
        turned: dict[Value, Value] = {}
        leaving = list(self.leaving())
        for value in list(self.entering()):
            if self._enters_turned(value):
                assert value.op is not None
                source = value.op.operand(0)
                assert source is not None
                turned[value] = source
            else:
                first = next(op for op in self.ops_in_order() if value in op.operands)
                turned[value] = rw.insert("Transpose", [value], {"perm": Ints(back)}, before=first).result
        for op in self.ops:
            self._turn_op(driver, op, turned)
        for op in self.ops:
            for result in op.results:
                assert isinstance(result.type, TensorType)
                sizes = result.type.shape
                rw.retype(result, TensorType(result.type.dtype, tuple(sizes[a] for a in back)))
        for value, users in leaving:
            self._leave(driver, value, users)

    def ops_in_order(self) -> Iterator[Op]:
        graph = next(iter(self.ops)).parent
        assert graph is not None
        return (op for op in graph.ops if op in self.ops)

    def _turn_op(self, driver: Driver, op: Op, turned: dict[Value, Value]) -> None:
        rw = driver.rw
        for slot in data_slots(op):
            value = op.operand(slot)
            if value is None:
                continue
            if value in turned:
                rw.set_operand(op, slot, turned[value])
            elif _turns(value):
                rw.set_operand(op, slot, self._constant(driver, value, turned))
        axes = len(self.perm)
        if op.kind in _ALONG_AXIS:
            axis = attr_int(op, "axis", 0 if op.kind == "Concat" else -1)
            rw.set_attr(op, "axis", self.perm[axis % axes])
        elif op.kind in REDUCTIONS and op.operand(1) is not None:
            found = sorted(self.perm[a] for a in reduced(op) or ())
            rw.set_operand(op, 1, driver.pool.make(np.array(found, np.int64), f"{op.name}_axes"))
        elif op.kind == "Pad":
            amounts = padding(op)
            assert amounts is not None
            places = inverse(self.perm)
            pads = [amounts[a] for a in places] + [amounts[axes + a] for a in places]
            if op.operand(3) is not None:
                rw.set_operand(op, 3, None)
            rw.set_operand(op, 1, driver.pool.make(np.array(pads, np.int64), f"{op.name}_pads"))

    def _constant(self, driver: Driver, value: Value, turned: dict[Value, Value]) -> Value:
        assert value.constant is not None
        found = value.constant.array()
        full = found.reshape((1,) * (len(self.perm) - found.ndim) + found.shape)
        moved = Constant.of(np.ascontiguousarray(full.transpose(inverse(self.perm))), value.constant.dtype)
        turned[value] = driver.pool.make(moved, value.name)
        return turned[value]

    def _leave(self, driver: Driver, value: Value, users: list[Op]) -> None:
        rw = driver.rw
        others = []
        for user in users:
            after = permutation(user) if user.kind == "Transpose" else None
            if after is not None:
                rw.set_attr(user, "perm", Ints(compose(after, self.perm)))
            elif self._absorbs(user):
                axes = sorted(self.perm[a] for a in reduced(user) or ())
                rw.set_operand(user, 1, driver.pool.make(np.array(axes, np.int64), f"{user.name}_axes"))
            else:
                others.append(user)
        if others:
            assert value.op is not None
            assert value.op.parent is not None
            place = value.op._next or value.op.parent
            back = rw.insert("Transpose", [value], {"perm": Ints(self.perm)}, before=place, origin=value.op).result
            rw.replace_uses(value, back, only=others, retype=True)


def _turns(value: Value) -> bool:
    """Whether a constant operand must be transposed: it varies along some axis."""
    return value.constant is not None and value.constant.elements > 1


def data_slots(op: Op) -> range:
    """The operands that hold tensors in the order of the region; the others hold amounts and axes."""
    one = op.kind in REDUCTIONS or op.kind in ("Pad", "Clip", "Softmax", "LogSoftmax", "Hardmax", "CastLike")
    return range(1 if one else len(op.operands))


def _permeable(driver: Driver, op: Op, perm: tuple[int, ...]) -> bool:
    """Whether an op can compute in any order of the axes."""
    if op.domain or op.regions or not driver.may(op) or any(rank(v) != len(perm) for v in op.results):
        return False
    if op.kind in REDUCTIONS:
        return bool(attr_int(op, "keepdims", 1)) and reduced(op) is not None and bool(op.results[0].uses)
    if op.kind == "Pad":
        return padding(op) is not None
    if op.kind not in _ALONG_AXIS and (not has(op, Trait.ELEMENTWISE) or has(op, Trait.QUANTIZED)):
        return False
    return all(_follows(op.operand(slot), perm) for slot in data_slots(op))


def _follows(value: Value | None, perm: tuple[int, ...]) -> bool:
    """Whether an operand has the axes of the result, or is a constant or a scalar that broadcasts."""
    if value is None or rank(value) == len(perm) or rank(value) == 0:
        return True
    return value.constant is not None and value.constant.type.rank <= len(perm)


def _grow(driver: Driver, start: Op, perm: tuple[int, ...]) -> Region:
    """The ops around a Transpose that can be turned: from its users on, in both directions."""
    region = Region(perm)
    queue = [user for user in start.results[0].users if user.parent is start.parent]
    while queue and len(region.ops) < _LARGEST:
        op = queue.pop()
        if op in region.ops or op.parent is not start.parent or op.is_terminator or not _permeable(driver, op, perm):
            continue
        region.ops[op] = None
        queue += [user for result in op.results for user in result.users]
        queue += [v.op for slot in data_slots(op) if (v := op.operand(slot)) is not None and v.op is not None]
    return region
