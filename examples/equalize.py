"""Rescale the channels of a network at random, which changes nothing but ranges, and let `equalize` undo it.

python examples/equalize.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import zoo

import mlc
from mlc.backends.ort import Session
from mlc.ir.axis_scales import Cells, Scale
from mlc.ir.rewrite import Rewriter
from mlc.passes.quantize.scaling import apply_scales, axes_of


def main() -> None:
    module = mlc.load(zoo.path("mnist_cnn"))
    feeds = zoo.feeds(zoo.path("mnist_cnn"), seed=0)

    # Every direction in which the network may be scaled, by ten to the power of -1 to 1.
    rescaled = module.clone()
    axes, rng = axes_of(rescaled), np.random.default_rng(0)
    cells = [Cells.of(axes, direction) for direction in axes.transformations.directions()]
    apply_scales(Rewriter(rescaled), axes, [Scale(c, 10 ** rng.uniform(-1, 1, c.count)) for c in cells])

    for name, start in (("as trained", module), ("rescaled", rescaled)):
        equal = mlc.passes.Equalize()(start)
        print(f"{name}: {len(cells)} classes, {equal.history[-1].plan.sweeps} sweeps")
        for done in equal.history[-1].done:
            print(f"    {done.site}: {done.before} > {done.after}")
        wanted, found = (next(iter(Session(m).run(feeds).values())) for m in (start, equal))
        print(f"    outputs differ by {np.abs(found - wanted).max() / np.abs(wanted).max():.1e}")


if __name__ == "__main__":
    main()
