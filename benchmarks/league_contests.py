"""The models of the league: what calibrates them, what judges a result, and what it is timed on.

Quality is one number with a 95 % interval, larger is better: percentage points of accuracy against the float model
(Fashion-MNIST, 10,000 test images), decibels of signal by noise at the outputs, percent of the characters that the
float model reads, cosine of sentence embeddings. Calibration and judging samples are disjoint (quantize_data.py).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import quantize_data as data
import quantize_measures as measures
import zoo

from mlc.backends.ort import Session

EXACT = 200.0  # decibels that stand for "not a bit is different"
JUDGES = 20  # samples for decibels
PROBES = 32  # synthetic samples that calibrate where there are no real ones

Judge = Callable[[Path], measures.Interval]


@dataclass(frozen=True)
class Contest:
    """One model. `judge` is for lossy tasks, `exact` for those that must change nothing; both read a file."""

    name: str
    title: str
    unit: str
    source: Path
    calibrate: Path  # npz
    feeds: measures.Feeds  # what is timed
    judge: Judge
    exact: Judge
    tasks: Sequence[str]
    mask: str | None = None
    network: Path | None = None  # a pickled torch module
    whole: bool = False  # a sample of `calibrate` is a whole input, not one row of a batch

    @property
    def transformer(self) -> bool:
        """What a user knows and some peers want to be told."""
        return self.mask is not None


def decibels(source: Path, samples: Sequence[measures.Feeds]) -> Judge:
    """Signal by noise over all float outputs; the interval is over samples."""

    def answers(path: Path) -> list[measures.Array]:
        session = Session(path)
        return [_row(session.run(feeds)) for feeds in samples]

    wanted = answers(source)

    def judge(path: Path) -> measures.Interval:
        pairs = list(zip(wanted, answers(path), strict=True))
        energies = np.array([[(a**2).sum(), ((a - b) ** 2).sum()] for a, b in pairs])
        if not energies[:, 1].any():
            return measures.Interval(EXACT, EXACT, EXACT)
        return measures.bootstrap(_ratio, energies)

    return judge


def _row(outputs: Mapping[str, Any]) -> measures.Array:
    floats = [np.asarray(a, np.float64).ravel() for a in outputs.values() if np.asarray(a).dtype.kind == "f"]
    return np.concatenate(floats)


def _ratio(energies: measures.Array) -> measures.Array:
    signal, noise = np.moveaxis(energies.sum(axis=-2), -1, 0)
    return np.asarray(10 * np.log10(signal / np.maximum(noise, signal * 10 ** (-EXACT / 10))))


def _judging(name: str, most: int = JUDGES) -> list[measures.Feeds]:
    found = list(data.batches(data.sets(name).judge))
    return [found[i] for i in np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)]


def photos(name: str, title: str, _: Path) -> Contest:
    source, samples = zoo.path(name), _judging(name, 50)
    judge = decibels(source, samples)
    tasks = ("simplify", "int8", "int4")
    return Contest(name, title, "dB", source, data.sets(name).calibrate, samples[0], judge, judge, tasks)


def fashion(name: str, title: str, folder: Path) -> Contest:
    import fashion_mnist
    import quantize_fashion
    import torch

    net, test = fashion_mnist.train(name), fashion_mnist.load()[1]
    source, network = folder / f"{name}.onnx", folder / f"{name}.pt"
    fashion_mnist.export(net, source, fold=True)
    torch.save(net, network)
    calibrate = folder / f"{name}.npz"
    with np.load(data.sets("fashion").calibrate) as archive:
        np.savez(calibrate, input=archive["input"])
    wanted = quantize_fashion.hits(source, test)
    samples = [{"input": test.images[i : i + 1]} for i in range(JUDGES)]

    def judge(path: Path) -> measures.Interval:
        return measures.mean(100 * (_hits(path, test) - wanted))

    tasks = ("simplify", "int8", "prune")
    exact = decibels(source, samples)
    return Contest(name, title, "pp", source, calibrate, samples[0], judge, exact, tasks, network=network)


def _hits(path: Path, images: Any) -> measures.Array:
    """1 for every image that is classified rightly; the names of inputs and outputs are the file's own."""
    session = Session(path)
    (given,) = session.input_types
    pieces = [session.run({given: images.images[i : i + 500]}) for i in range(0, len(images), 500)]
    logits = np.concatenate([next(iter(p.values())) for p in pieces])
    return np.asarray(logits.argmax(1) == images.labels, np.float64)


def lines(name: str, title: str, _: Path) -> Contest:
    import ocr
    import quantize_ocr

    source, texts = zoo.path(name), data.lines("judge")
    characters = ocr.alphabet(source)
    wanted = quantize_ocr.read(Session(source), texts, characters)

    def judge(path: Path) -> measures.Interval:
        return quantize_ocr.accuracy(wanted, quantize_ocr.read(Session(path), texts, characters))

    samples = _judging(name)
    exact = decibels(source, samples)
    tasks = ("simplify", "int8", "int4")
    return Contest(name, title, "% of characters", source, data.sets(name).calibrate, samples[0], judge, exact, tasks)


def sentences(name: str, title: str, _: Path) -> Contest:
    import quantize_minilm

    source, found = zoo.path(name), data.sets(name)
    rows = list(data.batches(found.judge))
    wanted = quantize_minilm.embeddings(Session(source), rows)

    def judge(path: Path) -> measures.Interval:
        return measures.mean(measures.cosines(wanted, quantize_minilm.embeddings(Session(path), rows)))

    exact = decibels(source, rows[:JUDGES])
    tasks, timed = ("simplify", "int8", "int4", "prune"), quantize_minilm.words(128)
    return Contest(name, title, "cosine", source, found.calibrate, timed, judge, exact, tasks, found.mask)


def synthetic(name: str, title: str, folder: Path) -> Contest:
    """Models without real samples here: inputs drawn in their range calibrate and judge."""
    source = zoo.path(name)
    feeds = [zoo.feeds(source, seed, name=name) for seed in range(PROBES + JUDGES)]
    calibrate = folder / f"{name}.npz"
    np.savez(calibrate, **{key: np.stack([feed[key] for feed in feeds[:PROBES]]) for key in feeds[0]})
    judge = decibels(source, feeds[PROBES:])
    return Contest(name, title, "dB", source, calibrate, feeds[0], judge, judge, ("simplify", "int8"), whole=True)


MAKERS: Mapping[str, Callable[[Path], Contest]] = {
    "cnn": functools.partial(fashion, "cnn", "CNN on Fashion-MNIST"),
    "resnet8": functools.partial(fashion, "resnet8", "ResNet-8 on Fashion-MNIST"),
    "mobilenet_v2": functools.partial(photos, "mobilenet_v2", "MobileNetV2"),
    "opennsfw": functools.partial(photos, "opennsfw", "open-nsfw (thin ResNet-50)"),
    "ppocrv4_rec": functools.partial(lines, "ppocrv4_rec", "PP-OCRv4 recognition"),
    "minilm": functools.partial(sentences, "minilm", "MiniLM-L6 (128 tokens)"),
    "silero_vad_op15": functools.partial(synthetic, "silero_vad_op15", "Silero VAD (LSTM, If)"),
}


def samples(contest: Contest) -> list[Mapping[str, Any]]:
    """The calibration samples as the model takes them."""
    if not contest.whole:
        return list(data.batches(contest.calibrate))
    with np.load(contest.calibrate) as archive:
        return [{name: archive[name][i] for name in archive.files} for i in range(PROBES)]
