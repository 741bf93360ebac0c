"""How many samples a model takes at once: what it declares, and what it does.

A symbol on axis 0 is a promise that files often break: a Reshape to [1, ...] that an exporter left behind makes a model
refuse a batch, or, worse, mix its samples. So two samples are tried together before any batch is run.
"""

from __future__ import annotations

import textwrap
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from ..ir.core import Module
from ..ir.dims import Sym
from ..ir.errors import Code, MlcError
from ..ir.types import TensorType
from .ports import Array, Data, Runner

_MANY = 16  # samples at once
_SEARCHED = 64  # batches in which two samples of one shape are looked for
_LONGEST = 160  # characters of a reason
_TOLERANCE = 1e-3  # relative to the largest output: by how much kernels for other sizes may round differently


@dataclass
class Batching:
    """Sizes of batches, tried once for every model; `notes` are for the report of the step that asked."""

    _sizes: dict[Hashable, int] = field(default_factory=dict)
    _notes: list[str] = field(default_factory=list)

    def size(self, module: Module, data: Data, runner: Runner) -> int:
        """Samples per run: many if all inputs and outputs leave the size of axis 0 open and call it the same, and if
        two samples together give what each gives alone; else 1. Errors: what a single sample fails with."""
        if not _declares_batches(module):
            return 1
        key = _key(module)
        if key not in self._sizes:
            problem = _problem(module, data, runner)
            self._sizes[key] = 1 if problem else _MANY
            if problem:
                self._notes.append(f"calibration takes one sample at a time: {problem}")
        return self._sizes[key]

    def notes(self) -> tuple[str, ...]:
        """What was found since the last call."""
        found = tuple(self._notes)
        self._notes.clear()
        return found


def _declares_batches(module: Module) -> bool:
    ends = (*module.graph.inputs, *module.graph.outputs)
    lead = [v.type.shape[:1] for v in ends if isinstance(v.type, TensorType)]
    return len(lead) == len(ends) and len(set(lead)) == 1 and bool(lead[0]) and isinstance(lead[0][0], Sym)


def _key(module: Module) -> Hashable:
    """A model and what was made of it have the same key: steps do not change how many samples it takes."""
    ends = (*module.graph.inputs, *module.graph.outputs)
    return (module.source.sha256 if module.source is not None else "", *((v.name, str(v.type)) for v in ends))


def _problem(module: Module, data: Data, runner: Runner) -> str:
    """Why samples cannot be run together; empty if they can, or if no two of them have one shape."""
    pair = next((b.inputs for b in islice(data.batches(2), _SEARCHED) if b.n == 2), None)
    if pair is None:
        return ""
    executable = runner.prepare(module)
    alone = executable.run({name: array[:1] for name, array in pair.items()})
    try:
        together = executable.run(pair)
    except MlcError as reason:
        if reason.diagnostics[0].code not in (Code.BAD_DATA, Code.RUNTIME, Code.MEMORY):
            raise
        return f"the model declares batches, but two samples fail where one runs ({_in_short(reason)})"
    mixed = next((name for name in alone if not _same(alone[name], together[name])), None)
    return f"the model declares batches, but output {mixed!r} of a sample changes with the next one" if mixed else ""


def _in_short(reason: MlcError) -> str:
    return textwrap.shorten(reason.diagnostics[0].message, _LONGEST, placeholder=" ...")


def _same(alone: Any, together: Any) -> bool:
    """Whether the first of two samples has the answer that it has alone."""
    if not isinstance(alone, np.ndarray) or not isinstance(together, np.ndarray):
        return False
    first = together[: len(alone)]
    if first.shape != alone.shape or len(together) != 2 * len(alone):
        return False
    return alone.dtype.kind != "f" or _close(alone, first)


def _close(a: Array, b: Array) -> bool:
    finite = np.isfinite(a)
    largest = float(np.abs(a, where=finite, out=np.zeros_like(a)).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * largest, equal_nan=True))
