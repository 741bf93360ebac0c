"""What passes see of frontends and backends: protocols satisfied structurally, so that nobody imports a neighbour."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from ..ir.core import Module, Op
from ..ir.progress import Progress as Progress

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]
Item = TypeVar("Item")


Level = Literal["native", "emulated", "no"]


class Support(Protocol):
    """How a target serves an op in a form: with a kernel of its own, by emulation, or not at all (false), and why."""

    @property
    def level(self) -> Level: ...

    @property
    def reason(self) -> str: ...

    def __bool__(self) -> bool: ...


#: How the weight of an op (and what flows into it) may be held. `float`: as it is. `static`: 8-bit codes, activations
#: rounded to 8 bits with scales from data. `dynamic`: the same with scales found on the run. `blocks`: codes that a
#: kernel multiplies with. `stored`, `fp16`: widened once, when the model is loaded (size only).
Form = Literal["float", "static", "dynamic", "blocks", "stored", "fp16"]


class Target(Protocol):
    """A runtime on a machine; see backends/targets.py."""

    @property
    def name(self) -> str: ...

    @property
    def weight_bits(self) -> int:
        """Bits of 8-bit weights that products with 8-bit activations may use without overflow: 8, or 7."""

    def supports(self, op: Op, form: Form, *, bits: int = 8, block: int = 0, symmetric: bool = True) -> Support:
        """Whether there is a kernel for the op with its weight in a form."""

    def seconds(self, op: Op, form: Form, dims: Mapping[str, int], *, bits: int = 8, block: int = 0) -> float | None:
        """CPU seconds of one run of the op in a form; `dims` are the sizes of symbolic dimensions (`Context.dims`).

        Static products include the rounding of their input and yield floats; other static ops read and yield codes.
        Measured, or assumed, for this machine; None where a size is unknown or the form was not measured.
        """

    def boundary(self, elements: int) -> float:
        """CPU seconds of rounding so many elements to codes and of widening them again."""


class Batch(Protocol):
    """Some samples: one array per input (axis 0 = samples), labels if there are any, and their number."""

    @property
    def inputs(self) -> Feeds: ...

    @property
    def labels(self) -> Array | None: ...

    @property
    def n(self) -> int: ...


class Data(Protocol):
    """A stream of samples, never held in memory as a whole."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def has_labels(self) -> bool: ...

    def __len__(self) -> int: ...

    def batches(self, size: int = 1) -> Iterator[Batch]: ...

    def fingerprint(self) -> str: ...


class Executable(Protocol):
    """A module made ready to run."""

    def run(self, feeds: Feeds) -> dict[str, Array]: ...


class Runner(Protocol):
    """Makes modules ready to run; `taps` are names of values to compute and return instead of the outputs."""

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> Executable: ...


class Accumulator(Protocol):
    """A streaming statistic of one value: memory O(value), never O(samples)."""

    def __init__(self, axis: int | None = None) -> None: ...

    def update(self, values: Array) -> None: ...

    def merge(self, other: Any) -> None: ...

    def result(self) -> Any: ...


@dataclass(frozen=True)
class Request:
    """Ask for a statistic of the value called `value`: `kind` is a class of passes/accumulators.py."""

    value: str
    kind: type[Accumulator]
    axis: int | None = None


class Statistics(Protocol):
    """Answers requests in one streaming run over the calibration data; memoised per module version."""

    def get(self, module: Module, requests: Sequence[Request]) -> Mapping[Request, Any]: ...

    def remember(self, module: Module, question: Hashable, answer: Callable[[], Item]) -> Item: ...
