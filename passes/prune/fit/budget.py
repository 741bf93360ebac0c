"""How much data and memory moments may take: rows per sample, items per streaming run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")

ROWS_PER_COLUMN = 64  # of a least-squares problem; more cost time and no longer help
FEWEST_ROWS = 1 << 15
DEFAULT_MEMORY = 4 << 30
SHARE = 4  # of the memory: one in so many is for moments


def allowed(max_memory: int | None) -> int:
    """Bytes that the moments of one run may take."""
    return (max_memory or DEFAULT_MEMORY) // SHARE


def rows_per_sample(depth: int, samples: int) -> float:
    """How many rows a problem of this depth takes from each sample."""
    return max(ROWS_PER_COLUMN * depth, FEWEST_ROWS) / samples


def pick(rng: np.random.Generator, count: int, wanted: float) -> np.ndarray[Any, np.dtype[np.intp]] | None:
    """Which of `count` rows are taken: all (None), or a random part of about `wanted`, in order."""
    if count <= wanted:
        return None
    return np.sort(rng.choice(count, max(1, round(wanted)), replace=False)).astype(np.intp)


def runs(
    items: Sequence[Item], memory: Callable[[Item], int], most: int, together: Callable[[Item, Item], bool]
) -> Iterator[list[Item]]:
    """Consecutive items that share a run: while their memory allows, and the first goes `together` with them."""
    group: list[Item] = []
    used = 0
    for item in items:
        if group and (used + memory(item) > most or not together(group[0], item)):
            yield group
            group, used = [], 0
        group.append(item)
        used += memory(item)
    if group:
        yield group
