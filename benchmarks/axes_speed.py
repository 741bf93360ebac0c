"""How the time of the axis analysis grows with the graph: chains of 5,000 to 50,000 ops, and the fitted exponent.

OMP_NUM_THREADS=1 python benchmarks/axes_speed.py [--ops 5000 10000 20000 50000] [--repeats 3] [CHAIN ...]

The exponent is the slope of log(time) over log(ops), by least squares over all sizes; times are the best of the
repeats, in processor time. The chains stand in tests/kit/chains.py.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
from kit.chains import CHAINS

from mlc.ir.axes import analyse
from mlc.ir.core import Module


def seconds(module: Module, repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        analyse(module)
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chains", nargs="*", metavar="CHAIN", help=f"of {', '.join(CHAINS)} (default: all)")
    parser.add_argument("--ops", nargs="+", type=int, default=[5_000, 10_000, 20_000, 50_000])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if unknown := set(args.chains) - set(CHAINS):
        parser.error(f"unknown chains {', '.join(sorted(unknown))}; there are {', '.join(CHAINS)}")
    if len(set(args.ops)) < 2:
        parser.error("an exponent needs at least two sizes")
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| chain | " + " | ".join(f"{n:,} ops" for n in args.ops) + " | exponent |")
    print("|---|" + "---|" * (len(args.ops) + 1))
    for name in args.chains or CHAINS:
        counts, times = [], []
        for ops in args.ops:
            module = CHAINS[name](ops)
            counts.append(sum(1 for _ in module.walk()))
            times.append(seconds(module, args.repeats))
        slope = np.polyfit(np.log(counts), np.log(times), 1)[0]
        print(f"| {name} | " + " | ".join(f"{t:.2f} s" for t in times) + f" | {slope:.2f} |", flush=True)


if __name__ == "__main__":
    main()
