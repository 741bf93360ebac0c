"""Speed and size of residual networks in 8 bits, dense and pruned: one thread, batch 1, CPU time, interleaved.

    python benchmarks/quantize_resnet.py

The weights are random (speed depends on shapes only), batch norms are folded by torch's exporter, as users have it.
Noise calibrates: this table says nothing about accuracy. Every recipe is compiled and timed three times.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import fashion_mnist
import nets_resnet
import quantize_measures as measures

ROUNDS = 3
SAMPLES = 8


@dataclass(frozen=True)
class Case:
    depth: int
    side: int
    recipes: tuple[str, ...]


CASES = (Case(50, 224, ("int8", "prune(50%) + int8")), Case(18, 32, ("int8",)), Case(18, 224, ("int8",)))


def rows(rounds: int) -> Iterator[list[str]]:
    noise = np.random.default_rng(0)
    with measures.Workshop() as shop:
        for case in CASES:
            shape = (3, case.side, case.side)
            source = fashion_mnist.export(nets_resnet.resnet(case.depth), shop.new(), fold=True, shape=shape)
            samples = shop.folder / f"{case.side}.npz"
            np.savez(samples, input=noise.standard_normal((SAMPLES, *shape), dtype=np.float32))
            feeds = {"input": noise.standard_normal((1, *shape), dtype=np.float32)}
            for recipe in case.recipes:
                made = [shop.compile(source, recipe, data=samples, eval=samples).path for _ in range(rounds)]
                times = [f"{measures.speed(source, path, feeds):.2f}" for path in made]
                size = f"{measures.mib(source):.1f} > {measures.mib(made[0]):.1f}"
                yield [f"ResNet-{case.depth} at {case.side}", f"`{recipe}`", *times, size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    columns = ["network", "recipe", *["speedup"] * chosen.rounds, "MiB"]
    measures.table(columns, rows(chosen.rounds))


if __name__ == "__main__":
    main()
