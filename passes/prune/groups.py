"""Prune groups: which axis classes may lose units, which may not and why, and which ops a group belongs to."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from ...ir import axis_types as ax
from ...ir.axes import Axes, AxisClass
from ...ir.core import Module, Op, Value
from ...ir.ops.axes_rules_linear import INNER
from ...ir.ops.axes_rules_norm import COUNT
from ..base import Scope, SkipCode, Skipped

#: Facts that the rules note on a class (ir/ops/axes_rules_*.py), and what they mean for removal.
MARKS: Mapping[str, tuple[SkipCode, str, str]] = {
    COUNT: (
        SkipCode.HURTS,
        "its number of units enters the result (a mean, a norm or a softmax runs over them)",
        "prune it all the same with widths=true, or by selecting the ops of this width with `on`",
    ),
    INNER: (
        SkipCode.HURTS,
        "it is contracted between two computed tensors (the width of queries and keys)",
        "prune it all the same with nested=inner or both, or by selecting the projections with `on`",
    ),
    "block-size": (SkipCode.PINNED_AXIS, "it is the inside of a quantization block", "prune before quantizing"),
}
SELECTABLE = frozenset({COUNT, INNER})
#: Why a selector does not reach a group: it names some of what makes the units, or only what reads them.
PARTLY, UNMADE = "not every op of the group is in scope", "what makes the units is not in scope"
FEWEST = 4  # a nest of classes (heads x width) is pruned at the outermost or innermost one that has this many units
NESTS = ("outer", "inner", "both")


@dataclass(frozen=True)
class Group:
    """A class that may lose units: its sites, the ops that produce it and all ops that hold one of its sites."""

    axis_class: AxisClass
    producers: tuple[Op, ...]
    holders: tuple[Op, ...]
    inner: int = 1  # positions that a unit takes at least, and by multiples, on every axis (the width of a head)

    @property
    def id(self) -> int:
        return self.axis_class.id

    @property
    def size(self) -> int:
        return self.axis_class.size

    @property
    def site(self) -> str:
        """How reports name the group: by the weights of its producers."""
        return ", ".join(dict.fromkeys(op.name for op in self.producers)) or self.axis_class.sites[0].constant

    @property
    def place(self) -> str:
        """The group as a site of a report."""
        return f"{self.site}:{self.axis_class.name}"


def find_groups(
    module: Module, axes: Axes, scope: Scope, *, nested: str = "outer", admit: frozenset[str] = frozenset()
) -> tuple[list[Group], list[Skipped]]:
    """Every group that may be pruned, in order of first use, and every other class of weights with the reason.

    `nested`: which of the groups that lie inside each other in one axis; `admit`: marks that are no reason to skip.
    """
    holders = _holders(module, axes)
    groups: list[Group] = []
    skipped: list[Skipped] = []
    for c in axes.classes:
        if c.size < 2 or not _has_weights(module, c):
            continue
        held = tuple(holders.get(c.id, ()))
        group = Group(c, tuple(op for op in held if _produces(op, c, axes)), held, _inner(module, axes, c))
        reason = _refusal(group, scope, admit)
        if reason is None:
            groups.append(group)
        elif c.pin is None or c.pin.code not in _ORDINARY:
            skipped.append(reason)
    if nested == "both":
        return groups, skipped
    kept, others = _one_of_each_nest(module, axes, groups, nested)
    return kept, skipped + others


#: Pins that say what every model has: a kernel's taps, the interface, shape lists. Not worth a line each.
_ORDINARY = frozenset({"spatial", "interface-input", "interface-output", "shape-operand", "gate", "direction", "time"})


def _holders(module: Module, axes: Axes) -> dict[int, list[Op]]:
    """The ops that read a constant in which a class occurs."""
    found: dict[int, dict[Op, None]] = {}
    for value in module.constants.values():
        for c in axes.touched(value):
            found.setdefault(c, {}).update(dict.fromkeys(op for op in value.users if not op.is_terminator))
    return {c: list(ops) for c, ops in found.items()}


def _has_weights(module: Module, c: AxisClass) -> bool:
    """Whether a class lies in numbers that compute: a matrix or kernel, not only in lists."""
    constants = (module.constants[s.constant].constant for s in c.sites)
    return any(k is not None and len(k.shape) >= 2 for k in constants)


def _inner(module: Module, axes: Axes, c: AxisClass) -> int:
    types = ((axes.of(module.constants[s.constant]) or ())[s.axis] for s in c.sites)
    return math.gcd(*(int((axes.units(t, c) >= 0).sum()) // c.size for t in types))


def _produces(op: Op, c: AxisClass, axes: Axes) -> bool:
    """Whether the op makes the units from other things: they are in its result, but in no computed operand."""
    made = any(c.id in axes.touched(v) for v in op.results)
    taken = any(v.constant is None and c.id in axes.touched(v) for v in op.operands if v is not None)
    return made and not taken


def _refusal(group: Group, scope: Scope, admit: frozenset[str]) -> Skipped | None:
    c = group.axis_class
    if scope.explicit and not any(scope.allows(op) for op in group.holders):
        return Skipped(group.place, SkipCode.SCOPE, "no op of the group is in scope")
    if c.pin is not None:
        what = "" if not c.pin.where else f" by {c.pin.kind} {c.pin.where}"
        return Skipped(group.place, SkipCode.PINNED_AXIS, f"{c.size} positions are fixed{what} ({c.pin.code})")
    producers = group.producers or group.holders
    if not scope.allows_group(producers) or any(scope.excludes(op) for op in group.holders):
        return Skipped(group.place, SkipCode.SCOPE, PARTLY if any(map(scope.allows, producers)) else UNMADE)
    for code, where in c.marks.items():
        if code in SELECTABLE and (scope.explicit or code in admit):
            continue
        skip, why, what_to_do = MARKS[code]
        return Skipped(group.place, skip, f"{c.size} units: {why}, at {where.kind} {where.where}", what_to_do)
    return None


def _one_of_each_nest(
    module: Module, axes: Axes, groups: list[Group], nested: str
) -> tuple[list[Group], list[Skipped]]:
    """Of classes nested in one axis (heads x width) keep the outermost or the innermost: removing both compounds."""
    candidates = {g.id: g for g in groups}
    dropped: dict[int, int] = {}
    for found in nests(module, axes, candidates):
        _choose(found, candidates, dropped, nested)
    kept = [g for g in groups if g.id not in dropped]
    why = "lie inside the units of" if nested == "outer" else "hold the units of"
    other = f"nested={'inner' if nested == 'outer' else 'outer'} prunes these, nested=both all"
    skipped = [
        Skipped(
            g.place,
            SkipCode.SHARED,
            f"{g.size} units {why} c{dropped[g.id]} in one axis, which are pruned instead",
            other,
        )
        for g in groups
        if g.id in dropped
    ]
    return kept, skipped


def nests(module: Module, axes: Axes, among: Container[int]) -> Iterator[list[int]]:
    """For every product in an axis of a constant: the classes `among` those given, outermost first, each once."""
    for value in module.constants.values():
        for t in axes.of(value) or ():
            for chain in _chains(t):
                found = (c.id for a in chain if (c := axes.class_of(a)) is not None and c.id in among)
                yield list(dict.fromkeys(found))


def _chains(t: ax.AxisType) -> Iterator[list[ax.Atom]]:
    """For every product in an axis: its atoms, outermost first."""
    if isinstance(t, ax.Prod):
        yield list(ax.atoms(t))
    elif isinstance(t, ax.Sum):
        for part in t.parts:
            yield from _chains(part)


def _choose(found: list[int], candidates: Mapping[int, Group], dropped: dict[int, int], nested: str) -> None:
    alive = [c for c in (found if nested == "outer" else found[::-1]) if c not in dropped]
    if len(alive) < 2:
        return
    large = [c for c in alive if candidates[c].size >= FEWEST]
    chosen = large[0] if large else max(alive, key=lambda c: candidates[c].size)
    dropped.update((c, chosen) for c in alive if c != chosen)


def constants_of(module: Module, c: AxisClass) -> list[Value]:
    """The constants in which a class occurs, each once."""
    return [module.constants[name] for name in dict.fromkeys(s.constant for s in c.sites)]
