"""Measuring modules by what their bounds speak of: lowered, written and run as an artifact is."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends.checks import Emitted, time_files
from ..backends.checks import Judge as Examiner
from ..backends.ort import Session
from ..ir.core import Module
from .build import Limit
from .facts import facts_of
from .judge import COSTS, Measured, Verdict, judge


@dataclass(frozen=True)
class Measuring:
    """What is needed to measure a module. `emit` writes it without checks; `sizes` counts what it holds."""

    emit: Callable[[Module, Path], Emitted]
    sizes: Callable[[Module], Mapping[str, Any]]
    source: Module
    source_bytes: Callable[[], int]
    examiner: Examiner
    seed: int

    def of_module(self, module: Module, limits: Sequence[Limit]) -> tuple[Verdict, ...]:
        """The bounds judged on the file that a module makes; what no bound asks for is not measured."""
        with tempfile.TemporaryDirectory(prefix="mlc-trial-") as folder:
            emitted = self.emit(module, Path(folder) / "model.onnx")
            return judge(limits, self.facts(self._run(emitted, {x.metric for x in limits})))

    def facts(self, emitted: Emitted) -> dict[str, Measured]:
        """What is known of a file, in the terms of bounds."""
        return facts_of(emitted, self.sizes(self.source), self.sizes(emitted.module), self.source_bytes())

    def _run(self, emitted: Emitted, asked: set[str]) -> Emitted:
        threads = self.examiner.threads
        if not self.examiner.can_run:
            return emitted
        if asked - COSTS:
            agreement, accuracy = self.examiner.agreement(Session(emitted.path, threads=threads))
            emitted = dataclasses.replace(emitted, agreement=agreement, accuracy=accuracy)
        if "latency" in asked:
            timing = time_files(emitted.path, self.examiner, seed=self.seed)
            emitted = dataclasses.replace(emitted, latency=timing)
        return emitted
