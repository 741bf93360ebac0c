"""Files of other formats that people give in place of a model: what they are, and how an ONNX model is made of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

_END = 4 << 20  # bytes that hold the list of any archive of these kinds
_EXPORT = (
    "in PyTorch, build the model, load the file, and torch.onnx.export(model, (sample,), 'model.onnx', dynamo=True)"
)
_SAMPLES = "give the model first, and the samples after --data: mlc compile model.onnx -r int8 --data {name}"
_TF = "convert the model: python -m tf2onnx.convert {option} {name} --output model.onnx"

#: How a file begins (at which byte), what it is, and what to do.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x93NUMPY", "a NumPy array, not a model", _SAMPLES),
    (0, b"\x89HDF\r\n", "an HDF5 file (Keras), not an ONNX model", _TF.replace("{option}", "--keras")),
    (4, b"TFL3", "a TensorFlow Lite model, not an ONNX one", _TF.replace("{option}", "--tflite")),
    (0, b"GGUF", "weights of llama.cpp (GGUF), not an ONNX model", _EXPORT),
    (8, b'{"', "weights alone (safetensors), not an ONNX model", _EXPORT),
    (0, b"\x80\x02", "a pickle (PyTorch), not an ONNX model", _EXPORT),
    (0, b"\x80\x04", "a pickle, not an ONNX model", _EXPORT),
    (0, b"\x80\x05", "a pickle, not an ONNX model", _EXPORT),
)

#: A member of a zip archive, what the archive is, and what to do.
_MEMBERS: tuple[tuple[Callable[[str], bool], str, str], ...] = (
    (lambda n: n.endswith(".npy"), "an archive of arrays (.npz), not a model", _SAMPLES),
    (lambda n: n.endswith("data.pkl"), "a PyTorch file, not an ONNX model", _EXPORT),
    (lambda n: n.endswith("model.weights.h5"), "a Keras model, not an ONNX one", _TF.replace("{option}", "--keras")),
    (lambda n: "/models/" in n or "exported_program" in n, "an exported program of PyTorch, not ONNX", _EXPORT),
)


def other_format(data: memoryview, name: str) -> tuple[str, str] | None:
    """What bytes that are no ONNX model are, and what to do with them; None for what nobody knows."""
    for at, words, what, help in _SIGNATURES:
        if bytes(data[at : at + len(words)]) == words:
            return what, help.format(name=name)
    if bytes(data[:2]) == b"PK" and (members := _members(data)) is not None:
        for has, what, help in _MEMBERS:
            if any(map(has, members)):
                return what, help.format(name=name)
        return "a zip archive, not a model", "unpack it, and give the .onnx file in it"
    return None


def _members(data: memoryview) -> list[str] | None:
    """The names in a zip archive: its list is at its end, and all that is read of files that may be large."""
    try:
        with zipfile.ZipFile(io.BytesIO(data[-_END:])) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return None
