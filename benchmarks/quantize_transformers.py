"""The recipes of MiniLM, unchanged, on two other transformers: text recognition and a language model.

    python benchmarks/quantize_transformers.py [--model ppocrv4_rec smollm2_135m] [--recipe RECIPE ...]

Agreement: cosine of each sample's output to the float model's (PP-OCRv4: the scores of a line's characters; SmolLM2:
the logits of 128 tokens), on samples never seen. Speed: against the original file, one thread, batch 1, CPU time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import quantize_data as data
import quantize_measures as measures
import zoo
from quantize_minilm import FITTED, FREE

from mlc.backends.ort import Session

MODELS = ("ppocrv4_rec", "smollm2_135m")
TOKENS = 128
JUDGES = 100


def judges(model: str) -> Iterator[measures.Feeds]:
    """Up to JUDGES samples; of text the first TOKENS tokens."""
    for feeds in islice(data.batches(data.sets(model).judge), JUDGES):
        yield {n: a[:, :TOKENS] if a.dtype == np.int64 else a for n, a in feeds.items()}


def rows(model: str, recipes: Sequence[tuple[str, bool]]) -> Iterator[list[str]]:
    source, found = zoo.path(model), data.sets(model)
    original = Session(source)
    feeds = list(judges(model))
    with measures.Workshop() as shop:
        for recipe, learns in recipes:
            settings = {"data": found.calibrate, "eval": found.calibrate} if learns else {}
            path = shop.compile(source, recipe, **settings).path
            session = Session(path)
            agreement = np.array([_cosine(original, session, f) for f in feeds])
            cells = [model, f"`{recipe}`{'' if learns else ', no data'}", f"{measures.mean(agreement):.4f}"]
            cells += [f"{agreement.min():.3f}", f"{measures.speed(original, session, feeds[0]):.2f}"]
            yield [*cells, f"{measures.mib(source):.1f} > {measures.mib(path):.1f}"]
            path.unlink()


def _cosine(a: Session, b: Session, feeds: measures.Feeds) -> float:
    wanted, found = (next(iter(s.run(feeds).values())).reshape(1, -1) for s in (a, b))
    return float(measures.cosines(wanted, found)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--recipe", nargs="*", help="recipes that calibrate; default: those of MiniLM")
    chosen = parser.parse_args()
    standard = [*((r, False) for r in FREE), *((r, True) for r in FITTED)]
    recipes = standard if chosen.recipe is None else [(r, True) for r in chosen.recipe]
    columns = ["model", "setting", "cosine", "least", "speedup", "MiB"]
    measures.table(columns, (row for model in chosen.model for row in rows(model, recipes)))


if __name__ == "__main__":
    main()
