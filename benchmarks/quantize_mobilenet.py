"""Classifiers in 8 bits against the settings of ONNX Runtime: signal to noise of the logits on photos never seen.

    python benchmarks/quantize_mobilenet.py [--model mobilenet_v2] [--part judge] [--recipe RECIPE ...] [--no-peers]

80 crops of 20 photos calibrate; `judge` is 100 crops of five other photos, `tune` 60 crops of three others.
Speed: one thread, batch 1, CPU time, interleaved with the original file, median [95 % interval].
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import quantize_data as data
import quantize_measures as measures
import quantize_peers as peers
import zoo

from mlc.backends.ort import Session

RECIPES = ("int8", "int8(rounding=gptq)")


def logits(model: Path, samples: Path) -> measures.Array:
    session = Session(model)
    return np.concatenate([next(iter(session.run(feeds).values())) for feeds in data.batches(samples)])


def rows(source: Path, found: data.Sets, part: str, recipes: Sequence[str], compare: bool) -> Iterator[list[str]]:
    judges: Path = getattr(found, part)
    wanted = logits(source, judges)
    feeds = next(data.batches(judges))
    with measures.Workshop() as shop:
        makers = {f"ONNX Runtime: {name}": setting for name, setting in peers.STATIC.items()} if compare else {}
        for name, setting in makers.items():
            path = peers.static(source, found.calibrate, shop.new(), setting)
            yield _row(name, source, path, wanted, logits(path, judges), feeds)
        for recipe in recipes:
            path = shop.compile(source, recipe, data=found.calibrate, eval=found.calibrate).path
            yield _row(f"`{recipe}`", source, path, wanted, logits(path, judges), feeds)


def _row(
    name: str, source: Path, path: Path, wanted: measures.Array, got: measures.Array, feeds: measures.Feeds
) -> list[str]:
    same = 100 * (wanted.argmax(1) == got.argmax(1)).mean()
    cosine = measures.mean(measures.cosines(wanted, got))
    ratio = f"{measures.speed(source, path, feeds):.2f}"
    return [name, f"{measures.sqnr(wanted, got):.1f}", f"{cosine.value:.4f}", f"{same:.0f} %", ratio,
            f"{measures.mib(path):.2f}"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2", choices=("mobilenet_v2", "efficientnet_lite0", "opennsfw"))
    parser.add_argument("--part", default="judge", choices=("judge", "tune"))
    parser.add_argument("--recipe", nargs="*", default=RECIPES)
    parser.add_argument("--no-peers", action="store_true", help="leave ONNX Runtime's settings out")
    chosen = parser.parse_args()
    source, found = zoo.path(chosen.model), data.sets(chosen.model)
    columns = ["setting", "SQNR, dB", "cosine", "same top-1", "speedup", "MiB"]
    measures.table(columns, rows(source, found, chosen.part, chosen.recipe, not chosen.no_peers))


if __name__ == "__main__":
    main()
