"""What is fed to a model, with the words for where it comes from: errors of a run name the sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Feeds(dict[str, Array]):
    """Arrays by the input that they feed. `where` says in words which samples they are, `shapes` how large
    those are."""

    __slots__ = ("shapes", "where")

    def __init__(self, arrays: Mapping[str, Array], where: str) -> None:
        super().__init__(arrays)
        self.where = where
        self.shapes = {name: array.shape for name, array in arrays.items()}


def beside(feeds: Mapping[str, Array], more: Mapping[str, Array]) -> dict[str, Array]:
    """Feeds with inputs of a graph's own (switches, weights): still the same samples."""
    if not isinstance(feeds, Feeds):
        return {**feeds, **more}
    found = Feeds({**feeds, **more}, feeds.where)
    found.shapes = feeds.shapes
    return found
