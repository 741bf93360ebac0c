"""ONNX's own conformance cases (onnx.backend.test): models with inputs and expected outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

#: Kinds whose cases lie ready in files, and the generated ones (one or more for every operator), which take a while.
STORED = ("simple", "pytorch-converted", "pytorch-operator")
ALL = ("node", *STORED)


@dataclass(frozen=True)
class Case:
    name: str
    model: ModelProto
    feeds: Mapping[str, Any]
    expected: tuple[Any, ...]
    rtol: float
    atol: float


def cases(kinds: Iterable[str] = ALL) -> Iterator[Case]:
    """Every data set of every case of these kinds."""
    for kind in kinds:
        for test in load_model_tests(kind=kind):
            yield from _cases(test)


def _cases(test: Any) -> Iterator[Case]:
    folder = Path(test.model_dir) if test.model_dir else None
    model = test.model or onnx.load(str(folder / "model.onnx"))
    given = {t.name for t in model.graph.initializer} if model.ir_version < 4 else set()
    names = [v.name for v in model.graph.input if v.name not in given]
    for inputs, outputs in test.data_sets or _stored(folder, model):
        feeds = {name: _value(x) for name, x in zip(names, inputs)}
        yield Case(test.name, model, feeds, tuple(map(_value, outputs)), test.rtol, test.atol)


def _stored(folder: Path, model: ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = [_read(data / f"input_{i}.pb") for i in range(len(list(data.glob("input_*.pb"))))]
        yield inputs, [_read(data / f"output_{i}.pb") for i in range(len(model.graph.output))]


def _read(path: Path) -> Any:
    return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))


def _value(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return [_value(v) for v in value] if isinstance(value, list) else value if value is None else np.asarray(value)


def agrees(real: Any, wanted: Any, rtol: float, atol: float) -> bool:
    """Whether an output is the expected one: shape, element type and values."""
    if isinstance(wanted, list):
        return len(real) == len(wanted) and all(agrees(r, w, rtol, atol) for r, w in zip(real, wanted))
    if wanted is None:
        return real is None or np.asarray(real).size == 0
    real = np.asarray(real)
    if real.shape != wanted.shape:
        return False
    if wanted.dtype.kind in "OUS":
        return bool(np.array_equal(real.astype(str), wanted.astype(str)))
    if real.dtype != wanted.dtype:
        return False
    if wanted.dtype.kind == "c":
        return bool(np.allclose(real, wanted, rtol, atol, equal_nan=True))
    return bool(np.allclose(real.astype(np.float64), wanted.astype(np.float64), rtol, atol, equal_nan=True))
