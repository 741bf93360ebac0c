"""Measuring modules by what their bounds speak of: lowered, written and run as an artifact is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..backends.checks import Emitted, time_files, time_tails, weigh
from ..backends.checks import Judge as Examiner
from ..backends.ort import Session
from ..backends.scores import Function, score
from ..ir.core import Module
from ..ir.scratch import scratch
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
    metrics: Mapping[str, Function] = field(default_factory=dict)  # the user's

    def of_module(self, module: Module, limits: Sequence[Limit]) -> tuple[Verdict, ...]:
        """The bounds judged on the file that a module makes; what no bound asks for is not measured."""
        with scratch("mlc-trial") as folder:
            emitted = self.measured(self.emit(module, folder / "model.onnx"), limits)
            return judge(limits, self.facts(emitted))

    def facts(self, emitted: Emitted) -> dict[str, Measured]:
        """What is known of a file, in the terms of bounds."""
        return facts_of(emitted, self.sizes(self.source), self.sizes(emitted.module), self.source_bytes())

    def measured(self, emitted: Emitted, limits: Sequence[Limit]) -> Emitted:
        """The file with what some bounds ask for, and was not measured yet."""
        asked = {x.key for x in limits}
        if not self.examiner.can_run:
            return emitted
        if {x.metric for x in limits} - COSTS - self.metrics.keys() and emitted.agreement is None:
            session = Session(emitted.path, threads=self.examiner.threads)
            agreement, accuracy = self.examiner.agreement(session)
            emitted = dataclasses.replace(emitted, agreement=agreement, accuracy=accuracy)
        if "latency" in asked and emitted.latency is None:
            timing = time_files(emitted.path, self.examiner, seed=self.seed)
            emitted = dataclasses.replace(emitted, latency=timing)
        if "latency.p95" in asked:
            emitted = dataclasses.replace(emitted, tail=time_tails(emitted.path, self.examiner, seed=self.seed))
        if "peak_memory" in asked:
            emitted = dataclasses.replace(emitted, memory=weigh(emitted.path, self.examiner))
        if asked & self.metrics.keys():
            emitted = dataclasses.replace(emitted, metrics=self._scores(emitted.path))
        return emitted

    def _scores(self, path: Path) -> dict[str, tuple[float, float]]:
        found = score(self.metrics, Session(path, threads=self.examiner.threads), self.examiner)
        return {name: (self._source_scores[name], value) for name, value in found.items()}

    @cached_property
    def _source_scores(self) -> dict[str, float]:
        return score(self.metrics, self.examiner.open_source(), self.examiner)
