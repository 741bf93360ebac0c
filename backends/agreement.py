"""How well two models agree: streaming measures over samples, per output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir import classes
from ..ir.errors import Code, error

Array = np.ndarray[Any, Any]
_PIECE = 1 << 17  # numbers that are widened to float64 at a time: outputs may be hundreds of megabytes


@dataclass(frozen=True)
class Agreement:
    """The worst output counts. None: the model has no output of that kind.

    cosine and sqnr_db over all float outputs and samples; max_relative: largest |difference| over the largest |value|
    of the reference; top1: share of samples on which a rank-2 float output has the same best class.
    """

    cosine: float | None
    sqnr_db: float | None
    max_relative: float | None
    top1: float | None
    integers_equal: bool
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain data. None for what has no finite value: the SQNR of bit-equal outputs (max_relative is 0), both
        for outputs that cannot be compared (the cosine is 0)."""
        return {
            "cosine": self.cosine,
            "sqnr_db": _finite(self.sqnr_db),
            "max_relative": _finite(self.max_relative),
            "top1": self.top1,
            "integers_equal": self.integers_equal,
            "samples": self.samples,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass
class _Output:
    """Sums over samples of one float output."""

    dot: float = 0.0
    reference: float = 0.0
    found: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    difference: float = 0.0
    same_class: int = 0
    rows: int = 0
    elements: int = 0
    finite: int = 0  # elements that can be compared
    broken: bool = False  # shapes or non-finite positions differ

    def update(self, a: Array, b: Array) -> None:
        if a.shape != b.shape:
            self.broken = True
            return
        if a.ndim == 2 and a.shape[1] > 1:
            self.same_class += int((a.argmax(axis=1) == b.argmax(axis=1)).sum())
            self.rows += a.shape[0]
        x, y = a.reshape(-1), b.reshape(-1)
        for start in range(0, x.size, _PIECE):
            self._add(x[start : start + _PIECE], y[start : start + _PIECE])

    def _add(self, a: Array, b: Array) -> None:
        x, y = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(x)
        if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
            self.broken = True
            return
        x, y = x[finite], y[finite]
        self.finite += x.size
        self.elements += finite.size
        if not np.isfinite(y).all():
            self.broken = True
            return
        # Not x @ y: a threaded BLAS takes longer for vectors of this size, and its sums depend on the threads.
        self.dot += float((x * y).sum())
        self.reference += float((x * x).sum())
        self.found += float((y * y).sum())
        self.noise += float(np.square(x - y).sum())
        if x.size:
            self.largest = max(self.largest, float(np.abs(x).max()))
            self.difference = max(self.difference, float(np.abs(x - y).max()))

    @property
    def says_nothing(self) -> bool:
        """Whether no element was finite: equal NaNs are no agreement. (An empty output agrees with an empty one.)"""
        return self.elements > 0 and self.finite == 0

    @property
    def cosine(self) -> float:
        if self.broken or self.says_nothing:
            return 0.0
        norm = math.sqrt(self.reference * self.found)
        if norm == 0.0:
            return 1.0 if self.noise == 0.0 else 0.0
        return min(1.0, self.dot / norm) if self.noise else 1.0

    @property
    def sqnr_db(self) -> float:
        if self.broken or self.says_nothing:
            return -math.inf
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.reference / self.noise) if self.reference else -math.inf

    @property
    def max_relative(self) -> float:
        if self.broken or self.says_nothing:
            return math.inf
        return self.difference / self.largest if self.largest else self.difference


@dataclass
class AgreementMeter:
    """Feed it pairs of outputs, sample by sample; memory does not grow with the samples."""

    _floats: dict[str, _Output] = field(default_factory=dict)
    _integers_equal: bool = True
    _samples: int = 0

    def update(self, reference: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """One run of both models. Outputs of the reference that are missing count as broken."""
        self._samples += 1
        for name, wanted in reference.items():
            for index, (a, b) in enumerate(_pairs(wanted, found.get(name))):
                if a.dtype.kind in "fV":
                    self._floats.setdefault(f"{name}/{index}", _Output()).update(a, b)
                elif not np.array_equal(a, b):
                    self._integers_equal = False

    def result(self) -> Agreement:
        outputs = list(self._floats.values())
        classes = [o for o in outputs if o.rows]
        return Agreement(
            cosine=min((o.cosine for o in outputs), default=None),
            sqnr_db=min((o.sqnr_db for o in outputs), default=None),
            max_relative=max((o.max_relative for o in outputs), default=None),
            top1=min((o.same_class / o.rows for o in classes), default=None),
            integers_equal=self._integers_equal,
            samples=self._samples,
        )


@dataclass
class AccuracyMeter:
    """Top-1 accuracy of two classifiers on the same labelled samples (ir/classes.py: which output holds the classes).

    `required`: labels must be numbers of classes. Otherwise there is no accuracy where one of them is not.
    """

    required: bool = True
    reference: int = 0
    found: int = 0
    rows: int = 0
    misfit: bool = False

    def update(self, reference: Mapping[str, Any], found: Mapping[str, Any], labels: Array, where: str = "") -> None:
        """Count one batch, which is `where`. Errors: BAD_DATA when labels must be numbers of classes and are not."""
        matrices = [(n, a.shape) for n, a in reference.items() if isinstance(a, np.ndarray) and _is_matrix(a)]
        wrong = classes.misfit(labels, matrices)
        if wrong is not None and self.required:
            raise error(Code.BAD_DATA, wrong.message, where=where, help=wrong.help, note=classes.USES)
        scores = classes.scores_of(matrices)
        if wrong is not None or scores is None:
            self.misfit = True
            return
        wanted = labels.reshape(-1)
        self.reference += int((reference[scores[0]].argmax(axis=1) == wanted).sum())
        self.found += int((np.asarray(found[scores[0]]).argmax(axis=1) == wanted).sum())
        self.rows += len(wanted)

    def result(self) -> tuple[float, float] | None:
        """(accuracy of the reference, of the other), 0 to 1. None: nothing was counted, or not all could be."""
        return (self.reference / self.rows, self.found / self.rows) if self.rows and not self.misfit else None


def _is_matrix(array: Array) -> bool:
    return array.ndim == 2 and array.dtype.kind == "f"


def _pairs(wanted: Any, found: Any) -> Iterable[tuple[Array, Array]]:
    """Arrays to compare: a tensor, or the elements of a sequence."""
    if isinstance(wanted, list):
        others = found if isinstance(found, list) else []
        empty = np.zeros(0)
        for index, item in enumerate(wanted):
            yield from _pairs(item, others[index] if index < len(others) else empty)
        return
    yield np.asarray(wanted), np.asarray(found if found is not None else np.zeros(0))
