"""Speed and size of residual networks in 8 bits, dense and pruned: one thread, batch 1, CPU time, interleaved.

    python benchmarks/quantize_resnet.py

The weights are random (speed depends on shapes only), batch norms are folded by torch's exporter, as users have it.
Noise calibrates: this table says nothing about accuracy. Every artifact is timed three times, in new sessions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

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


class Small(nn.Module):
    """A ResNet for images of 32 x 32: the first convolution is 3 x 3 with stride 1, and nothing is pooled after it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.net.bn1(self.conv(x)))
        for stage in range(1, 5):
            x = self.net.get_submodule(f"layer{stage}")(x)
        return self.net.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def network(case: Case) -> nn.Module:
    net = nets_resnet.resnet(case.depth)
    return Small(net).eval() if case.side == 32 else net


CASES = (Case(50, 224, ("int8", "prune(50%) + int8")), Case(18, 32, ("int8",)), Case(18, 224, ("int8",)))


def rows(rounds: int) -> Iterator[list[str]]:
    noise = np.random.default_rng(0)
    with measures.Workshop() as shop:
        for case in CASES:
            shape = (3, case.side, case.side)
            source = fashion_mnist.export(network(case), shop.new(), fold=True, shape=shape)
            samples = shop.folder / f"{case.side}.npz"
            np.savez(samples, input=noise.standard_normal((SAMPLES, *shape), dtype=np.float32))
            feeds = {"input": noise.standard_normal((1, *shape), dtype=np.float32)}
            for recipe in case.recipes:
                made = shop.compile(source, recipe, data=samples, eval=samples).path
                times = [f"{measures.speed(source, made, feeds):.2f}" for _ in range(rounds)]
                size = f"{measures.mib(source):.1f} > {measures.mib(made):.1f}"
                yield [f"ResNet-{case.depth} at {case.side}", f"`{recipe}`", *times, size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    columns = ["network", "recipe", *["speedup"] * chosen.rounds, "MiB"]
    measures.table(columns, rows(chosen.rounds))


if __name__ == "__main__":
    main()
