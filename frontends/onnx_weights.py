"""Weights that no compression can serve: NaN. Infinities are allowed, masks are made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..ir.constants import Constant
from ..ir.core import Module
from ..ir.dtypes import DType
from ..ir.errors import Code, error

#: Bits of infinity: beyond it (sign aside) lie the NaNs.
_INFINITY = {DType.F16: (np.uint16, 0x7C00), DType.BF16: (np.uint16, 0x7F80)}


def check_weights(module: Module) -> None:
    """Refuse a module with NaN in a constant. Reads every weight once, in chunks. Errors: BAD_WEIGHTS."""
    for name, constant in _constants(module):
        at = _first_nan(constant)
        if at is not None:
            index = [int(i) for i in np.unravel_index(at, constant.shape)]
            raise error(
                Code.BAD_WEIGHTS,
                f"weight {name!r} {constant.type} holds NaN (first at {index})",
                help="repair the weight, or take a checkpoint from before training diverged",
            )


def _constants(module: Module) -> Iterator[tuple[str, Constant]]:
    yield from ((name, v.constant) for name, v in module.constants.items() if v.constant is not None)
    yield from module.defaults.items()


def _first_nan(constant: Constant) -> int | None:
    """The flat index of the first NaN."""
    dtype = constant.dtype
    if dtype.kind not in ("float", "complex") or dtype.bits < 8:
        return None
    done = 0
    for chunk in constant.chunks():
        flat = np.frombuffer(chunk, dtype.numpy)
        if _has_nan(flat, dtype):
            return done + int(np.argmax(np.isnan(flat)))
        done += flat.size
    return None


def _has_nan(flat: np.ndarray[Any, Any], dtype: DType) -> bool:
    if dtype in (DType.F32, DType.F64) and flat.size:
        return bool(np.isnan(flat.min()))  # NaN passes through a minimum, and nothing is allocated
    if dtype in _INFINITY:
        unsigned, infinity = _INFINITY[dtype]
        return bool(((flat.view(unsigned) & 0x7FFF) > infinity).any())
    return bool(np.isnan(flat).any())
