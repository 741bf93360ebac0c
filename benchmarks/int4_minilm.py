"""Agreement, size and speed of MiniLM-L6 in 4 bits, without data, judged on English sentences it has not seen.

The sentences are those of the LICENSE file (a fixed text); the measure is the cosine of mean-pooled embeddings to those
of the float model. Speed is CPU time of one thread, interleaved, per number of tokens.

    python benchmarks/int4_minilm.py
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import zoo

import mlc
from mlc.backends.measure import interleaved
from mlc.backends.ort import Session

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("", "embedding_block=32", "block=64", "block=128", "symmetric=true", "accuracy_level=0")
LENGTHS = (16, 128)


def sentences() -> list[str]:
    """Sentences of 6 to 60 words."""
    text = re.sub(r"\s+", " ", (ROOT / "LICENSE").read_text())
    found = re.split(r"(?<=[.;:])\s+", text)
    return [s for s in found if 6 <= len(s.split()) <= 60]


def embeddings(path: Path, feeds: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """Mean over tokens of the last hidden state, one row per sentence."""
    session = Session(path)
    return np.stack([session.run(f)["last_hidden_state"][0].mean(axis=0) for f in feeds])


def main() -> None:
    from tokenizers import Tokenizer

    source = zoo.path("minilm")
    tokenizer = Tokenizer.from_file(str(zoo.weights("minilm").with_name("tokenizer.json")))
    tokenizer.no_padding()
    feeds = [_feed(tokenizer.encode(s).ids) for s in sentences()]
    wanted = embeddings(source, feeds)
    print(f"{len(feeds)} sentences, {sum(f['input_ids'].size for f in feeds)} tokens\n")
    print(
        "| setting | MiB | cosine, mean / least | speedup at "
        + " / ".join(map(str, LENGTHS))
        + " tokens |\n|---|---|---|---|"
    )
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "small.onnx"
            mlc.compile(
                source, f"simplify + int4({setting})" if setting else "simplify + int4", output=out, check="none"
            )
            found = embeddings(out, feeds)
            cosine = (wanted * found).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(found, axis=1)
            timings = [_speed(source, out, length) for length in LENGTHS]
            size = out.stat().st_size / 2**20
        agreement = f"{cosine.mean():.4f} / {cosine.min():.3f}"
        print(f"| {setting or 'default'} | {size:.2f} | {agreement} | {' / '.join(timings)} |")


def _feed(ids: list[int]) -> dict[str, Any]:
    row = np.array([ids], np.int64)
    return {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}


def _speed(a: Path, b: Path, length: int) -> str:
    feed = _feed(np.random.default_rng(0).integers(1000, 20000, length).tolist())
    found = interleaved(Session(a), Session(b), feed)
    return f"{found.speedup:.2f} [{found.low:.2f}, {found.high:.2f}]"


if __name__ == "__main__":
    main()
