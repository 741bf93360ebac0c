"""A pass of one's own: whole layers of a stack are left out. recipe.mlc beside this file uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mlc.ir.core import Module, Op, Value
from mlc.ir.rewrite import Rewriter
from mlc.passes.base import LOSSY, Context, Done, Effect, Pass, Plan, SkipCode, Skipped, option


@dataclass(frozen=True)
class DropPlan(Plan):
    """What is read instead of a layer: (name of the layer, its result, its input), first layers first."""

    dropped: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class DropLayers(Pass):
    """Leaves out all layers of a stack but some; what follows a layer reads the input of it instead."""

    name: ClassVar[str] = "drop_layers"
    effect: ClassVar[Effect] = LOSSY
    after: ClassVar[tuple[str, ...]] = ("simplify",)  # layers share the arithmetic of shapes before it

    keep: tuple[int, ...] = option(unit="ints", low=0, doc="the layers that stay, counted from 0", positional=True)
    stack: str = option("layer", unit="str", doc="what the names of the layers start with, in front of their number")

    def plan(self, module: Module, ctx: Context) -> DropPlan:
        dropped, skipped = [], []
        for number, ops in sorted(self._layers(module).items()):
            layer = f"{self.stack}.{number}"
            reason = self._reason(layer, number, ops, ctx)
            if reason is not None:
                skipped.append(reason)
            else:
                result, source = _ends(ops)
                dropped.append((layer, result.name, source.name))
        return DropPlan(dropped=tuple(dropped), skipped=tuple(skipped))

    def apply(self, rw: Rewriter, plan: DropPlan, ctx: Context) -> Iterator[Done]:
        values = {value.name: value for op in rw.module.walk() for value in op.results}
        values |= {value.name: value for value in rw.module.graph.inputs}
        instead: dict[str, str] = {}
        for layer, result, source in plan.dropped:
            instead[result] = instead.get(source, source)  # the layer in front may be gone, too
            rw.replace_uses(values[result], values[instead[result]])
            yield Done(layer, "a layer", "its input")

    def _layers(self, module: Module) -> dict[int, list[Op]]:
        pattern = re.compile(rf"(?:^|[./]){re.escape(self.stack)}[./](\d+)[./]")
        found: dict[int, list[Op]] = {}
        for op in module.walk():
            match = pattern.search(op.name)
            if match:
                found.setdefault(int(match[1]), []).append(op)
        return found

    def _reason(self, layer: str, number: int, ops: list[Op], ctx: Context) -> Skipped | None:
        if number in self.keep:
            return Skipped(layer, SkipCode.ALREADY, "asked to stay")
        if not ctx.scope.allows_group(ops):
            return Skipped(layer, SkipCode.SCOPE, "outside the selector of this step")
        if len(_results(ops)) != 1 or len(_sources(ops)) != 1:
            why = f"{len(_results(ops))} results are read outside, {len(_sources(ops))} inputs have their type"
            return Skipped(layer, SkipCode.NOT_FOLLOWED, why, "a layer needs one of each: run simplify before")
        return None


def _ends(ops: list[Op]) -> tuple[Value, Value]:
    return _results(ops)[0], _sources(ops)[0]


def _results(ops: list[Op]) -> list[Value]:
    """What others read of a layer."""
    inside = set(ops)
    return [value for op in ops for value in op.results if any(user not in inside for user in value.users)]


def _sources(ops: list[Op]) -> list[Value]:
    """What a layer reads of others and could stand for its results: values of the same type."""
    inside, types = set(ops), {value.type for value in _results(ops)}
    read = dict.fromkeys(value for op in ops for value in op.operands if value is not None)
    return [v for v in read if v.constant is None and v.op not in inside and v.type in types]
