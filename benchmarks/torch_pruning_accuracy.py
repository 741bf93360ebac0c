"""Torch-Pruning and mlc side by side: accuracy after the same fine-tuning.

Networks trained on Fashion-MNIST lose half of all units to either side, by the criterion that is the default of
both, and by `l2`, and are trained for one more epoch by the same code; mlc's file goes back into the torch network by
names. Several seeds of everything. Sides that come to the same network, weight by weight, are trained once.

python benchmarks/torch_pruning_accuracy.py [NET ...] [--seeds 0 1 2] [--write docs/passes/prune.md]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fashion_mnist
import markdown
import numpy as np
import torch
import torch_pruning_peer
import torch_weights
from torch import nn

import mlc
from mlc.backends.ort import Session
from mlc.ir.core import Module

RATIO = 0.5
EPOCHS, RATE = 1, 2e-3
PEER = "Torch-Pruning"
OWN = {"mlc, criterion=l2": "l2", "mlc": "auto"}
COLUMNS = ("network", "side", "weights", "pruned", "fine-tuned", "by seed")


@dataclass(frozen=True)
class Run:
    """Accuracies in percent on the test images, and the number of weights."""

    weights: int
    pruned: float
    tuned: float


def contestants(net: nn.Module, shape: tuple[int, ...]) -> dict[str, nn.Module]:
    """The same network, half of its units removed by each side."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = {PEER: torch_pruning_peer.pruned(copy.deepcopy(net), RATIO, 1, shape)}
    with tempfile.TemporaryDirectory() as folder:
        source = fashion_mnist.export(net, Path(folder) / "net.onnx")
        for side, criterion in OWN.items():
            module = mlc.passes.Prune(ratio=RATIO, multiple=1, criterion=criterion)(mlc.load(source))
            found[side] = torch_weights.restored(net, module)
            check_restored(found[side], module, shape)
    return found


def check_restored(net: nn.Module, module: Module, shape: tuple[int, ...]) -> None:
    """The network in torch computes what the pruned model does. Errors: AssertionError."""
    images = np.random.default_rng(0).standard_normal((8, *shape), np.float32)
    with torch.inference_mode():
        logits = net(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, Session(module).run({"input": images})["logits"], rtol=1e-3, atol=1e-4)


def outcomes(name: str, seed: int) -> tuple[float, Mapping[str, Run]]:
    """Accuracy of the dense network, and what each side makes of it."""
    train, test = fashion_mnist.load()
    net, found, starts = fashion_mnist.train(name, seed), {}, {}
    for side, small in contestants(net, train.images.shape[1:]).items():
        start = {tensor: value.clone() for tensor, value in small.state_dict().items()}
        twin = next((other for other, known in starts.items() if same(start, known)), None)
        starts[side] = start
        found[side] = found[twin] if twin else outcome(small, seed)
        print(name, seed, side, found[side], f"as {twin}" if twin else "", file=sys.stderr, flush=True)
    return fashion_mnist.accuracy(net, test), found


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether all weights and statistics are equal; counts of batches are neither."""
    return all(value.ndim == 0 or torch.equal(value, other[name]) for name, value in one.items())


def outcome(small: nn.Module, seed: int) -> Run:
    train, test = fashion_mnist.load()
    weights = sum(p.numel() for p in small.parameters())
    pruned = fashion_mnist.accuracy(small.eval(), test)
    return Run(weights, pruned, fashion_mnist.accuracy(fashion_mnist.fit(small, train, EPOCHS, RATE, seed), test))


def table(name: str, seeds: Sequence[int]) -> list[str]:
    """A line for the dense network, one for each side, and one for the difference of the two."""
    dense, runs = zip(*(outcomes(name, seed) for seed in seeds))
    lines = [
        markdown.row(
            [
                name,
                "dense",
                sum(p.numel() for p in fashion_mnist.NETS[name].make().parameters()),
                "",
                spread(dense),
                listed(dense),
            ]
        )
    ]
    tuned = {side: [run[side].tuned for run in runs] for side in runs[0]}
    for side, values in tuned.items():
        pruned = spread([run[side].pruned for run in runs])
        lines.append(markdown.row([name, side, runs[0][side].weights, pruned, spread(values), listed(values)]))
    for side in OWN:
        more = np.subtract(tuned[side], tuned[PEER])
        lines.append(markdown.row([name, f"{side}, minus {PEER}", "", "", spread(more), listed(more)]))
    return lines


def spread(values: Sequence[float]) -> str:
    """Mean and sample deviation."""
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=["cnn", "resnet8"], metavar="NET")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", type=Path, help="a page with the markers <!-- peer-accuracy --> ... <!-- end -->")
    chosen = parser.parse_args()
    lines = [markdown.head(*COLUMNS), *(line for name in chosen.nets for line in table(name, chosen.seeds))]
    print("\n".join(lines))
    if chosen.write is not None:
        markdown.write(chosen.write, "peer-accuracy", lines)


if __name__ == "__main__":
    main()
