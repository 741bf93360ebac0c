"""`int4`: weights in 4 bits.

small = mlc.passes.Int4()(module)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..base import option
from .sites import BLOCKS
from .weight_only import BLOCK_DOC, WeightOnly


@dataclass(frozen=True)
class Int4(WeightOnly):
    """Stores weights in 4 bits, with a scale and a zero point per block.

    Round to nearest (half to even) on a grid for each block of `block` weights along the axis that is contracted:
    q = clip(round(w / s) + z, 0, 15), w' = s (q - z). The same as `weights(bits=4)`. Blocks of zeros stay exactly zero.
    Errors: CANNOT_HONOUR when the step's selector names only what cannot be stored so.
    """

    name: ClassVar[str] = "int4"

    block: int = option(32, unit="int", choices=(0, *BLOCKS), doc=BLOCK_DOC, positional=True)

    @property
    def widths(self) -> tuple[int, ...]:
        return (4,)
