"""How the grids of weights are found, by name."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dtypes import DType
from ...ir.quant import QSpec, min_max
from ...ir.quant_blocks import Array, Search, search
from .hqq import hqq


def round_to_nearest(x: Array, spec: QSpec, scale_type: DType) -> tuple[Array, ...]:
    """The grid that covers the range of each column of `x`."""
    return min_max(x, spec, scale_type=scale_type)


#: Methods that need no data: names to searches.
SEARCHES: dict[str, Search] = {"rtn": round_to_nearest, "grid": search, "hqq": hqq}


@dataclass(frozen=True)
class Learnt:
    """A method that uses calibration data: what refines the codes (refine/refine.py), and whether inputs are scaled
    first (refine/awq.py). They start from grids of least error, and keep those where they find nothing better."""

    refinement: str
    scales: bool = False


LEARNT: dict[str, Learnt] = {
    "gptq": Learnt("gptq"),
    "adaround": Learnt("adaround"),
    "awq": Learnt("clip", scales=True),
}
METHODS = ("auto", *SEARCHES, *LEARNT)


def search_of(method: str) -> Search:
    """What grids of weights are found by; `auto` and methods that learn take those of least error."""
    return SEARCHES.get(method, search)
