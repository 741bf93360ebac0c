"""PP-OCRv4 recognition in few bits reads 200 rendered lines: characters right, relative to the float model.

    python benchmarks/quantize_ocr.py [--recipe RECIPE ...]

A line is right by 1 - edit distance / length of what the float model reads; a second column compares with the text that
was rendered. 64 other lines calibrate. Speed: a line 320 wide, one thread, batch 1, CPU time, interleaved.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import ocr
import quantize_data as data
import quantize_measures as measures
import quantize_peers as peers
import zoo

from mlc.backends.ort import Session

RECIPES = ("int8", "smooth + int8", "smooth + int8(observer=percentile)")
MODEL = "ppocrv4_rec"


def distance(a: str, b: str) -> int:
    """Levenshtein's: insertions, deletions and replacements."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def accuracy(wanted: Sequence[str], found: Sequence[str]) -> measures.Interval:
    """Percent of the characters, with an interval over lines."""
    counts = np.array([(len(w), distance(w, f)) for w, f in zip(wanted, found)])
    draws = np.random.default_rng(0).integers(0, len(counts), (2000, len(counts)))
    totals = counts[draws].sum(axis=1)
    low, high = np.percentile(100 * (1 - totals[:, 1] / totals[:, 0]), [2.5, 97.5])
    length, wrong = counts.sum(axis=0)
    return measures.Interval(float(100 * (1 - wrong / length)), float(low), float(high))


def read(session: Session, texts: Sequence[tuple[str, int]], characters: Sequence[str]) -> list[str]:
    """What a model reads; every line is as wide as its text."""
    scores = (session.run({"x": ocr.render(t, font_size=size)}) for t, size in texts)
    return [ocr.decode(next(iter(s.values())), characters).strip() for s in scores]


def rows(recipes: Sequence[str], part: str, *, compare: bool) -> Iterator[list[str]]:
    source, found, texts = zoo.path(MODEL), data.sets(MODEL), data.lines(part)
    characters, original = ocr.alphabet(source), Session(source)
    rendered, wanted = [text for text, _ in texts], read(original, texts, characters)
    feeds = next(data.batches(found.calibrate))

    def row(name: str, path: Path) -> list[str]:
        session = Session(path)
        got = read(session, texts, characters)
        same = sum(a == b for a, b in zip(wanted, got))
        ratio = f"{measures.speed(original, session, feeds):.2f}"
        return [name, f"{accuracy(wanted, got):.2f}", f"{same} of {len(texts)}", f"{accuracy(rendered, got):.2f}",
                ratio, f"{measures.mib(path):.2f}"]  # fmt: skip

    yield row("float", source)
    with measures.Workshop() as shop:
        for name, setting in peers.STATIC.items() if compare else ():
            yield row(f"ONNX Runtime: {name}", peers.static(source, found.calibrate, shop.new(), setting))
        for recipe in recipes:
            yield row(f"`{recipe}`", shop.compile(source, recipe, data=found.calibrate, eval=found.calibrate).path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="*", default=RECIPES)
    parser.add_argument("--part", default="judge", choices=("judge", "tune"))
    parser.add_argument("--no-peers", action="store_true", help="leave ONNX Runtime's settings out")
    chosen = parser.parse_args()
    columns = ["setting", "characters as float, %", "lines as float", "characters as rendered, %", "speedup", "MiB"]
    measures.table(columns, rows(chosen.recipe, chosen.part, compare=not chosen.no_peers))


if __name__ == "__main__":
    main()
