"""Which weights suffer from few bits, from Python: measure, look, quantize all but the worst.

python examples/sensitivity.py model.onnx data.npz
python examples/sensitivity.py               (a small convolutional network from the zoo, on synthetic images)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import zoo

import mlc
from mlc.commands import sensitivity


def main(source: Path, data: Path) -> None:
    # The same as `mlc inspect MODEL --sensitivity --data DATA --json`.
    found = sensitivity(source, data)
    print(f"{len(found['sites'])} weights, on {found['samples']} samples; damage is 1 - cosine of the worst output")
    for site in found["sites"][:5]:
        damage = {name: f"{value:.1e}" for name, value in site["damage"].items()}
        print(f"{site['weight']:25} {damage}")

    # Storing every weight but the most sensitive one in 4 bits.
    worst = found["sites"][0]["weight"]
    for recipe in ("int4", f'int4 except "{worst}"'):
        result = mlc.compile(source, recipe, data=data, check="fast")
        print(f"{recipe:40} {result.report['size']['ratio']:.1%} of the size")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            model = zoo.path("mnist_cnn")
            feeds = [zoo.feeds(model, seed, name="mnist_cnn") for seed in range(8)]
            samples = Path(folder) / "data.npz"
            np.savez(samples, **{name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]})
            main(model, samples)
