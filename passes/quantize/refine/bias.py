"""Bias correction: what rounding adds to the mean of a channel is taken off its bias, front to back.

    b <- b - (E[y'] - E[y])

y' is the result of an operator in the quantized model, y in the float one, both on the calibration data, and the
quantized model's earlier biases are corrected already (Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization
Through Weight Equalization and Bias Correction", 2019, the empirical form). Three things keep it from hurting:

* A channel is corrected when its mean error is above noise: the squared mean is more than twice its squared standard
  error over samples, so that the error on other samples is expected to fall, and above 1e-3 of the channel's deviation.
* A level of operators keeps its corrections only if the outputs of the whole model come closer,
* and by more than chance on samples that the corrections were not taken from: what each half of the runs says is
  tried on the other half (judge.py) before what both say together is kept.

Sweeps go on until one finds nothing, so that a second correction has nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ....ir.core import Module, Op, Value
from ....ir.progress import Progress, counted
from ....ir.rewrite import Rewriter
from ....ir.types import TensorType
from ...base import Context, Done, SkipCode, Skipped, site_name
from ...bias import add_bias, has_bias_place
from ...linear import RECURRENT
from ...statistics import runs
from .judge import HALVES, Judge, closer, surely_closer

Array = np.ndarray[Any, Any]
#: Runs of both models, at most: in deep models several levels are corrected from the same run.
RUNS = 128
#: Sweeps over the model, at most: a correction that did not pay may pay when later ones are there.
SWEEPS = 4
_LEAST = 1e-3  # of a channel's standard deviation: smaller means are left alone
_WORSE = "without it the outputs of the model would differ more"
_CHANCE = "one half of the samples does not bear out that what the other says brings outputs closer"
CHANNELS = {"Conv": 1, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}


@dataclass(frozen=True, eq=False)
class BiasSite:
    """An operator with a place for a bias, and the value of the float model that it should yield."""

    op: Op
    wanted: Value
    level: int

    @property
    def name(self) -> str:
        return site_name(self.op)

    def channels(self, result: Array) -> Array:
        """[n, channels] in float64."""
        return np.moveaxis(result, CHANNELS[self.op.kind], -1).reshape(-1, self.width).astype(np.float64)

    @property
    def width(self) -> int:
        seen = self.op.results[0].type
        assert isinstance(seen, TensorType)
        size = seen.shape[CHANNELS[self.op.kind]]
        assert isinstance(size, int)
        return size


def bias_sites(module: Module, source: Module, allows: Callable[[Op], bool]) -> tuple[list[BiasSite], list[Skipped]]:
    """Operators whose results `source` has under the same name and type, front to back; why others are left."""
    wanted = {v.name: v for op in source.graph.ops for v in op.results}
    level: dict[Value, int] = {}
    found: list[BiasSite] = []
    skipped: list[Skipped] = []
    for op in module.graph.ops:
        behind = max((level.get(v, 0) for v in _read_by(op)), default=0)
        if (op.kind in CHANNELS or op.kind in RECURRENT) and allows(op) and _from_data(op):
            site = _site(op, wanted.get(op.results[0].name), behind + 1)
            if isinstance(site, BiasSite):
                found.append(site)
                behind = site.level
            else:
                skipped.append(site)
        level.update(dict.fromkeys(op.results, behind))
    return sorted(found, key=lambda s: s.level), skipped


def _site(op: Op, wanted: Value | None, level: int) -> BiasSite | Skipped:
    name = site_name(op)
    if op.kind in RECURRENT:
        return Skipped(name, SkipCode.NOT_FOLLOWED, f"what the gates of {op.kind} add up is not seen")
    if not has_bias_place(op):
        return Skipped(name, SkipCode.GROWS, "it has no bias: an Add of its own would cost time")
    if wanted is None or wanted.type != op.results[0].type:
        return Skipped(name, SkipCode.NOT_FOLLOWED, "the model before it was rounded has no such value")
    site = BiasSite(op, wanted, level)
    seen = op.results[0].type
    if not isinstance(seen, TensorType) or not isinstance(seen.shape[CHANNELS[op.kind]], int):
        return Skipped(name, SkipCode.NOT_FOLLOWED, "the number of its channels is not known")
    return site


def _from_data(op: Op) -> bool:
    data = op.operand(0)
    return data is not None and data.constant is None


def _read_by(op: Op) -> Iterator[Value]:
    for inner in (op, *(o for region in op.regions.values() for o in region.walk())):
        yield from (v for v in inner.operands if v is not None)


def correct_biases(
    rw: Rewriter, source: Module, ctx: Context, allows: Callable[[Op], bool] = lambda op: True
) -> list[Done | Skipped]:
    """Correct the biases of `rw.module` against the float model `source`. Needs `ctx.data` and `ctx.runner`.

    One entry per operator: the mean errors before and after relative to the deviation of the channels, or why the
    bias was kept.
    """
    sites, _ = bias_sites(rw.module, source, allows)
    if not sites:
        return []
    judge = Judge(rw.module, source, ctx)
    told: dict[BiasSite, Done | Skipped] = {}
    for _ in range(SWEEPS):
        found = dict(_sweep(rw, source, sites, judge, ctx.progress))
        for site, outcome in found.items():
            before = told.setdefault(site, outcome)
            if isinstance(outcome, Done):
                told[site] = replace(outcome, before=before.before) if isinstance(before, Done) else outcome
        if not any(isinstance(outcome, Done) for outcome in found.values()):
            break
    return list(told.values())


def _sweep(
    rw: Rewriter, source: Module, sites: Sequence[BiasSite], judge: Judge, progress: Progress | None
) -> Iterator[tuple[BiasSite, Done | Skipped]]:
    """All levels once, front to back."""
    least = judge.misses([rw.module] * len(HALVES))
    for group in counted(list(_groups(sites)), "levels corrected", progress):
        halves = _measure(group, rw.module, source, judge)
        found = [first + second for first, second in zip(*halves)]
        deltas = [moments.correction() for moments in found]
        refusal = ""
        if any(delta.any() for delta in deltas):
            after = judge.misses([_tried(rw.module, group, deltas)] * len(HALVES))
            refusal = _refusal(rw.module, group, halves, judge, after, least)
            if not refusal:
                _add(rw, [s.op for s in group], deltas)
                least = after
        for site, moments, delta in zip(group, found, deltas):
            yield site, _told(site, moments, delta, refusal)


def _refusal(
    module: Module,
    group: Sequence[BiasSite],
    halves: Sequence[Sequence[_Errors]],
    judge: Judge,
    after: Array,
    least: Array,
) -> str:
    """Why corrections that miss `after` are not kept where none miss `least`; empty if they are."""
    if not closer(after, least):
        return _WORSE
    others = [_tried(module, group, [errors.correction() for errors in half]) for half in reversed(halves)]
    return "" if surely_closer(judge.misses(others), least) else _CHANCE


def _tried(module: Module, group: Sequence[BiasSite], deltas: Sequence[Array]) -> Module:
    """A copy of the module with corrections."""
    trial = module.clone()
    twins = dict(zip(module.graph.ops, trial.graph.ops))
    _add(Rewriter(trial), [twins[s.op] for s in group], deltas)
    return trial


def _groups(sites: Sequence[BiasSite]) -> Iterator[list[BiasSite]]:
    levels = sorted({s.level for s in sites})
    joined = -(-len(levels) // RUNS)
    stage = {level: index // joined for index, level in enumerate(levels)}
    yield from runs(sites, lambda s: 0, 1, lambda a, b: stage[a.level] == stage[b.level])


def _add(rw: Rewriter, ops: Sequence[Op], deltas: Sequence[Array]) -> None:
    for op, delta in zip(ops, deltas):
        if delta.any():
            seen = op.results[0].type
            assert isinstance(seen, TensorType)
            add_bias(rw, op, delta, seen.dtype)


def _told(site: BiasSite, moments: _Errors, delta: Array, refusal: str) -> Done | Skipped:
    before = f"mean error {moments.share(np.zeros_like(delta)):.2%} of a deviation"
    if not delta.any():
        return Skipped(site.name, SkipCode.ALREADY, f"{before}: nothing above noise")
    if refusal:
        return Skipped(site.name, SkipCode.HURTS, f"{before}, but {refusal}")
    return Done(site.name, before, f"{moments.share(delta):.2%}, {np.count_nonzero(delta)} channels corrected")


@dataclass
class _Errors:
    """Running moments of y' - y and y by channel, and of the means of runs (for their standard error)."""

    rows: int = 0
    runs: int = 0
    difference: Array = field(default_factory=lambda: np.zeros(1))
    means: Array = field(default_factory=lambda: np.zeros(1))
    squares: Array = field(default_factory=lambda: np.zeros(1))
    wanted: Array = field(default_factory=lambda: np.zeros(1))
    power: Array = field(default_factory=lambda: np.zeros(1))

    def update(self, made: Array, wanted: Array) -> None:
        """Results of one run [n, channels]."""
        if not len(made):
            return
        difference = made - wanted
        mean = difference.mean(axis=0)
        self.rows, self.runs = self.rows + len(made), self.runs + 1
        self.difference = self.difference + difference.sum(axis=0)
        self.means, self.squares = self.means + mean, self.squares + mean**2
        self.wanted, self.power = self.wanted + wanted.sum(axis=0), self.power + np.square(wanted).sum(axis=0)

    def __add__(self, other: _Errors) -> _Errors:
        """The moments of the runs of both."""
        return _Errors(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def mean(self) -> Array:
        return self.difference / max(self.rows, 1)

    @property
    def deviation(self) -> Array:
        n = max(self.rows, 1)
        return np.sqrt(np.maximum(self.power / n - (self.wanted / n) ** 2, 0))

    def correction(self) -> Array:
        """What to add to the bias [channels]; 0 where there is nothing that other samples would confirm."""
        mean = self.mean
        if self.runs < 2 or not np.isfinite(mean).all():
            return np.zeros_like(mean)
        spread = np.maximum(self.squares / self.runs - (self.means / self.runs) ** 2, 0) / (self.runs - 1)
        sure = (mean**2 > 2 * spread) & (np.abs(mean) > _LEAST * self.deviation)
        return np.where(sure, -mean, 0.0)

    def share(self, delta: Array) -> float:
        """The mean error that is left, relative to the deviation: the root of the mean of squares over channels."""
        scale = np.sqrt(np.square(self.deviation).mean())
        return float(np.sqrt(np.square(self.mean + delta).mean()) / scale) if scale > 0 else 0.0


def _measure(sites: Sequence[BiasSite], module: Module, source: Module, judge: Judge) -> list[list[_Errors]]:
    """The moments of every site, for either half of the runs."""
    made = judge.runner.prepare(module, tuple(s.op.results[0].name for s in sites))
    known = judge.runner.prepare(source, tuple(s.wanted.name for s in sites))
    found = [[_Errors() for _ in sites] for _ in HALVES]
    for half, batch in judge.runs():
        got, wanted = made.run(batch.inputs), known.run(batch.inputs)
        for site, errors in zip(sites, found[half]):
            errors.update(site.channels(got[site.op.results[0].name]), site.channels(wanted[site.wanted.name]))
    return found
