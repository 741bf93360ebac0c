"""Move the outliers of a sentence encoder into its weights, and see what 8 bits cost before and after.

python examples/smooth.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import zoo

import mlc

SENTENCES = 24
TOKENS = 32


def samples(path: Path) -> Path:
    """Random words, which is enough to see where outliers are; real sentences are better."""
    words = np.random.default_rng(0).integers(1000, 20000, (SENTENCES, TOKENS))
    words[:, 0], words[:, -1] = 101, 102  # [CLS] and [SEP]
    np.savez(path, input_ids=words, attention_mask=np.ones_like(words), token_type_ids=np.zeros_like(words))
    return path


def main() -> None:
    source = zoo.path("minilm")
    with tempfile.TemporaryDirectory() as folder:
        data = samples(Path(folder) / "samples.npz")
        result = mlc.compile(source, "simplify + smooth", data=data)
        report = result.module.history[-1]
        for done in sorted(report.done, key=lambda d: -float(d.before.split()[1]))[:8]:
            print(f"{done.site:40} {done.before:>14} > {done.after}")
        print(f"... {len(report.done)} inputs smoothed, {len(report.skipped)} left as they are")
        for skipped in report.skipped[:3]:
            print(f"    {skipped.site}: {skipped.why}")
        mlc.save(result.module, Path(folder) / "smooth.onnx")


if __name__ == "__main__":
    main()
