"""Patterns on names: which operators a glob selects, and which names are nearest to one that selects none.

`/` and `.` both separate the segments of a name, `*` stays within one, `**` crosses them, and a pattern that matches
the first segments of a name selects everything below it. So `layers.1` selects `layers.1` and `layers.1.weight`,
never `layers.10`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from .core import Op

SEPARATORS = re.compile(r"[./]+")
_GLOB = {"**": ".*", "*": "[^.]*"}
_SHORTLIST = 60  # names compared in full, after a cheap ranking of all
_NEAREST = 3


def names_of_op(op: Op) -> tuple[str, ...]:
    """What an operator may be called: its own name first, then that of the node it comes from and of its constants."""
    constants = [v.name for v in op.operands if v is not None and v.constant is not None]
    own = op.name or op.loc.origin
    return tuple(dict.fromkeys((own, *filter(None, (op.loc.origin, *constants)))))


def normal(name: str) -> str:
    """A name with `.` between segments, empty segments dropped."""
    return ".".join(filter(None, SEPARATORS.split(name)))


def glob_regex(pattern: str, *, flags: int = 0) -> re.Pattern[str]:
    """The expression that matches a normal name."""
    parts = [part for part in SEPARATORS.split(pattern) if part]
    text = ""
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part == "**":
            text += ".*" if last else r"(?:[^.]+\.)*"
        else:
            text += "".join(_GLOB.get(bit, re.escape(bit)) for bit in re.split(r"(\*\*|\*)", part))
            text += "" if last else r"\."
    return re.compile(text + r"(?:\..*)?\Z", flags | re.DOTALL)


def nearest(pattern: str, names: Sequence[str]) -> list[str]:
    """The names closest to a pattern, comparing as many of their segments as the pattern has."""
    parts = [p for p in SEPARATORS.split(pattern) if p]
    wanted = ".".join(parts).lower()

    def closeness(name: str, *, full: bool) -> float:
        own = normal(name).lower().split(".")
        pieces = (".".join(own[i : i + len(parts)]) for i in range(max(1, len(own) - len(parts) + 1)))
        matchers = (difflib.SequenceMatcher(None, wanted, piece) for piece in pieces)
        return max(m.ratio() if full else m.quick_ratio() for m in matchers)

    shortlist = sorted(names, key=lambda name: (-closeness(name, full=False), name))[:_SHORTLIST]
    return sorted(shortlist, key=lambda name: (-closeness(name, full=True), name))[:_NEAREST]
