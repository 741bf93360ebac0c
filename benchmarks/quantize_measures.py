"""What the benchmarks of quantization share: agreement with an interval, size, and speed against the original file."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import markdown

import mlc
from mlc.backends.measure import environment, interleaved
from mlc.backends.ort import Session

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]

_DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A statistic of samples and its bootstrap 95 % interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap(statistic: Callable[[Array], Array], samples: Array, seed: int = 0) -> Interval:
    """`statistic` maps [..., n] samples to [...]; the samples are drawn anew with replacement."""
    draws = np.random.default_rng(seed).integers(0, len(samples), (_DRAWS, len(samples)))
    low, high = np.percentile(statistic(samples[draws]), [2.5, 97.5])
    return Interval(float(statistic(samples)), float(low), float(high))


def mean(samples: Array) -> Interval:
    return bootstrap(lambda x: x.mean(axis=-1), samples)


def cosines(wanted: Array, found: Array) -> Array:
    """One cosine per row."""
    norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
    return np.asarray((wanted * found).sum(axis=1) / norms)


def sqnr(wanted: Array, found: Array) -> Interval:
    """10 log10 of the energy of the wanted outputs by that of the error, in dB, over all samples [n, d]."""
    energies = np.stack([(wanted**2).sum(axis=1), ((wanted - found) ** 2).sum(axis=1)], axis=1)
    draws = np.random.default_rng(0).integers(0, len(energies), (_DRAWS, len(energies)))
    totals = energies[draws].sum(axis=1)
    low, high = np.percentile(10 * np.log10(totals[:, 0] / totals[:, 1]), [2.5, 97.5])
    signal, noise = energies.sum(axis=0)
    return Interval(float(10 * np.log10(signal / noise)), float(low), float(high))


def speed(source: Path | Session, artifact: Path | Session, feeds: Feeds) -> Interval:
    """CPU time of the source by that of the artifact: one thread, batch 1, interleaved, median of the blocks."""
    a, b = (Session(x) if isinstance(x, Path) else x for x in (source, artifact))
    found = interleaved(a, b, feeds)
    return Interval(found.speedup, found.low, found.high)


def mib(path: Path) -> float:
    """The size of a model with the files beside it that belong to it, in MiB."""
    return float(sum(f.stat().st_size for f in path.parent.glob(f"{path.name}*")) / 2**20)


@dataclass(frozen=True)
class Made:
    """An artifact, and what its report says."""

    path: Path
    report: Mapping[str, Any]

    @property
    def skipped(self) -> dict[str, int]:
        """Sites left out, by reason."""
        found: dict[str, int] = {}
        for step in self.report["steps"]:
            for skip in step["skipped"]:
                found[skip["why"]] = found.get(skip["why"], 0) + 1
        return found


class Workshop:
    """A folder for artifacts that disappears with it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-benchmark-")
        self.folder = Path(self._folder.name)
        self._made = 0

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def new(self) -> Path:
        """A path where nothing lies yet."""
        self._made += 1
        return self.folder / f"{self._made}.onnx"

    def compile(self, model: Path, recipe: str, **settings: Any) -> Made:
        """The artifact of a recipe; the benchmark judges it, not the compiler."""
        path = self.new()
        result = mlc.compile(model, recipe, output=path, **{"check": "none", **settings})
        return Made(path, result.report)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Rows as they come, printed at once, and the environment below."""
    lines = [markdown.head(*columns)]
    print(lines[0], flush=True)
    for cells in rows:
        lines.append(markdown.row(cells))
        print(lines[-1], flush=True)
    print(f"\n({json.dumps(environment())})")
    return lines
