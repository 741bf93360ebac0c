"""Runs modules of the IR in ONNX Runtime, whole or up to inner values: the `Runner` that passes see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir import errors
from ..ir.cleanup import drop_dead
from ..ir.core import Module
from ..ir.errors import Code
from ..ir.rewrite import Rewriter
from .legalize import legalize
from .ort import Session

Array = np.ndarray[Any, Any]


class OrtExecutable:
    """A session over a module, or over the part of it that some values need."""

    def __init__(self, module: Module, taps: Sequence[str], threads: int) -> None:
        runnable, outputs = _with_taps(module, taps) if taps else (module, [])
        self._taps = dict(zip(taps, outputs))
        if any(v.constant is not None and v.constant.dtype.bits < 4 for v in runnable.constants.values()):
            runnable = legalize(runnable).module  # such codes only run in the kernels of artifacts
        self._session = Session(runnable, threads=threads, planned=False)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name; with taps, those values instead."""
        found = self._session.run(feeds)
        return {name: found[output] for name, output in self._taps.items()} if self._taps else found


class OrtRunner:
    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> OrtExecutable:
        return OrtExecutable(module, taps, self._threads)


def _with_taps(module: Module, taps: Sequence[str]) -> tuple[Module, list[str]]:
    """A copy with the tapped values as its outputs, and nothing that they do not need; (module, output names)."""
    twin = module.clone()
    values = {v.name: v for v in twin.values() if v.home in (None, twin.graph)}
    unknown = [t for t in taps if t not in values]
    if unknown:
        message = f"there is no value {unknown[0]!r} in the main graph to tap"
        raise errors.error(Code.CANNOT_HONOUR, message, help="mlc inspect MODEL --text shows the values")
    twin.graph._clear_outputs()
    names = [f"{tap}__tap" for tap in taps]
    for tap, name in zip(taps, names):
        twin.graph._add_output(values[tap], name)
    drop_dead(Rewriter(twin))
    return twin, names
