"""How long work tells how far it is.

A task is a name and a count that rises to its total; tasks may lie in each other (samples, for each of many weights).
Who does the work calls `advance` as often as it likes: listeners decide what is shown. Nothing of it is ever written to
an artifact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """What passes report to."""

    def advance(self, what: str, done: int, total: int) -> None:
        """So many of the `total` of a task are done. A task begins anew when its count falls."""


class Listener(Progress, Protocol):
    """What a whole compilation reports to."""

    def step(self, what: str, number: int = 0, total: int = 0) -> None:
        """The next part of the work begins. Steps of a recipe are numbered from 1 to `total`; trials are numbered, and
        nobody knows how many there will be."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


def counted(items: Sequence[Item], what: str, progress: Progress | None) -> Iterator[Item]:
    """The items, each told of when the work on it is done."""
    for done, item in enumerate(items, start=1):
        yield item
        if progress is not None:
            progress.advance(what, done, len(items))
