"""MiniLM-L6 in 8 and 4 bits, from its ordinary export: agreement on sentences never seen, size, and speed.

    python benchmarks/quantize_minilm.py [--part judge] [--recipe RECIPE ...] [--no-peers] [--no-speed]

Agreement: cosine of mean-pooled embeddings to those of the float model, on 100 sentences of other news (mean, bootstrap
95 % interval, least) and on 41 sentences of the LICENSE file, text of another kind. 150 sentences calibrate, cut to
their tokens by the mask. Speed: against the original file, one thread, batch 1, CPU time, interleaved.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import quantize_data as data
import quantize_measures as measures
import quantize_peers as peers
import zoo

from mlc.backends.ort import Session

FREE = ("int4", "int8")  # recipes without data
FITTED = ("int8", "smooth + int8", "int4(method=gptq)", "int4(method=awq)")  # recipes that calibrate
LENGTHS = (128, 32)


def embeddings(session: Session, rows: list[measures.Feeds]) -> measures.Array:
    """Mean over tokens of the last hidden state, one row per sentence."""
    return np.concatenate([session.run(feeds)["last_hidden_state"].mean(axis=1) for feeds in rows])


def words(length: int) -> measures.Feeds:
    """A sentence of so many tokens to time with: random words."""
    ids = np.random.default_rng(0).integers(1000, 20000, (1, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


class Referee:
    """Rows of the table: the float model's answers are computed once."""

    def __init__(self, source: Path, part: Path, *, timed: bool) -> None:
        self._source, self._timed = Session(source), timed
        self._near = list(data.batches(part))
        far = data.minilm_inputs(data.license_sentences())
        self._far = [
            {name: a[i : i + 1, :n] for name, a in far.items()} for i, n in enumerate(far["attention_mask"].sum(axis=1))
        ]
        self._wanted = [embeddings(self._source, rows) for rows in (self._near, self._far)]

    def row(self, name: str, path: Path, seconds: float) -> list[str]:
        session = Session(path)
        near, far = (
            measures.cosines(wanted, embeddings(session, rows))
            for wanted, rows in zip(self._wanted, (self._near, self._far))
        )
        cells = [name, f"{measures.mean(near):.4f}", f"{near.min():.3f}", f"{measures.mean(far):.4f}"]
        cells += [f"{measures.speed(self._source, session, words(n)):.2f}" if self._timed else "-" for n in LENGTHS]
        return [*cells, f"{measures.mib(path):.2f}", f"{seconds:.0f}"]


def rows(
    source: Path, found: data.Sets, part: str, free: list[str], fitted: list[str], *, compare: bool, timed: bool
) -> Iterator[list[str]]:
    referee = Referee(source, getattr(found, part), timed=timed)
    with measures.Workshop() as shop:
        if compare:
            start = time.perf_counter()
            path = peers.dynamic(source, shop.new())
            yield referee.row("ONNX Runtime: dynamic, s8 per channel", path, time.perf_counter() - start)
        learnt = {"data": found.calibrate, "eval": found.calibrate, "mask": found.mask}
        for recipe, settings in [*((r, {}) for r in free), *((r, learnt) for r in fitted)]:
            start = time.perf_counter()
            made = shop.compile(source, recipe, **settings)
            seconds = time.perf_counter() - start
            yield referee.row(f"`{recipe}`{'' if settings else ', no data'}", made.path, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="judge", choices=("judge", "tune"))
    parser.add_argument("--recipe", nargs="*", help="recipes that calibrate")
    parser.add_argument("--free", nargs="*", help="recipes without data")
    parser.add_argument("--no-peers", action="store_true", help="leave ONNX Runtime's quantizer out")
    parser.add_argument("--no-speed", action="store_true", help="time nothing")
    chosen = parser.parse_args()
    asked = chosen.recipe is not None or chosen.free is not None
    free, fitted = (list(x or []) if asked else list(y) for x, y in ((chosen.free, FREE), (chosen.recipe, FITTED)))
    source, found = zoo.path("minilm"), data.sets("minilm")
    columns = ["setting", "cosine", "least", "other text", *(f"speedup at {n}" for n in LENGTHS), "MiB", "seconds"]
    made = rows(source, found, chosen.part, free, fitted, compare=not chosen.no_peers, timed=not chosen.no_speed)
    measures.table(columns, made)


if __name__ == "__main__":
    main()
