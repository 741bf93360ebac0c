"""Timing two sessions against each other: CPU time, interleaved, with an interval; and what machine this is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np

from ..ir.progress import Progress, counted
from .machine import cpu_name, kernel_flags

BLOCKS = 20
WARM_UPS = 5
BIAS = 0.03  # two sessions of one file differ by up to so much
PAIRS = 5  # of sessions: where the memory of one happens to lie may cost it a third of its speed
_BLOCK_SECONDS = 0.01  # a block repeats short runs until it lasts this long, so that the clock resolves it
_BOOTSTRAP = 2000
_FEWEST_RUNS, _MOST_RUNS, _TAIL_SECONDS = 60, 500, 5.0  # single runs for a percentile, and what they may take
_TAIL_DRAWS = 500
_PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "numpy")


class Runnable(Protocol):
    def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Timing:
    """Medians over blocks, and the speedup a/b with a bootstrap 95 % interval [low, high]."""

    a_ms: float
    b_ms: float
    speedup: float
    low: float
    high: float
    blocks: int
    threads: int

    @property
    def verdict(self) -> str:
        """What the interval says, beyond what two sessions of one file differ by."""
        return "faster" if self.low > 1 + BIAS else "slower" if self.high < 1 - BIAS else "as fast"

    def to_json(self) -> dict[str, Any]:
        found = asdict(self) | {"verdict": self.verdict}
        return {"source_ms": found.pop("a_ms"), "artifact_ms": found.pop("b_ms"), **found}


def interleaved(
    a: Runnable,
    b: Runnable,
    feeds: Mapping[str, Any],
    *,
    blocks: int = BLOCKS,
    threads: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Timing:
    """Time `b` against `a` on the same feeds: blocks of both in turn, CPU time of the process.

    Interleaving makes the ratio robust against a machine whose speed drifts; the median against single outliers.
    """
    ticks = counted(range(blocks), "blocks timed", progress)
    return _timing(_times(a, b, feeds, ticks), threads, seed)


def opened(
    open_a: Callable[[], Runnable],
    open_b: Callable[[], Runnable],
    feeds: Mapping[str, Any],
    *,
    pairs: int = PAIRS,
    blocks: int = BLOCKS,
    threads: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Timing:
    """As `interleaved`, on several pairs of sessions that are opened for it, each model first in turn."""
    each = -(-blocks // pairs)
    times = []

    def ticks(done: int) -> Iterator[int]:
        for block in range(done, done + each):
            yield block
            if progress is not None:
                progress.advance("blocks timed", block + 1, pairs * each)

    for pair in range(pairs):
        if pair % 2:
            b, a = open_b(), open_a()
        else:
            a, b = open_a(), open_b()
        times.append(_times(a, b, feeds, ticks(pair * each)))
        del a, b  # before the next pair is opened
    return _timing(np.concatenate(times), threads, seed)


def _times(a: Runnable, b: Runnable, feeds: Mapping[str, Any], ticks: Iterator[int]) -> np.ndarray[Any, Any]:
    """CPU seconds [blocks, 2] of one run of each model: a block per tick."""
    for _ in range(WARM_UPS):
        a.run(feeds)
        b.run(feeds)
    repeats = (_repeats(a, feeds), _repeats(b, feeds))
    rows = [[_cpu_seconds(m, feeds, n) for m, n in zip((a, b), repeats)] for _ in ticks]
    return np.array(rows)


def _timing(times: np.ndarray[Any, Any], threads: int, seed: int) -> Timing:
    blocks = len(times)
    ratios = times[:, 0] / times[:, 1]
    draws = np.random.default_rng(seed).integers(0, blocks, (_BOOTSTRAP, blocks))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    a_ms, b_ms = np.median(times, axis=0) * 1e3
    return Timing(float(a_ms), float(b_ms), float(np.median(ratios)), float(low), float(high), blocks, threads)


@dataclass(frozen=True)
class Tail:
    """The 95th percentile of single runs, with the upper ends of bootstrap 95 % intervals: of b, and of b over a."""

    a_ms: float
    b_ms: float
    b_high_ms: float
    ratio_high: float
    runs: int

    def to_json(self) -> dict[str, Any]:
        return {
            "source_ms": self.a_ms,
            "artifact_ms": self.b_ms,
            "artifact_high_ms": self.b_high_ms,
            "ratio_high": self.ratio_high,
            "runs": self.runs,
        }


def tails(
    a: Runnable, b: Runnable, feeds: Mapping[str, Any], *, seed: int = 0, progress: Progress | None = None
) -> Tail:
    """The slow runs of `b` against those of `a`: single runs in turn, CPU time of the process.

    Medians of blocks hide what one run in twenty takes, so every run counts by itself.
    """
    for model in (a, b):
        for _ in range(WARM_UPS):
            model.run(feeds)
    pair = sum(_cpu_seconds(model, feeds, 1) for model in (a, b))
    runs = int(min(max(_TAIL_SECONDS / pair, _FEWEST_RUNS), _MOST_RUNS))
    rows = [[_cpu_seconds(model, feeds, 1) for model in (a, b)] for _ in counted(range(runs), "runs timed", progress)]
    times = np.array(rows) * 1e3
    draws = np.random.default_rng(seed).integers(0, runs, (_TAIL_DRAWS, runs))
    a_tail, b_tail = (np.percentile(times[draws, which], 95, axis=1) for which in (0, 1))
    a_ms, b_ms = np.percentile(times, 95, axis=0)
    return Tail(
        float(a_ms),
        float(b_ms),
        float(np.percentile(b_tail, 97.5)),
        float(np.percentile(b_tail / a_tail, 97.5)),
        runs,
    )


def medians(
    models: Sequence[Runnable], feeds: Sequence[Mapping[str, Any]], *, blocks: int, seconds: float
) -> list[float]:
    """CPU seconds of one run of each model on its own feeds: blocks of all in turn, each at least `seconds` long."""
    repeats = []
    for model, feed in zip(models, feeds):
        model.run(feed)
        repeats.append(max(1, int(seconds / max(_cpu_seconds(model, feed, 1), 1e-6))))
    times = np.empty((blocks, len(models)))
    for block in range(blocks):
        for which, (model, feed) in enumerate(zip(models, feeds)):
            times[block, which] = _cpu_seconds(model, feed, repeats[which])
    return [float(t) for t in np.median(times, axis=0)]


def _repeats(model: Runnable, feeds: Mapping[str, Any]) -> int:
    return max(1, int(_BLOCK_SECONDS / max(_cpu_seconds(model, feeds, 1), 1e-6)))


def _cpu_seconds(model: Runnable, feeds: Mapping[str, Any], repeats: int) -> float:
    """CPU seconds of one run, all threads of the process together."""
    start = time.process_time()
    for _ in range(repeats):
        model.run(feeds)
    return max(time.process_time() - start, 1e-9) / repeats


def environment() -> dict[str, Any]:
    """CPU, instruction sets and library versions: what a measurement depends on."""
    return {
        "cpu": cpu_name(),
        "isa": kernel_flags(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: found for name in _PACKAGES if (found := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
