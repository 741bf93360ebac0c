"""What pruning costs in quality without any training: plain removal against least-squares reconstruction.

    python benchmarks/prune_quality.py cnn [--write docs/passes/prune.md]
    python benchmarks/prune_quality.py resnet
    python benchmarks/prune_quality.py minilm

cnn, resnet: networks of benchmarks/fashion_mnist.py, half of all hidden channels, 2,000 unlabelled training images for
calibration. Settings are chosen on 5,000 other training images; the test images judge only the chosen one.
minilm: FFN neurons and attention heads of MiniLM-L6, windows of 48 tokens of news text; cosine of mean-pooled
embeddings to those of the whole model, on 100 windows of other documents.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import fashion_mnist as fashion
import markdown
import zoo

import mlc
from mlc.backends.measure import environment
from mlc.backends.ort import Session

SEEDS = (0, 1, 2)
IMAGES, HELD_OUT = 2000, 5000
CRITERIA = ("l2", "activation", "redundancy", "obs")
PENALTIES = (1e-3, 1e-2, 1e-1)
TOKENS = 48


def images(net: str) -> list[str]:
    lines = [
        markdown.head("network, seed", "whole", "plain removal, by criterion", "chosen setting", "held out", "test")
    ]
    train, test = fashion.load()
    for seed in SEEDS:
        order = np.random.default_rng(1000 + seed).permutation(len(train))
        calibration, judges = train.part(order[:IMAGES]), train.part(order[IMAGES : IMAGES + HELD_OUT])
        with tempfile.TemporaryDirectory() as folder:
            model = fashion.export(fashion.train(net, seed), Path(folder) / "model.onnx")
            samples = Path(folder) / "samples.npz"
            np.savez(samples, input=calibration.images)
            plain = [_accuracy(_pruned(model, f"criterion={c}, reconstruct=off", samples), test) for c in CRITERIA]
            settings = [f"criterion={c}, penalty={p:g}" for c, p in itertools.product(CRITERIA, PENALTIES)]
            tried = {s: _accuracy(_pruned(model, s, samples), judges) for s in settings}
            best = max(settings, key=lambda s: tried[s])
            cells = [f"{net} {seed}", f"{_accuracy(mlc.load(model), test):.2f}"]
            cells += [", ".join(f"{c} {a:.1f}" for c, a in zip(CRITERIA, plain)), best, f"{tried[best]:.2f}"]
            cells += [f"**{_accuracy(_pruned(model, best, samples), test):.2f}**"]
            lines.append(markdown.row(cells))
            print(lines[-1], {s: round(a, 2) for s, a in tried.items()}, flush=True)
    return lines


def _pruned(model: Path, setting: str, samples: Path, recipe: str = "prune(50%, {}, multiple=1)") -> mlc.Module:
    return mlc.compile(model, recipe.format(setting), data=samples, eval=samples, check="none").module


def _accuracy(module: mlc.Module, data: fashion.Images) -> float:
    session = Session(module)
    pieces = [session.run({"input": data.images[i : i + 500]})["logits"] for i in range(0, len(data), 500)]
    return float(100 * (np.concatenate(pieces).argmax(1) == data.labels).mean())


def minilm() -> list[str]:
    lines = [markdown.head("removed", "criterion", "plain removal, cosine mean / least", "lstsq, cosine mean / least")]
    source, judges = zoo.path("minilm"), _windows("lee.cor", 100)
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.npz"
        np.savez(samples, **_feeds(_windows("lee_background.cor", 256)))
        model = Path(folder) / "clean.onnx"
        mlc.compile(source, "simplify", output=model, check="none")
        wanted = _embeddings(mlc.load(model), judges)
        for what, recipe in _parts(model).items():
            for criterion in ("l2", "obs"):
                found = [
                    _cosine(
                        wanted,
                        _embeddings(
                            _pruned(model, f"criterion={criterion}, reconstruct={fit}", samples, recipe), judges
                        ),
                    )
                    for fit in ("off", "lstsq")
                ]
                lines.append(markdown.row([what, criterion, *found]))
                print(lines[-1], flush=True)
    return lines


def _parts(model: Path) -> dict[str, str]:
    """What to prune of the encoder: recipes that lack their criterion. Selectors name the producers' weights."""
    return {
        "25 % of FFN neurons": 'prune(25%, {}) on "**/dense_1"',
        "50 % of FFN neurons": 'prune(50%, {}) on "**/dense_1"',
        "25 % of heads": 'prune(25%, {}) except "**/dense_1"',
        "50 % of heads": 'prune(50%, {}) except "**/dense_1"',
    }


def _windows(file: str, count: int) -> np.ndarray[Any, Any]:
    """[count, TOKENS] ids: [CLS], text, [SEP]; the start of one document each, then the next pieces."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(zoo.weights("minilm").with_name("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    text = zoo.weights("lee").with_name(file).read_text(encoding="latin-1").splitlines()
    inner = TOKENS - 2
    found = []
    for start in range(0, 10 * inner, inner):
        for line in text:
            first, *ids, last = tokenizer.encode(line).ids
            if len(ids) >= start + inner:
                found.append([first, *ids[start : start + inner], last])
    return np.array(found[:count], np.int64)


def _feeds(ids: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _embeddings(module: mlc.Module, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(Session(module).run(_feeds(ids))["last_hidden_state"].mean(axis=1))


def _cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> str:
    found = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return f"{found.mean():.4f} / {found.min():.3f}"


PARTS: dict[str, Callable[[], list[str]]] = {
    "cnn": lambda: images("cnn"),
    "resnet": lambda: images("resnet8"),
    "minilm": minilm,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--write", type=Path, help="a page with the markers of this part")
    chosen = parser.parse_args(arguments)
    lines = PARTS[chosen.part]()
    machine = environment()
    lines += ["", f"({machine})"]
    print("\n".join(lines))
    if chosen.write is not None:
        markdown.write(chosen.write, f"quality-{chosen.part}", lines[:-2])


if __name__ == "__main__":
    main()
