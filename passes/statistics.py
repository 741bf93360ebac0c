"""Answers statistics requests in streaming runs over the calibration data.

All requests of one call share a run; their values are tapped in groups whose activations fit `max_memory`.
Results are memoised per module version (its text), so a following exact step that asks again pays nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ..ir import errors
from ..ir.core import Module, Value
from ..ir.dims import Sym, evaluate
from ..ir.errors import Code
from ..ir.text import print_module
from ..ir.types import TensorType
from .base import Context
from .ports import Accumulator, Array, Data, Executable, Progress, Request, Runner

Item = TypeVar("Item")

_DEFAULT_BUDGET = 512 << 20
_MANY = 16  # samples at once
_HOW = "mlc.compile(model, [step], data='x.npz') sets both; by hand: Context(data=load_npz(...), runner=OrtRunner())"


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

    def get(self, module: Module, requests: Sequence[Request]) -> Mapping[Request, Any]:
        """One result per request, from the memo or from as few runs as the memory budget allows."""
        version = _version(module)
        missing = [r for r in dict.fromkeys(requests) if (version, r) not in self._memo]
        for group in self._groups(module, missing):
            for request, result in self._run(module, group).items():
                self._memo[version, request] = result
        return {r: self._memo[version, r] for r in requests}

    def _run(self, module: Module, requests: Sequence[Request]) -> dict[Request, Any]:
        accumulators: dict[Request, Accumulator] = {r: r.kind(r.axis) for r in requests}
        executable = self._runner.prepare(module, tuple(dict.fromkeys(r.value for r in requests)))
        for (values,) in stream(self._data, self._batch, [executable], self._progress):
            for request, accumulator in accumulators.items():
                accumulator.update(values[request.value])
        return {request: accumulator.result() for request, accumulator in accumulators.items()}

    def _groups(self, module: Module, requests: Sequence[Request]) -> Iterator[list[Request]]:
        sizes = {value.name: _bytes(value) * self._batch for value in module.values()}
        return runs(requests, lambda r: sizes.get(r.value, 0), self._budget)


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
            progress.advance("statistics", seen, len(data))


def batch_size(module: Module) -> int:
    """How many samples a model takes at once: many if all inputs and outputs leave the size of axis 0 open, and call
    it the same."""
    lead = [v.type.shape[:1] for v in (*module.graph.inputs, *module.graph.outputs) if isinstance(v.type, TensorType)]
    same = len(lead) == len(module.graph.inputs) + len(module.graph.outputs) and len(set(lead)) == 1
    return _MANY if same and lead[0] and isinstance(lead[0][0], Sym) else 1


def _bytes(value: Value) -> int:
    """An estimate of one sample's bytes; unknown sizes count as one megabyte."""
    if not isinstance(value.type, TensorType):
        return 1 << 20
    elements = evaluate(value.type.elements, {})
    return 1 << 20 if elements is None else value.type.dtype.nbytes(elements)


def _version(module: Module) -> str:
    return hashlib.sha256(print_module(module, digests=True).encode()).hexdigest()
