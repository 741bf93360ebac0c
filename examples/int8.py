"""Quantize a model to 8 bits from Python: samples to calibrate with, plan, apply, lower, compare.

python examples/int8.py model.onnx samples.npz small.onnx
python examples/int8.py                      (a reader of handwritten digits from the zoo, noise for samples)
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import zoo

import mlc
from mlc.backends.measure import interleaved
from mlc.backends.ort import Session
from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target


def main(source: Path, samples: Path, target: Path) -> None:
    module = mlc.load(source)
    data = mlc.open_data(samples, module)
    context = mlc.Context(target=parse_target("ort(cpu)"), data=data, runner=OrtRunner())

    # A plan reads and decides; nothing has changed yet.
    step = mlc.passes.Int8(damage=0.02)
    plan = step.plan(module, context)
    print(dict(Counter(reader.form for weight in plan.weights for reader in weight.readers)))
    for grid in plan.activations[:4]:
        print(f"{grid.value:40} u8, scale {grid.scale:.4g}, zero {grid.zero}")
    print(*plan.notes, sep="\n")

    small = step(module, context)
    mlc.save(small, target, target="ort(cpu)", overwrite=True)
    before, after = (sum(f.stat().st_size for f in p.parent.glob(f"{p.name}*")) for p in (source, target))
    print(f"{before / 2**20:.2f} MiB > {after / 2**20:.2f} MiB")

    feeds = next(iter(data.batches(1))).inputs
    wanted, found = (next(iter(Session(path).run(feeds).values())).ravel() for path in (source, target))
    print(f"cosine of the first output: {wanted @ found / np.linalg.norm(wanted) / np.linalg.norm(found):.4f}")
    print(f"speed: {interleaved(Session(source), Session(target), feeds).speedup:.2f}x")


def noise(source: Path, target: Path) -> None:
    """Sixteen made-up samples; real ones calibrate far better."""
    drawn = [zoo.feeds(source, seed) for seed in range(16)]
    np.savez(target, **{name: np.concatenate([feeds[name] for feeds in drawn]) for name in drawn[0]})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(*(Path(argument) for argument in sys.argv[1:4]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            model, samples = zoo.path("mnist_cnn"), Path(folder) / "samples.npz"
            noise(model, samples)
            main(model, samples, Path(folder) / "small.onnx")
