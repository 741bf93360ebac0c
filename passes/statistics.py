"""Answers statistics requests in streaming runs over the calibration data.

All requests of one call share a run; they are served in groups whose activations and accumulators fit `max_memory`,
and a statistic of very many channels in ranges of channels. Results are memoised per module version (its text), so a
following exact step that asks again pays nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from ..ir import errors
from ..ir.core import Module, Value
from ..ir.dims import Sym, evaluate
from ..ir.errors import Code
from ..ir.text import print_module
from ..ir.types import TensorType
from .accumulators import Channels
from .base import Context
from .budget import allowed
from .ports import Array, Data, Executable, Progress, Request, Runner

Item = TypeVar("Item")

_DEFAULT_BUDGET = 512 << 20
_HOW = (
    "mlc.compile(model, [step], data='x.npz') sets both; by hand: Context(data=mlc.open_data(...), runner=OrtRunner())"
)


class StreamingStatistics:
    """`Statistics` of passes/ports.py over a data source and a runner."""

    def __init__(
        self,
        data: Data,
        runner: Runner,
        *,
        batch: int = 1,
        max_memory: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._data, self._runner, self._batch = data, runner, batch
        self._budget = _DEFAULT_BUDGET if max_memory is None else max_memory // 4
        self._progress = progress
        self._memo: dict[tuple[str, Request], Any] = {}
        self._answers: dict[tuple[str, Hashable], Any] = {}

    def get(self, module: Module, requests: Sequence[Request]) -> Mapping[Request, Any]:
        """One result per request, from the memo or from as few runs as the memory budget allows."""
        state = version(module)
        missing = [r for r in dict.fromkeys(requests) if (state, r) not in self._memo]
        found: dict[Request, list[Any]] = {r: [] for r in missing}
        for group in self._groups(module, missing):
            for part, result in self._run(module, group):
                found[part.request].append(result)
        for request, results in found.items():
            self._memo[state, request] = results[0] if len(results) == 1 else _channels(request).join(results)
        return {r: self._memo[state, r] for r in requests}

    def remember(self, module: Module, question: Hashable, answer: Callable[[], Item]) -> Item:
        """What `answer` found for this version of a module, asked only once: for what passes measure themselves."""
        key = (version(module), question)
        if key not in self._answers:
            self._answers[key] = answer()
        found: Item = self._answers[key]
        return found

    def _run(self, module: Module, parts: Sequence[_Part]) -> list[tuple[_Part, Any]]:
        accumulators = [(part, part.request.kind(part.request.axis)) for part in parts]
        executable = self._runner.prepare(module, tuple(dict.fromkeys(p.request.value for p in parts)))
        for (values,) in stream(self._data, self._batch, [executable], self._progress):
            for part, accumulator in accumulators:
                accumulator.update(part.of(values[part.request.value]))
        return [(part, accumulator.result()) for part, accumulator in accumulators]

    def _groups(self, module: Module, requests: Sequence[Request]) -> Iterator[list[_Part]]:
        values = {value.name: value for value in module.values()}
        parts = [p for r in requests for p in _parts(r, values.get(r.value), self._batch, self._budget)]
        return runs(parts, lambda p: p.nbytes, self._budget)


@dataclass(frozen=True)
class _Part:
    """A request, or some of its channels, and the bytes that serving it takes."""

    request: Request
    channels: slice | None
    nbytes: int

    def of(self, values: Array) -> Array:
        if self.channels is None:
            return values
        assert self.request.axis is not None
        return values[(slice(None),) * (self.request.axis % values.ndim) + (self.channels,)]


def _parts(request: Request, value: Value | None, batch: int, budget: int) -> list[_Part]:
    """The request as a whole, or in ranges of channels whose accumulators fit the budget."""
    activation = _bytes(value) * batch if value is not None else 0
    if not issubclass(request.kind, Channels):
        return [_Part(request, None, activation)]
    channels = _sizes_along(value, request.axis)
    step = max(1, budget // max(1, request.kind.nbytes(1)))
    if channels <= step:
        return [_Part(request, None, activation + request.kind.nbytes(channels))]
    ranges = [slice(start, min(start + step, channels)) for start in range(0, channels, step)]
    return [_Part(request, r, activation + request.kind.nbytes(r.stop - r.start)) for r in ranges]


def _sizes_along(value: Value | None, axis: int | None) -> int:
    """How many channels a statistic has; 1 where that is not known beforehand."""
    if value is None or axis is None or not isinstance(value.type, TensorType):
        return 1
    size = value.type.shape[axis]
    return size if isinstance(size, int) else 1


def _channels(request: Request) -> type[Channels]:
    assert issubclass(request.kind, Channels)
    return request.kind


def sources(ctx: Context) -> tuple[Data, Runner]:
    """What a pass that learns works with. Errors: NO_DATA if there are no samples, or nothing that runs models."""
    if ctx.data is None or ctx.runner is None:
        what = "calibration data" if ctx.data is None else "a runner besides the data"
        raise errors.error(Code.NO_DATA, f"this needs {what}", help=_HOW)
    return ctx.data, ctx.runner


def runs(
    items: Sequence[Item],
    memory: Callable[[Item], int],
    most: int,
    together: Callable[[Item, Item], bool] = lambda a, b: True,
) -> Iterator[list[Item]]:
    """Consecutive items that share a run: while their memory allows, and the first goes `together` with them."""
    group: list[Item] = []
    used = 0
    for item in items:
        if group and (used + memory(item) > most or not together(group[0], item)):
            yield group
            group, used = [], 0
        group.append(item)
        used += memory(item)
    if group:
        yield group


def stream(
    data: Data, batch: int, executables: Sequence[Executable], progress: Progress | None = None
) -> Iterator[list[Mapping[str, Array]]]:
    """What every executable makes of the same samples, batch by batch."""
    seen = 0
    for samples in data.batches(batch):
        yield [e.run(samples.inputs) for e in executables]
        seen += samples.n
        if progress is not None:
            progress.advance("samples", seen, len(data))


def batch_size(ctx: Context, *modules: Module) -> int:
    """How many samples all of these models take at once (batching.py), within the memory. Errors: NO_DATA, as
    `sources`."""
    data, runner = sources(ctx)
    fitting = min(_fitting(module, ctx) for module in modules)
    return min(fitting, *(ctx.batching.size(module, data, runner) for module in modules)) if fitting > 1 else 1


def _fitting(module: Module, ctx: Context) -> int:
    """How many samples may be run together, if nothing of what a run makes were freed before its end."""
    lead = {
        d.name: 1
        for v in module.graph.inputs
        if isinstance(v.type, TensorType)
        for d in v.type.shape[:1]
        if isinstance(d, Sym)
    }
    made = sum(_bytes(v, {**ctx.dims, **lead}) for v in module.values() if v.constant is None)
    return max(1, allowed(ctx.max_memory) // max(1, made))


def _bytes(value: Value, dims: Mapping[str, int] = MappingProxyType({})) -> int:
    """An estimate of one sample's bytes; unknown sizes count as one megabyte."""
    if not isinstance(value.type, TensorType):
        return 1 << 20
    elements = evaluate(value.type.elements, dims)
    return 1 << 20 if elements is None else value.type.dtype.nbytes(elements)


def version(module: Module) -> str:
    """What is the same for modules of the same text and constants only."""
    return hashlib.sha256(print_module(module, digests=True).encode()).hexdigest()
