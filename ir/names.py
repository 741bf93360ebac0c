"""Unique names."""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """Names in use. Names are never given back: what a report names stays unambiguous."""

    def __init__(self, names: Iterable[str]) -> None:
        self.taken = {"", *names}
        self._next: dict[str, int] = {}

    def reserve(self, wanted: str) -> str:
        name, n = wanted, self._next.get(wanted, 0)
        while name in self.taken:
            n += 1
            name = f"{wanted}_{n}"
        self._next[wanted] = n
        self.taken.add(name)
        return name
