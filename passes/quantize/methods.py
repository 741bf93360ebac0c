"""How the grids of weights are found, by name."""

from __future__ import annotations

from ...ir.dtypes import DType
from ...ir.quant import QSpec, min_max
from ...ir.quant_blocks import Array, Search, search
from .hqq import hqq


def round_to_nearest(x: Array, spec: QSpec, scale_type: DType) -> tuple[Array, ...]:
    """The grid that covers the range of each column of `x`."""
    return min_max(x, spec, scale_type=scale_type)


#: Methods that need no data: names to searches.
SEARCHES: dict[str, Search] = {"rtn": round_to_nearest, "grid": search, "hqq": hqq}
#: Methods that refine codes against calibration data (refine/).
LEARNT = ("gptq", "adaround")
METHODS = ("auto", *SEARCHES, *LEARNT)


def search_of(method: str) -> Search:
    """The search of a method; methods with data start from the grid of least error."""
    return SEARCHES.get(method, search)
