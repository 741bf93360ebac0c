"""SmolLM2-135M in 8 and 4 bits: perplexity of news text, 512 tokens of context, 24 windows (12,264 predictions).

    python benchmarks/quantize_smollm.py [--recipe RECIPE ...] [--free RECIPE ...] [--windows 24]

The published weights are already rounded to 4 bits (Q4_1): what is lost here comes on top of that. 16 windows of other
documents calibrate. The interval is that of the ratio to the float model, over windows drawn anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import quantize_data as data
import quantize_measures as measures
import zoo

from mlc.backends.ort import Session

MODEL = "smollm2_135m"
FREE = ("w8a16", "int4(block=32, method=rtn)", "int4(block=32)")  # recipes without data
FITTED = ("int4(block=32, method=gptq)",)


def losses(path: Path, windows: list[measures.Feeds]) -> measures.Array:
    """Mean negative log likelihood of the next token, one number per window."""
    session = Session(path, threads=2)
    return np.array([_loss(session.run(feeds)["logits"][0], feeds["input_ids"][0]) for feeds in windows])


def _loss(logits: measures.Array, ids: measures.Array) -> float:
    scores = logits[:-1] - logits[:-1].max(axis=1, keepdims=True)
    picked = scores[np.arange(len(scores)), ids[1:]]
    return float((np.log(np.exp(scores).sum(axis=1)) - picked).mean())


def rows(free: list[str], fitted: list[str], windows: int) -> Iterator[list[str]]:
    source, found = zoo.path(MODEL), data.sets(MODEL)
    judges = list(islice(data.batches(found.judge), windows))
    wanted = losses(source, judges)
    yield ["float", f"{np.exp(wanted.mean()):.3f}", "1", f"{measures.mib(source):.1f}", ""]
    learnt = {"data": found.calibrate, "eval": found.calibrate}
    with measures.Workshop() as shop:
        for recipe, settings in [*((r, {}) for r in free), *((r, learnt) for r in fitted)]:
            start = time.perf_counter()
            path = shop.compile(source, recipe, **settings).path
            seconds = time.perf_counter() - start
            got = losses(path, judges)
            ratio = measures.bootstrap(lambda x: np.exp(x.mean(axis=-1)), got - wanted)
            name = f"`{recipe}`{'' if settings else ', no data'}"
            yield [name, f"{np.exp(got.mean()):.3f}", f"{ratio:.4f}", f"{measures.mib(path):.1f}", f"{seconds:.0f}"]
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="*", help="recipes that calibrate")
    parser.add_argument("--free", nargs="*", help="recipes without data")
    parser.add_argument("--windows", type=int, default=24)
    chosen = parser.parse_args()
    asked = chosen.recipe is not None or chosen.free is not None
    free, fitted = (list(x or []) if asked else list(y) for x, y in ((chosen.free, FREE), (chosen.recipe, FITTED)))
    columns = ["setting", "perplexity", "ratio to float", "MiB", "seconds"]
    measures.table(columns, rows(free, fitted, chosen.windows))


if __name__ == "__main__":
    main()
