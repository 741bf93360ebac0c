"""A deterministic greedy driver: visits ops until nothing changes, again where the rewriter changed something.

    fired = drive(rw, visit)        # visit(op) -> the name of the rule that changed something, or None

The first round goes through the ops in program order. A change puts the ops it may concern at the end of the queue:
what was inserted or given other operands, the users of results that changed, and the producers of values that lost
a use (they may be dead now, or may fuse with their only user).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from .core import Op, Value
from .rewrite import Event, Rewriter

Visit = Callable[[Op], str | None]


class Worklist:
    """The queue of ops to visit, fed by the rewriter's events. Every op is in it at most once."""

    def __init__(self, rw: Rewriter) -> None:
        self._queue: deque[Op] = deque()
        self._queued: set[Op] = set()
        for op in rw.module.walk():
            self.push(op)
        self._rw = rw
        rw.listen(self._hear)

    def close(self) -> None:
        """Stop listening."""
        self._rw.unlisten(self._hear)

    def push(self, op: Op | None) -> None:
        if op is not None and not op.is_terminator and op not in self._queued:
            self._queue.append(op)
            self._queued.add(op)

    def pop(self) -> Op | None:
        """The next op that is still in the module; None when there is none."""
        while self._queue:
            op = self._queue.popleft()
            self._queued.discard(op)
            if self._rw.module.graph.encloses(op.parent):
                return op
        return None

    def _hear(self, event: Event) -> None:
        self.push(event.op)
        if event.op is not None:
            for result in event.op.results:
                self._push_users(result)
        if event.kind in ("retype", "set_operand") and event.value is not None:
            self.push(event.value.op)
            if event.kind == "retype":
                self._push_users(event.value)
        for value in (event.old, *event.operands):
            if value is not None:
                self.push(value.op)
                self._push_users(value)

    def _push_users(self, value: Value) -> None:
        if value.constant is None:  # a constant's other users see nothing new
            for user in value.users:
                self.push(user)


def drive(rw: Rewriter, visit: Visit, *, rounds: int = 100) -> Counter[str]:
    """Visit ops until the queue is empty; how often each rule fired.

    `rounds` bounds the visits to that many per op; more is a set of rules that undo each other.
    """
    worklist = Worklist(rw)
    fired: Counter[str] = Counter()
    left = rounds * (1 + sum(1 for _ in rw.module.walk()))
    try:
        while (op := worklist.pop()) is not None:
            rule = visit(op)
            if rule is not None:
                fired[rule] += 1
            left -= 1
            if left < 0:
                busiest = ", ".join(f"{name} ({n} times)" for name, n in fired.most_common(3))
                raise RuntimeError(f"rewriting does not end; the rules that fired most: {busiest}; last at {op!r}")
    finally:
        worklist.close()
    return fired
