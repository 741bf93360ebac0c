"""How much data and memory moments may take."""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS_PER_COLUMN = 64  # of a least-squares problem: it bounds the time of a fit, however much data there is
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
