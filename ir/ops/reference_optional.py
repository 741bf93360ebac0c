"""References of the optional operators: an optional is what it holds, or None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Op


def held(op: Op, arrays: Sequence[Any]) -> list[Any]:
    """Optional and OptionalGetElement."""
    return [arrays[0] if arrays else None]


def has_element(op: Op, arrays: Sequence[Any]) -> list[Any]:
    return [np.array(bool(arrays) and arrays[0] is not None)]
