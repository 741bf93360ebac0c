"""What passes that round or scale weights do first: fold batch normalizations, affine ops and constants.

`Prepared` is a simplified copy for plans, which only read; `prepare` does the same to the module of a rewriter, with
the same names as a result. Never silent: `notes` say what was folded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from ...ir.core import Module, Op
from ...ir.rewrite import Rewriter
from ..base import Context, Scope, node_name
from ..rewrite.driver import Tally
from ..rewrite.simplify import Simplify

Rewrite = Callable[[Rewriter], None]
Choice = Callable[[Module], Collection[Op]]
_SIMPLIFY = Simplify(fold_affine=True)
_SHOWN = 4


@dataclass(frozen=True)
class Prepared:
    """A folded copy of a module, the context in which the step goes on there, and what was done."""

    module: Module
    ctx: Context
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(
        module: Module, ctx: Context, *, by: str, then: Rewrite | None = None, only: Choice | None = None
    ) -> Prepared:
        """Fold a copy on behalf of the pass called `by` (`only` some operators of it), and do what it does `then`;
        constants are shared."""
        twin = module.clone()
        within, notes = _fold(Rewriter(twin, by=by), ctx, then, only)
        return Prepared(twin, within, notes)


def prepare(rw: Rewriter, ctx: Context, then: Rewrite | None = None, only: Choice | None = None) -> Context:
    """Fold the module of a rewriter; the context in which the step goes on (its scope names ops as they are now)."""
    return _fold(rw, ctx, then, only)[0]


def _fold(rw: Rewriter, ctx: Context, then: Rewrite | None, only: Choice | None) -> tuple[Context, tuple[str, ...]]:
    chosen = _Chosen.of(rw.module.walk(), ctx.scope)
    before = sum(1 for _ in rw.module.walk())
    tally = _SIMPLIFY.run(rw, ctx, only(rw.module) if only is not None else None).tally
    after = sum(1 for _ in rw.module.walk())
    if then is not None:
        then(rw)
    return replace(ctx, scope=chosen.after(rw.module.walk())), _notes(tally, before, after)


def _notes(tally: Mapping[str, Tally], before: int, after: int) -> tuple[str, ...]:
    if not tally:
        return ()
    times = Counter({rule: done.times for rule, done in sorted(tally.items())}).most_common()
    named = ", ".join(f"{rule} x{count}" for rule, count in times[:_SHOWN])
    return (f"folded first, {before} -> {after} ops: {named}{', ...' if len(times) > _SHOWN else ''}",)


@dataclass(frozen=True)
class _Chosen:
    """What a scope says of ops by name and by origin, so that it can be said of the ops that replace them."""

    scope: Scope
    names: frozenset[str]
    on: frozenset[str]
    but: frozenset[str]

    @staticmethod
    def of(ops: Iterable[Op], scope: Scope) -> _Chosen:
        listed = tuple(ops)
        on = frozenset(op.loc.origin for op in listed if scope.allows(op))
        but = frozenset(op.loc.origin for op in listed if scope.excludes(op))
        return _Chosen(scope, frozenset(node_name(op) for op in listed), on, but)

    def after(self, ops: Iterable[Op]) -> Scope:
        """The scope for ops of the folded module: new ones are judged by the node that they stand for."""
        new = {node_name(op): op.loc.origin for op in ops if node_name(op) not in self.names}
        but = self.scope.but | {name for name, origin in new.items() if origin in self.but}
        if self.scope.on is None:
            return replace(self.scope, but=frozenset(but))
        on = self.scope.on | {name for name, origin in new.items() if origin in self.on}
        return replace(self.scope, on=frozenset(on), but=frozenset(but))
