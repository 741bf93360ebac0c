"""Speed of pruned residual networks on ONNX Runtime: one thread, CPU time, interleaved with the dense network.

The weights are random: speed depends on widths only. Batch norms are folded by torch's exporter, as users have it.

python benchmarks/prune_resnet.py [--write docs/passes/prune.md]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import fashion_mnist
import markdown
import nets_resnet

import mlc

DEPTHS = (18, 50)
RATIOS = ("30%", "50%", "70%")
ROUNDS = 3  # compilations of the same recipe, each with sessions of its own
IMAGE = (3, 224, 224)
HEAD = markdown.head("network", "ratio", "MACs", "bytes", "dense ms", "pruned ms", *["speedup"] * ROUNDS)


def compiled(dense: Path, ratio: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return mlc.compile(dense, f"prune({ratio})", output=Path(folder) / "out.mlc").report


def line(depth: int, dense: Path, ratio: str) -> str:
    reports = [compiled(dense, ratio) for _ in range(ROUNDS)]
    step, size = reports[0]["steps"][0], reports[0]["size"]
    timings = [report["measurements"]["latency"] for report in reports]
    macs = step["before"]["macs"] / step["after"]["macs"]
    return markdown.row(
        [
            f"ResNet-{depth}",
            ratio,
            f"{step['before']['macs'] / 1e9:.2f} G / {macs:.2f}",
            f"{100 * size['ratio']:.0f} %",
            f"{timings[0]['source_ms']:.1f}",
            f"{timings[0]['artifact_ms']:.1f}",
            *(f"{t['speedup']:.2f} [{t['low']:.2f}, {t['high']:.2f}]" for t in timings),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="a page with the markers <!-- resnet --> ... <!-- end -->")
    chosen = parser.parse_args()
    lines = [HEAD]
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for depth in DEPTHS:
            net = nets_resnet.resnet(depth)
            dense = fashion_mnist.export(net, Path(folder) / f"{depth}.onnx", fold=True, shape=IMAGE)
            for ratio in RATIOS:
                lines.append(line(depth, dense, ratio))
                print(lines[-1], flush=True)
    if chosen.write is not None:
        markdown.write(chosen.write, "resnet", lines)


if __name__ == "__main__":
    main()
