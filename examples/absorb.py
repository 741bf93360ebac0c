"""Which biases of a text classifier no ReLU ever cuts, and what moving them does to its output.

python examples/absorb.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import zoo

import mlc
from mlc.backends.ort import Session


def main() -> None:
    source = zoo.path("ppocr_cls")
    module, feeds = mlc.load(source), zoo.feeds(source, seed=0)
    for deviations in (3.0, 2.0):
        less = mlc.passes.Absorb(deviations=deviations)(module)
        report = less.history[-1]
        wanted, found = (next(iter(Session(m).run(feeds).values())) for m in (module, less))
        count = len(report.done) + len(report.skipped)
        print(f"{deviations:g} deviations: {len(report.done)} of {count} normalizations")
        for done in report.done[:3]:
            print(f"    {done.site}: {done.before}, {done.after}")
        print(f"    the output moves by {np.abs(found - wanted).max():.1e}")


if __name__ == "__main__":
    main()
