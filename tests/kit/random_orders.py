"""Random permutations of every free class, a separate one for each outer unit where a class depends on others."""

from __future__ import annotations

import numpy as np
from kit.permute import Array

from mlc.ir.axes import Axes


def random_orders(axes: Axes, seed: int) -> dict[int, Array]:
    """A permutation of every free class; of a dependent one, one for each combination of outer units."""
    rng = np.random.default_rng(seed)
    chosen = {}
    for c in axes.free:
        outer = tuple(u.size for u in axes.depends(c))
        chosen[c.id] = np.stack([rng.permutation(c.size) for _ in np.ndindex(*outer)]).reshape(*outer, c.size)
    return chosen
