"""The search for redundant units: which groups have any, which of them go, and what stays for the width's sake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ....ir.axes import Axes
from ....ir.core import Module, Op
from ...base import SkipCode, Skipped
from ..allocate import exact_width, step
from ..groups import Group
from ..ranges import ranges
from .depend import Redundancy, redundancy
from .follow import trace
from .removal import Key, Removal
from .rows import Array
from .trace import NotTraced, Trace
from .unread import unread


@dataclass(frozen=True, eq=False)
class Found:
    """A group with redundant units."""

    group: Group
    trace: Trace
    what: Redundancy
    plan: Removal

    def sparing(self, units: Array) -> Found:
        """The same, but these units stay, too."""
        what = self.what.sparing(units)
        return Found(self.group, self.trace, what, removal(self.trace.axes, self.group, what))


@dataclass
class Search:
    """What is known over the rounds."""

    multiple: int
    not_followed: dict[str, Skipped] = field(default_factory=dict)
    spared: dict[Key, Skipped] = field(default_factory=dict)
    stuck: set[Key] = field(default_factory=set)  # groups that cannot be resized
    widths: dict[Key, int] = field(default_factory=dict)  # before the first round

    def find(
        self, module: Module, axes: Axes, groups: Iterable[Group], touching: Mapping[int, Sequence[Op]]
    ) -> list[Found]:
        """The groups that lose units in this round."""
        found = [f for g in groups if (f := self._examine(module, axes, g, touching[g.id])) is not None]
        return [kept for f in found if (kept := self._aligned(f)) is not None]

    def give_up(self, keys: Iterable[Key]) -> None:
        """Groups whose size something states that cannot be rewritten: they are left as they are."""
        for key in keys:
            self.stuck.add(key)
            self.spared.pop(key, None)

    def _examine(self, module: Module, axes: Axes, group: Group, ops: Sequence[Op]) -> Found | None:
        try:
            found = examine(module, axes, group, ops)
        except NotTraced as reason:
            op = reason.op
            why = f"not searched for redundant units: {reason.why}, at {op.kind} {op.loc.origin or op.name}"
            self.not_followed.setdefault(group.place, Skipped(group.place, SkipCode.NOT_FOLLOWED, why))
            return None
        return found if found is not None and found.plan.key not in self.stuck else None

    def _aligned(self, f: Found) -> Found | None:
        """Of the redundant units so many stay that the width is a multiple; None if all do."""
        unit = step(self.widths.setdefault(f.plan.key, f.plan.before), self.multiple, f.group.inner)
        width = exact_width(f.plan.before, f.plan.after, unit)
        stay = f.what.by_risk[f.plan.before - width :]
        self.spared.pop(f.plan.key, None)
        if not len(stay):
            return f
        self.spared[f.plan.key] = _spared(f.group, len(stay), width, unit)
        return f.sparing(stay) if width < f.plan.before else None


def examine(module: Module, axes: Axes, group: Group, ops: Sequence[Op]) -> Found | None:
    """What is redundant in a group; what nobody reads where the units cannot be followed. Raises NotTraced."""
    try:
        t = trace(module, axes, group.axis_class, ops)
        what = redundancy(t)
    except NotTraced:
        t = Trace(module, axes, group.axis_class)  # without consumers: there is nothing to take over
        what = unread(module, axes, group.axis_class, ops)
        if what is None:
            raise
    return Found(group, t, what, removal(axes, group, what)) if what is not None else None


def _spared(group: Group, count: int, width: int, multiple: int) -> Skipped:
    aim = "remains a multiple" if width % multiple == 0 else "does not fall between multiples"
    stay = "unit stays" if count == 1 else "units stay"
    why = f"{count} redundant {stay} so that the width {width} {aim} of {multiple}: others run slower"
    return Skipped(group.place, SkipCode.HURTS, why, "prune(multiple=1)")


def removal(axes: Axes, group: Group, what: Redundancy) -> Removal:
    site = group.axis_class.sites[0]
    types = axes.of(axes.module.constants[site.constant])
    assert types is not None
    nth = axes.within(types[site.axis]).index(group.axis_class)
    return Removal(
        group.site, site.constant, site.axis, nth, group.size, len(what.kept), ranges(what.unread),
        ranges(what.constant), ranges(what.duplicate), ranges(what.dependent),
    )  # fmt: skip


def touching_ops(module: Module, axes: Axes) -> dict[int, list[Op]]:
    """For every class the ops that touch it, in program order."""
    found: dict[int, list[Op]] = {c.id: [] for c in axes.classes}
    for op in module.walk():
        classes = {c for v in (*op.operands, *op.results) if v is not None for c in axes.touched(v)}
        for c in classes:
            found[c].append(op)
    return found
