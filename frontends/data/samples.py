"""The samples that calibrate or judge: those of a source that were selected, checked, cut, split and put into batches.

With a mask, samples are cut to their real lengths (padding.py), and batches hold samples of one length.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...ir.classes import TEXT
from ...ir.demands import Demands
from ...ir.feeds import Feeds
from ...ir.progress import Progress
from ...ir.types import Type
from . import fit
from .demanded import Checker
from .padding import Padding
from .source import Array, Inputs, Sample, Selection, Source, Stream, Wanted, bad

_HELD_OUT = 5  # one sample in five judges when there is no evaluation set
_WAITING = 8  # batches' worth of samples that may wait for others of their length


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples; satisfies the protocol of the passes."""

    inputs: Feeds
    labels: Array | None
    n: int


@dataclass(frozen=True)
class Samples:
    """Selected samples of one source. `part` keeps a seeded share: 'calibrate', 'judge', or None for all of them."""

    stream: Stream
    inputs: Inputs
    selection: Selection
    padding: Padding | None = None
    part: str | None = None
    seed: int = 0
    text: str = ""  # how they were declared
    checker: Checker | None = None  # None: nothing is known of the model but its inputs
    classes: bool = False  # labels must be numbers of classes

    @classmethod
    def open(
        cls,
        source: Source,
        selection: Selection,
        inputs: Mapping[str, Type],
        text: str = "",
        demands: Demands | None = None,
        *,
        classes: bool = False,
    ) -> Samples:
        """The samples for a model with these inputs and demands. The first one is read and checked. `classes`: labels
        must be numbers of the model's classes; otherwise they are whatever the source gives.

        Errors: NOT_FOUND, BAD_DATA naming the source, the sample and the input that are wrong.
        """
        tensors = fit.feedable(dict(inputs))
        padding = Padding.of(selection.mask, inputs) if selection.mask is not None else None
        stream = source.open(tensors, selection.labels)
        checker = Checker(demands, tensors, stream, classes=classes) if demands is not None else None
        found = cls(stream, tensors, selection, padding, text=text or stream.title, checker=checker, classes=classes)
        if next(found.read(), None) is None:
            raise bad("there are no samples", stream.title, "give one or more")
        return found

    @property
    def names(self) -> Sequence[str]:
        return tuple(self.inputs)

    @property
    def has_labels(self) -> bool:
        return self.selection.labels is not None

    @cached_property
    def total(self) -> int:
        """Samples of the source that may be used: all of them, or the first ones."""
        return self.stream.count(self._limit)

    @property
    def _limit(self) -> int | None:
        return self.selection.take if self.selection.seed is None else None

    @cached_property
    def _drawn(self) -> frozenset[int] | None:
        """The samples that `take` draws; None if it takes the first ones."""
        if self.selection.seed is None or self.selection.take is None:
            return None
        seed = self.selection.seed
        return frozenset(heapq.nsmallest(self.selection.take, range(self.total), lambda i: _draw(f"take/{seed}/{i}")))

    def __len__(self) -> int:
        return self._kept

    @cached_property
    def _kept(self) -> int:
        return sum(map(self.keeps, range(self.total)))

    def keeps(self, index: int) -> bool:
        """Whether the sample of this number is one of these."""
        if self._drawn is not None and index not in self._drawn:
            return False
        if self.part is None:
            return True
        return (_draw(f"{self.seed}/{index}")[0] % _HELD_OUT == 0) == (self.part == "judge")

    def split(self, seed: int) -> tuple[Samples, Samples]:
        """A seeded 80/20 split: (calibrates, judges)."""
        return replace(self, part="calibrate", seed=seed), replace(self, part="judge", seed=seed)

    def read(self) -> Iterator[Sample]:
        """The samples one by one, checked, with their padding cut. Errors: BAD_DATA for the first that is wrong."""
        for sample in self.stream.read(Wanted(self.total, self.keeps)):
            fit.check(sample, self.inputs)
            cut = sample if self.padding is None else self._cut(sample, self.padding)
            if self.checker is not None:
                self.checker.check(cut)
            yield cut

    def check(self, progress: Progress | None = None) -> None:
        """Read every sample once. Errors: BAD_DATA for the first that is wrong."""
        for number, _ in enumerate(self.read(), start=1):
            if progress is not None:
                progress.advance("samples checked", number, len(self))

    def _cut(self, sample: Sample, padding: Padding) -> Sample:
        whole = {name: fit.is_whole(array, self.inputs[name]) for name, array in sample.inputs.items()}
        padding.check(whole, sample.where)
        length = padding.length(sample.inputs[padding.mask], sample.where)
        cut = {n: padding.cut(n, array, length, whole=whole[n]) for n, array in sample.inputs.items()}
        return replace(sample, inputs=cut)

    def batches(self, size: int = 1) -> Iterator[Batch]:
        """Batches of up to `size` samples of one shape, in the order of the source as far as shapes allow."""
        size = min(size, self.selection.batch or size)
        waiting: dict[tuple[object, ...], list[Sample]] = {}
        held = 0
        for sample in self.read():
            whole = {name for name, array in sample.inputs.items() if fit.is_whole(array, self.inputs[name])}
            if whole:
                yield _alone(sample, whole)
                continue
            rows = waiting.setdefault(_kind(sample), [])
            rows.append(sample)
            held += 1
            if len(rows) < size:
                if held < size * _WAITING:
                    continue
                rows = max(waiting.values(), key=len)  # not full, but memory stays bounded
            yield _stacked(rows)
            held -= len(rows)
            rows.clear()
        for rows in filter(None, waiting.values()):
            yield _stacked(rows)

    def fingerprint(self) -> str:
        """SHA-256 of the source and of what selects its samples."""
        chosen = (*vars(self.selection).values(), self.part, self.seed if self.part is not None else None)
        return hashlib.sha256(f"{chosen}/{self.digest}".encode()).hexdigest()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the source."""
        return self.stream.sha256(self._limit)

    def facts(self) -> dict[str, Any]:
        """What the samples are, for reports."""
        chosen = {name: value for name, value in vars(self.selection).items() if value is not None}
        part = {"part": self.part} if self.part is not None else {}
        return {"source": self.text, "samples": len(self), "sha256": self.digest, **chosen, **part}


def _draw(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _kind(sample: Sample) -> tuple[object, ...]:
    """What samples of one batch have in common: their shapes, and whether labels are text. (Numbers that are stacked
    with text turn into text.)"""
    label = () if sample.label is None else (sample.label.shape, sample.label.dtype.kind in TEXT)
    return (*(array.shape for array in sample.inputs.values()), *label)


def _alone(sample: Sample, whole: Set[str]) -> Batch:
    """A sample that is one run: the inputs that are not whole get their batch axis."""
    inputs = {name: array if name in whole else array[None] for name, array in sample.inputs.items()}
    return Batch(Feeds(inputs, sample.where), None if sample.label is None else sample.label[None], 1)


def _stacked(rows: Sequence[Sample]) -> Batch:
    inputs = {name: np.stack([row.inputs[name] for row in rows]) for name in rows[0].inputs}
    labels = [row.label for row in rows if row.label is not None]
    more = f", or one of {len(rows) - 1} that are run with it" if len(rows) > 1 else ""
    return Batch(Feeds(inputs, rows[0].where + more), np.stack(labels) if labels else None, len(rows))
