"""Sets of unit numbers as text: "3, 8-11"."""

from __future__ import annotations

import numpy as np

from ...ir.axes import Index


def ranges(units: Index) -> str:
    """Increasing numbers as text: "3, 8-11"."""
    runs = np.split(units, np.nonzero(np.diff(units) != 1)[0] + 1) if len(units) else []
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def parse_ranges(text: str) -> Index:
    """The inverse of `ranges`."""
    found: list[int] = []
    for run in filter(None, text.split(", ")):
        first, _, last = run.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return np.array(found, np.int64)
