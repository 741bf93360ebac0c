"""Ratios of their own for named parts of a model: `layer4/**: 20%, head: 0%`.

Each entry is a pattern on names, as in `on` (ir/patterns.py), and a ratio. Later entries win.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...ir import errors
from ...ir.core import Module, Op
from ...ir.errors import Code
from ...ir.patterns import glob_regex, names_of_op, nearest, normal

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*")


@dataclass(frozen=True)
class Override:
    """One entry: the ops that the pattern names get this ratio."""

    pattern: str
    ratio: float

    @property
    def text(self) -> str:
        return f"{self.pattern}: {self.ratio * 100:g}%"

    def names(self, op: Op) -> bool:
        regex = glob_regex(self.pattern)
        return any(regex.match(normal(name)) for name in names_of_op(op))


def parse(text: str, where: str) -> tuple[Override, ...]:
    """The entries of a text. Errors: WRONG_UNIT, OUT_OF_RANGE, BAD_SELECTOR name the entry; `where` is the argument."""
    return tuple(_entry(part, where) for part in text.split(",") if text.strip())


def _entry(part: str, where: str) -> Override:
    pattern, colon, number = part.rpartition(":")
    found = _NUMBER.fullmatch(number)
    pattern = pattern.strip().strip("'")
    if not colon or found is None:
        raise errors.error(
            Code.WRONG_UNIT, f"'{where}' has an entry that is no 'pattern: ratio': {part.strip()!r}",
            help="for example 'layer4/**: 20%, head: 0%'",
        )  # fmt: skip
    if not normal(pattern):
        raise errors.error(Code.BAD_SELECTOR, f"'{where}' has an empty pattern", help="write ** for all")
    ratio = float(found[1]) / (100 if found[2] else 1)
    if not 0 <= ratio <= 1:
        raise errors.error(Code.OUT_OF_RANGE, f"'{where}' asks for {number.strip()} of {pattern}", help="0% to 100%")
    return Override(pattern, ratio)


def to_text(entries: Mapping[str, float], where: str) -> str:
    """A mapping from patterns to ratios as text; the order is kept."""
    for pattern, ratio in entries.items():
        if (
            not isinstance(pattern, str)
            or "," in pattern
            or isinstance(ratio, bool)
            or not isinstance(ratio, int | float)
        ):
            raise errors.error(
                Code.WRONG_UNIT, f"'{where}' has the entry {pattern!r}: {ratio!r}",
                help='give patterns without commas and ratios, such as {"layer4/**": 0.2}',
            )  # fmt: skip
    return ", ".join(f"{pattern}: {ratio}" for pattern, ratio in entries.items())


@dataclass
class Resolved:
    """Entries on a model: what each of them names, and who took it."""

    entries: Sequence[Override]
    named: Mapping[Override, frozenset[Op]]
    notes: list[str] = field(default_factory=list)
    taken: set[Override] = field(default_factory=set)
    beaten: set[Override] = field(default_factory=set)

    def ratio(self, ops: Iterable[Op], site: str) -> float | None:
        """The ratio of what `ops` make together: that of the last entry that names all of them; None if none does."""
        makers = frozenset(ops)
        whole = [e for e in self.entries if makers and makers <= self.named[e]]
        part = [e for e in self.entries if makers & self.named[e] and e not in whole]
        self.notes += [
            f"'{e.text}' names only some of what makes {site}: it keeps the ratio of the others" for e in part
        ]
        if not whole:
            return None
        self.taken.add(whole[-1])
        self.beaten.update(whole[:-1])
        self.notes += [f"'{e.text}' gives way to '{whole[-1].text}' for {site}" for e in whole[:-1]]
        return whole[-1].ratio

    def check(self, step: str) -> list[str]:
        """The notes; an entry that asks for something and that nothing could take is an error."""
        lost = [e for e in dict.fromkeys(self.entries) if e not in self.taken | self.beaten]
        for e in lost:
            if e.ratio > 0:
                raise errors.error(
                    Code.CANNOT_HONOUR, f"'{step}': nothing that can lose units is made by '{e.pattern}' alone",
                    help="name every layer that makes the units: layers that are added together lose units together",
                )  # fmt: skip
        return [*self.notes, *(f"'{e.text}' names nothing that could lose units" for e in lost)]


def resolve(entries: Sequence[Override], module: Module, step: str) -> Resolved:
    """The entries on a model. Errors: NO_MATCH with the nearest names for a pattern that names no operator."""
    ops = tuple(module.walk())
    named = {e: frozenset(filter(e.names, ops)) for e in entries}
    for e, found in named.items():
        if not found:
            names = sorted({name for op in ops for name in names_of_op(op) if name})
            raise errors.error(
                Code.NO_MATCH, f"'{step}': no operator matches the override \"{e.pattern}\"",
                help=f"the nearest names are {', '.join(nearest(e.pattern, names))}" if names else "",
            )  # fmt: skip
    return Resolved(entries, named)
