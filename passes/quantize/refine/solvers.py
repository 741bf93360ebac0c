"""What one weight is refined by: an object that takes rows while data streams and then says the new codes.

A row is what the operator reads in the quantized model, x, and what its product is in the float model, t. All methods
look for codes on the grids that the site allows, with

    E |t - Q x - b|^2  as small as possible, relative to Var(t).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ....ir.constants import Constant
from ....ir.quant import QSpec
from ....ir.quant_blocks import CLIPS
from ...regression import CrossMoments
from .gptq import Rounded, Settings, gptq
from .sites import Site

Array = np.ndarray[Any, Any]
#: Of the mean variance of the inputs: how hard a weight is held back before it is rounded.
PENALTY = 0.05


@dataclass(frozen=True, eq=False)
class Outcome:
    """New codes and what to add to the bias [groups, outputs] (None: nothing); relative errors before and after."""

    rounded: Rounded
    bias: Array | None
    before: float
    after: float


class Solver(Protocol):
    def update(self, x: Array, t: Array) -> None:
        """Rows x [groups, n, depth] with targets t [groups, n, outputs]."""

    def solve(self) -> Outcome: ...


@dataclass(frozen=True)
class Options:
    """How refinement works: `least_squares` fits the weight to the inputs that the quantized model gives it before it
    is rounded; `bias` lets the mean of what is left move into the bias where there is one; `order` and `damping` are
    those of GPTQ; `clips` what searches of grids try."""

    least_squares: bool = True
    bias: bool = True
    order: bool = False
    damping: float = 0.01
    clips: tuple[float, ...] = CLIPS


class GptqSolver:
    """Second moments, a least-squares fit, then GPTQ on its result."""

    def __init__(self, site: Site, options: Options, rng: np.random.Generator) -> None:
        self._site, self._options = site, options
        self._moments = CrossMoments()

    def update(self, x: Array, t: Array) -> None:
        self._moments.update(x, t)

    def solve(self) -> Outcome:
        site, options, moments = self._site, self._options, self._moments
        bias = options.bias and site.has_bias
        wished = site.float_matrix()
        if options.least_squares:
            wished = moments.solve(wished, PENALTY, bias=bias).matrix.astype(np.float32)
        hessian = moments.covariance if bias else moments.second
        rounded = round_on_grids(site, wished, hessian, options)
        matrix = rounded.matrix
        offset = moments.bias(matrix) if bias else None
        return Outcome(
            rounded, offset, moments.error(site.current()), moments.error(matrix, 0.0 if offset is None else offset)
        )


def round_on_grids(site: Site, matrix: Array, hessian: Array, options: Options) -> Rounded:
    """GPTQ on the grids that a site has, or on new ones of the same kind where nothing else relies on them."""
    block = site.depth_blocks
    spec = QSpec(site.spec.bits, site.spec.signed, site.spec.symmetric, None, block or 0)
    scale = site.scale.constant
    assert isinstance(scale, Constant)
    settings = Settings(spec, scale.dtype, options.clips, options.damping, options.order)
    return gptq(matrix, hessian, settings, site.grids() if site.fixed or block is None else None)
