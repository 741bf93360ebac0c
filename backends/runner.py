"""Runs modules of the IR in ONNX Runtime, with taps on inner values: the `Runner` that passes see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir import errors
from ..ir.core import Module
from ..ir.errors import Code
from .ort import Session

Array = np.ndarray[Any, Any]


class OrtExecutable:
    """A session over a module, with its taps as extra outputs."""

    def __init__(self, module: Module, taps: Sequence[str], threads: int) -> None:
        runnable, outputs = _with_taps(module, taps) if taps else (module, [])
        self._taps = dict(zip(taps, outputs))
        self._session = Session(runnable, threads=threads)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, and the tapped values under their own names."""
        found = self._session.run(feeds)
        return {**found, **{name: found[output] for name, output in self._taps.items()}}


class OrtRunner:
    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> OrtExecutable:
        return OrtExecutable(module, taps, self._threads)


def _with_taps(module: Module, taps: Sequence[str]) -> tuple[Module, list[str]]:
    """A copy with the tapped values as extra outputs; (module, output name per tap)."""
    twin = module.clone()
    values = {v.name: v for v in twin.values() if v.home in (None, twin.graph)}
    unknown = [t for t in taps if t not in values]
    if unknown:
        raise errors.error(Code.CANNOT_HONOUR, f"there is no value {unknown[0]!r} in the main graph to tap")
    names = []
    existing = dict(zip(twin.graph.outputs, twin.graph.output_names))
    for tap in taps:
        value = values[tap]
        if value not in existing:
            existing[value] = f"{tap}__tap"
            twin.graph._add_output(value, existing[value])
        names.append(existing[value])
    return twin, names
