"""The plan of exact removals: plain data, apart from the numerics that find them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....ir.axes import Index
from ...base import Done
from ..ranges import parse_ranges

Key = tuple[str, int, int]  # names a group over the rounds


@dataclass(frozen=True)
class Removal:
    """Redundant units of one group, by the reason for which they can go (ranges of old unit numbers)."""

    site: str
    constant: str  # the class is the `nth` on `axis` of this constant
    axis: int
    nth: int
    before: int
    after: int
    unread: str = ""
    fixed: str = ""
    duplicate: str = ""
    dependent: str = ""

    @property
    def key(self) -> Key:
        return self.constant, self.axis, self.nth

    @property
    def units(self) -> Index:
        """The units that go, in order."""
        parts = [parse_ranges(text) for text in (self.unread, self.fixed, self.duplicate, self.dependent)]
        return np.sort(np.concatenate(parts))

    def done(self) -> Done:
        reasons = [
            f"{name} {units}"
            for name, units in (
                ("unread", self.unread), ("constant", self.fixed), ("duplicate", self.duplicate),
                ("dependent", self.dependent),
            )
            if units
        ]  # fmt: skip
        return Done(self.site, f"{self.before} units", f"{self.after} units ({'; '.join(reasons)})")


@dataclass(frozen=True)
class Round:
    """Removals that were found in one module and are made together."""

    removals: tuple[Removal, ...]

    def done(self) -> list[Done]:
        return [r.done() for r in self.removals]
