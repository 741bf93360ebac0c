"""Whether a change of a model brings its outputs closer to those of the float one, also on other samples.

Runs over calibration data belong to two halves in turn, so that samples sorted by class are in both. What was learned
from one half is tried on the other (two-fold cross validation), and counts if it helps by more than the standard error
of what it gains from run to run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from ....ir.core import Module
from ...base import Context
from ...instruments import ABSENT, arrays
from ...ports import Array, Batch, Executable
from ...statistics import batch_size, sources

HALVES = (0, 1)
_RUNS = 8  # at least, where there are as many samples: gains and means need standard errors
_JUDGING = 32  # samples on which outputs are compared


class Judge:
    """Runs models on the samples of `ctx`, and compares the outputs of the first of them with those of `source`."""

    def __init__(self, module: Module, source: Module, ctx: Context) -> None:
        self._samples, self.runner = sources(ctx)
        self._source, self._progress = source, ctx.progress
        most = min(len(self._samples), _JUDGING) // _RUNS
        self._batch = min(batch_size(ctx, module, source), max(1, most))

    def runs(self) -> Iterator[tuple[int, Batch]]:
        """All samples, and the half that each run of them belongs to."""
        seen = 0
        for index, batch in enumerate(self._samples.batches(self._batch)):
            yield index % len(HALVES), batch
            seen += batch.n
            if self._progress is not None:
                self._progress.advance("statistics", seen, len(self._samples))

    def misses(self, models: Sequence[Module]) -> Array:
        """|y' - y|^2 / |y|^2 of all runs [runs, outputs], by the model for each half, of outputs that are not zero."""
        known = [name for name, power in self._power.items() if power > 0]
        prepared = {model: self.runner.prepare(model) for model in models}
        rows = []
        for half, model in zip(HALVES, models):
            for batch in self._few(half):
                found = {name: np.square(d).sum() for name, _, d in _outputs(prepared[model], self._wanted, batch)}
                rows.append([float(found.get(name, 0.0)) / self._power[name] for name in known])
        return np.array(rows).reshape(len(rows), len(known))

    @cached_property
    def _wanted(self) -> Executable:
        return self.runner.prepare(self._source)

    @cached_property
    def _power(self) -> dict[str, float]:
        """The energy of every output over all runs that judge."""
        found: dict[str, float] = {}
        for batch in itertools.chain.from_iterable(self._few(half) for half in HALVES):
            for name, known, _ in _outputs(self._wanted, self._wanted, batch):
                found[name] = found.get(name, 0.0) + float(np.square(known).sum())
        return found

    def _few(self, half: int) -> Iterator[Batch]:
        """The first runs of a half."""
        runs = itertools.islice(self._samples.batches(self._batch), -(-_JUDGING // self._batch))
        return itertools.islice(runs, half, None, len(HALVES))


def _outputs(made: Executable, wanted: Executable, batch: Batch) -> Iterator[tuple[str, Array, Array]]:
    """Names of outputs, what they should be, and what is between: of floats where one of the two is finite; of a model
    that has no floats whether numbers differ. An output of another shape is off as far as if nothing had come."""
    found, expected = arrays(made.run(batch.inputs)), arrays(wanted.run(batch.inputs))
    floats = {name: reference for name, reference in expected.items() if reference.dtype.kind == "f"}
    for name, reference in (floats or expected).items():
        other = found.get(name, ABSENT)
        if reference.dtype.kind != "f":
            known = np.ones(reference.size)
            differs = (reference != other).reshape(-1) if other.shape == reference.shape else known
            yield name, known, differs.astype(np.float64)
        elif other.shape == reference.shape:
            there = np.isfinite(reference) | np.isfinite(other)  # logits that are masked are Inf in both
            known = reference[there].astype(np.float64)
            yield name, known, other[there] - known
        else:
            known = reference[np.isfinite(reference)].astype(np.float64)
            yield name, known, known


def closer(after: Array, before: Array) -> bool:
    """Whether the worst output is closer, given misses [runs, outputs]."""
    return bool(after.sum(axis=0).max(initial=0.0) < before.sum(axis=0).max(initial=0.0))


def surely_closer(after: Array, before: Array) -> bool:
    """Whether that is more than chance: the output that was worst gains more than the standard error of its gain."""
    if len(before) < 2 or not closer(after, before):
        return False
    worst = before.sum(axis=0).argmax()
    gain = before[:, worst] - after[:, worst]
    return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))
