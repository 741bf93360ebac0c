"""What one weight is refined by: an object that takes rows while data streams and then says the new codes.

A row is what the operator reads in the quantized model, x, and what its product should be, t. All methods
look for codes on the grids that the site allows, with

    E |t - Q x - b|^2  as small as possible, relative to Var(t).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ....ir.constants import Constant
from ....ir.progress import Progress
from ....ir.quant import QSpec
from ....ir.quant_blocks import CLIPS
from ...regression import CrossMoments
from .activations import activation_behind
from .adaround import Rows, Training, adaround
from .clip import clipped
from .gptq import Rounded, Settings, gptq
from .sites import Site

Array = np.ndarray[Any, Any]
#: Of the mean variance of the inputs: how hard a weight is held back before it is rounded.
PENALTY = 0.05


@dataclass(frozen=True, eq=False)
class Outcome:
    """New codes and what to add to the bias [groups, outputs] (None: nothing); relative errors before and after.

    `moved` says whether the grids of `rounded` are others than those of the site.
    """

    rounded: Rounded
    bias: Array | None
    before: float
    after: float
    moved: bool = False


class Solver(Protocol):
    def update(self, x: Array, t: Array) -> None:
        """Rows x [groups, n, depth] with targets t [groups, n, outputs]."""

    @property
    def usable(self) -> bool:
        """Whether there were rows, and all of them finite."""

    def solve(self, progress: Progress | None = None) -> Outcome: ...


@dataclass(frozen=True)
class Options:
    """How refinement works.

    `least_squares` fits the weight to the inputs that the quantized model gives it before it is rounded (None: unless
    its inputs are codes: then targets are products of them). `bias` lets the mean of what is left move into the
    bias where there is one. `order` and `damping` are those of GPTQ; `clips` what searches of grids try; `training` is
    how AdaRound learns.
    """

    least_squares: bool | None = None
    bias: bool = True
    order: bool = False
    damping: float = 0.01
    clips: tuple[float, ...] = CLIPS
    training: Training = field(default_factory=Training)


_ROWS = 2048  # that AdaRound learns from
_NO_ACTIVATION = (-np.inf, np.inf, None)


class _Moments:
    """What solvers share that need no more of the rows than their second moments."""

    def __init__(self, site: Site, options: Options, rng: np.random.Generator) -> None:
        self._site, self._options = site, options
        self._moments = CrossMoments()

    def update(self, x: Array, t: Array) -> None:
        self._moments.update(x, t)

    @property
    def usable(self) -> bool:
        return self._moments.usable


class GptqSolver(_Moments):
    """A least-squares fit, then GPTQ on its result."""

    def solve(self, progress: Progress | None = None) -> Outcome:
        site, options, moments = self._site, self._options, self._moments
        bias = options.bias and site.has_bias
        wished = site.float_matrix()
        if options.least_squares if options.least_squares is not None else not site.fixed:
            wished = moments.solve(wished, PENALTY, bias=bias).matrix.astype(np.float32)
        hessian = moments.covariance if bias else moments.second
        rounded = round_on_grids(site, wished, hessian, options)
        matrix = rounded.matrix
        offset = moments.bias(matrix) if bias else None
        before, after = moments.error(site.current()), moments.error(matrix, 0.0 if offset is None else offset)
        return Outcome(rounded, offset, before, after, moved=site.movable)


class ClipSolver(_Moments):
    """The best clip of every group; grids that may not move stay."""

    def solve(self, progress: Progress | None = None) -> Outcome:
        site, options, moments = self._site, self._options, self._moments
        before = moments.error(site.current())
        if not site.movable:
            unchanged = Rounded(site.linear.matrix(site.stored_codes()), *site.grids())
            return Outcome(unchanged, None, before, before)
        bias = options.bias and site.has_bias
        rounded = clipped(
            site.float_matrix(), moments.covariance if bias else moments.second, settings_of(site, options)
        )
        matrix = rounded.matrix
        offset = moments.bias(matrix) if bias else None
        return Outcome(rounded, offset, before, moments.error(matrix, 0.0 if offset is None else offset), moved=True)


class AdaRoundSolver:
    """A random sample of the rows, and what is rounded up learned from it; an activation right behind counts."""

    def __init__(self, site: Site, options: Options, rng: np.random.Generator) -> None:
        self._site, self._options, self._rng = site, options, rng
        self._sample = _Sample(rng)

    def update(self, x: Array, t: Array) -> None:
        self._sample.update(x, t)

    @property
    def usable(self) -> bool:
        x, t = self._sample.x, self._sample.t
        return x.shape[1] > 0 and bool(np.isfinite(x).all() and np.isfinite(t).all())

    def solve(self, progress: Progress | None = None) -> Outcome:
        site, options = self._site, self._options
        low, high, bias = activation_behind(site.readers[0].whole.op) if len(site.readers) == 1 else _NO_ACTIVATION
        groups, outputs, _ = site.linear.shape
        shift = np.zeros((groups, outputs), np.float32) if bias is None else bias.reshape(groups, outputs)
        rows = Rows(self._sample.x, self._sample.t, shift, low, high)
        rounded = adaround(
            site.float_matrix(), rows, site.spec, site.grids(), options.training, self._rng, _told(site, progress)
        )
        offset = rows.mean_left(rounded.matrix) if options.bias and site.has_bias and rows.linear else None
        after = rows.error(rounded.matrix, offset)
        return Outcome(rounded, offset, rows.error(site.current()), after)


def _told(site: Site, progress: Progress | None) -> Callable[[int, int], None]:
    """Iterations of one weight as progress."""
    what = f"iterations of {site.name}"
    return lambda done, total: progress.advance(what, done, total) if progress is not None else None


class _Sample:
    """At most `_ROWS` rows of a stream, each as likely as any other."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._keys = np.empty(0)
        self.x = self.t = np.empty((0, 0, 0), np.float32)

    def update(self, x: Array, t: Array) -> None:
        fresh = self._rng.random(x.shape[1])
        known = len(self._keys)
        keys = np.concatenate([self._keys, fresh])
        kept = np.sort(np.argsort(keys, kind="stable")[:_ROWS])
        old, new = kept[kept < known], kept[kept >= known] - known
        self._keys = keys[kept]
        some_x, some_t = x[:, new].astype(np.float32), t[:, new].astype(np.float32)
        self.x = np.concatenate([self.x[:, old], some_x], axis=1) if known else some_x
        self.t = np.concatenate([self.t[:, old], some_t], axis=1) if known else some_t


def round_on_grids(site: Site, matrix: Array, hessian: Array, options: Options) -> Rounded:
    """GPTQ on the grids that a site has, or on new ones of the same kind where nothing else relies on them."""
    return gptq(matrix, hessian, settings_of(site, options), None if site.movable else site.grids())


def settings_of(site: Site, options: Options) -> Settings:
    """The grids of a site along the depth of its matrix."""
    spec = QSpec(site.spec.bits, site.spec.signed, site.spec.symmetric, None, site.depth_blocks or 0)
    scale = site.scale.constant
    assert isinstance(scale, Constant)
    return Settings(spec, scale.dtype, options.clips, options.damping, options.order)
