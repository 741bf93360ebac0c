"""Goals on real models: one recipe with bounds, and whether the emitted file keeps them when it is measured again.

    python benchmarks/bounds.py [--recipe RECIPE] [--models NAME ...]
    python benchmarks/bounds.py --latency [--recipe RECIPE] [--models NAME ...]

Every model is compiled through the command line. Exit 0 says that the bounds hold, exit 3 that they are missed: then
the nearest artifact and the table of what was tried have to be there. Size and cosine of the emitted file are then
measured here, without mlc's own judge: bytes on the disk, and outputs of both files on the samples that judge.

With --latency the bound is on CPU time. Both files are timed again in turn, five times with sessions opened anew each
time; a bound that mlc calls kept has to hold for the median of the five.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import quantize_measures as measures
import zoo
from quantize_data import batches
from quantize_zoo import samples

from mlc.backends.measure import opened
from mlc.backends.ort import Session

RECIPE = "prune + int8 where size <= 0.3x, cosine >= 0.99"
MODELS = (
    "mnist_cnn", "mobilenet_v2", "efficientnet_lite0", "opennsfw", "ppocrv4_rec", "minilm", "khmersm",
    "silero_vad_op15",
)  # fmt: skip
SIZE, COSINE = 0.3, 0.99
TIMED = "prune + int8 where latency <= 0.6x"
TIMED_MODELS = ("mnist_cnn", "khmersm", "silero_vad_op15", "aecmos_1")
LATENCY, SEEDS = 0.6, range(1, 6)  # mlc itself measures with seed 0


@dataclass(frozen=True)
class Run:
    """One compilation through the command line."""

    name: str
    data: str  # real or synthetic
    status: int
    seconds: float
    report: dict[str, Any]
    model: Path
    out: Path
    feeds: Path  # of the samples that judge

    @property
    def end(self) -> list[str]:
        """How many trials there were, how fast mlc says the file is, and how long all of it took."""
        speedup = self.report["measurements"]["latency"]["speedup"]
        return [str(len(self.report["trials"])), f"{speedup:.2f}", f"{self.seconds:.0f}"]


def compiled(name: str, recipe: str, folder: Path) -> Run | list[str]:
    """The run, or a row of the table that says what went wrong."""
    model, out = zoo.path(name), folder / "out.mlc"
    data, given = samples(name, model, folder)
    command = [sys.executable, "-m", "mlc", "compile", str(model), "-r", recipe, "-o", str(out), "--json", *given]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 3) or not out.exists():
        return [name, data, f"FAULT: exit {done.returncode}", done.stderr.strip()[-120:], "", "", f"{seconds:.0f}"]
    report = json.loads(done.stdout)
    return Run(name, data, done.returncode, seconds, report, model, out / "model.onnx", folder / "eval.npz")


def row(name: str, recipe: str) -> list[str]:
    """What the run says of its bounds, what is found here, and whether the two agree."""
    with tempfile.TemporaryDirectory() as folder:
        run = compiled(name, recipe, Path(folder))
        if not isinstance(run, Run):
            return run
        size = run.out.stat().st_size / run.report["size"]["source"]
        cosine = agreement(run.model, run.out, run.feeds, whole=run.data == "synthetic")
        judged = verdict(run, holds=size <= SIZE and cosine >= COSINE)
        return [name, run.data, judged, f"size {size:.3f}x, cosine {cosine:.4f}", *run.end]


def timed_row(name: str, recipe: str) -> list[str]:
    """The same for latency."""
    with tempfile.TemporaryDirectory() as folder:
        run = compiled(name, recipe, Path(folder))
        if not isinstance(run, Run):
            return run
        found = latencies(run)
        middle = statistics.median(found)
        told = f"{middle:.3f}x [{min(found):.3f}, {max(found):.3f}]"
        (bound,) = run.report["bounds"]
        steps = " + ".join(step["text"] for step in run.report["steps"])
        judged = verdict(run, holds=middle <= LATENCY, timed=True)
        return [name, run.data, judged, f"{told}; mlc said {bound['measured']:.3f}x of {steps}", *run.end]


def latencies(run: Run) -> list[float]:
    """CPU time of the emitted file as a part of that of the model, on the first sample that judges, once a seed."""
    sample = next(iter(batches(run.feeds)))
    given = {n: np.asarray(a[0]) for n, a in sample.items()} if run.data == "synthetic" else dict(sample)
    files = [lambda path=path: Session(path) for path in (run.model, run.out)]
    return [1 / opened(*files, given, seed=seed).speedup for seed in SEEDS]


def agreement(before: Path, after: Path, feeds: Path, *, whole: bool) -> float:
    """The cosine of the worst output over all samples, each seen as one long vector."""
    sessions = [Session(path) for path in (before, after)]
    sums: dict[str, np.ndarray[Any, Any]] = {}
    for sample in batches(feeds):
        given = {n: np.asarray(a[0]) for n, a in sample.items()} if whole else dict(sample)
        a, b = (session.run(given) for session in sessions)
        for output, x, y in ((n, a[n].astype("f8").ravel(), b[n].astype("f8").ravel()) for n in a):
            sums[output] = sums.get(output, np.zeros(3)) + np.array([x @ y, x @ x, y @ y])
    return min(float(xy / np.sqrt(xx * yy)) for xy, xx, yy in sums.values() if xx > 0)


def verdict(run: Run, *, holds: bool, timed: bool = False) -> str:
    """Whether what the run says is true. What is `timed` has to hold with the end of its interval: a miss is no fault
    where the median holds."""
    if run.status == 0:
        return "kept" if holds else "FAULT: a silent miss"
    told = run.report["trials"] and (timed or not holds)
    return "missed, said so" if told else "FAULT: missed without need or without trials"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", action="store_true", help="bound the latency, and time both files again")
    parser.add_argument("--recipe", help=f"with the bounds of {RECIPE!r}, or of {TIMED!r} with --latency")
    parser.add_argument("--models", nargs="*")
    chosen = parser.parse_args(arguments)
    make, recipe, models = (timed_row, TIMED, TIMED_MODELS) if chosen.latency else (row, RECIPE, MODELS)
    columns = ["model", "data", "bounds", "measured here", "trials", "speedup", "seconds"]
    lines = measures.table(columns, (make(name, chosen.recipe or recipe) for name in chosen.models or models))
    return 1 if any("FAULT" in line for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
