"""Quantize the weights of a model to 4 bits from Python: plan, apply, lower, compare.

python examples/int4.py model.onnx small.onnx
python examples/int4.py                      (a sentence encoder from the zoo)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import zoo

import mlc


def main(source: Path, target: Path) -> None:
    module = mlc.load(source)
    module = mlc.passes.Simplify()(module)

    # A plan reads and decides; nothing has changed yet.
    step = mlc.passes.Int4(block=32)
    plan = step.plan(module, mlc.Context())
    for site in sorted(plan.sites, key=lambda s: -s.bytes_before)[:5]:
        print(f"{site.constant:45} {site.bytes_before:>10} > {site.bytes_after:>9} bytes, error {site.error:.2%}")
    print(f"... {len(plan.sites)} weights in all, {len(plan.skipped)} operators keep their floats")

    small = step(module)
    mlc.save(small, target, target="ort(cpu)", overwrite=True)
    before, after = (sum(f.stat().st_size for f in p.parent.glob(f"{p.name}*")) for p in (source, target))
    print(f"{before / 2**20:.1f} MiB > {after / 2**20:.1f} MiB")

    from mlc.backends.ort import Session

    feeds = zoo.feeds(source, seed=0)
    wanted, found = (next(iter(Session(path).run(feeds).values())).ravel() for path in (source, target))
    print(f"cosine of the first output: {wanted @ found / np.linalg.norm(wanted) / np.linalg.norm(found):.4f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(zoo.path("minilm"), Path(folder) / "small.onnx")
