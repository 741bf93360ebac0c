"""Two exports of one network, 845 and 126 nodes, become the same graph; or the effect on models of your choice.

python examples/simplify.py [MODEL ... | all]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import zoo

import mlc
from mlc.backends.ort import Session


def nodes(module: mlc.Module) -> int:
    return sum(1 for _ in module.walk())


def difference(path: Path, name: str, simple: mlc.Module) -> float:
    """The largest difference of an output, relative to the output's largest magnitude."""
    feed = zoo.feeds(path, name=name)
    expected, found = (Session(m, optimize=False).run(feed) for m in (path, simple))
    pairs = [(expected[k].astype(np.float64), found[k].astype(np.float64)) for k in expected]
    return max((float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)) for a, b in pairs if a.size), default=0.0)


def main() -> None:
    wanted = sys.argv[1:] or ["opennsfw_unfolded", "opennsfw"]
    print(
        "| model | nodes | simplify | difference | fold_affine | difference | seconds |\n|---|---|---|---|---|---|---|"
    )
    for name in zoo.entries() if wanted == ["all"] else wanted:
        path = zoo.path(name)
        module = mlc.load(path)
        row = [name, str(nodes(module))]
        start = time.perf_counter()
        results = [mlc.passes.Simplify(fold_affine=fold)(module) for fold in (False, True)]
        seconds = (time.perf_counter() - start) / 2
        for simple in results:
            row += [str(nodes(simple)), f"{difference(path, name, simple):.1e}"]
        print(f"| {' | '.join(row)} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
