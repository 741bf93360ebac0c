"""Who does the damage: shares of many suspects from few measurements (adaptive group testing, Dorfman 1943).

    shares(values, lambda some: probe.damage(activations=some), tolerated=0.01)

Damages of sites add up, nearly (choice.py), and mostly a few sites do most of it. So groups are measured: one that does
no more than its part of what is tolerated is not looked into, and its damage is shared evenly; others are split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

_PARTS = 4  # that a group is split into: 4/3 measurements an item where all are guilty, 4 log4(n) where one is

Item = TypeVar("Item")


def shares(
    items: Sequence[Item],
    measure: Callable[[Sequence[Item]], float],
    tolerated: float,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Item, float]:
    """The damage of every item. What is shared evenly, of all groups together, is at most `tolerated`. `told` hears of
    how many items it is known."""
    found: dict[Item, float] = {}
    allowed = tolerated / max(1, len(items))
    waiting = [tuple(items)] if items else []
    while waiting:
        group = waiting.pop()
        damage = max(0.0, measure(group))
        if len(group) == 1 or damage <= allowed * len(group):
            found |= dict.fromkeys(group, damage / len(group))
            told(len(found), len(items))
            continue
        size = -(-len(group) // _PARTS)
        waiting += [group[start : start + size] for start in range(0, len(group), size)]
    return found
