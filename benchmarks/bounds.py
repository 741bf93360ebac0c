"""Goals on real models: one recipe with bounds, and whether the emitted file keeps them when it is measured again.

    python benchmarks/bounds.py [--recipe RECIPE] [--models NAME ...]

Every model is compiled through the command line. Exit 0 says that the bounds hold, exit 3 that they are missed: then
the nearest artifact and the table of what was tried have to be there. Size and cosine of the emitted file are then
measured here, without mlc's own judge: bytes on the disk, and outputs of both files on the samples that judge.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import quantize_measures as measures
import zoo
from quantize_data import batches
from quantize_zoo import samples

from mlc.backends.ort import Session

RECIPE = "prune + int8 where size <= 0.3x, cosine >= 0.99"
MODELS = (
    "mnist_cnn", "mobilenet_v2", "efficientnet_lite0", "opennsfw", "ppocrv4_rec", "minilm", "khmersm",
    "silero_vad_op15",
)  # fmt: skip
SIZE, COSINE = 0.3, 0.99


def row(name: str, recipe: str) -> list[str]:
    """What the run says of its bounds, what is found here, and whether the two agree."""
    model = zoo.path(name)
    with tempfile.TemporaryDirectory() as folder:
        data, given = samples(name, model, Path(folder))
        out = Path(folder) / "out.mlc"
        command = [sys.executable, "-m", "mlc", "compile", str(model), "-r", recipe, "-o", str(out), "--json", *given]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode not in (0, 3) or not out.exists():
            return [name, data, f"FAULT: exit {done.returncode}", done.stderr.strip()[-120:], "", "", f"{seconds:.0f}"]
        report = json.loads(done.stdout)
        size = (out / "model.onnx").stat().st_size / report["size"]["source"]
        cosine = agreement(model, out / "model.onnx", Path(folder) / "eval.npz", whole=data == "synthetic")
    found = f"size {size:.3f}x, cosine {cosine:.4f}"
    tried = len(report["trials"])
    return [name, data, verdict(done.returncode, size, cosine, tried), found, str(tried),
            f"{report['measurements']['latency']['speedup']:.2f}", f"{seconds:.0f}"]  # fmt: skip


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


def verdict(status: int, size: float, cosine: float, tried: int) -> str:
    """Whether what the run says is true."""
    holds = size <= SIZE and cosine >= COSINE
    if status == 0:
        return "kept" if holds else "FAULT: a silent miss"
    return "missed, said so" if not holds and tried else "FAULT: missed without need or without trials"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default=RECIPE, help="with the bounds size <= 0.3x and cosine >= 0.99")
    parser.add_argument("--models", nargs="*", default=MODELS)
    chosen = parser.parse_args(arguments)
    columns = ["model", "data", "bounds", "measured here", "trials", "speedup", "seconds"]
    lines = measures.table(columns, (row(name, chosen.recipe) for name in chosen.models))
    return 1 if any("FAULT" in line for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
