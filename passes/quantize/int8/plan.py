"""The plan of `int8`, as plain data. Ops and values are called by names of values, which are unique in a module."""

from __future__ import annotations

from dataclasses import dataclass

from ...base import Plan
from ...ports import Form


@dataclass(frozen=True)
class WeightSite:
    """One weight in codes: its channels' axis and the bits that codes use, who reads it in which form, and the bytes
    in the file before and after."""

    constant: str
    shape: tuple[int, ...]
    axis: int | None
    bits: int
    readers: tuple[ReaderSite, ...]
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class ReaderSite:
    """An op that reads a weight: its first result, the name by which reports call it, and its form."""

    op: str
    site: str
    kind: str
    form: Form


@dataclass(frozen=True)
class ActivationGrid:
    """A value in unsigned 8-bit codes: x = (code - zero) * scale. It is rounded before a factor that it includes."""

    value: str
    scale: float
    zero: int
    factor: float = 1.0


@dataclass(frozen=True)
class Int8Plan(Plan):
    """`glue` are ops that work on codes, `absorbed` those that rounding includes (both by first result, in order)."""

    weights: tuple[WeightSite, ...] = ()
    activations: tuple[ActivationGrid, ...] = ()
    glue: tuple[str, ...] = ()
    absorbed: tuple[str, ...] = ()
