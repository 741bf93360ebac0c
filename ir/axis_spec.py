"""What other passes read of an analysis: permutation specifications and pruning groups.

`PermSpec` is the table of Git Re-Basin (Ainsworth et al., 2022) with paths instead of plain axes: class -> sites. A
`PruneGroup` is the dependency group of DepGraph (Fang et al., 2023): a class's sites, and the ops whose sizes follow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .axes import Axes, AxisClass, Index, Site
from .axis_expand import units
from .core import Module, Op

__all__ = ["PermSpec", "PruneGroup", "index_map", "prune_groups"]


def index_map(site: Site, unit: int) -> Index:
    """The positions along a site's axis that belong to a unit, in order.

    Inside a product: all combinations of the other factors; in a sum: every segment that has the class.
    """
    if not 0 <= unit < int(site.atom.size):  # type: ignore[arg-type]  # sites are axes of constants: integers
        raise IndexError(f"{site.constant} has units 0 to {site.atom.size} - 1 along axis {site.axis}, not {unit}")
    return np.flatnonzero(units(site.type, site.atom) == unit)


@dataclass(frozen=True, slots=True)
class PermSpec:
    """The free classes of a module by id, and where each sits."""

    axes: Axes
    sites: Mapping[int, tuple[Site, ...]]

    @classmethod
    def of(cls, axes: Axes) -> PermSpec:
        return cls(axes, {c.id: c.sites for c in axes.free})

    def size(self, c: int) -> int:
        return self.axes.classes[c].size

    def apply(self, permutations: Mapping[int, Index]) -> Module:
        """The module with unit `i` of class `c` the old unit `permutations[c][i]`."""
        return self.axes.permuted(permutations)


@dataclass(frozen=True, slots=True)
class PruneGroup:
    """One class: its sites, and the ops that state sizes which follow when units go (group counts, shapes, bounds)."""

    axis_class: AxisClass
    ops: tuple[Op, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.axis_class.sites


def prune_groups(axes: Axes) -> tuple[PruneGroup, ...]:
    """A group for every free class."""
    from .ops.axes_rules_resize import RESIZE

    found: dict[int, dict[Op, None]] = defaultdict(dict)
    for op in axes.module.walk():
        if op.kind in RESIZE:
            for value in (*op.operands, *op.results):
                for c in axes.touched(value) if value is not None else ():
                    found[c][op] = None
    return tuple(PruneGroup(c, tuple(found[c.id])) for c in axes.free)
