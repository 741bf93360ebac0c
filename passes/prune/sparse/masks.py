"""Which elements of a tensor become zero, decided and carried out in pieces: memory is that of a piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ....ir.constants import Constant
from ...ports import Array

PIECE = 1 << 20  # elements
_BINS = 1 << 16


@dataclass(frozen=True, eq=False)
class Scored:
    """A tensor whose elements are worth |w| times `factors` (broadcast over its shape)."""

    constant: Constant
    factors: Array | None = None

    def pieces(self, unit: int = 1, first: int = 0, last: int | None = None) -> Iterator[tuple[int, Array]]:
        """The flat elements from `first` (on a unit) to `last`, in pieces of whole units: (position, elements)."""
        step = max(1, PIECE // unit) * unit
        end = self.constant.elements if last is None else min(last, self.constant.elements)
        for start in range(first, end, step):
            yield start, self.constant.flat(start, min(start + step, end))

    def scores(self, start: int, values: Array) -> Array:
        """What the elements from a flat position on are worth, in float32."""
        worth: Array = np.abs(values.astype(np.float32))
        if self.factors is None:
            return worth
        index = np.zeros(len(values), np.int64)
        flat = np.arange(start, start + len(values))
        for size, stride, own in zip(self.constant.shape, _strides(self.constant.shape), _reach(self.factors)):
            if own:
                index += flat // stride % size * own
        with np.errstate(invalid="ignore", over="ignore"):
            worth *= self.factors.reshape(-1)[index].astype(np.float32)
        worth[np.isnan(worth)] = 0.0  # an infinite weight of what is always zero
        return worth


def _strides(shape: Sequence[int]) -> list[int]:
    return [int(np.prod(shape[a + 1 :], dtype=np.int64)) for a in range(len(shape))]


def _reach(factors: Array) -> list[int]:
    """Strides of a broadcast array: 0 along axes on which it is the same."""
    return [s if n > 1 else 0 for n, s in zip(factors.shape, _strides(factors.shape))]


class Rule(Protocol):
    """Says which elements stay."""

    @property
    def unit(self) -> int:
        """Decisions fall within this many neighbours in the flat tensor."""
        ...

    def keep(self, scores: Array, start: int) -> Array: ...


@dataclass(frozen=True)
class Above:
    """Elements worth more than `threshold` stay, of those worth as much the ones from flat position `cut` on."""

    threshold: float
    cut: int
    unit: int = 1

    def keep(self, scores: Array, start: int) -> Array:
        kept: Array = scores >= np.float32(self.threshold)
        before = max(0, self.cut - start)
        kept[:before] = scores[:before] > np.float32(self.threshold)
        return kept


@dataclass(frozen=True)
class Best:
    """Of every `m` neighbours along an axis the `n` that are worth most stay; of equals the first."""

    n: int
    m: int
    inner: int  # elements between neighbours along the axis

    @property
    def unit(self) -> int:
        return self.m * self.inner

    def keep(self, scores: Array, start: int) -> Array:
        groups = scores.reshape(-1, self.m, self.inner)
        order = np.argsort(-groups, axis=1, kind="stable")
        kept = np.zeros(groups.shape, bool)
        np.put_along_axis(kept, order[:, : self.n], True, axis=1)
        return kept.reshape(-1)


class MaskedPayload:
    """The elements of a scored tensor with zeros where its rule says, made whenever they are read."""

    __slots__ = ("_rule", "_scored")

    def __init__(self, scored: Scored, rule: Rule) -> None:
        self._scored, self._rule = scored, rule

    def array(self) -> Array:
        return self._made(0, self._scored.constant.elements).reshape(self._scored.constant.shape)

    def raw(self, start: int, stop: int) -> Array:
        width, unit = self._scored.constant.dtype.bits // 8, self._rule.unit
        first, last = start // width // unit * unit, -(-stop // (width * unit)) * unit
        made = self._made(first, min(last, self._scored.constant.elements))
        return made.view(np.uint8)[start - first * width : stop - first * width]

    def _made(self, first: int, last: int) -> Array:
        made = np.empty(last - first, self._scored.constant.dtype.numpy)
        for start, values in self._scored.pieces(self._rule.unit, first, last):
            made[start - first : start - first + len(values)] = masked(self._scored, self._rule, start, values)
        return made


def masked(scored: Scored, rule: Rule, start: int, values: Array) -> Array:
    """A piece with zeros where the rule says. What is zero already stays as it is, its sign included."""
    stays = rule.keep(scored.scores(start, values), start) | (values == 0)
    return np.where(stays, values, values.dtype.type(0)).astype(scored.constant.dtype.numpy, copy=False)


def zeros(scored: Scored, rule: Rule | None = None) -> int:
    """How many elements are zero, or would be."""
    unit = rule.unit if rule is not None else 1
    found = 0
    for start, values in scored.pieces(unit):
        left = values if rule is None else masked(scored, rule, start, values)
        found += int((left == 0).sum())
    return found


def smallest(tensors: Sequence[Scored], count: int) -> list[Above]:
    """The rules under which the `count` elements that are worth least in all tensors together become zero.

    The threshold is found exactly by two histograms over the bits of the scores, which sort like the scores do; of
    elements worth exactly the threshold the first ones go.
    """
    if count == 0:
        return [Above(0.0, 0) for _ in tensors]
    high, left = _bin(_histogram(tensors, None), count)
    low, left = _bin(_histogram(tensors, high), left)
    level = np.array([high << 16 | low], np.uint32).view(np.float32)[0]
    return _cuts(tensors, float(level), left)


def _histogram(tensors: Sequence[Scored], high: int | None) -> Array:
    """How many scores have each upper half; given one, how many of those with it have each lower half."""
    found = np.zeros(_BINS, np.int64)
    for tensor in tensors:
        for start, values in tensor.pieces():
            bits = tensor.scores(start, values).view(np.uint32)
            upper = bits >> 16
            half = upper if high is None else bits[upper == high] & 0xFFFF
            found += np.bincount(half, minlength=_BINS)
    return found


def _bin(histogram: Array, count: int) -> tuple[int, int]:
    """The bin in which the count-th smallest lies, and its place among those in it."""
    total = np.cumsum(histogram)
    chosen = int(np.searchsorted(total, count))
    return chosen, count - int(total[chosen] - histogram[chosen])


def _cuts(tensors: Sequence[Scored], level: float, count: int) -> list[Above]:
    """Share out the elements worth exactly the threshold: the first `count` of them go."""
    rules = []
    for tensor in tensors:
        cut = 0
        for start, values in tensor.pieces():
            if count == 0:
                break
            tied = np.flatnonzero(tensor.scores(start, values) == np.float32(level))[:count]
            count -= len(tied)
            cut = start + int(tied[-1]) + 1 if len(tied) else cut
        rules.append(Above(level, cut))
    return rules
