"""Turn a quantized model back into floats from Python, and quantize it anew: what changes, how well the outputs agree.

python examples/dequantize.py model.onnx
python examples/dequantize.py smart_turn t5_encoder_int8        (models of the zoo; default: smart_turn)
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import zoo

import mlc
from mlc.backends.ort import Session


def main(source: Path) -> None:
    quantized = mlc.load(source)
    floats = mlc.passes.Dequantize()(quantized)

    report = floats.history[-1]
    for (before, after), count in Counter((d.before.split()[0], d.after.split()[0]) for d in report.done).most_common(
        6
    ):
        print(f"{count:5} {before} > {after}")
    for skipped in report.skipped[:5]:
        print(f"      {skipped.site} stays: {skipped.why}")

    anew = mlc.passes.Int4()(floats)
    feeds = zoo.feeds(source, seed=0)
    runs = [Session(module).run(feeds) for module in (quantized, floats, anew)]
    first, second = difference(*runs[:2]), difference(*runs[::2])
    print(f"{source.stem}: the first output moves by {first:.2%} as floats, by {second:.2%} in 4 bits")


def difference(wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    a, b = (next(iter(run.values())).astype(np.float64) for run in (wanted, found))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


if __name__ == "__main__":
    for name in sys.argv[1:] or ["smart_turn"]:
        main(zoo.path(name) if name in zoo.entries() else Path(name))
