"""Files of other formats that are given as a model: one line says what they are, and what to do."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mlc
from mlc.frontends.onnx import load
from mlc.frontends.other_formats import other_format
from mlc.ir.errors import Code, MlcError


def _zip(*members: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for member in members:
                archive.writestr(member, b"x" * 100)

    return write


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None  # type: ignore[func-returns-value]


def _array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


FILES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "npz": (lambda path: np.savez(path, x=np.ones(3)), "an archive of arrays", "--data"),
    "npy": (_array, "a NumPy array", "--data"),
    "pt": (_zip("net/data.pkl", "net/data/0", "net/version"), "a PyTorch file", "torch.onnx.export"),
    "pt2": (_zip("archive/models/model.json", "archive_format"), "an exported program", "torch.onnx.export"),
    "pkl": (_bytes(pickle.dumps({"a": [1.0]}, protocol=2)), "a pickle", "torch.onnx.export"),
    "safetensors": (_bytes((16).to_bytes(8, "little") + b'{"a":{"dtype":1}}'), "weights alone", "torch.onnx.export"),
    "gguf": (_bytes(b"GGUF\x03\0\0\0"), "weights of llama.cpp", "torch.onnx.export"),
    "h5": (_bytes(b"\x89HDF\r\n\x1a\n"), "an HDF5 file", "tf2onnx.convert --keras"),
    "keras": (_zip("config.json", "model.weights.h5"), "a Keras model", "tf2onnx.convert --keras"),
    "tflite": (_bytes(b"\x1c\0\0\0TFL3\0\0"), "a TensorFlow Lite model", "tf2onnx.convert --tflite"),
    "zip": (_zip("net.onnx"), "a zip archive", "unpack it"),
}


@pytest.mark.parametrize("suffix", FILES)
def test_each_is_told_what_it_is(suffix: str, tmp_path: Path) -> None:
    write, what, todo = FILES[suffix]
    path = tmp_path / f"net.{suffix}"
    write(path)
    with pytest.raises(MlcError) as refusal:
        mlc.load(path)
    (told,) = refusal.value.diagnostics
    assert told.code is Code.NOT_A_MODEL
    assert f"net.{suffix} is {what}" in told.message
    assert todo in told.help


def test_large_archives_are_known_by_their_end(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data/0", bytes(9 << 20))
        archive.writestr("net/data.pkl", b"x")
    found = other_format(memoryview(path.read_bytes()), "net.pt")
    assert found is not None
    assert found[0].startswith("a PyTorch file")


def test_what_nobody_knows_is_said_to_be_damaged() -> None:
    assert other_format(memoryview(b"PK\x03\x04 cut short"), "x") is None
    with pytest.raises(MlcError, match="damaged, cut short or not an ONNX model"):
        load(b"\xff\xff\xff\xff")
