"""Quantize every model of the zoo through the command line, a process each, and say where the bar is missed.

python benchmarks/quantize_zoo.py                                  # every model: int8, int4, smooth+int8
python benchmarks/quantize_zoo.py --models minilm --recipe int8
python benchmarks/quantize_zoo.py --write docs/results.md          # replaces the table between the markers there

The bar: the file loads, agrees with the original, is smaller, and is not slower than it, unless the report says of most
of what was done that it is a matter of size only. A model calibrates on real samples where quantize_data.py has some
("real"), else on synthetic ones drawn in the range of its inputs: then the cosine says little about its accuracy.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import quantize_data
import zoo
from recipes import compile_one

RECIPES = ("int8", "int4", "smooth+int8")
SAMPLES = 12  # that calibrate, and others that judge
#: The least cosine that counts as agreement, by what the recipe does to weights. Random inputs are hard on few
#: bits, and twelve samples calibrate little; what a model is for is measured by benchmarks of its own.
AGREES = {"int8": 0.95, "smooth+int8": 0.95, "int4": 0.9}
_HEAD = (
    "| model | recipe | data | exit | MiB | ratio | cosine | speedup [95 %] | size only | done | skipped | misses |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def samples(name: str, model: Path, folder: Path) -> tuple[str, list[str]]:
    """(kind of data, options of the command line): what the model is calibrated with and judged by."""
    real = quantize_data.sets(name) if name in quantize_data.MODELS else None
    for part, first in (("data", 0), ("eval", SAMPLES)):
        if real is not None:
            with np.load(real.calibrate if part == "data" else real.tune) as archive:
                arrays = {key: _spread(archive[key]) for key in archive.files if key != "labels"}
        else:
            feeds = [zoo.feeds(model, seed, name=name) for seed in range(first, first + SAMPLES)]
            arrays = {key: np.stack([feed[key] for feed in feeds]) for key in feeds[0]}
        np.savez(folder / f"{part}.npz", **arrays)
    options = ["--data", str(folder / "data.npz"), "--eval", str(folder / "eval.npz")]
    if real is None:
        return "synthetic", options
    return "real", [*options, "--mask", real.mask] if real.mask else options


def _spread(array: np.ndarray) -> np.ndarray:
    """Some samples from all over a set."""
    return array[np.linspace(0, len(array) - 1, SAMPLES).astype(int)]


def misses(recipe: str, status: int, report: dict[str, Any]) -> list[str]:
    """In which respects the bar is missed; nothing where there was nothing left to quantize."""
    if status or not report:
        return ["fails"]
    done = sum(len(step["done"]) for step in report["steps"])
    checks, timing = report["checks"], report["measurements"]["latency"]
    found = [] if checks["loads"] else ["does not load"]
    if checks.get("cosine") is not None and checks["cosine"] < AGREES.get(recipe, 0.9):
        found.append("disagrees")
    if done and report["size"]["ratio"] >= 1:
        found.append("not smaller")
    if timing and timing["high"] < 1 and 2 * size_only(report) < done:
        found.append("slower")
    return found


def size_only(report: dict[str, Any]) -> int:
    """How many operators the report calls a matter of size: '4 Conv, 1 Gemm read codes that are widened ...'."""
    lines = [warning for warning in report["warnings"] if warning.startswith("size only")]
    return sum(int(count) for line in lines for count in re.findall(r"(?:only:|,) (\d+) [A-Z]", line))


def row(name: str, recipe: str, data: str, status: int, report: dict[str, Any], message: str) -> str:
    """One line of the table; of a failed run the line that says why."""
    if not report:
        lines = message.splitlines() or [""]
        why = next((line for line in lines if line.startswith("error")), lines[-1])
        return f"| {name} | {recipe} | {data} | {status} | {why[:120]} | | | | | | | fails |"
    size, cosine, timing = report["size"], report["checks"].get("cosine"), report["measurements"]["latency"]
    speed = f"{timing['speedup']:.2f} [{timing['low']:.2f}, {timing['high']:.2f}]" if timing else "-"
    steps = report["steps"]
    done = sum(len(step["done"]) for step in steps)
    return (
        f"| {name} | {recipe} | {data} | {status} | {size['source'] / 2**20:.2f} > {size['artifact'] / 2**20:.2f} "
        f"| {size['ratio']:.3f} | {'-' if cosine is None else f'{cosine:.5f}'} | {speed} "
        f"| {size_only(report)} | {done} | {sum(len(step['skipped']) for step in steps)} "
        f"| {', '.join(misses(recipe, status, report))} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", action="append", help="may be given several times")
    parser.add_argument("--models", nargs="*", help="names of the zoo (default: all)")
    parser.add_argument("--write", type=Path, help="a Markdown file with <!-- quantize-zoo --> ... <!-- end -->")
    parser.add_argument("extra", nargs="*", help="further options of mlc compile, after --")
    options = parser.parse_args()
    rows, missed = [_HEAD], 0
    print(_HEAD)
    for name in options.models or zoo.entries():
        model = zoo.path(name)
        with tempfile.TemporaryDirectory() as folder:
            data, given = samples(name, model, Path(folder))
            for recipe in options.recipe or RECIPES:
                status, report, message, _ = compile_one(model, recipe, [*given, *options.extra])
                missed += bool(misses(recipe, status, report))
                rows.append(row(name, recipe, data, status, report, message))
                print(rows[-1], flush=True)
    print(f"\n{missed} of {len(rows) - 1} miss the bar")
    if options.write is not None:
        before, rest = options.write.read_text().split("<!-- quantize-zoo -->")
        after = rest.split("<!-- end -->", 1)[1]
        table = "\n".join(rows)
        options.write.write_text(f"{before}<!-- quantize-zoo -->\n{table}\n<!-- end -->{after}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
