"""Weights in 8, 4 or 2 bits, from Python: sizes and how well outputs agree.

python examples/weights.py model.onnx
python examples/weights.py                   (a network for images from the zoo)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import zoo

import mlc
from mlc.backends.ort import Session


def main(source: Path, folder: Path) -> None:
    module = mlc.passes.Simplify()(mlc.load(source))
    feeds = zoo.feeds(source, seed=0)
    wanted = next(iter(Session(source).run(feeds).values())).ravel()
    print(f"{'bits':>4} {'stored':>6} {'MiB':>6}  cosine of the first output")
    for bits, stored in ((8, 8), (4, 8), (4, 4), (2, 8)):
        step = mlc.passes.Weights(bits=bits, stored=stored)  # stored: convolutions and recurrent layers
        target = folder / f"{bits}_{stored}.onnx"
        mlc.save(step(module), target, target="ort(cpu)")
        found = next(iter(Session(target).run(feeds).values())).ravel()
        cosine = wanted @ found / np.linalg.norm(wanted) / np.linalg.norm(found)
        print(f"{bits:>4} {stored:>6} {target.stat().st_size / 2**20:>6.2f}  {cosine:.4f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else zoo.path("ppocrv4_rec"), Path(made))
