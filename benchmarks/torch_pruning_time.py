"""Torch-Pruning and mlc side by side: CPU time of pruning to the same MACs.

ResNet-18 and ResNet-50 (random weights) and MobileNetV2 at 224 x 224. Every run is a process of its own with one
thread. mlc: load the file, plan, remove, save. Torch-Pruning: trace the network that is in memory, remove, export.
Importing both packages is not counted. Both files are then counted by mlc's cost model; where MACs differ by more than
2 %, the ratio of Torch-Pruning is moved until they do not.

python benchmarks/torch_pruning_time.py [--write docs/passes/prune.md]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import markdown
import numpy as np

MODELS = ("resnet18", "resnet50", "mobilenet_v2")
MULTIPLES = (1, 8)
RATIO = 0.5
IMAGE = (3, 224, 224)
RUNS = 5
SAME = 0.02  # MACs that differ by less are the same
COLUMNS = (
    "network",
    "multiple",
    "dense MACs",
    "left by mlc",
    "by Torch-Pruning",
    "at",
    "its s",
    "mlc's s",
    "quotient",
)


def network(name: str) -> Any:
    import nets_resnet
    import nets_vision
    import torch
    import zoo

    if name.startswith("resnet"):
        return nets_resnet.resnet(int(name.removeprefix("resnet")))
    net = nets_vision.mobilenet_v2()
    net.load_state_dict(torch.load(zoo.weights(name), map_location="cpu", weights_only=True))
    return net.eval()


def export(name: str, target: Path) -> None:
    import fashion_mnist

    fashion_mnist.export(network(name), target, shape=IMAGE)


def peer_side(name: str, ratio: float, multiple: int, source: Path, target: Path) -> float:
    """CPU seconds of Torch-Pruning; the network is in memory already."""
    import fashion_mnist
    import torch
    import torch_pruning_peer

    torch.set_num_threads(1)
    net = network(name)
    sys.path.append(str(torch_pruning_peer.installed()))
    import torch.onnx
    import torch_pruning  # noqa: F401

    start = time.process_time()
    small = torch_pruning_peer.pruned(net, ratio, multiple, IMAGE)
    fashion_mnist.export(small, target, shape=IMAGE)
    return time.process_time() - start


def own_side(name: str, ratio: float, multiple: int, source: Path, target: Path) -> float:
    """CPU seconds of mlc."""
    import mlc

    load, save, prune = mlc.load, mlc.save, mlc.passes.Prune(ratio=ratio, multiple=multiple)  # imports what they need
    start = time.process_time()
    save(prune(load(source)), target, overwrite=True)
    return time.process_time() - start


SIDES: Mapping[str, Callable[[str, float, int, Path, Path], float]] = {"peer": peer_side, "own": own_side}


def apart(side: str, name: str, ratio: float, multiple: int, source: Path, target: Path) -> float:
    """One side in a process of its own, on one thread."""
    arguments = [side, name, str(ratio), str(multiple), str(source), str(target)]
    done = subprocess.run(
        [sys.executable, __file__, "side", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{side} on {name}: {done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def macs(path: Path) -> int:
    import mlc
    from mlc.ir.cost import bind, module_cost

    return bind(module_cost(mlc.load(path)).macs, {"batch": 1})


def matched(name: str, multiple: int, source: Path, own: Path, peer: Path) -> float:
    """The ratio near RATIO at which the other side keeps the same MACs; `peer` is the file of it."""
    apart("own", name, RATIO, multiple, source, own)
    wanted = macs(own)
    for step in range(21):
        for ratio in dict.fromkeys((RATIO + step / 100, RATIO - step / 100)):
            apart("peer", name, round(ratio, 2), multiple, source, peer)
            if abs(macs(peer) / wanted - 1) <= SAME:
                return round(ratio, 2)
    raise RuntimeError(f"no ratio of the other side gives the MACs of {name} with widths in multiples of {multiple}")


def times(name: str, multiple: int, source: Path, own: Path, peer: Path) -> str:
    """One line of the table: medians of seconds, and of the quotient with its range."""
    ratio = matched(name, multiple, source, own, peer)
    both = ("peer", ratio, peer), ("own", RATIO, own)
    spent = np.array(
        [[apart(side, name, share, multiple, source, target) for side, share, target in both] for _ in range(RUNS)]
    )
    dense, quotient = macs(source), spent[:, 1] / spent[:, 0]
    cells = [name, multiple, f"{dense / 1e6:.0f} M"]
    cells += [f"{100 * macs(own) / dense:.1f} %", f"{100 * macs(peer) / dense:.1f} %", f"{ratio:.0%}"]
    cells += [f"{median:.2f}" for median in np.median(spent, axis=0)]
    return markdown.row([*cells, f"{np.median(quotient):.2f} [{quotient.min():.2f}, {quotient.max():.2f}]"])


def main() -> None:
    if sys.argv[1:2] == ["side"]:
        side, name, ratio, multiple, source, target = sys.argv[2:]
        print(json.dumps(SIDES[side](name, float(ratio), int(multiple), Path(source), Path(target))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="a page with the markers <!-- peer-time --> ... <!-- end -->")
    chosen = parser.parse_args()
    lines = [markdown.head(*COLUMNS)]
    print(lines[0])
    with tempfile.TemporaryDirectory() as folder:
        source, own, peer = (Path(folder) / f"{kind}.onnx" for kind in ("source", "own", "peer"))
        for name in MODELS:
            export(name, source)
            for multiple in MULTIPLES:
                lines.append(times(name, multiple, source, own, peer))
                print(lines[-1], flush=True)
    if chosen.write is not None:
        markdown.write(chosen.write, "peer-time", lines)


if __name__ == "__main__":
    main()
