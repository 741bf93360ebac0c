"""What every adapter of a peer shares. Runs inside the peer's environment: the standard library, numpy and onnx only.

    python ADAPTER.py SETTING MODEL SAMPLES OUT [--transformer] [--network FILE]

SAMPLES is a folder with one .npz a sample, cut to its real length. An adapter is a table of settings, each a function
of a `Job` that leaves a file at `job.out`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter


@dataclass(frozen=True)
class Job:
    """A model file, its samples, where the result goes, and what a user knows about the model."""

    model: Path
    samples: Path
    out: Path
    transformer: bool = False
    network: Path | None = None  # the torch module of the same model, pickled

    def feeds(self, most: int | None = None) -> list[dict[str, np.ndarray]]:
        """The samples, at most so many, spread over the set."""
        files = sorted(self.samples.glob("*.npz"))
        if most is not None and most < len(files):
            files = [files[i] for i in np.linspace(0, len(files) - 1, most).astype(int)]
        return [_read(path) for path in files]

    def raised(self, opset: int) -> Path:
        """The model in at least this opset: quantizers do not raise it by themselves."""
        found = onnx.load(self.model)
        if next(o.version for o in found.opset_import if not o.domain) >= opset:
            return self.model
        path = self.out.with_suffix(".raised.onnx")
        onnx.save(onnx.version_converter.convert_version(found, opset), path)
        return path


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def padded(feeds: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Samples of one length: zeros behind integers (tokens, and the mask that hides them)."""

    def longer(name: str, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "i" or array.ndim != 2:
            return array
        most = max(feed[name].shape[1] for feed in feeds)
        return np.pad(array, ((0, 0), (0, most - array.shape[1])))

    return [{name: longer(name, array) for name, array in feed.items()} for feed in feeds]


class Reader:
    """The samples as ONNX Runtime's quantizer, and those that wrap it, ask for them."""

    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._feeds = feeds
        self._rows: Iterator[dict[str, np.ndarray]] = iter(feeds)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self._feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)

    def get_first(self) -> dict[str, np.ndarray]:
        return self._feeds[0]

    def rewind(self) -> None:
        self._rows = iter(self._feeds)


def main(settings: Mapping[str, Callable[[Job], None]]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("setting", choices=settings)
    for name in ("model", "samples", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--transformer", action="store_true")
    parser.add_argument("--network", type=Path)
    chosen = parser.parse_args()
    settings[chosen.setting](Job(chosen.model, chosen.samples, chosen.out, chosen.transformer, chosen.network))
