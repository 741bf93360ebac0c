"""The plan of exact removals: plain data, apart from the numerics that find them."""

from __future__ import annotations

from dataclasses import dataclass

from ..base import Done


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
