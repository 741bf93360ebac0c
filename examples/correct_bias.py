"""Quantize a small classifier to 8 bits, correct its biases, and compare the outputs with the original's.

python examples/correct_bias.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import zoo

import mlc
from mlc.backends.ort import Session

SAMPLES = 48


def samples(source: Path, path: Path) -> Path:
    """Inputs as the zoo draws them; real ones are better."""
    drawn = [zoo.feeds(source, seed) for seed in range(SAMPLES)]
    np.savez(path, **{name: np.concatenate([d[name] for d in drawn]) for name in drawn[0]})
    return path


def error(found: mlc.Module, source: Path) -> float:
    """The relative squared error of the outputs on inputs that were not calibrated on."""
    noise = power = 0.0
    for seed in range(SAMPLES, SAMPLES + 16):
        feeds = zoo.feeds(source, seed)
        made, wanted = (next(iter(Session(m).run(feeds).values())) for m in (found, source))
        noise, power = noise + float(np.square(made - wanted).sum()), power + float(np.square(wanted).sum())
    return noise / power


def main() -> None:
    source = zoo.path("mnist_cnn")
    with tempfile.TemporaryDirectory() as folder:
        data = samples(source, Path(folder) / "samples.npz")
        for recipe in ("int8", "int8 + correct_bias"):
            result = mlc.compile(source, recipe, data=data)
            print(f"{recipe:20} error of the outputs {error(result.module, source):.2e}")
        for done in result.module.history[-1].done:
            print(f"  {done.site}: {done.before} > {done.after}")


if __name__ == "__main__":
    main()
