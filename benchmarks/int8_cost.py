"""What calibrated steps cost on a language model: SmolLM2-135M, 16 windows of 512 tokens, file to file.

CPU time is that of load, steps and save, without imports and without the checks of the artifact; memory is the peak of
the resident set (files that are mapped count), also as a multiple of the float file. Every run is a process of its own;
of several rounds medians are told.

    python benchmarks/int8_cost.py [--model smollm2_135m] [--recipe RECIPE ...] [--rounds 1]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import int4_cost as cost
import quantize_data as data
import quantize_measures as measures
import zoo

RECIPES = ("int8", "smooth + int8", "int4(block=32, method=gptq)")


def child(model: str, recipe: str) -> None:
    """One run in this process; prints what it cost."""
    import mlc

    compile = mlc.compile  # imports happen here
    found = data.sets(model)
    cost.reset_peak()
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        settings = {"data": found.calibrate, "eval": found.calibrate, "mask": found.mask, "check": "none"}
        compile(zoo.path(model), recipe, output=path, **settings)
        size = measures.mib(path)
    seconds = time.process_time() - start
    print(json.dumps({"cpu": seconds, "peak": cost.status("VmHWM"), "size": size}))


def rows(model: str, recipes: list[str], rounds: int) -> Iterator[list[str]]:
    whole = measures.mib(zoo.path(model))
    for recipe in recipes:
        command = [sys.executable, __file__, "--child", "--model", model, "--recipe", recipe]
        runs = []
        for _ in range(rounds):
            told = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(told.stdout.splitlines()[-1]))
        cpu, peak, size = (statistics.median(run[key] for run in runs) for key in ("cpu", "peak", "size"))
        yield [f"`{recipe}`", f"{cpu:.0f}", f"{peak:.0f}", f"{peak / whole:.2f}", f"{whole:.1f} > {size:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--recipe", nargs="*", default=list(RECIPES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.model, *chosen.recipe)
        return
    columns = ["recipe", "CPU s", "peak MiB", "x float file", "MiB"]
    measures.table(columns, rows(chosen.model, chosen.recipe, chosen.rounds))


if __name__ == "__main__":
    main()
