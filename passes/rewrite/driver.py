"""The driver: tries rules on every op, and again where something changed, until none fits.

It counts what every rule did, remembers what rules refused, drops the constants that they orphan, and types ops again
whose operands became known more exactly.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...ir.cleanup import is_dead
from ...ir.core import Op, Value
from ...ir.dims import Dim, is_fresh
from ...ir.infer import infer_op, refine
from ...ir.rewrite import Event, Rewriter
from ...ir.types import TensorType, Type
from ...ir.worklist import Worklist
from .pattern import Found, matches
from .rule import ConstantPool, Refusal, Rule, Site, constant_bytes, node_bytes

DEAD = "dead-code"


@dataclass(slots=True)
class Tally:
    """What one rule did: how often, ops gone, ops made, bytes of constants dropped less those made."""

    times: int = 0
    removed: int = 0
    added: int = 0
    saved_bytes: int = 0


class Driver:
    """Runs rules on the module of a rewriter. `allows` says which ops may be touched."""

    def __init__(self, rw: Rewriter, rules: Sequence[Rule], allows: Callable[[Op], bool]) -> None:
        self.rw = rw
        self.module = rw.module
        self.pool = ConstantPool(rw)
        self.tally: dict[str, Tally] = {}
        self.refused: dict[Op, dict[str, Refusal]] = {}  # by rule
        self._rules = tuple(rules)
        self._by_kind: dict[str, list[Rule]] = {}
        self._stale: set[Op] = set()  # ops whose operands are known more exactly than when they were typed
        self._orphans: dict[Value, None] = {}
        self._forbidden = {op for op in self.module.walk() if not allows(op)}
        self._current = Tally()
        self._saved = 0  # bytes by which the file shrank so far, about
        self._recent: deque[str] = deque(maxlen=200)
        self._left = 1000 + 60 * sum(1 for _ in self.module.walk())
        self._work = Worklist(rw)
        rw.listen(self._hear)

    def close(self) -> None:
        """Stop listening to the rewriter."""
        self._work.close()
        self.rw.unlisten(self._hear)

    def may(self, op: Op) -> bool:
        """Whether the op may be touched."""
        return op not in self._forbidden

    # -- visiting ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """One round: every op, and every op that changes meanwhile, until no rule fits one of them."""
        for each in self.module.walk():
            self._work.push(each)
        while (op := self._work.pop()) is not None:
            self._visit(op)

    def _visit(self, op: Op) -> None:
        if op in self._stale:
            self._stale.discard(op)
            self._refresh(op)
        if is_dead(op):
            with self.step(DEAD):
                self.rw.erase(op)
            return
        self.refused.pop(op, None)
        for rule in self._rules_for(op):
            if self._try(rule, op):
                return

    def _rules_for(self, op: Op) -> list[Rule]:
        found = self._by_kind.get(op.kind)
        if found is None:
            found = [r for r in self._rules if not r.pattern.kinds or op.kind in r.pattern.kinds]
            self._by_kind[op.kind] = found
        return found

    def _try(self, rule: Rule, op: Op) -> bool:
        for found in matches(rule.pattern, op):
            if not self._in_scope(op, found):
                continue
            site = Site(op, found, self.rw, self.pool, saved=self._saved)
            refusal = rule.check(site)
            if refusal is None:
                with self.step(rule.name):
                    values = rule.build(site)
                    if values is not None:
                        self.rw.replace(op, values)
                return True
            self.refuse(op, rule.name, refusal)
        return False

    def refuse(self, op: Op, rule: str, refusal: Refusal) -> None:
        """Remember why a rule left an op alone, until the op is visited again."""
        self.refused.setdefault(op, {})[rule] = refusal

    def _in_scope(self, op: Op, found: Found) -> bool:
        if not self._forbidden:
            return True
        return self.may(op) and all(self.may(o) for o in found.values() if isinstance(o, Op))

    # -- changes -----------------------------------------------------------------------------------------------

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One application of the rule called `name`: counted, and the constants it orphaned dropped."""
        self._left -= 1
        self._recent.append(name)
        if self._left < 0:
            rule, times = Counter(self._recent).most_common(1)[0]
            raise RuntimeError(f"simplify does not come to an end: rule '{rule}' made {times} of the last 200 changes")
        self._current = self.tally.setdefault(name, Tally())
        self._current.times += 1
        yield
        for value in tuple(self._orphans):
            if not value.uses and self.module.constants.get(value.name) is value:
                self.rw.drop_constant(value)
        self._orphans.clear()

    def _hear(self, event: Event) -> None:
        op, value = event.op, event.value
        match event.kind:
            case "insert" if op is not None:
                self._current.added += 1
                self._saved -= node_bytes(op)
            case "erase" if op is not None:
                self._current.removed += 1
                self._saved += node_bytes(op) + sum(2 + len(v.name) for v in event.operands)
                self._orphans.update((v, None) for v in event.operands if v.constant is not None)
            case "set_operand" if op is not None:
                self._rewired(op, event.old, value)
            case "retype" if value is not None:
                self._outdate(value)
            case "add_constant" if value is not None:
                self._weigh(value, -1)
            case "drop_constant" if value is not None:
                self._weigh(value, 1)

    def _weigh(self, value: Value, sign: int) -> None:
        assert value.constant is not None
        self._current.saved_bytes += sign * value.constant.nbytes
        self._saved += sign * constant_bytes(value.constant.nbytes, value.constant.type.rank, value.name)

    def _rewired(self, op: Op, old: Value | None, new: Value | None) -> None:
        if old is not None and old.constant is not None:
            self._orphans[old] = None
        if old is None or new is None or old.type != new.type or old.dims != new.dims:
            self._mark(op)

    def _outdate(self, value: Value) -> None:
        for user in value.users:
            self._mark(user)

    def _mark(self, op: Op) -> None:
        """Type an op again when it is visited; in place of a terminator, the op that its body belongs to."""
        owner = op.parent.owner if op.is_terminator and op.parent is not None else op
        if owner is not None:
            self._stale.add(owner)
            self._work.push(owner)

    # -- types -------------------------------------------------------------------------------------------------

    def _refresh(self, op: Op) -> None:
        """Infer an op again because an operand's type became more exact; the users follow if its results do."""
        for value, found in zip(op.results, infer_op(op, self.module, require=False)):
            type = refine(value, found.type)
            better = _knowledge(type) > _knowledge(value.type)
            if better:
                value.type = type
            if _known(found.dims) > _known(value.dims):
                value.dims, better = found.dims, True
            if better:
                self._outdate(value)


def _knowledge(type: Type) -> tuple[int, int, int]:
    """How much a type says: rank known, integer sizes, named sizes."""
    if not isinstance(type, TensorType):
        return (0, 0, 0)
    ints, named = _counts(type.shape)
    return (1, ints, named)


def _known(dims: tuple[Dim, ...] | None) -> tuple[int, int, int]:
    return (0, 0, 0) if dims is None else (1, *_counts(dims))


def _counts(dims: Sequence[Dim]) -> tuple[int, int]:
    ints = sum(isinstance(d, int) for d in dims)
    return ints, sum(not is_fresh(d) for d in dims if not isinstance(d, int))
