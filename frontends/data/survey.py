"""What is in the data: every sample is read once and checked; shapes, ranges, labels, duplicates, and the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...ir.classes import TEXT
from ...ir.errors import Diagnostic
from ...ir.feeds import Feeds
from ...ir.types import TensorType
from .fit import feeds_of
from .samples import Samples
from .source import Array, Sample

_SHAPES = 8  # the commonest are told
_CLASSES = 1000
Advance = Callable[[str, int, int], None]
Run = Callable[[Feeds], object]


@dataclass
class _Input:
    """One input over all samples."""

    kind: TensorType
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    low: float | None = None
    high: float | None = None
    infinite: int = 0
    sum: float = 0.0
    elements: int = 0

    def update(self, array: Array) -> None:
        self.shapes[array.shape] += 1
        values = array.astype(np.float32) if array.dtype.itemsize < 4 and array.dtype.kind not in "biu" else array
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                self.infinite += 1
                values = values[finite]
        if values.size:
            low, high = float(values.min()), float(values.max())
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)
            self.sum += float(values.sum(dtype=np.float64))
            self.elements += values.size

    def facts(self) -> dict[str, Any]:
        return {
            "type": str(self.kind),
            **_common(self.shapes),
            "min": self.low,
            "max": self.high,
            "mean": self.sum / self.elements if self.elements else None,
            "samples_with_infinity": self.infinite,
        }


@dataclass
class _Labels:
    """The labels of all samples: how many there are of each class, and what they look like if they are no classes."""

    types: Counter[str] = field(default_factory=Counter)
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    counts: Counter[float] = field(default_factory=Counter)

    def update(self, label: Array, *, classes: bool) -> None:
        self.types["text" if label.dtype.kind in TEXT else label.dtype.name] += 1
        self.shapes[label.shape] += 1
        if classes:
            self.counts.update(label.ravel().tolist())

    def classes(self) -> dict[str, Any]:
        counts = [[label, count] for label, count in sorted(self.counts.items())]
        return {"distinct": len(self.counts), "counts": counts[:_CLASSES]}

    def facts(self) -> dict[str, Any]:
        return {"types": sorted(self.types), **_common(self.shapes)}


def _common(shapes: Counter[tuple[int, ...]]) -> dict[str, Any]:
    """The commonest shapes."""
    common = shapes.most_common(_SHAPES)
    told = [{"shape": list(shape), "samples": count} for shape, count in common]
    return {"shapes": told, "other_shapes": len(shapes) - len(common)}


@dataclass
class Survey:
    """What one pass over samples finds."""

    samples: Samples
    inputs: dict[str, _Input] = field(default_factory=dict)
    labels: _Labels = field(default_factory=_Labels)
    seen: dict[bytes, int] = field(default_factory=dict)  # what inputs hold, and the first sample that holds it
    identical: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, samples: Samples, what: str, run: Run | None = None, advance: Advance | None = None) -> Survey:
        """`run` runs the model: on the first sample of all shapes that there are.

        Errors: BAD_DATA for the first sample that is wrong, or that the model does not run with.
        """
        found = cls(samples, {name: _Input(kind) for name, kind in samples.inputs.items()})
        ran: set[tuple[tuple[int, ...], ...]] = set()
        for number, sample in enumerate(samples.read(), start=1):
            found.update(sample)
            shapes = tuple(array.shape for array in sample.inputs.values())
            if run is not None and shapes not in ran:
                run(Feeds(feeds_of(sample, samples.inputs), sample.where))
                ran.add(shapes)
            if advance is not None:
                advance(what, number, len(samples))
        return found

    def update(self, sample: Sample) -> None:
        for name, array in sample.inputs.items():
            self.inputs[name].update(array)
        if sample.label is not None:
            self.labels.update(sample.label, classes=self._misfit is None)
        first = self.seen.setdefault(replace(sample, label=None).digest(), sample.index)
        if first != sample.index:
            self.identical.append((sample.index, first))

    def shared(self, other: Survey) -> int:
        """How many different samples both hold."""
        return len(self.seen.keys() & other.seen.keys())

    def facts(self) -> dict[str, Any]:
        return {
            **self.samples.facts(),
            "inputs": {name: found.facts() for name, found in self.inputs.items()},
            "classes": self.labels.classes() if self.samples.has_labels and self._misfit is None else None,
            "labels": self.labels.facts() if self._misfit is not None else None,
            "identical": len(self.identical),
            "notes": list(self._notes()),
        }

    def split(self, seed: int) -> dict[str, int]:
        """How a compilation that learns from the data would split it."""
        calibrates, judges = self.samples.split(seed)
        leaks = sum(judges.keeps(a) != judges.keeps(b) for a, b in self.identical)
        return {"seed": seed, "calibrates": len(calibrates), "judges": len(judges), "on_both_sides": leaks}

    @property
    def _misfit(self) -> Diagnostic | None:
        """What keeps labels from being numbers of classes."""
        checker = self.samples.checker
        return checker.misfit if checker is not None else None

    def _notes(self) -> Iterator[str]:
        yield from self.samples.stream.notes
        for name, found in self.inputs.items():
            if found.low is not None and found.low == found.high and found.elements > 1:
                yield f"input {name!r} is {found.low:g} everywhere, which says nothing about its range"
        if self._misfit is not None:
            told = self._misfit
            yield (
                f"the labels are no numbers of classes ({told.where}: {told.message}): a metric of yours can use them "
                f"(--metric NAME=FILE.py:FUNCTION), acc_drop cannot"
            )
        for index, first in self.identical[:1]:
            yield f"sample {index} is the same as sample {first}"
