"""The largest memory of a process that runs a model: measured in a child process, which does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ir import errors
from ..ir.core import Module
from ..ir.errors import Code
from ..ir.scratch import scratch
from .onnx import save

PROCESSES = 3
RUNS = 3
_SECONDS = 600
_SCRIPT = Path(__file__).with_name("memory_probe.py")
_TOLD = 500  # characters of what a failed child said


@dataclass(frozen=True)
class Memory:
    """Bytes: the peaks of processes that run the source and the artifact, and of one that only loaded the runtime."""

    source: int  # the smallest of several processes
    artifact: int  # the largest
    runtime: int
    processes: int

    def to_json(self) -> dict[str, int]:
        return {
            "source": self.source,
            "artifact": self.artifact,
            "runtime": self.runtime,
            "processes": self.processes,
        }


def measure_memory(source: Path | Module, artifact: Path, feeds: Mapping[str, Any], *, threads: int) -> Memory:
    """Both models in processes of their own. Errors: RUNTIME when one fails, CANNOT_HONOUR for inputs it cannot get."""
    with scratch("mlc-memory") as folder:
        samples = folder / "feeds.npz"
        arrays: dict[str, Any] = {name: _portable(name, array) for name, array in feeds.items()}
        np.savez(samples, **arrays)
        if isinstance(source, Module):
            save(source, folder / "source.onnx")
            source = folder / "source.onnx"
        before, after = ([_child(model, samples, threads) for _ in range(PROCESSES)] for model in (source, artifact))
    return Memory(
        min(run["peak"] for run in before),
        max(run["peak"] for run in after),
        max(run["before"] for run in after),
        PROCESSES,
    )


def _portable(name: str, value: Any) -> np.ndarray[Any, Any]:
    array = np.asarray(value)
    if array.dtype.kind == "O":
        return array.astype(str)
    if array.dtype.kind not in "biufcU":
        raise errors.error(
            Code.CANNOT_HONOUR,
            f"peak_memory is not measured for the input {name!r} of type {array.dtype}",
            help="bound size instead",
        )
    return array


def _child(model: Path, feeds: Path, threads: int) -> dict[str, int]:
    command = [sys.executable, "-P", str(_SCRIPT), str(model), str(feeds), str(threads), str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode != 0:
        raise errors.error(
            Code.RUNTIME,
            f"a process that runs {model.name!r} to measure its memory ended with {done.returncode}",
            help="bound size instead, or free memory",
            note=done.stderr.strip()[-_TOLD:],
        )
    found: dict[str, int] = json.loads(done.stdout)
    return found
