"""Samples in memory, as passes see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Samples:
    """`arrays[name]` holds one sample per position of axis 0; `whole`: every one is a complete input."""

    arrays: Mapping[str, Array]
    whole: bool = False
    has_labels: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def batches(self, size: int = 1) -> Iterator[Piece]:
        step = 1 if self.whole else size
        for start in range(0, len(self), step):
            part = {n: np.asarray(a[start]) if self.whole else a[start : start + step] for n, a in self.arrays.items()}
            yield Piece(part, None, min(step, len(self) - start))

    def fingerprint(self) -> str:
        return "memory"


@dataclass(frozen=True)
class Piece:
    inputs: Mapping[str, Array]
    labels: Array | None
    n: int
