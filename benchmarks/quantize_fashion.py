"""Fashion-MNIST in 8 bits: accuracy on the test images, and what channels of very different ranges cost.

    python benchmarks/quantize_fashion.py [--net cnn] [--seeds 0 1 2] [--recipe RECIPE ...]

First table: networks as they were trained (benchmarks/fashion_mnist.py). Second: the same networks after the channels
between their layers were scaled by 10^U(-1.5, 1.5), which changes no output; one scale per weight tensor then fails,
and `equalize` finds scales that undo it. 512 training images calibrate, without labels. Loss: percentage points, with
the 95 % interval of paired draws of test images. Speed: one thread, batch 1, CPU time, interleaved.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import fashion_mnist
import quantize_data as data
import quantize_measures as measures
import quantize_peers as peers

from mlc.backends.ort import Session

RECIPES = ("int8", "int8(rounding=gptq)")
RESCALED = ("int8(per_channel=false)", "equalize + int8(per_channel=false)", "equalize + int8", "int8")
PEERS = ("s8s8 per tensor, min-max", "u8s8 per channel, min-max")
DECADES = 1.5


def rescaled(net: torch.nn.Sequential, seed: int) -> torch.nn.Sequential:
    """Every hidden channel times 10^U(-1.5, 1.5), and the next layer's weights by the inverse: ReLU and max pooling
    commute with positive factors, so that nothing changes but ranges. A flattened channel has several columns."""
    draw = np.random.default_rng(seed)
    layers = [m for m in net if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    with torch.no_grad():
        for first, second in itertools.pairwise(layers):
            units = len(first.bias)
            scale = torch.tensor(10 ** draw.uniform(-DECADES, DECADES, units), dtype=torch.float32)
            first.weight *= scale.reshape(-1, *[1] * (first.weight.ndim - 1))
            first.bias *= scale
            columns = scale.repeat_interleave(second.weight.shape[1] // units)
            second.weight /= columns.reshape(1, -1, *[1] * (second.weight.ndim - 2))
    return net


def hits(model: Path, images: fashion_mnist.Images) -> measures.Array:
    """1 for every image that is classified rightly."""
    session = Session(model)
    pieces = [session.run({"input": images.images[i : i + 500]})["logits"] for i in range(0, len(images), 500)]
    return np.asarray(np.concatenate(pieces).argmax(1) == images.labels, np.float64)


def rows(name: str, seeds: Sequence[int], recipes: Sequence[str], *, rescale: bool) -> Iterator[list[object]]:
    calibration, test = data.sets("fashion").calibrate, fashion_mnist.load()[1]
    feeds = {"input": test.images[:1]}
    with measures.Workshop() as shop:
        for seed in seeds:
            net = fashion_mnist.train(name, seed)
            if rescale and isinstance(net, torch.nn.Sequential):
                net = rescaled(net, seed)
            source = fashion_mnist.export(net, shop.new(), fold=True)
            float_hits = hits(source, test)
            made = [
                (f"ONNX Runtime: {p}", peers.static(source, calibration, shop.new(), peers.STATIC[p])) for p in PEERS
            ]
            made += [(f"`{r}`", shop.compile(source, r, data=calibration, eval=calibration).path) for r in recipes]
            for label, path in made:
                got = hits(path, test)
                lost = measures.mean(100 * (float_hits - got))
                ratio, size = f"{measures.speed(source, path, feeds):.2f}", f"{measures.mib(path):.2f}"
                yield [
                    seed,
                    label,
                    f"{100 * float_hits.mean():.2f} > {100 * got.mean():.2f}",
                    f"{lost:.2f}",
                    ratio,
                    size,
                ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="cnn", choices=fashion_mnist.NETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", nargs="*", help="for the first table; default: those of the script, both tables")
    chosen = parser.parse_args()
    columns = ["seed", "setting", "test accuracy, %", "lost, pp", "speedup", "MiB"]
    recipes = RECIPES if chosen.recipe is None else chosen.recipe
    measures.table(columns, rows(chosen.net, chosen.seeds, recipes, rescale=False))
    if chosen.recipe is None and chosen.net == "cnn":
        print("\nChannels rescaled at random:\n")
        measures.table(columns, rows(chosen.net, chosen.seeds, RESCALED, rescale=True))


if __name__ == "__main__":
    main()
